"""A bad network between clients and one broker: TCP over a proxy that does to their links what a test says.

    proxy = Proxy(node.port)
    await proxy.listen()
    connect to proxy.uri(node.uri(vhost))
    proxy.cut(reset=True)

Each link has two ways, ``up`` to the broker and ``down`` to the client. What is set on ``proxy.up`` and ``proxy.down``
holds for the links that there are and for those to come.

A way that is frozen or a black hole carries no end of a connection either: the other side does not learn that its peer
is gone, as behind a cable that was pulled.
"""

from __future__ import annotations

from collections import deque
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from txservices.testing.waiting import Heard

TICK = 0.05  # seconds between the pieces of a throttled way


class Conditions:
    """How one way treats its bytes.

    Attributes:
        black_hole: they vanish.
        frozen: they wait.
        delay: seconds that each takes.
        rate: bytes a second, None for no limit.
        cut_after: bytes of each new link after which it is cut, None for no end.
    """

    def __init__(self) -> None:
        self.black_hole = False
        self.frozen = False
        self.delay = 0.0
        self.rate: float | None = None
        self.cut_after: int | None = None

    @property
    def silent(self) -> bool:
        return self.black_hole or self.frozen


class Way:
    """One direction of one link."""

    def __init__(self, link: Link, conditions: Conditions) -> None:
        self.link = link
        self.conditions = conditions
        self.cut_after = conditions.cut_after  # as it was when the link was made
        self.target: Any = None
        self.waiting: deque[tuple[float, bytes]] = deque()
        self.passed = self.swallowed = 0  # bytes
        self.free_at = 0.0  # when the throttle lets more through
        self.ended = False
        self.call: IDelayedCall | None = None

    def receive(self, data: bytes) -> None:
        if self.conditions.black_hole:
            self.swallowed += len(data)
        else:
            self.waiting.append((reactor.seconds() + self.conditions.delay, data))
            self.pump()

    def end(self) -> None:
        """The side that writes here has closed."""
        self.ended = True
        self.pump()

    def pump(self) -> None:
        """Move what may move now, and come back for the rest."""
        if self.target is None or self.conditions.frozen:
            return
        while self.waiting:
            due, data = self.waiting.popleft()
            wait = max(due, self.free_at) - reactor.seconds()
            if wait > 0:
                self.waiting.appendleft((due, data))
                self.come_back(wait)
                return
            rate = self.conditions.rate
            if rate is not None:
                size = max(int(rate * TICK), 1)
                data, rest = data[:size], data[size:]
                if rest:
                    self.waiting.appendleft((due, rest))
                self.free_at = reactor.seconds() + len(data) / rate
            if not self.send(data):
                return
        if self.ended and not self.conditions.black_hole:
            self.target.transport.loseConnection()

    def send(self, data: bytes) -> bool:
        """Whether the link is still there after it."""
        left = None if self.cut_after is None else self.cut_after - self.passed
        if left is not None and left <= len(data):
            self.target.transport.write(data[:left])
            self.link.cut()
            return False
        self.passed += len(data)
        self.target.transport.write(data)
        return True

    def come_back(self, wait: float) -> None:
        if self.call is None or not self.call.active():
            self.call = reactor.callLater(wait, self.pump)

    def stop(self) -> None:
        self.waiting.clear()
        if self.call is not None and self.call.active():
            self.call.cancel()


class Side(Protocol):
    """One of the two connections that make a link."""

    def __init__(self, link: Link, out: Way, into: Way) -> None:
        self.link = link
        self.out = out  # what this side says goes there
        self.into = into
        self.lost = False

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self.into.target = self
        self.into.pump()
        if self is self.link.client:
            self.link.proxy.linked(self.link)

    def dataReceived(self, data: bytes) -> None:
        self.out.receive(data)

    def connectionLost(self, reason: Failure) -> None:
        self.lost = True
        self.into.stop()
        self.out.end()
        self.link.side_lost()


