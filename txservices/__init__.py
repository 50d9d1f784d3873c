"""Microservices on Twisted, as nameko has them: a service is a class with a name, what calls it and what it
calls are extensions, and everything that waits is a Deferred.

The map, in rows: a module imports from lower rows, never from a higher one (a test reads the imports).

    faces    command/  testing/  standalone/
    writes   rpc  events  messaging  timer  web/  dependency_providers  contextdata    calls
    core     extensions <- threads <- workers <- containers <- runners    watchdog
    clients  amqp/  (an AMQP client)    broker/  (an AMQP server)
    bytes    wire/  serialization
    words    constants  exceptions  utils/

Who writes a service imports from the second row; for an entrypoint or a dependency of one's own there is
``extensions``.
"""

__version__ = "0.1.0"
