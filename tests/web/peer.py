"""Clients for the web tests, bytes in, bytes out: over memory and a clock that stands, or over a socket."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransportWithDisconnection
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from txservices.runners import ServiceRunner
from txservices.web.handlers import http
from txservices.web.site import WebSite

DATE = re.compile(rb"Date: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n")


class Transport(StringTransportWithDisconnection):
    """One that can be seen to be ending, as a socket's can."""

    half_closed = False

    def loseConnection(self) -> None:
        self.disconnecting = True
        super().loseConnection()

    def loseWriteConnection(self) -> None:
        self.half_closed = True

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """As TCP has it."""


class Peer:
    """A connection from a client."""

    def __init__(self, site: WebSite, host: str = "192.168.1.1") -> None:
        self.transport = Transport(peerAddress=IPv4Address("TCP", host, 54321))
        self.channel: Any = site.buildProtocol(None)
        self.transport.protocol = self.channel
        self.channel.makeConnection(self.transport)

    def send(self, data: bytes) -> bytes:
        """The answer to some bytes, with its Date header, which must be there, as ``Date: now``."""
        self.channel.dataReceived(data)
        return self.received()

    def end(self) -> bytes:
        """What comes after the client has ended its own side."""
        self.channel.readConnectionLost()
        return self.received()

    def received(self) -> bytes:
        data: bytes = self.transport.value()
        self.transport.clear()
        return DATE.sub(b"Date: now\r\n", data)

    def get(self, path: str, *headers: str, method: str = "GET", body: str = "") -> bytes:
        """The answer to a request."""
        if body:
            headers = (*headers, f"Content-Length: {len(body.encode())}")
        lines = [f"{method} {path} HTTP/1.1", "Host: here:8000", *headers, "", body]
        return self.send("\r\n".join(lines).encode())

    def leave(self) -> None:
        """Close the client's side."""
        if self.transport.connected:
            self.transport.loseConnection()


class WebTestCase(TestCase):
    """Runs services on a reactor that is memory."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.peers: list[Peer] = []

    async def serve(self, *services: type[Any], **config: Any) -> ServiceRunner:
        """Run services until the test ends, or until it stops them."""
        self.runner = runner = ServiceRunner({"WEB_SERVER_ADDRESS": "127.0.0.1:8000", **config}, self.reactor)
        for service in services:
            runner.add_service(service)
        self.addCleanup(runner.stop)
        self.addCleanup(self.leave)
        await runner.start()
        return runner

    def leave(self) -> None:
        for peer in self.peers:
            peer.leave()

    @property
    def site(self) -> WebSite:
        site: WebSite = self.reactor.tcpServers[-1][1]
        return site

    def peer(self, host: str = "192.168.1.1") -> Peer:
        peer = Peer(self.site, host)
        self.peers.append(peer)
        return peer


def text(status: str, body: str, *before: str, after: str = "", length: int | None = None) -> bytes:
    """A response of plain text, byte for byte."""
    size = len(body.encode()) if length is None else length
    lines = [
        f"HTTP/1.1 {status}",
        *before,
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {size}",
        "Date: now",
        *([after] if after else []),
        "",
        body,
    ]
    return "\r\n".join(lines).encode()


class Service:
    """A few URLs."""

    name = "service"
    waiting: Deferred[Any]

    @http("GET", "/number/<int:value>")
    def number(self, request, value):
        return str(value)

    @http("GET", "/slash/")
    def slash(self, request):
        return "/"

    @http("POST", "/length")
    def length(self, request):
        return str(len(request.get_data()))

    @http("GET", "/wait")
    def wait(self, request):
        Service.waiting = Deferred()
        return Service.waiting

    @http("GET", "/big/<int:size>")
    def big(self, request, size):
        return "x" * size


class Conversation(Protocol):
    """Sends bytes, and keeps what comes until the other side closes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.received = b""
        self.begun: Deferred[None] = Deferred()
        self.closed: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(self.data)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if not self.begun.called:
            self.begun.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.closed.callback(DATE.sub(b"Date: now\r\n", self.received))


async def converse(port: int, data: bytes) -> bytes:
    """All that comes back for bytes, over a real connection."""
    talk = Conversation(data)
    await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), talk)
    return await talk.closed.addTimeout(100, reactor)