class Link:
    """A client's connection, and the one made to the broker for it."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.up = Way(self, proxy.up)
        self.down = Way(self, proxy.down)
        self.client = Side(self, self.up, self.down)
        self.broker = Side(self, self.down, self.up)

    def connect(self) -> None:
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.proxy.broker_port)
        connecting = endpoint.connect(Quiet.forProtocol(lambda: self.broker))
        connecting.addErrback(self.no_broker)

    def no_broker(self, failure: Failure) -> None:
        self.broker.lost = True
        if self.client.transport is not None:
            self.client.transport.abortConnection()

    def cut(self, reset: bool = False) -> None:
        """End both connections at once: by FIN, after what was sent, or by RST."""
        for side in (self.client, self.broker):
            side.into.stop()
            if side.transport is not None and not side.lost:
                if reset:
                    side.transport.abortConnection()
                else:
                    side.transport.loseConnection()

    def side_lost(self) -> None:
        if self.client.lost and self.broker.lost:
            self.up.stop()
            self.down.stop()
            self.proxy.link_gone(self)


class Quiet(Factory):
    noisy = False


class Links(Quiet):
    """A link for each connection that comes in."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy

    def buildProtocol(self, addr: Any) -> Side:
        link = Link(self.proxy)
        self.proxy.links.append(link)
        link.connect()
        return link.client


class Proxy:
    """Between clients and the broker on a port of 127.0.0.1.

    Attributes:
        links: those that there are.
        linked: told of each new link, to wait for.
    """

    def __init__(self, broker_port: int) -> None:
        self.broker_port = broker_port
        self.up = Conditions()
        self.down = Conditions()
        self.links: list[Link] = []
        self.linked = Heard()
        self.port = 0
        self.listener: Any = None
        self.empty: list[Deferred[None]] = []

    async def listen(self) -> Proxy:
        """Take connections, on the same port each time."""
        self.listener = reactor.listenTCP(self.port, Links(self), interface="127.0.0.1")
        self.port = self.listener.getHost().port
        return self

    async def shut(self) -> None:
        """No host there: connections are refused, and those that there are end by RST."""
        if self.listener is not None:
            listener, self.listener = self.listener, None
            await listener.stopListening()
        self.cut(reset=True)
        await self.when_empty()

    def uri(self, uri: str) -> str:
        """The broker's URI by way of this proxy."""
        parts = urlsplit(uri)
        who, _, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{who}@127.0.0.1:{self.port}"))

    def cut(self, reset: bool = False) -> None:
        """End all links, by FIN or by RST; new ones may be made at once."""
        for link in list(self.links):
            link.cut(reset)

    def black_hole(self, up: bool = True, down: bool = True) -> None:
        """Bytes of those ways vanish until ``heal``."""
        self.up.black_hole, self.down.black_hole = up, down

    def freeze(self, up: bool = True, down: bool = True) -> None:
        """Bytes of those ways wait for ``heal``."""
        self.up.frozen, self.down.frozen = up, down

    def heal(self) -> None:
        """From now on bytes pass, those that waited first, and so do the ends of connections."""
        for conditions in (self.up, self.down):
            conditions.__init__()
        for link in list(self.links):
            link.up.pump()
            link.down.pump()

    def another_cable(self) -> None:
        """New links are healthy; those that there are stay as they are, and neither side learns of the other's end."""
        self.up, self.down = Conditions(), Conditions()

    def heal_after_cut(self, reset: bool = False) -> None:
        """End all links, what waits on them with them; those that come are healthy."""
        self.cut(reset)
        self.heal()

    def link_gone(self, link: Link) -> None:
        if link in self.links:
            self.links.remove(link)
        if not self.links:
            empty, self.empty = self.empty, []
            for waiter in empty:
                waiter.callback(None)

    def when_empty(self) -> Deferred[None]:
        """Fires when there is no link."""
        waiter: Deferred[None] = Deferred()
        if self.links:
            self.empty.append(waiter)
        else:
            waiter.callback(None)
        return waiter
