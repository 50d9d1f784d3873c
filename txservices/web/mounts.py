"""Another framework's application under a prefix of the URLs: one for WSGI (Flask, Django), or twisted.web's.

    class Shop:
        name = "shop"
        admin = Mount("/admin", wsgi=flask_app)
        old = Mount("/old", resource=File("/srv/old"))

A WSGI application runs in threads of the reactor's pool, at most ``threads`` of them at a time; further requests wait
for their turn. It is given the whole body of the request. A short answer comes from the thread in one piece, a longer
one is sent while it is made, as fast as the client reads it, and all in one thread: Django keeps its connections to
the database, and its state of the request, for each thread.

A Resource is rendered in the reactor, as by twisted.web.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from io import BytesIO
from threading import get_ident
from typing import Any
from urllib.parse import unquote_to_bytes

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request as TwistedRequest
from twisted.web.resource import IResource, getChildForRequest
from werkzeug.wrappers import Response

from txservices.authoring import check_count
from txservices.exceptions import ConfigurationError
from txservices.threads import OneThread, grow_pool
from txservices.utils import default_reactor
from txservices.web.bodies import Body
from txservices.web.forms import check_form
from txservices.web.messages import HttpRequest
from txservices.web.places import Place
from txservices.web.received import Received

__all__ = ["Mount"]

THREADS = 10  # for a WSGI application that is given no number
THREADS_MAX = 1_000
AT_ONCE = 64 * 1024  # bytes of an answer that a thread gives in one piece

log = Logger()

WsgiApplication = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Mount(Place):
    """Serves a prefix by another framework's application.

    Args:
        url: the prefix, as ``/admin``. The application sees it as ``SCRIPT_NAME``, or in ``prepath``.
        wsgi: an application for WSGI, PEP 3333.
        resource: a Resource of twisted.web's. One of both is given.
        threads: how many requests the WSGI application handles at a time.
        auth: who may come there, see ``auth``; a name is the WSGI application's ``REMOTE_USER``.
    """

    pool: Pool | None = None

    def __init__(
        self,
        url: str,
        wsgi: WsgiApplication | None = None,
        resource: Any = None,
        threads: int = THREADS,
        auth: Callable[[HttpRequest], Any] | None = None,
    ) -> None:
        super().__init__(url, auth)
        self.wsgi = wsgi
        self.resource = resource
        self.threads = threads

    def setup(self) -> None:
        if (self.wsgi is None) == (self.resource is None):
            raise ConfigurationError(f"{self.where}: give Mount either wsgi= or resource=")
        if self.wsgi is not None and not callable(self.wsgi):
            raise ConfigurationError(f"{self.where}: wsgi= is no application: it can't be called")
        if self.resource is not None and not IResource.providedBy(self.resource):
            raise ConfigurationError(f"{self.where}: resource= is no Resource of twisted.web's")
        check_count(f"{self.where}: threads", self.threads, THREADS_MAX, "the most that it may have")
        super().setup()

    def start(self) -> None:
        if self.wsgi is not None:
            self.pool = Pool(self.threads)

    def stop(self) -> Deferred[None]:
        if self.pool is not None:
            self.pool.close()
        return super().stop()

    def serve_below(self, received: Received, request: HttpRequest, path: str) -> None:
        if self.pool is None:
            self.render(received, request)
            return
        environ = {**request.environ, **self.environ_of(request, path)}
        lane = Lane()
        calling = lane.run(self.call, (environ, lane), {})
        self.pool.run(lane.serve)
        calling.addCallback(self.send, received)
        calling.addErrback(self.broken, received)
        self.container.workers.leave(calling)

    # WSGI

    def environ_of(self, request: HttpRequest, path: str) -> dict[str, Any]:
        """The items that differ from the environ that a method of ours would see."""
        own: dict[str, Any] = {
            "SCRIPT_NAME": self.prefix.encode().decode("latin-1"),
            "PATH_INFO": path.encode().decode("latin-1"),
            "wsgi.multithread": True,
        }
        if isinstance(request.user, str):
            own["REMOTE_USER"] = request.user.encode().decode("latin-1")
        if "CONTENT_LENGTH" not in request.environ and request.body is not None:  # it came in chunks: Django asks
            own["CONTENT_LENGTH"] = str(request.body.seek(0, 2))
            request.body.seek(0)
        return own

    def call(self, environ: dict[str, Any], lane: Lane) -> Response:
        """Call the application, and make a response of what it gives. Runs in the thread of the lane."""
        assert self.wsgi is not None
        close: Callable[[], None] | None = None
        started: list[Any] = []
        written: list[bytes] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            if started and exc_info is None:
                raise AssertionError("start_response is called again, without exc_info")
            started[:] = status, headers
            return written.append

        try:
            given = self.wsgi(environ, start_response)
            close = getattr(given, "close", None)
            pieces = iter(given)
            while not started or not any(written):  # it may call start_response with its first piece
                piece = next(pieces, None)
                if piece is None:
                    break
                written.append(piece)
            if not started:
                raise AssertionError("the WSGI application has not called start_response")
            status, headers = started
            response = Response((), status, headers)
            if "content-type" not in [name.lower() for name, _ in headers]:
                response.headers.remove("Content-Type")
            length = response.content_length
            if length is not None and length <= AT_ONCE:
                written.extend(pieces)
                pieces = iter(())
        except BaseException:
            lane.end(close)
            raise
        if length is not None and length <= AT_ONCE:
            lane.end(close)
            response.response = [b"".join(written)]
            return response
        body: Any = Body(chained(written, pieces))
        body.threads = lane
        response.response = body
        response.call_on_close(partial(lane.end, close))
        return response

    # twisted.web

    def render(self, received: Received, request: HttpRequest) -> None:
        """Have the Resource answer, as twisted.web's Site would."""
        received.become_twisted()
        received.content = BytesIO() if request.body is None else request.body
        check_form(received.content, request.mimetype, request.mimetype_params)  # Twisted has no bounds for it
        received.content.seek(0, 2)  # here Twisted looks for its length
        received.process = partial(self.process, received)  # type: ignore[method-assign]
        for name in [each for each, _ in received.requestHeaders.getAllRawHeaders() if b"_" in each]:
            received.requestHeaders.removeHeader(name)  # see HttpRequest.environ
        self.container.workers.leave(received.notifyFinish().addErrback(lambda _: None))
        TwistedRequest.parseCookies(received)
        TwistedRequest.requestReceived(received, received.method, received.uri, received.clientproto)

    def process(self, received: Received) -> None:
        """twisted.web calls this when it has read forms and query."""
        if not received.path.startswith(b"/"):  # the form that proxies are sent
            received.path = b"/" + received.path.partition(b"://")[2].partition(b"/")[2]
        parts = [unquote_to_bytes(each) for each in received.path.split(b"/")[1:]]
        above = self.prefix.count("/")
        received.prepath, received.postpath = parts[:above], parts[above:]
        received.sitepath = list(received.prepath)  # type: ignore[attr-defined]  # Twisted's, who doesn't declare it
        received.setHeader(b"Date", received.site.date)
        try:
            received.render(getChildForRequest(self.resource, received))
        except Exception:
            self.broken(Failure(), received)


