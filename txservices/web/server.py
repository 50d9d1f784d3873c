"""One address of the process, and whose URLs are served there.

    Router      Klein's resource: finds the endpoint for a request and has Klein call it
    Listener    the address, with its Klein app: one in a process, however many services share it
    WebServer   a container's part in it, an extension inside each HTTP entrypoint

The listener opens with the first entrypoint that starts and closes when the last has stopped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from klein import Klein
from klein.resource import KleinResource
from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorTCP
from twisted.logger import Logger
from twisted.web.server import NOT_DONE_YET
from werkzeug.exceptions import BadRequest, HTTPException, MethodNotAllowed, NotFound
from werkzeug.routing import MapAdapter, RequestRedirect, Rule
from werkzeug.wrappers import Response

from txservices import configuration
from txservices.exceptions import ConfigurationError
from txservices.extensions import ProviderCollector, SharedExtension
from txservices.utils import default_reactor
from txservices.utils.address import PORT_MAX, WEB_ADDRESS, host_and_port
from txservices.web.messages import HttpRequest, unavailable
from txservices.web.site import Answer, Received, WebSite

BACKLOG = 1024  # connections that wait to be accepted, where the system allows as many
HOST = re.compile(rb"[A-Za-z0-9.\-_]+(?::(\d{1,5}))?")  # what a client may have us write into a redirect
VARIABLE = re.compile(r"<(?:(?P<converter>[^<>:]*(?:\([^)]*\))?):)?[^<>:]+>")

log = Logger()


def parse_address(text: object) -> tuple[str, int]:
    """``[host:]port`` as host and port; without a host it is this machine's loopback. Or ``ConfigurationError``."""
    key = configuration.WEB_SERVER_ADDRESS
    address = host_and_port(key.of({key.name: text}), WEB_ADDRESS)
    assert address is not None, "the key's check knows no other"
    return address


class Router(KleinResource):
    """Finds the endpoint for a request and has Klein call it.

    Klein's own ``render`` binds its url_map to each request anew, and makes an IKleinRequest and four Deferreds for it:
    as much work as all the rest of a request. This binds the map once, and makes nothing.
    """

    def __init__(self, app: Klein) -> None:
        super().__init__(app)
        self.app = app
        self.adapter: MapAdapter = app.url_map.bind("localhost")

    def render(self, request: Received) -> Any:  # type: ignore[override]  # our site makes no other request
        try:
            method = request.method.decode("ascii").upper()
            path = path_of(request.uri)
            rule, values = self.match(path, method)
            self.app.execute_endpoint(rule.endpoint, request, HttpRequest(request, method, path, dict(values)))
        except HTTPException as error:
            request.answer(self.without_endpoint(request, error))
        return NOT_DONE_YET

    def match(self, path: str, method: str) -> tuple[Rule, Mapping[str, Any]]:
        try:
            return self.adapter.match(path, method, return_rule=True)
        except ValueError:  # from a converter: a number of more digits than Python reads, say
            raise NotFound() from None

    def without_endpoint(self, request: Received, error: HTTPException) -> Response:
        """The page for a URL that nobody serves, in werkzeug's words."""
        if isinstance(error, MethodNotAllowed) and error.valid_methods:
            error.valid_methods = sorted(error.valid_methods)
        if isinstance(error, RequestRedirect):
            try:
                self.redirect(request)
            except HTTPException as again:
                error = again
        return error.get_response()

    def redirect(self, request: Received) -> None:
        """Match once more, this time with the host that the client knows us by, so that the redirect leads there."""
        host = request.getHeader(b"Host") or b""
        known = HOST.fullmatch(host)
        if known is None or int(known[1] or 0) > PORT_MAX:
            here = request.getHost()
            host = b"%b:%d" % (here.host.encode(), here.port)
        query = request.uri.partition(b"?")[2].decode("latin-1")
        adapter = self.app.url_map.bind(host.decode("ascii"), query_args=query)
        adapter.match(path_of(request.uri), request.method.decode("ascii"))


def path_of(uri: bytes) -> str:
    """The path of a request line, decoded; ``BadRequest`` for one that is none, or whose query is none."""
    path, _, query = uri.partition(b"?")
    if not path.startswith(b"/"):
        if not path.lower().startswith((b"http://", b"https://")):  # as sent to a proxy, RFC 9112, 3.2.2
            raise BadRequest("The URL has no path.")
        path = b"/" + path.partition(b"://")[2].partition(b"/")[2]
    if b"%" in path:
        path = unquote_to_bytes(path)
    try:
        query.decode()
        return path.decode()
    except UnicodeDecodeError:
        raise BadRequest("The URL is not UTF-8.") from None


