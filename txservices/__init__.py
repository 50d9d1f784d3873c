"""Microservices on Twisted, as nameko has them: a service is a class with a name, what calls it and what it
calls are extensions, and everything that waits is a Deferred.

The map, in rows: a module imports from lower rows, never from a higher one (a test reads the imports).

    faces    cli  tap  standalone/  testing/
    writes   rpc  events  messaging  timer  web/  dependency_providers  contextdata
    core     extensions <- workers <- containers <- runners    broker/  (an AMQP server on amqp's frames)
    wire     settings  serialization  amqp/  (spec <- tables <- codec <- frames <- channel <- protocol <- connection)
    words    constants  exceptions  utils/

Who writes a service imports from the second row; for an entrypoint or a dependency of one's own there is
``extensions``.
"""

__version__ = "0.1.0"
