"""Frames to methods on a client's channel. Pure.

``Publishes`` is the ``Assembler`` of ``wire.frames`` with a short way for the two methods that come with every message;
``ClosedChannel`` is the one of a channel that the broker has closed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from txservices.broker.watermark import Watermark
from txservices.wire.codec import ACK, ACK_FIELDS, ACK_ID, METHOD_ID
from txservices.wire.frames import Assembler, Content
from txservices.wire.spec import FRAME_METHOD, METHODS

PUBLISH = METHODS["basic.publish"]
PUBLISH_ID = METHOD_ID.pack(60, 40)
OF_A_CHANNEL = (METHOD_ID.pack(20, 10), METHOD_ID.pack(20, 40), METHOD_ID.pack(20, 41))  # open, close, close-ok

PUBLISHES_MAX = 4096  # publish methods kept decoded, one for each exchange and routing key of a virtual host

Decoded = dict[bytes, dict[str, Any]]  # a publish's bytes -> its arguments


class Publishes(Assembler):
    """Frames to methods. A publish method of the same bytes as an earlier one is not decoded again.

    All publishes that look the same share one dict of arguments. Its "address" is exchange and routing key in the bytes
    in which they came. ``decoded`` is shared by the channels of a virtual host.

    A body that comes in several frames counts for the watermark from its first frame on. ``block`` is called if it
    comes while publishers have to wait.
    """

    __slots__ = ("block", "decoded", "kept", "watermark")

    def __init__(
        self,
        receive: Callable[[Content], None],
        decoded: Decoded,
        watermark: Watermark,
        block: Callable[[], None],
    ) -> None:
        super().__init__(receive)
        self.decoded = decoded
        self.watermark = watermark
        self.block = block
        self.kept = 0

    def keep(self, payload: bytes) -> None:
        super().keep(payload)
        self.kept += len(payload)
        self.watermark.take(len(payload))
        if self.watermark.alarmed:
            self.block()

    def join(self) -> bytes:
        self.watermark.held -= self.kept
        self.kept = 0
        return super().join()

    def receive_method(self, kind: int, payload: bytes) -> None:
        args = self.decoded.get(payload)
        if args is not None and kind == FRAME_METHOD:
            self.content = Content(PUBLISH, args)
            self.frame = self.receive_header
            return
        if payload[:4] == ACK_ID and len(payload) == ACK_FIELDS.size and kind == FRAME_METHOD:
            _, _, tag, bits = ACK_FIELDS.unpack(payload)
            self.receive(Content(ACK, {"delivery_tag": tag, "multiple": bool(bits & 1)}))
            return
        super().receive_method(kind, payload)
        if payload[:4] == PUBLISH_ID:
            args = self.content.args
            args["address"] = payload[6:-1]  # between class, method and a reserved number, and the octet of flags
            if len(self.decoded) >= PUBLISHES_MAX:
                self.decoded.clear()
            self.decoded[payload] = args


class ClosedChannel(Assembler):
    """Drops every frame that comes on a channel which the broker has closed, up to the client's answer."""

    __slots__ = ()

    def receive_method(self, kind: int, payload: bytes) -> None:
        if kind == FRAME_METHOD and payload[:4] in OF_A_CHANNEL:
            super().receive_method(kind, payload)
