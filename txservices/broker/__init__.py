"""An AMQP 0-9-1 broker inside this process: the one of ``memory://``, and of a process with no broker configured.

It is for the first hour, for tests and for one machine; pika and kombu can use it over TCP as they are. Nothing is kept
when the process ends: "durable" and "persistent" are taken and compared, and mean nothing more. Transactions and
streams, which it lacks, it refuses with AMQP's own error. Its quorum queues are in one place, and lost like the others.

    bindings, messages <- arguments, deliveries <- turns <- queues <- kinds, exchanges, replies <- vhost    pure:
                            matching; a message's bytes; what is refused; what is unsettled; who is next; a queue, and
                            its other kinds; routing; Direct Reply-to; exchanges and queues by name, and a message's way
                            through them
    assemblers <- topology, channel     frames to methods; one function for each AMQP method
    handshake <- session    a client's connection: how it begins; bytes, back-pressure, the close
    server <- memory        users, virtual hosts, TCP; client and server joined inside the process, by bytes

A message is never decoded on its way: its header and body go out as the bytes that came in.
"""
