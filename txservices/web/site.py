"""Requests to answers, and answers to bytes: twisted.web's Site and its parts, adapted to services.

    Channel     the connection of a client: see ``channel``
    Received    twisted.web's Request: goes to the site's router, and sends the answer: see ``received``
    WebSite     twisted.web's Site: knows the connections, and closes those that take too long

Limits for what one client can make us keep or wait for, and what happens beyond them. Those that begin with WEB are
keys of the configuration:

    REQUEST_LINE_MAX    bytes of the request line                                               414
    HEAD_MAX            bytes of the request line and all headers                               431
    HEADERS_MAX         header lines                                                            431
    WEB_BODY_MAX        bytes of a body                                                         413
    WEB_CONNECTIONS_MAX connections in all, WebSockets too                                      503
    WEB_CONNECTIONS_PER_ADDRESS     connections of one client's address, WebSockets too         503
    REQUEST_TIMEOUT     seconds for the whole head, and for each further piece of a body        closed
    WEB_BODY_RATE       bytes of a body a second at least, after BODY_GRACE seconds             closed
    LINGER              seconds that a refused client is still read, so that it can read the    closed
                        refusal
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.web.http import datetimeToString
from twisted.web.server import Site

from txservices.deadlines import FOREVER
from txservices.utils.forks import leave, owners
from txservices.utils.turns import Turn
from txservices.utils.waiting import Waiters
from txservices.web.accesslog import AccessLog
from txservices.web.channel import LINGER, REQUEST_TIMEOUT, Channel
from txservices.web.messages import RETRY_AFTER
from txservices.web.received import Received

TURNED_AWAY_MAX = 100  # refused clients that are still read; further ones are cut off without an answer
CLOSE_TIMEOUT = 5.0  # seconds for clients to take what was written, once the server has stopped

log = Logger()


class WebSite(Site):
    """twisted.web's Site, with our channels.

    Attributes:
        resource: renders every request.
        connections_max: how many connections may be open.
        body_rate: bytes that must come of a body in a second, after a while; 0 for no such limit.
        values_max: how many values a long JSON may have.
        as_problem: whether errors are answered as problem details.
        cors: which pages of other origins may read the answers for URLs that nobody serves: see ``cors``.
        per_address: how many connections may be open from one address; None for no such limit.
        channels: the open connections.
        addresses: how many of them there are from each address.
        turned_away: connections beyond these, each with the call that ends it: they have their answer, and no request.
        date: the time, as the Date header has it.
        closing: whether each connection is closed after its next response.
        turn: what all connections do in a turn of the reactor.
        access: writes the access log, if there is one.
        forwarded: knows who a request is from, if that is not always its connection's other end, over plain HTTP.
    """

    protocol = Channel  # type: ignore[assignment]  # Twisted's other choice is HTTP/2 over TLS
    noisy = False
    closing = False
    streaming = False  # whether a method reads bodies as they come
    as_problem = False
    per_address: int | None = None
    limited = False  # whether a URL has a ``body_max`` of its own
    access: AccessLog | None = None
    forwarded: Any = None
    cors: Any = None

    def __init__(self, body_max: int, body_rate: int, connections_max: int, values_max: int, clock: Any) -> None:
        super().__init__(None, Received, timeout=None, reactor=clock)
        self.body_max = body_max
        self.body_rate = body_rate
        self.connections_max = connections_max
        self.values_max = values_max
        self.turn = Turn(clock)
        self.channels: dict[Channel, None] = {}
        self.addresses: Counter[str | None] = Counter()
        self.turned_away: dict[Channel, IDelayedCall] = {}
        self.tell_at = 0.0  # when the log tells again of clients that are turned away
        self.ticking: Any = None
        self.gone: Waiters[None] = Waiters()  # for the end of all connections
        self.date = datetimeToString()
        owners.add(self)

    def disown(self) -> None:
        """Called in a forked child: the connections are its parent's."""
        for channel in (*self.channels, *self.turned_away):
            channel.transport = leave(channel.transport)

    def acceptableProtocols(self) -> list[bytes]:
        """What is offered over TLS: our requests write HTTP/1.1, and Twisted would offer HTTP/2 if it has h2."""
        return [b"http/1.1"]

    def startFactory(self) -> None:
        """Does nothing: Twisted's method would open a log file."""

    def stopFactory(self) -> None:
        """Does nothing: Twisted's method would close the log file."""

    def opened(self, channel: Channel) -> None:
        address = getattr(channel.peer, "host", None)  # None for a socket in the file system
        if len(self.channels) >= self.connections_max:
            self.turn_away(channel, f"all {self.connections_max} connections of WEB_CONNECTIONS_MAX are taken")
            return
        if self.per_address is not None and address is not None and self.addresses[address] >= self.per_address:
            most = f"all {self.per_address} connections of WEB_CONNECTIONS_PER_ADDRESS are taken"
            self.turn_away(channel, f"{most} by {address}")
            return
        self.addresses[address] += 1
        self.channels[channel] = None
        if self.ticking is None:
            self.tick()

    def turn_away(self, channel: Channel, why: str) -> None:
        """Refuse a client: all connections are taken."""
        now = self.reactor.seconds()
        if now >= self.tell_at:
            self.tell_at = now + REQUEST_TIMEOUT
            log.warn("{why}: 503", why=why)
        if len(self.turned_away) < TURNED_AWAY_MAX:
            self.turned_away[channel] = self.reactor.callLater(LINGER, channel.transport.abortConnection)
            headers = f"Retry-After: {RETRY_AFTER}\r\n"
            channel.refuse("503 SERVICE UNAVAILABLE", "all connections are taken", headers)
        else:
            channel.transport.abortConnection()

    def closed(self, channel: Channel) -> None:
        if channel not in self.channels:
            ending = self.turned_away.pop(channel, None)
            if ending is not None and ending.active():
                ending.cancel()
            return
        del self.channels[channel]
        address = getattr(channel.peer, "host", None)
        self.addresses[address] -= 1
        if not self.addresses[address]:
            del self.addresses[address]
        if not self.channels:
            if self.ticking is not None:
                self.ticking.cancel()
                self.ticking = None
            self.gone.fire(None)

    def tick(self) -> None:
        """Once a second while there are connections: renew the date, and close connections that took too long."""
        self.date = datetimeToString()
        self.ticking = self.reactor.callLater(1, self.tick)
        now = self.reactor.seconds()
        for channel in [each for each in self.channels if each.deadline <= now]:
            channel.deadline = FOREVER
            channel.timeoutConnection()

    def cancel(self) -> None:
        """Close connections that are kept open between requests now, and others after their next response."""
        self.closing = True
        for channel in [each for each in self.channels if each.idle and not (each.requests or each.buffer)]:
            channel.loseConnection()

    def close_channels(self) -> Deferred[None]:
        """Close idle connections now and the others after their answer; all after ``CLOSE_TIMEOUT``.

        Fires when they are closed.
        """
        for channel in list(self.turned_away):
            channel.transport.abortConnection()
        if not self.channels:
            return succeed(None)
        waiter = self.gone.wait()
        abort = self.reactor.callLater(CLOSE_TIMEOUT, self.abort_channels)
        waiter.addBoth(lambda _: abort.cancel() if abort.active() else None)
        for channel in list(self.channels):
            if not channel.answering:
                channel.loseConnection()
        return waiter

    def abort_channels(self) -> None:
        for channel in list(self.channels):
            channel.transport.abortConnection()

    def log(self, request: Received) -> None:  # type: ignore[override]  # our channel makes no other request
        """Does nothing: a Resource of Twisted's calls it, and the access log has its line from ``tell_ended``."""