class Pool:
    """So many threads of the reactor's, for one application."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.running = 0
        self.closed = False
        self.waiting: deque[Callable[[], None]] = deque()
        grow_pool(most)

    def close(self) -> None:
        """Give the threads back. Functions that run or wait go on."""
        if not self.closed:
            self.closed = True
            grow_pool(-self.most)

    def run(self, function: Callable[[], None]) -> None:
        """Call a function, which raises nothing, in a thread, in its turn."""
        self.waiting.append(function)
        self.begin()

    def begin(self) -> None:
        while self.waiting and self.running < self.most:
            self.running += 1
            reactor = default_reactor()
            deferToThreadPool(reactor, reactor.getThreadPool(), self.waiting.popleft()).addBoth(self.ended)

    def ended(self, _: Any) -> None:
        self.running -= 1
        self.begin()


class Lane(OneThread):
    """The thread of one request: the application is called there, and so is whatever it gave for the answer."""

    ended = False

    def run(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Deferred[Any]:
        if self.ended or get_ident() == self.ident:  # what is called there may close something
            return maybeDeferred(function, *args, **kwargs)
        return super().run(function, args, kwargs)

    def end(self, close: Callable[[], None] | None = None) -> None:
        """Call a last function there, and give the thread back."""
        if close is not None and get_ident() != self.ident:
            self.run(close, (), {}).addErrback(partial(log.failure, "a WSGI application's close() failed"))
            close = None
        self.ended = True
        super().end()
        if close is not None:
            close()


def chained(written: list[bytes], pieces: Iterable[bytes]) -> Iterable[bytes]:
    yield from written
    yield from pieces
