"""Frames are collected and leave in one write per connection, once the bytes that caused them have been handled.

Under load one read brings fifty deliveries. Each causes a publish on the other connection, whose confirm causes an ack
on the first: written one by one they would cost a system call each. So frames are collected, and sent when the
``dataReceived`` that caused them returns, or else at the end of the reactor's turn.

``Flow`` says when messages must wait, because the other side reads no more of them for now.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.tcp import Connection as TcpConnection
from zope.interface import implementer


class Outbox:
    """Has each connection send its frames at the right time. The connections of a process share one."""

    # To wait for the end of the turn each time would cost one more poll of all sockets. A write through the reactor's
    # own buffer would cost two ``epoll_ctl``. A call alone is faster without them.

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
        """Handle the bytes that came in, and send the frames that they caused."""
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


@implementer(IPushProducer)
class Flow:
    """Whether messages may be published on a connection now. It is the producer of the connection's transport.

    They may not while the broker has said so, while the transport is full, or while too few have been answered for.
    Everything else is sent all the same: acks, heartbeats, declarations.

    Attributes:
        paused: whether messages must wait.
        crowded: whether that is because of the broker's missing answers.
        on_resumed: called when they may be published again.
    """

    __slots__ = ("blocked", "crowded", "full", "on_resumed", "paused")

    def __init__(self) -> None:
        self.blocked = self.full = self.crowded = self.paused = False
        self.on_resumed: Callable[[], None] | None = None

    def block(self, blocked: bool) -> None:
        """The broker has said whether it takes messages."""
        self.blocked = blocked
        self.changed()

    def crowd(self, crowded: bool) -> None:
        """Whoever publishes has counted what the broker has not answered for."""
        self.crowded = crowded
        self.changed()

    def pauseProducing(self) -> None:
        """The transport is full."""
        self.full = True
        self.changed()

    def resumeProducing(self) -> None:
        """The transport has sent everything."""
        self.full = False
        self.changed()

    def stopProducing(self) -> None:
        """The connection is lost. Nothing is to be done here: its channels are told."""

    def changed(self) -> None:
        was, self.paused = self.paused, self.blocked or self.full or self.crowded
        if was and not self.paused and self.on_resumed is not None:
            self.on_resumed()


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
