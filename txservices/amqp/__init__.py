"""An AMQP client on txamqp: bytes come in at ``protocol``, and services see ``publish`` and ``consume``.

``endpoints`` connects to a broker's address. ``entities`` are the values that the rest of the house passes in, and
``topology`` declares them. ``channel`` and ``protocol`` are txamqp's ``AMQChannel`` and ``AMQClient`` with framing and
delivery replaced by ``wire``. ``spec`` is the table of methods for txamqp, ``startok`` is how we log in, and ``outbox``
joins frames into one write.

``connection`` keeps a broker connected: a lost connection comes back there. On it, ``publisher`` keeps each message
until it is confirmed, and ``subscription`` keeps a queue consumed. ``longbodies`` decodes long bodies in a thread,
``unacked`` warns of messages that nobody acks, and ``returning`` gives messages back after a pause. ``connections`` is
the connections that a process has, and ``leaving`` limits the time that its stop waits for the broker.

``publish`` and ``consume`` are where nameko has them: for programs, and for services. ``options`` are the options of
messages.
"""
