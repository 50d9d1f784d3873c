"""What a client's channel makes of its frames: ``amqp.frames``' Assembler with the two methods that come with messages
read in a straight line, and one for a channel that is closed. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any

from txservices.wire.frames import Assembler, Content
from txservices.wire.spec import FRAME_METHOD, METHODS

METHOD_ID = Struct(">HH")
PUBLISH = METHODS["basic.publish"]
PUBLISH_ID = METHOD_ID.pack(60, 40)
ACK_METHOD = METHODS["basic.ack"]
ACK_ID = METHOD_ID.pack(60, 80)
ACK = Struct(">QB")  # delivery tag, and in an octet's lowest bit "multiple"
ACK_SIZE = len(ACK_ID) + ACK.size
CHANNEL_CLOSES = (METHOD_ID.pack(20, 40), METHOD_ID.pack(20, 41))  # close, close-ok

PUBLISHES_MAX = 4096  # publish methods kept decoded, one for each exchange and routing key that a connection uses

Decoded = dict[bytes, dict[str, Any]]  # a publish's bytes -> its arguments


class Publishes(Assembler):
    """Frames to methods, where a publish in the same bytes as one before is not decoded again.

    The arguments given for it are one dict, shared by all publishes that look the same; "address" in it is exchange
    and routing key as the bytes they came in. ``decoded`` is the connection's.

    Acks, of which there may be one a message, are read without the codec's tables.
    """

    __slots__ = ("decoded",)

    def __init__(self, receive: Callable[[Content], None], decoded: Decoded) -> None:
        super().__init__(receive)
        self.decoded = decoded

    def receive_method(self, kind: int, payload: bytes) -> None:
        args = self.decoded.get(payload)
        if args is not None and kind == FRAME_METHOD:
            self.content = Content(PUBLISH, args)
            self.frame = self.receive_header
            return
        if payload[:4] == ACK_ID and len(payload) == ACK_SIZE and kind == FRAME_METHOD:
            tag, bits = ACK.unpack_from(payload, 4)
            self.receive(Content(ACK_METHOD, {"delivery_tag": tag, "multiple": bool(bits & 1)}))
            return
        super().receive_method(kind, payload)
        if payload[:4] == PUBLISH_ID:
            args = self.content.args
            args["address"] = payload[6:-1]  # between class, method and a reserved number, and the octet of flags
            if len(self.decoded) >= PUBLISHES_MAX:
                self.decoded.clear()
            self.decoded[payload] = args


class ClosedChannel(Assembler):
    """What comes on a channel after we have closed it counts for nothing, until the client says that it knows."""

    __slots__ = ()

    def receive_method(self, kind: int, payload: bytes) -> None:
        if kind == FRAME_METHOD and payload[:4] in CHANNEL_CLOSES:
            super().receive_method(kind, payload)
