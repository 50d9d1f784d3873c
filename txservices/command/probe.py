"""Asks what listens on a port. Used before a process joins a broker that nobody named."""

from __future__ import annotations

from enum import Enum
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from txservices.wire.spec import FRAME_METHOD, PROTOCOL_HEADER

TIMEOUT = 3  # seconds; the port is usually on the same machine


class Answer(Enum):
    NOBODY = "nothing listens there"
    BROKER = "it speaks AMQP"
    OTHER = "it does not speak AMQP"


async def ask(host: str, port: int, reactor: Any) -> Answer:
    """Open a connection as an AMQP client does, and tell by the answer what listens there."""
    first: Deferred[bytes] = Deferred()
    opening = Opening(first)
    endpoint = HostnameEndpoint(reactor, host, port, timeout=TIMEOUT)
    try:
        await endpoint.connect(Factory.forProtocol(lambda: opening))
    except ConnectError:
        return Answer.NOBODY
    try:
        data = await first.addTimeout(TIMEOUT, reactor)
    except (TimeoutError, ConnectionClosed):
        return Answer.OTHER
    finally:
        opening.close()
    # A broker sends connection.start in a method frame; one of another version sends the protocol header of its own.
    return Answer.BROKER if data[0] == FRAME_METHOD or data.startswith(b"AMQP") else Answer.OTHER


class Opening(Protocol):
    """Sends the protocol header that every AMQP client sends first; `first` fires with the bytes that come back."""

    def __init__(self, first: Deferred[bytes]) -> None:
        self.first = first

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(PROTOCOL_HEADER)

    def close(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        if not self.first.called:
            self.first.callback(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.first.called:
            self.first.errback(reason)
