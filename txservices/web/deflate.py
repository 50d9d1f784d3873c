"""Compressed messages of WebSockets: permessage-deflate, RFC 7692, with a bound for what a message grows to.

Neither side keeps a window from one message to the next. So nothing is kept for a connection between its messages.
Messages that are short are not compressed, because that makes them longer, and neither are long ones: it would hold the
reactor.
"""

from __future__ import annotations

import re
import zlib
from typing import Any

from wsproto.extensions import Extension
from wsproto.frame_protocol import CloseReason, Opcode, RsvBits

DEFLATE_MIN = 1024  # bytes of a message that is sent compressed
DEFLATE_MAX = 256 * 1024  # bytes; they take some milliseconds
WINDOW = 15  # bits

PARAMETER = re.compile(r'(\w+)(?: *= *("?)([0-9]{1,2})\2)?')
TAKEOVER = ("client_no_context_takeover", "server_no_context_takeover")


class Deflate(Extension):
    """The extension for one connection.

    Args:
        message_max: bytes of a message that comes; one that is longer ends the connection.
    """

    # wsproto's own inflates without a bound, and takes what follows a ping in a compressed message for plain bytes

    name = "permessage-deflate"

    def __init__(self, message_max: int) -> None:
        self.message_max = message_max
        self.window = WINDOW
        self.agreed = self.control = False
        self.inflater: Any = None  # for a compressed message, until it is complete
        self.inflated = 0

    def enabled(self) -> bool:
        return self.agreed

    def offer(self) -> bool:
        """A server offers nothing."""
        return False

    def accept(self, offer: str) -> bool | str | None:
        """Agree to an offer of the client's, with our parameters. None if we can't, or if we have agreed to another."""
        if self.agreed:
            return None
        given: dict[str, str | None] = {}
        for each in offer.split(";")[1:]:
            found = PARAMETER.fullmatch(each.strip())
            if found is None or found[1] in given or not right(found[1], found[3]):
                return None
            given[found[1]] = found[3]
        self.agreed = True
        answer = "; ".join(TAKEOVER)
        window = given.get("server_max_window_bits")
        if window is not None:
            self.window = int(window)
            answer += f"; server_max_window_bits={window}"
        return answer

    # In

    def frame_inbound_header(self, proto: Any, opcode: Opcode, rsv: RsvBits, payload_length: int) -> Any:
        self.control = opcode.iscontrol()
        if rsv.rsv1 and (self.control or opcode is Opcode.CONTINUATION):
            return CloseReason.PROTOCOL_ERROR
        if rsv.rsv1:
            self.inflater = zlib.decompressobj(-WINDOW)
            self.inflated = 0
        return RsvBits(True, False, False)

    def frame_inbound_payload_data(self, proto: Any, data: bytes) -> bytes | CloseReason:
        if self.control or self.inflater is None:
            return data
        try:
            piece: bytes = self.inflater.decompress(data, self.message_max + 1 - self.inflated)
        except zlib.error:
            return CloseReason.INVALID_FRAME_PAYLOAD_DATA
        self.inflated += len(piece)
        return CloseReason.MESSAGE_TOO_BIG if self.inflated > self.message_max else piece

    def frame_inbound_complete(self, proto: Any, fin: bool) -> bytes | CloseReason | None:
        if self.control or self.inflater is None or not fin:
            return None
        rest = self.frame_inbound_payload_data(proto, b"\x00\x00\xff\xff")  # RFC 7692, 7.2.2
        self.inflater = None
        return rest

    # Out

    def frame_outbound(self, proto: Any, opcode: Opcode, rsv: RsvBits, data: bytes, fin: bool) -> tuple[RsvBits, bytes]:
        if opcode.iscontrol() or not DEFLATE_MIN <= len(data) <= DEFLATE_MAX:  # all our messages are single frames
            return rsv, data
        deflater = zlib.compressobj(zlib.Z_BEST_SPEED, zlib.DEFLATED, -self.window)
        return RsvBits(True, rsv.rsv2, rsv.rsv3), deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH)[:-4]


def right(name: str, value: str | None) -> bool:
    """Whether a parameter of an offer is one of RFC 7692, 7.1, and we can keep to it. zlib has no window of 8 bits."""
    if name in TAKEOVER:
        return value is None
    if name == "server_max_window_bits":
        return value is not None and 9 <= int(value) <= WINDOW
    return name == "client_max_window_bits" and (value is None or 8 <= int(value) <= WINDOW)
