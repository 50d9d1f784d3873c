"""Bytes in, requests out, answers out as bytes: twisted.web's Site with what a service needs of it.

    Channel     twisted.web's HTTPChannel: a client's connection, and how long it is waited for
    Received    twisted.web's Request: comes in, goes to the site's resource, sends the answer that it is given
    Pieces      a body on its way to a client that takes its time
    WebSite     twisted.web's Site: the connections, and the clock that they are looked at by

What a client can make us hold or wait for is limited:

    REQUEST_LINE_MAX    bytes of the request line, and so of a URL, and of each header line     414, 431
    HEAD_MAX            bytes of all of them together                                           400
    HEADERS_MAX         header lines                                                            400
    WEB_BODY_MAX        bytes of a body, a key of the configuration                             413
    REQUEST_TIMEOUT     seconds for a whole head, and for each next piece of a body             closed
    LINGER              seconds that a refused body is still read, so that the refusal is too   closed
    SEND_TIMEOUT        seconds for the client to take the next piece of a response             closed
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IPullProducer
from twisted.logger import Logger
from twisted.web.http import HTTPChannel, datetimeToString
from twisted.web.server import Request, Site
from werkzeug.wrappers import Response
from zope.interface import implementer

from txservices.web.messages import BODYLESS, TEXT, head_of

REQUEST_LINE_MAX = 16 * 1024  # bytes
HEAD_MAX = 16 * 1024  # bytes
HEADERS_MAX = 500
REQUEST_TIMEOUT = 60.0  # seconds
LINGER = 5.0  # seconds
SEND_TIMEOUT = 60.0  # seconds
CLOSE_TIMEOUT = 5.0  # seconds for clients to take what was written, once the server has stopped
PIECE = 64 * 1024  # bytes of a response that are written at once

NEVER = float("inf")
OK_TEXT = f"HTTP/1.1 200 OK\r\nContent-Type: {TEXT}\r\n".encode()

Answer = Response | bytes  # bytes: the text of a plain 200

log = Logger()
# The standard library's, because it can be asked whether anybody listens. An event of twisted.logger is made for each
# request and then thrown away.
access_log = logging.getLogger("txservices.web.server")


class Channel(HTTPChannel):
    """A client's connection.

    ``deadline`` is when it has to have sent the whole of its next request, infinity while one is answered. The site
    looks at it once a second; Twisted cancels a delayed call and makes another for each request.
    """

    MAX_LENGTH = REQUEST_LINE_MAX
    totalHeadersSize = HEAD_MAX
    maxHeaders = HEADERS_MAX
    site: WebSite
    transport: Any
    persistent: bool
    requests: list[Received]
    deadline = NEVER
    answering = False

    def connectionMade(self) -> None:
        super().connectionMade()
        self.peer = self.transport.getPeer()
        self.here = self.transport.getHost()
        self.wait(REQUEST_TIMEOUT)
        self.site.opened(self)

    def connectionLost(self, reason: Any = None) -> None:
        super().connectionLost(reason)
        self.site.closed(self)

    def wait(self, seconds: float) -> None:
        """Give the client so much time from now."""
        self.deadline = self.site.reactor.seconds() + seconds

    def getPeer(self) -> Any:
        return self.peer

    def getHost(self) -> Any:
        return self.here

    def lineLengthExceeded(self, line: bytes) -> None:
        """The request line is too long, or a header is if there is a request already."""
        status = b"431 Request Header Fields Too Large" if self.requests else b"414 URI Too Long"
        self.write(b"HTTP/1.1 %b\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status)
        self.loseConnection()


class Received(Request):
    """A request: it comes in, is handed to the router, and ``answer`` sends the response.

    The client may leave at any time: what runs for it goes on, and its answer is dropped.
    """

    site: Any
    channel: Any
    content: Any
    producer: Any = None
    refused = False
    size = 0

    # In

    def parseCookies(self) -> None:
        """werkzeug does, when it is asked for them."""

    def gotLength(self, length: int | None) -> None:
        """The head is complete: a body follows of that length, or of an unknown one, or none."""
        if length is not None and length > self.channel.site.body_max:
            self.refuse()
        elif length != 0:
            super().gotLength(length)

    def handleContentChunk(self, data: bytes) -> None:
        if self.refused:
            return
        self.size += len(data)
        if self.size > self.channel.site.body_max:
            self.refuse()
            return
        self.channel.wait(REQUEST_TIMEOUT)
        self.content.write(data)

    def refuse(self) -> None:
        """Answer 413 now, then read on for a while: a client that is cut off while it sends may not see the answer."""
        self.refused = True
        self.code = 413
        self.content = None
        self.requestHeaders.removeHeader(b"Expect")
        channel = self.channel
        channel.persistent = False
        channel.wait(LINGER)
        self.startedWriting = 1
        text = b"Error: the body is over %d bytes\n" % channel.site.body_max
        channel.write(
            b"HTTP/1.1 413 REQUEST ENTITY TOO LARGE\r\nContent-Type: %b\r\nContent-Length: %d\r\nConnection: close\r\n"
            b"\r\n%b" % (TEXT.encode(), len(text), text)
        )

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """All of it has come. Twisted's own parses query and forms here, which werkzeug does when it is asked to."""
        self.method, self.uri, self.clientproto = command, path, version
        channel = self.channel
        self.site = channel.site
        if self.refused:
            self.finish()
            return
        channel.answering = True
        channel.deadline = NEVER
        if self.content is not None:
            self.content.seek(0)
        self.site.resource.render(self)

    # Out

    def answer(self, answer: Answer) -> None:
        """Send the response. Raises ``BadResponse``, with nothing sent, for one that can't be."""
        if type(answer) is bytes:
            self.code = 200
            self.send(OK_TEXT, answer)
            return
        assert isinstance(answer, Response)
        head, closing = head_of(answer)
        self.code = answer.status_code
        channel = self.channel
        if channel is None:
            answer.close()  # the client has left
            return
        if closing:
            channel.persistent = False
        if self.code in BODYLESS:
            answer.close()
            self.begin(head)
            self.finish()
        elif not answer.is_sequence or answer.direct_passthrough:
            self.stream(head, answer)
        else:
            body = b"".join(answer.iter_encoded())
            answer.close()
            self.send(head, body)

    def send(self, head: bytes, body: bytes) -> None:
        """A body that is there: all of it at once, if that is little, or as fast as the client takes it."""
        if self.channel is None:
            return
        head = b"%bContent-Length: %d\r\n" % (head, len(body))
        if self.method == b"HEAD":
            body = b""
        if len(body) <= PIECE:
            self.begin(head, body)
            self.finish()
        else:
            self.begin(head)
            self.send_pieces((body[at : at + PIECE] for at in range(0, len(body), PIECE)), None, len(body))

    def stream(self, head: bytes, response: Response) -> None:
        """A body that is made while it is sent: with the length that it says it has, or chunked."""
        length = response.content_length
        if length is not None:
            head += b"Content-Length: %d\r\n" % length
        elif self.clientproto == b"HTTP/1.1":
            head += b"Transfer-Encoding: chunked\r\n"
            self.chunked = self.method != b"HEAD"
        else:
            self.channel.persistent = False
        self.begin(head)
        if self.method == b"HEAD":
            response.close()
            self.finish()
            return
        pieces: Any = response.response if response.direct_passthrough else response.iter_encoded()
        self.send_pieces(iter(pieces), response.close, length)

    def send_pieces(self, pieces: Iterator[bytes], close: Callable[[], None] | None, length: int | None) -> None:
        self.registerProducer(Pieces(self, pieces, close, length), False)

    def begin(self, head: bytes, body: bytes = b"") -> None:
        """Write a head, and a body with it: in one piece, which is quicker than setHeader and write."""
        channel = self.channel
        site = self.site
        if site.closing:
            channel.persistent = False
        self.startedWriting = 1
        self.sentLength = len(body)
        connection = b"" if channel.persistent else b"Connection: close\r\n"
        channel.write(b"%bDate: %b\r\n%b\r\n%b" % (head, site.date, connection, body))

    def finish(self) -> None:
        """The response is out: to the next request, which may be here already."""
        channel = self.channel
        channel.answering = False
        channel.wait(REQUEST_TIMEOUT)
        super().finish()

    def connectionLost(self, reason: Any) -> None:
        """The client has left."""
        if self.producer is not None:
            self.producer.end()
        super().connectionLost(reason)


