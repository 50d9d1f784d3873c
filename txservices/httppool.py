"""The connections of a process to other people's HTTP servers: kept open between requests, and bounded.

session -> Session.request -> [waits for one of its origin's connections] -> treq -> Unpacking -> Body -> Answered
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urljoin

from attrs import frozen
from hyperlink import URL
from OpenSSL.SSL import Error as TlsError
from service_identity import VerificationError
from treq.client import HTTPClient
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.components import proxyForInterface
from twisted.python.failure import Failure
from twisted.web._newclient import RequestNotSent  # it is in the documentation of twisted.web.client, and not there
from twisted.web.client import Agent, HTTPConnectionPool, RequestTransmissionFailed, ResponseDone, ResponseFailed
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse
from zope.interface import implementer

from txservices.exceptions import CallFailed
from txservices.safe import brief
from txservices.utils import default_reactor
from txservices.utils.secrets import hide

CONNECTIONS_PER_ORIGIN_MAX = 100
IDLE_PER_ORIGIN_MAX = 10
IDLE_TIMEOUT = 30.0  # seconds
CONNECT_TIMEOUT = 10.0  # seconds
URL_MAX = 16 * 1024  # characters
SHOWN_URL_MAX = 200  # characters

PORTS = {"http": 80, "https": 443}
GZIP = {b"gzip", b"x-gzip"}

# what the network has done, and no mistake of ours
NETWORK = (ConnectError, ConnectionClosed, RequestNotSent, RequestTransmissionFailed, ResponseFailed)
FAULTS = (*NETWORK, TlsError, VerificationError)


class HttpCallFailed(CallFailed):
    """A call over HTTP has no answer. What these errors have in common; ``call`` is the method and the URL."""

    def of(self, call: str) -> HttpCallFailed:
        """This error, with the name of its call."""
        self.call = call
        return self


class HttpTimeout(HttpCallFailed):
    """No answer came in time. The server may have done what it was asked for."""


class HttpConnectionError(HttpCallFailed):
    """There is no connection to the server, or it was lost before the answer was complete."""


class HttpBodyTooLarge(HttpCallFailed):
    """The answer's body is longer than the client's ``body_max``. The connection was closed."""


class HttpStatusError(HttpCallFailed):
    """The status of an answer is 400 or more, and ``raise_for_status`` was called.

    Attributes:
        answer: the ``HttpAnswer``.
    """

    def __init__(self, answer: Any) -> None:
        super().__init__(f"it has answered {answer.status}")
        self.answer = answer
        self.call = answer.call


class Url(URL):
    """A URL that may have an address of IPv6 for its host, which hyperlink takes for a name when it encodes it."""

    def to_uri(self) -> URL:
        if ":" not in self.host:
            return super().to_uri()
        return self.replace(host="").to_uri().replace(host=self.host)


class Target:
    """A URL to be asked. ``ValueError`` for one that is no URL of http or https.

    Attributes:
        url: without user, password and fragment.
        auth: user and password, if the URL has them.
        origin: scheme, host and port.
        shown: the URL as the log may have it, without its query, which may have secrets in it.
    """

    __slots__ = ("auth", "origin", "shown", "url")

    def __init__(self, text: str) -> None:
        if len(text) > URL_MAX:
            raise ValueError(f"a URL of {len(text)} characters: up to {URL_MAX} are sent")
        try:
            url = Url.from_text(text).to_uri()
        except ValueError:
            raise ValueError("it is no URL") from None
        if url.scheme not in PORTS or not url.host:
            raise ValueError("it is no URL that begins with https:// or http:// and a host")
        user, _, password = url.userinfo.partition(":")
        self.auth = (unquote(user), unquote(password)) if url.userinfo else None
        self.url = url.replace(userinfo="", fragment="").to_text()
        self.origin = (url.scheme, url.host, url.port or PORTS[url.scheme])
        self.shown = hide(url.replace(userinfo="", fragment="", query=()).to_text())[:SHOWN_URL_MAX]

    def joined(self, location: str) -> Target:
        """The URL that a redirect names, from here. Its user and password are not taken."""
        target = Target(urljoin(self.url, location))
        target.auth = self.auth if target.origin == self.origin else None
        return target


@frozen
class Answered:
    """What a server has answered."""

    status: int
    headers: Headers
    body: bytes


@implementer(IAgent)
class Unpacking:
    """An agent whose answers' bodies are unpacked by ``Body``, which knows when it has enough.

    treq unpacks all of what one read brings, which may be a thousand times as much.
    """

    def __init__(self, agent: Agent) -> None:
        self.agent = agent

    def request(self, method: bytes, uri: bytes, headers: Any = None, bodyProducer: Any = None) -> Any:
        return self.agent.request(method, uri, headers, bodyProducer).addCallback(self.packed)

    def packed(self, response: Any) -> Any:
        codings = b",".join(response.headers.getRawHeaders(b"content-encoding", ())).lower().split(b",")
        if codings[-1].strip() not in GZIP:
            return response
        response.headers.removeHeader(b"content-encoding")
        return Packed(response, len(codings))


class Packed(proxyForInterface(IResponse)):  # type: ignore[misc]  # a class that is made
    """An answer with a body in gzip."""

    def __init__(self, response: Any, times: int) -> None:
        self.original = response
        self.times = times

    def deliverBody(self, body: Body) -> None:
        body.unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self.original.deliverBody(body)
        if self.times > 1:
            body.give_up(HttpCallFailed(f"the body of its answer is packed {self.times} times"))


class Body(Protocol):
    """Reads the body of an answer. ``done`` fires with it, or fails if it is too long or not whole.

    Attributes:
        unpacker: zlib's, for a body in gzip.
    """

    unpacker: Any = None
    whole = True  # whether what there is of such a body is all

    def __init__(self, most: int) -> None:
        self.most = most
        self.pieces: list[bytes] = []
        self.size = 0
        self.done: Deferred[bytes] = Deferred(self.cancel)

    def cancel(self, _: Any = None) -> None:
        self.most = -1  # whatever still comes is dropped
        self.pieces.clear()
        if self.transport is not None:
            self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        if self.unpacker is None:
            self.add(data)
            return
        self.whole = False
        try:
            while data and self.most >= 0:
                self.add(self.unpacker.decompress(data, self.most - self.size + 1))
                data = self.unpacker.unconsumed_tail
            self.whole = self.unpacker.eof
        except zlib.error as error:
            self.give_up(HttpCallFailed(f"the body of its answer is not in gzip, as it says: {error}"))

    def add(self, data: bytes) -> None:
        if self.most < 0:
            return
        self.size += len(data)
        if self.size <= self.most:
            self.pieces.append(data)
        else:
            self.give_up(HttpBodyTooLarge(f"the body of its answer is over {self.most} bytes"))

    def give_up(self, error: Exception) -> None:
        self.cancel()
        self.done.errback(error)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        if not self.whole:
            self.done.errback(HttpConnectionError("the body of its answer ends early"))
        elif reason.check(ResponseDone, PotentialDataLoss):  # the latter if only the connection's end ends the body
            self.done.callback(b"".join(self.pieces))
        else:
            self.done.errback(reason)


class Session:
    """The requests of one call: cookies of one answer are sent with the next, and are forgotten with the call."""

    def __init__(self, pool: HttpPool, treq: Any) -> None:
        self.pool = pool
        self.treq = treq

    async def request(
        self, method: str, target: Target, headers: Mapping[str, Any], most: int, call: str, options: Mapping[str, Any]
    ) -> Answered:
        """Send a request and read the answer. The errors are subclasses of ``HttpCallFailed``."""
        options = {**({} if target.auth is None else {"auth": target.auth}), **options}
        line = self.pool.line(target.origin)
        await line.acquire()
        try:
            response = await self.treq.request(
                method,
                Url.from_text(target.url),
                headers=dict(headers),
                allow_redirects=False,
                unbuffered=True,
                **options,
            )
            body = Body(most)
            response.deliverBody(body)
            return Answered(response.code, response.headers, await body.done)
        except HttpCallFailed as error:
            error.of(call)
            raise
        except FAULTS as error:
            raise HttpConnectionError(reason_of(error)).of(call) from error
        finally:
            self.pool.leave(target.origin, line)


class HttpPool(Service):
    """The pool of a process.

    Attributes:
        lines: for each origin that is asked now, the places of its connections.
    """

    def __init__(self) -> None:
        reactor: Any = default_reactor()
        self.connections = HTTPConnectionPool(reactor)
        self.connections.maxPersistentPerHost = IDLE_PER_ORIGIN_MAX
        self.connections.cachedConnectionTimeout = IDLE_TIMEOUT  # type: ignore[assignment]  # any number
        self.agent = Agent(reactor, connectTimeout=CONNECT_TIMEOUT, pool=self.connections)
        self.lines: dict[tuple[str, str, int], DeferredSemaphore] = {}

    def session(self) -> Session:
        return Session(self, HTTPClient(Unpacking(self.agent)))

    def line(self, origin: tuple[str, str, int]) -> DeferredSemaphore:
        found = self.lines.get(origin)
        if found is None:
            found = self.lines[origin] = DeferredSemaphore(CONNECTIONS_PER_ORIGIN_MAX)
        return found

    def leave(self, origin: tuple[str, str, int], line: DeferredSemaphore) -> None:
        line.release()
        if line.tokens == line.limit and self.lines.get(origin) is line:
            del self.lines[origin]

    def stopService(self) -> Deferred[None]:
        """Close the connections that are kept. Fires when they are closed."""
        super().stopService()
        closed: Deferred[None] = self.connections.closeCachedConnections()
        return closed


def reason_of(error: BaseException | None) -> str:
    """What the network has done, in a line."""
    reasons = [each.value for each in getattr(error, "reasons", ()) if isinstance(each, Failure)]
    if reasons:
        return "; ".join(dict.fromkeys(reason_of(each) for each in reasons))
    if isinstance(error, TlsError):
        words = [str(each[-1]) for each in error.args[0]] if error.args and isinstance(error.args[0], list) else []
        return f"TLS: {', '.join(words) or 'the connection was closed'}"
    if isinstance(error, VerificationError):
        return "TLS: its certificate is of another host"
    return hide(str(error).rstrip(".")) or brief(error)
