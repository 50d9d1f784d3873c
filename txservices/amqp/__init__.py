"""An AMQP client on txamqp: bytes come in at ``protocol``, and services see ``publish`` and ``consume``.

``endpoints`` connects to a broker's address; ``entities`` are the values that the rest of the house passes in, and
``topology`` declares them. ``channel`` and ``protocol`` are txamqp's ``AMQChannel`` and ``AMQClient`` with framing and
delivery replaced by ``wire``; ``outbox`` joins what they send into one write. ``connection`` keeps a broker connected.
On it, ``publisher`` keeps each message until it is confirmed, and ``subscription`` keeps a queue consumed; ``unacked``
warns of messages that nobody acks, ``returning`` gives messages back after a pause. ``connections`` is the pair of
connections that a process has, and ``leaving`` limits what its stop waits for. ``publish`` and ``consume`` are where
nameko has them: for programs, and for services to publish and read messages with.

A module imports only from those before it: endpoints, entities, outbox <- channel <- protocol <- connection <- topology
<- publisher, subscription <- unacked, leaving, returning <- connections <- publish, consume.
"""