class Listener(Service):
    """An address of the process, and every URL that is served there.

    Attributes:
        host, port: where it listens; the port in use, once it does, where 0 was asked for.
        app: Klein's, which has the routes.
    """

    def __init__(self, host: str, port: int, site: WebSite) -> None:
        self.host = host
        self.port = self.wanted_port = port
        self.site = site
        self.claims: dict[tuple[str, ...], Any] = {}  # method and URL -> whose it is
        self.serving: dict[Any, None] = {}
        self.begin_app()
        self.listening: Any = None

    def begin_app(self) -> None:
        self.app = Klein()
        self.routes: dict[str, Any] = {}  # endpoint -> handler, stopped ones too: they still answer
        self.site.resource = Router(self.app)

    def register(self, handler: Any) -> None:
        """Take a handler's URL. ``ConfigurationError`` if that is another's, or none."""
        try:
            rule = handler.get_url_rule()
            claims = claims_of(rule)
            taken = [self.claims[claim] for claim in claims if claim in self.claims]
            for other in taken:
                if other in self.serving:
                    raise ConfigurationError(
                        f"{other.where} and {handler.where} both serve {handler.method} {rule.rule}: change one's URL"
                    )
            if taken:  # by handlers that have stopped: this is the same service anew, or one in its place
                self.forget(taken)
            self.route(handler, rule)
        except ConfigurationError:
            raise
        except Exception as error:  # werkzeug raises ValueError, LookupError, SyntaxError
            raise ConfigurationError(f"{handler.where}: {handler.method} {handler.url!r}: {error}") from error
        self.claims.update(dict.fromkeys(claims, handler))
        self.serving[handler] = None

    def route(self, handler: Any, rule: Rule) -> None:
        endpoint = f"{handler.where} {len(self.routes)}"  # Klein would name it after the function: two were one
        options = {**rule.get_empty_kwargs(), "endpoint": endpoint}
        self.app.route(rule.rule, **options)(handler.serve)
        self.routes[endpoint] = handler

    def forget(self, stopped: Iterable[Any]) -> None:
        """Take routes away, which a werkzeug Map can't: by an app anew, with the others."""
        left = [handler for handler in self.routes.values() if handler not in stopped]
        self.claims = {claim: handler for claim, handler in self.claims.items() if handler not in stopped}
        self.begin_app()
        for handler in left:
            self.route(handler, handler.get_url_rule())

    def unregister(self, handler: Any) -> Deferred[None]:
        """A handler has stopped. Fires when the listener has closed, if it was the last."""
        was_there = handler in self.serving
        self.serving.pop(handler, None)
        return self.close() if was_there and not self.serving else succeed(None)

    def listen(self) -> None:
        """Open the address, unless it is. ``ConfigurationError`` if that can't be."""
        if self.listening is not None or not self.serving:
            return
        try:
            clock = self.site.reactor
            reactor: Any = clock if IReactorTCP.providedBy(clock) else default_reactor()
            self.listening = reactor.listenTCP(self.wanted_port, self.site, BACKLOG, self.host)
        except CannotListenError as error:
            raise ConfigurationError(
                f"can't listen at {self.host}:{self.wanted_port}: {error.socketError}: end the program that does, or"
                f" set {configuration.WEB_SERVER_ADDRESS.name} to another host:port (port 0 is any free one)"
            ) from error
        self.site.closing = False
        self.port = self.listening.getHost().port
        log.info("listening at http://{host}:{port}/", host=self.host, port=self.port)

    def close(self) -> Deferred[None]:
        """Take no new connection. Those that are there go on, for one response each."""
        listening, self.listening = self.listening, None
        self.site.closing = True
        return maybeDeferred(lambda: None if listening is None else listening.stopListening())

    async def end(self) -> None:
        await self.close()
        await self.site.close_channels()

    def stopService(self) -> Deferred[None]:
        """Close, and end every connection. Fires when they have ended."""
        super().stopService()
        return Deferred.fromCoroutine(self.end())


def claims_of(rule: Rule) -> list[tuple[str, ...]]:
    """What a rule takes for itself, by method: two URLs that differ only in their variables' names are one."""
    url = VARIABLE.sub(lambda found: f"<{found['converter'] or 'string'}>", rule.rule)
    place = (url, rule.host or "", rule.subdomain or "")
    methods = rule.methods or ("any method",)
    return [(method, *place) for method in methods if not (method == "HEAD" and "GET" in methods)]


class WebServer(ProviderCollector, SharedExtension):
    """A container's part in the listener: inside each HTTP entrypoint, once.

    A subclass that overrides ``context_data_from_headers`` is used by a subclass of the entrypoint that has it in
    place of this: ``server = Subclass()``.

    Attributes:
        pending: the answers that workers are still to give.
    """

    listener: Listener | None = None

    def __init__(self) -> None:
        super().__init__()
        self.pending: dict[Deferred[Answer], None] = {}

    def find_listener(self) -> Listener:
        """Who listens at the configured address, for all services of the process."""
        config, container = self.container.config, self.container
        host, port = parse_address(configuration.WEB_SERVER_ADDRESS.of(config))
        body_max = configuration.WEB_BODY_MAX.of(config)
        listener: Listener = container.shared.get(
            f"web:{host}:{port}", lambda: Listener(host, port, WebSite(body_max, container.clock))
        )
        return listener

    @property
    def port(self) -> int:
        """The port that it listens at."""
        assert self.listener is not None, "it is known when the service has started"
        return self.listener.port

    def use_listener(self) -> Listener:
        """The listener, which opens when the container has started."""
        if self.listener is None:
            self.listener = self.find_listener()
        return self.listener

    def register_provider(self, provider: Any) -> None:
        super().register_provider(provider)
        self.use_listener().register(provider)

    def unregister_provider(self, provider: Any) -> Deferred[None]:
        """Fires when the listener has closed, if that was the process's last entrypoint."""
        super().unregister_provider(provider)
        return succeed(None) if self.listener is None else self.listener.unregister(provider)

    def start(self) -> None:
        if self.listener is not None:
            self.listener.listen()

    def stop(self) -> Deferred[None]:
        """Workers have ended, or were given up: then nobody else will answer those requests."""
        return super().stop().addCallback(lambda _: self.give_up())

    def kill(self) -> None:
        self.give_up()

    def give_up(self) -> None:
        for answer in list(self.pending):
            answer.callback(unavailable())

    def context_data_from_headers(self, request: HttpRequest) -> dict[str, Any]:
        """What the worker's context begins with. To be overridden: a header here is what any client may claim."""
        return {}
