"""AMQP 0-9-1 as bytes: spec <- tables <- codec <- frames. Pure: client and broker share it, and it knows neither.

``spec`` is the table of the protocol; ``tables`` and ``codec`` turn values into bytes and back, ``frames`` bytes into
frames and frames into whole messages.
"""
