"""AMQP 0-9-1 on txamqp: spec <- codec <- frames <- channel <- protocol <- connection.

``spec`` is the table of the protocol, ``codec`` turns values into bytes and back, ``frames`` bytes into frames and
frames into whole messages; these three are pure. ``channel`` and ``protocol`` are txamqp's ``AMQChannel`` and
``AMQClient`` with their framing and delivery replaced; ``connection`` keeps a broker connected. ``entities`` are the
values that the rest of the house passes in.
"""
