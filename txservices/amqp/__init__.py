"""AMQP 0-9-1 on txamqp: spec <- tables <- codec <- frames <- channel <- protocol <- connection.

``spec`` is the table of the protocol; ``tables`` and ``codec`` turn values into bytes and back, ``frames`` bytes into
frames and frames into whole messages; these four are pure. ``channel`` and ``protocol`` are txamqp's ``AMQChannel`` and
``AMQClient`` with their framing and delivery replaced; ``connection`` keeps a broker connected, with a ``consumer`` for
each queue and a ``publisher`` that keeps each message until it is confirmed; ``topology`` declares; ``address`` and
``endpoints`` say where the broker is. ``entities`` are the values that the rest of the house passes in.
"""
