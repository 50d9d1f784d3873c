"""Frames are collected and leave in one write per connection, once the bytes that caused them have been handled.

Under load one read brings fifty deliveries. Each causes a publish on the other connection, whose confirm causes an ack
on the first: written one by one they would cost a system call each. So frames are collected, and sent when the
``dataReceived`` that caused them returns, or else at the end of the reactor's turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.tcp import Connection as TcpConnection


class Outbox:
    """Calls what sends a connection's frames, at the right time. The two connections of a process share one."""

    # Always waiting for the end of the turn would cost one more poll of all sockets, and a write through the reactor's
    # own buffer two ``epoll_ctl``: a call alone is faster without them.

    __slots__ = ("clock", "due", "receiving", "waiting")

    def __init__(self, clock: IReactorTime) -> None:
        self.clock = clock
        self.waiting: list[Callable[[], None]] = []
        self.due: IDelayedCall | None = None
        self.receiving = False

    def add(self, flush: Callable[[], None]) -> None:
        """Call that soon, once."""
        self.waiting.append(flush)
        if not self.receiving and self.due is None:
            self.due = self.clock.callLater(0, self.flush_due)

    def receive(self, feed: Callable[[bytes], None], data: bytes) -> None:
        """Handle the bytes that came in, and send the frames which that caused."""
        self.receiving = True
        try:
            feed(data)
        finally:
            self.receiving = False
            self.flush()

    def flush_due(self) -> None:
        self.due = None
        self.flush()

    def flush(self) -> None:
        waiting, self.waiting = self.waiting, []
        for flush in waiting:
            flush()


def send(transport: Any, data: bytes) -> None:
    """Write to a transport: at once if it is a socket with nothing queued, through the reactor otherwise.

    Errors are left to the reactor, which meets them again and knows what to do.
    """
    # _tempDataBuffer is private to Twisted; if it ever goes, everything is sent through the reactor
    if (
        isinstance(transport, TcpConnection)
        and transport.connected
        and not (getattr(transport, "_tempDataBuffer", True) or transport.dataBuffer)
    ):
        sent = transport.writeSomeData(data)
        if isinstance(sent, int):
            if sent == len(data):
                return
            data = data[sent:]
    transport.write(data)
