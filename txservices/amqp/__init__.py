"""AMQP 0-9-1 on txamqp: spec <- tables <- codec <- frames <- channel <- protocol <- connection <- connections.

``spec`` is the table of the protocol; ``tables`` and ``codec`` turn values into bytes and back, ``frames`` bytes into
frames and frames into whole messages; these four are pure. ``channel`` and ``protocol`` are txamqp's ``AMQChannel`` and
``AMQClient`` with their framing and delivery replaced, ``outbox`` has what they send leave in one write. ``connection``
keeps a broker connected, ``connections`` is the pair that a process has, with a ``consumer`` for each queue and a
``publisher`` that keeps each message until it is confirmed; what was ``nacked`` is published again, what stays
``unacked`` for long is warned of, and ``leaving`` is how all of it stops. ``topology`` declares; ``address`` and
``endpoints`` say where the broker is. ``entities`` are the values that the rest of the house passes in.
"""
