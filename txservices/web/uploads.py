"""The body of a request while it comes: ``@http("POST", "/path", stream=True)``.

    Channel.read_body -> Received.handleContentChunk -> Upload.add -> the method

The method begins when the head is there. It reads with ``async for piece in request.stream``, or in a thread, if it is
``blocking``, from ``request.stream`` as from a file. While ``HELD_MAX`` bytes wait for it nothing more is read from the
client. What a method leaves unread is dropped, and the connection is closed after the answer.
"""

from __future__ import annotations

from collections import deque
from io import BufferedReader, RawIOBase
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.threadable import isInIOThread
from werkzeug.exceptions import ClientDisconnected

from txservices.threads import in_reactor
from txservices.web.ours import ours

__all__ = ["BodyReader", "Upload"]

HELD_MAX = 256 * 1024  # bytes that wait for the method
READ_AT_ONCE = 64 * 1024  # bytes that a thread's reader asks for

NOT_HERE = (
    "request.stream is read in a thread only, if the method is blocking: write `async for piece in request.stream`"
)


class Upload(RawIOBase):
    """What has come of a body, and is not read yet.

    Args:
        channel: the connection that it comes from.
        expects: whether the client waits to be told that it may send it.

    Attributes:
        complete: whether all of it has come.
        held: bytes that wait to be read.
    """

    def __init__(self, channel: Any = None, expects: bool = False) -> None:
        self.channel = channel
        self.expects = expects
        self.pieces: deque[bytes] = deque()
        self.held = 0
        self.complete = False
        self.dropped = False
        self.error: Exception | None = None
        self.reader: Deferred[bytes] | None = None
        self.left = memoryview(b"")  # of what a thread has taken

    # From the connection

    @property
    def full(self) -> bool:
        return self.held >= HELD_MAX

    def add(self, piece: bytes) -> None:
        if self.dropped:
            return
        self.pieces.append(piece)
        self.held += len(piece)
        self.wake()

    def finish(self) -> None:
        """All of it has come."""
        self.complete = True
        self.wake()

    @property
    def over(self) -> bool:
        """Whether nothing more comes."""
        return self.complete or self.dropped or self.error is not None

    def fail(self, error: Exception) -> None:
        """No more will come. The method gets the error when it has read the rest."""
        if not self.over:
            self.error = error
            self.wake()

    def lost(self) -> None:
        """The client has left, or has ended its side."""
        self.fail(ours(ClientDisconnected("The client has left before all of the body had come.")))

    def drop(self) -> None:
        """Nobody reads any more."""
        self.dropped = True
        self.pieces.clear()
        self.held = 0

    def wake(self) -> None:
        reader, self.reader = self.reader, None
        if reader is not None and not reader.called:
            self.take(reader)

    # To the method

    def take(self, reader: Deferred[bytes]) -> Deferred[bytes]:
        """Give the reader what is there, all at once; b"" at the end."""
        if self.pieces:
            data = self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)
            self.pieces.clear()
            self.held = 0
            reader.callback(data)
            if not self.over:
                self.channel.read_body_on()
        elif self.complete or self.dropped:
            reader.callback(b"")
        elif self.error is not None:
            reader.errback(self.error)
        else:
            self.reader = reader
            if self.expects:
                self.expects = False
                self.channel.send_continue()
        return reader

    def next_piece(self) -> Deferred[bytes]:
        return self.take(Deferred())

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Read in a thread, as ``io.RawIOBase`` has it."""
        if not self.left:
            if isInIOThread():
                raise RuntimeError(NOT_HERE)
            self.left = memoryview(in_reactor(self.next_piece))
        size = min(len(buffer), len(self.left))
        buffer[:size] = self.left[:size]
        self.left = self.left[size:]
        return size

    def readall(self) -> bytes:
        pieces = [bytes(self.left)]
        self.left = memoryview(b"")
        while True:
            if isInIOThread():
                raise RuntimeError(NOT_HERE)
            piece = in_reactor(self.next_piece)
            if not piece:
                return b"".join(pieces)
            pieces.append(piece)


class BodyReader(BufferedReader):
    """``request.stream`` of a method with ``stream=True``: an async iterator of bytes, and in a thread a file.

    Reading raises werkzeug's ``ClientDisconnected`` if the client leaves, and ``RequestEntityTooLarge`` beyond
    ``WEB_BODY_MAX``: a method that lets them pass answers 400 and 413.
    """

    raw: Any

    def __init__(self, upload: Upload) -> None:
        super().__init__(upload, READ_AT_ONCE)

    def __aiter__(self) -> BodyReader:
        return self

    async def __anext__(self) -> bytes:
        piece = await self.raw.next_piece()
        if not piece:
            raise StopAsyncIteration
        return bytes(piece)


def nothing() -> BodyReader:
    """The reader of a request without a body."""
    upload = Upload()
    upload.finish()
    return BodyReader(upload)
