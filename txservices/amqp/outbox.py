"""What is to be sent leaves in one write a connection, as soon as the bytes that made it have been worked off.

A delivery makes a publish on one connection and its confirm an ack on the other, fifty at a time under load: written
one by one they cost a system call each. So frames are collected, and sent when the ``dataReceived`` that brought on all
of it ends, or else at the end of the reactor's turn. Waiting for the end of the turn always costs one more poll of all
sockets, a write through the reactor's own buffer two ``epoll_ctl``: a call alone is faster without them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.tcp import Connection as TcpConnection

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from txservices.amqp.protocol import Protocol


class Outbox:
    """The connections that have something to send; those that belong together share one."""

    __slots__ = ("clock", "due", "receiving", "waiting")

    def __init__(self, clock: IReactorTime) -> None:
        self.clock = clock
        self.waiting: list[Protocol] = []
        self.due: IDelayedCall | None = None
        self.receiving = False

    def add(self, protocol: Protocol) -> None:
        """Have it flushed soon."""
        self.waiting.append(protocol)
        if not self.receiving and self.due is None:
            self.due = self.clock.callLater(0, self.flush_due)

    def receive(self, feed: Any, data: bytes) -> None:
        """Work off what came in, and send what that brought on."""
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
        for protocol in waiting:
            protocol.flush()


def send(transport: Any, data: bytes) -> None:
    """Write to a transport: at once, where it is a socket that nothing waits to be sent on, else by the reactor.

    Errors are left to the reactor, which meets them again and knows what to do.
    """
    # _tempDataBuffer is Twisted's own; without that name all goes through the reactor
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
