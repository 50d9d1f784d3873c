"""The page's server: its files, the state of the fleet, and what may be done from it.

    GET  /                        the page, and its files
    GET  /state.json?after=N      the next state after number N, as soon as there is one (204 after ``WAIT``)
    GET  /failure.json?id=ID      all that is known of a failure, with the tree of its calls
    POST /call                    a method is called
    POST /parked, /replay, /discard    parked messages are looked at, handled again, deleted

``Access`` says who may do that. The site, and with it every limit of a request, is that of services' own URLs.
"""

from __future__ import annotations

import json
import secrets as random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from importlib.resources import files
from typing import Any

from attrs import frozen
from klein import Klein
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.python.failure import Failure
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from txservices.page.access import Access, Use
from txservices.page.watch import Watch
from txservices.utils import secrets
from txservices.web.listener import site_of
from txservices.web.messages import HttpRequest
from txservices.web.received import Received
from txservices.web.router import Router

PORT = 8008  # if no other is given
TOKEN_BYTES = 24  # of randomness

# Nothing is loaded from elsewhere, nothing in the page's text is run, and no other page shows it in a frame.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}

log = Logger()


class Refused(Exception):
    """A request can't be done: the status of HTTP, and a text for a person."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


Act = Callable[[HttpRequest], Awaitable[Response]]


@frozen(eq=False)
class Route:
    """One URL of the page's."""

    access: Access
    use: Use
    act: Act

    def serve(self, received: Received, request: HttpRequest) -> None:
        """Answer a request. Klein calls this as its endpoint."""
        refusal = self.access.refusal(self.use, request.headers, request.remote_addr or "")
        if refusal is not None:
            received.answer(error_of(*refusal))
            return
        answered = Deferred.fromCoroutine(self.answer(request))
        answered.addErrback(failed).addCallback(received.answer)

    async def answer(self, request: HttpRequest) -> Response:
        return await self.act(request)


class Page:
    """The page at an address, from ``listen`` to ``stop``.

    Args:
        config: that of the process, for the limits of a site.
        ask: gives the state of the fleet.
        look_up: gives what is known of the failure of a call id, or None.
        doings: what may be done, by the URL for it. Each takes the request's JSON object and gives a value for JSON.

    Attributes:
        address: where to open it, with the token. Known once it listens.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        ask: Callable[[], Awaitable[Mapping[str, Any]]],
        look_up: Callable[[str], Mapping[str, Any] | None],
        doings: Mapping[str, Callable[[dict[str, Any]], Awaitable[Any]]],
        clock: Any,
    ) -> None:
        self.clock = clock
        self.token = random.token_urlsafe(TOKEN_BYTES)
        secrets.learn(self.token, secret=True)  # so that no line of the log has it
        self.watch = Watch(ask, clock)
        self.look_up = look_up
        self.doings = doings
        self.site = site_of(config, clock)
        self.address = ""
        self.listening: Any = None

    def listen(self, host: str, port: int | None) -> None:
        """Open the page's port. Without one it is ``PORT``, or any free one if that is taken.

        ``CannotListenError`` if it can't be opened.
        """
        self.site.resource = Router(self.routed(Access(host, self.token)), {})
        try:
            self.listening = self.clock.listenTCP(PORT if port is None else port, self.site, interface=host)
        except CannotListenError:
            if port is not None:
                raise
            self.listening = self.clock.listenTCP(0, self.site, interface=host)
        shown = f"[{host}]" if ":" in host else host
        self.address = f"http://{shown}:{self.listening.getHost().port}/#token={self.token}"

    def routed(self, access: Access) -> Klein:
        app = Klein()
        routes: list[tuple[str, str, Use, Act]] = [
            ("GET", "/state.json", Use.READING, self.state),
            ("GET", "/failure.json", Use.READING, self.failure),
            *(("GET", url, Use.FILES, given(file)) for url, file in read_files()),
            *(("POST", url, Use.CHANGING, done_by(doing)) for url, doing in self.doings.items()),
        ]
        for method, url, use, act in routes:
            app.route(url, methods=[method], endpoint=url)(Route(access, use, act).serve)
        return app

    async def state(self, request: HttpRequest) -> Response:
        after = request.args.get("after", 0, type=int)
        text = await self.watch.next(after)
        return answer_of(text) if text else Response(status=204, headers=HEADERS)

    async def failure(self, request: HttpRequest) -> Response:
        found = self.look_up(request.args.get("id", ""))
        if found is None:
            raise Refused(404, "this failure is not known any more: each process keeps its last ones")
        return answer_of(found)

    async def stop(self) -> None:
        """Close the port and all connections."""
        self.watch.cancel()
        listening, self.listening = self.listening, None
        self.site.closing = True
        if listening is not None:
            await maybeDeferred(listening.stopListening)
        await self.site.close_channels()


def read_files() -> Iterator[tuple[str, Response]]:
    """The page's own files: their URLs, and the answers."""
    for file in files("txservices.page").joinpath("assets").iterdir():
        kind = TYPES.get(file.name.rpartition(".")[2])
        if kind is not None:
            url = "/" if file.name == "index.html" else f"/{file.name}"
            yield url, Response(file.read_bytes(), content_type=f"{kind}; charset=utf-8", headers=HEADERS)


def given(response: Response) -> Act:
    async def act(_: HttpRequest) -> Response:
        return response

    return act


def done_by(doing: Callable[[dict[str, Any]], Awaitable[Any]]) -> Act:
    async def act(request: HttpRequest) -> Response:
        if request.mimetype != "application/json":
            raise Refused(415, "send JSON, as application/json")
        asked = request.get_json()
        if not isinstance(asked, dict):
            raise Refused(400, "send an object")
        return answer_of(await doing(asked))

    return act


def failed(failure: Failure) -> Response:
    """The answer to a request that could not be done."""
    error = failure.value
    if isinstance(error, Refused):
        return error_of(error.status, str(error))
    if isinstance(error, HTTPException):
        return error_of(error.code or 400, error.description or "")
    log.failure("the page could not answer", failure)
    return error_of(500, "the page has failed; the log says how")


def error_of(status: int, text: str) -> Response:
    response = answer_of({"error": text})
    response.status_code = status
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def answer_of(value: Any) -> Response:
    """A value as JSON. Bytes are it already."""
    text = value if isinstance(value, bytes) else json.dumps(value, default=str)
    return Response(text, content_type="application/json", headers=HEADERS)