@implementer(IPullProducer)
class Pieces:
    """Sends a response's body piece by piece, each when the client has taken the one before."""

    def __init__(
        self, received: Received, pieces: Iterator[bytes], close: Callable[[], None] | None, length: int | None
    ) -> None:
        self.received = received
        self.pieces = pieces
        self.close = close
        self.left = length

    def resumeProducing(self) -> None:
        self.received.channel.wait(SEND_TIMEOUT)
        try:
            piece = next(self.pieces, None)
        except Exception:
            log.failure("the body of the response to {request} ended in the middle", request=self.received)
            self.break_off()
            return
        if piece is not None:
            if self.left is not None:
                piece = piece[: self.left]
                self.left -= len(piece)
            self.received.write(piece)
        elif self.left:
            log.error("the body of the response to {request} is shorter than it said", request=self.received)
            self.break_off()
        else:
            self.end()
            self.received.finish()

    def break_off(self) -> None:
        """End the connection: what else would tell the client that this is not all."""
        self.end()
        self.received.channel.transport.abortConnection()

    def end(self) -> None:
        self.received.unregisterProducer()
        self.stopProducing()

    def stopProducing(self) -> None:
        """All is sent, or the client has left."""
        close, self.close = self.close, None
        if close is not None:
            close()


class WebSite(Site):
    """twisted.web's Site, for our channels.

    Attributes:
        resource: what renders every request.
        channels: the connections that are open.
        date: the time, for the Date header.
        closing: no connection is kept after its next response.
    """

    protocol = Channel  # type: ignore[assignment]  # Twisted's other choice is HTTP/2 over TLS
    noisy = False
    closing = False

    def __init__(self, body_max: int, clock: Any) -> None:
        super().__init__(None, Received, timeout=None, reactor=clock)
        self.body_max = body_max
        self.channels: dict[Channel, None] = {}
        self.ticking: Any = None
        self.gone: list[Deferred[None]] = []
        self.date = datetimeToString()

    def startFactory(self) -> None:
        """Nothing of Twisted's: it is about its log file."""

    def stopFactory(self) -> None:
        """Nothing either."""

    def opened(self, channel: Channel) -> None:
        self.channels[channel] = None
        if self.ticking is None:
            self.tick()

    def closed(self, channel: Channel) -> None:
        self.channels.pop(channel, None)
        if not self.channels:
            if self.ticking is not None:
                self.ticking.cancel()
                self.ticking = None
            gone, self.gone = self.gone, []
            for waiter in gone:
                waiter.callback(None)

    def tick(self) -> None:
        """Once a second, while anybody is connected: the date, and who has taken too long."""
        self.date = datetimeToString()
        self.ticking = self.reactor.callLater(1, self.tick)
        now = self.reactor.seconds()
        for channel in [each for each in self.channels if each.deadline <= now]:
            channel.deadline = NEVER
            channel.timeoutConnection()

    def close_channels(self) -> Deferred[None]:
        """End the connections: those that wait for a request now, the others when they are answered, up to a time."""
        if not self.channels:
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        self.gone.append(waiter)
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
        """A line for each request, for who wants debug lines of this logger."""
        if access_log.isEnabledFor(logging.DEBUG):
            access_log.debug(
                '%s "%s %s" %d %d',
                getattr(request.client, "host", "-"),
                request.method.decode("latin-1"),
                request.uri.decode("latin-1"),
                request.code,
                request.sentLength,
            )
