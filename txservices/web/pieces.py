"""Sends the body of a response piece by piece, as fast as the client takes it.

A client that does not take the next piece within ``SEND_TIMEOUT`` is cut off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.interfaces import IPullProducer
from twisted.logger import Logger
from zope.interface import implementer

SEND_TIMEOUT = 60.0  # seconds

log = Logger()


@implementer(IPullProducer)
class Pieces:
    """Sends the body of a response piece by piece: each one after the client has taken the one before."""

    def __init__(
        self, received: Any, pieces: Iterator[bytes], close: Callable[[], None] | None, length: int | None
    ) -> None:
        self.received = received
        self.pieces = pieces
        self.close_body = close
        self.left = length

    def resumeProducing(self) -> None:
        self.received.channel.wait(SEND_TIMEOUT)
        try:
            piece = next(self.pieces, None)
        except Exception:
            log.failure("the body of the response to {request} ended in the middle", request=self.received)
            self.abort()
            return
        if piece is not None:
            if self.left is not None:
                piece = piece[: self.left]
                self.left -= len(piece)
            self.received.write(piece)
        elif self.left:
            log.error("the body of the response to {request} is shorter than it said", request=self.received)
            self.abort()
        else:
            self.close()
            self.received.finish()

    def abort(self) -> None:
        """Cut the connection: nothing else tells the client that the body is not complete."""
        self.close()
        self.received.channel.transport.abortConnection()

    def close(self) -> None:
        self.received.unregisterProducer()
        self.stopProducing()

    def stopProducing(self) -> None:
        """Close the body: everything is sent, or the client has left."""
        close, self.close_body = self.close_body, None
        if close is not None:
            close()
