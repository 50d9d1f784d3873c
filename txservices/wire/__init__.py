"""AMQP 0-9-1 as bytes: spec <- tables <- codec <- frames; login, heartbeat. Pure: client and broker share it.

``spec`` is the table of the protocol. ``tables`` and ``codec`` turn values into bytes and back, and ``frames`` cuts
bytes into frames and joins frames to whole messages. ``login`` says who connects, ``heartbeat`` who is still there.
"""
