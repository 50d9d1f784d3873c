"""An AMQP client on txamqp: entities <- topology <- outbox <- channel <- protocol <- connection <- connections.

``channel`` and ``protocol`` are txamqp's ``AMQChannel`` and ``AMQClient`` with their framing and delivery replaced by
``wire``; ``outbox`` has what they send leave in one write. ``connection`` keeps a broker connected, ``connections`` is
the pair that a process has, with a ``subscription`` for each queue and a ``publisher`` that keeps each message until it
is confirmed; what was ``nacked`` is published again, what stays ``unacked`` for long is warned of, and ``leaving`` is
how all of it stops. ``topology`` declares; ``address`` and ``endpoints`` say where the broker is. ``entities`` are the
values that the rest of the house passes in. ``publish`` and ``consume`` are where nameko has them: a publisher and a
consumer for programs, and what services publish and read messages with.
"""
