"""A body that comes in chunks, RFC 9112, 7.1: its bytes to pieces. Pure.

Chunk extensions and trailers are checked and dropped, up to a limit: without it a client could send them for ever, and
no limit of the body counts them.
"""

from __future__ import annotations

import re

from txservices.web.heads import HEADERS, bad

SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;([\t\x20-\x7e\x80-\xff]*))?\r\n")
SIZE_LINE_MAX = 1024  # bytes of such a line
EXTENSIONS_MAX = 16 * 1024  # bytes of all extensions of a body
TRAILERS_MAX = 16 * 1024  # bytes


class Chunks:
    """The reader of one body."""

    def __init__(self) -> None:
        self.left = 0  # bytes of the current chunk that have not come
        self.ending = False  # whether the current chunk's CRLF has not come
        self.last = False
        self.extensions = 0

    def read(self, buffer: bytearray) -> bytes | None:
        """Take a piece of the body from the buffer: b"" at the end, None if more must come. May raise ``Refused``."""
        if self.ending and not self.end_chunk(buffer):
            return None
        if not (self.left or self.last) and not self.begin_chunk(buffer):
            return None
        if self.last:
            return self.take_trailers(buffer)
        piece = bytes(buffer[: self.left])
        if not piece:
            return None
        del buffer[: len(piece)]
        self.left -= len(piece)
        self.ending = not self.left
        return piece

    def end_chunk(self, buffer: bytearray) -> bool:
        if not b"\r\n".startswith(buffer[:2]):
            raise bad("a chunk is not as long as it said")
        if len(buffer) < 2:
            return False
        del buffer[:2]
        self.ending = False
        return True

    def begin_chunk(self, buffer: bytearray) -> bool:
        line = SIZE_LINE.match(buffer, 0, SIZE_LINE_MAX)
        if line is None:
            if len(buffer) >= SIZE_LINE_MAX or b"\n" in buffer:
                raise bad("a chunk does not begin with its size")
            return False
        self.extensions += len(line[2] or b"")
        if self.extensions > EXTENSIONS_MAX:
            raise bad(f"more than {EXTENSIONS_MAX} bytes of chunk extensions")
        self.left = int(line[1], 16)
        self.last = not self.left
        del line  # while it lives, the buffer can't be cut
        del buffer[: buffer.index(b"\n") + 1]
        return True

    def take_trailers(self, buffer: bytearray) -> bytes | None:
        if buffer.startswith(b"\r\n"):
            end = 0
        else:
            end = buffer.find(b"\r\n\r\n") + 2
            if end < 2 and len(buffer) <= TRAILERS_MAX:
                return None
        if not 0 <= end <= TRAILERS_MAX or HEADERS.fullmatch(bytes(buffer[:end])) is None:
            raise bad("the trailers are too long, or not like headers")
        del buffer[: end + 2]
        return b""
