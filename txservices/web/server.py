"""The address at which a process serves HTTP, and the URLs that its services have there.

    Router      Klein's resource: finds the endpoint for a request and lets Klein call it
    Listener    the address, with its Klein app; all services of the process share one
    WebServer   the extension by which the HTTP entrypoints of one container use the listener

The listener opens when the first entrypoint starts, and closes when the last one has stopped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote_to_bytes

from attrs import frozen
from klein import Klein
from klein.resource import KleinResource
from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred, succeed
from twisted.logger import Logger
from twisted.web.http_headers import Headers
from twisted.web.server import NOT_DONE_YET
from werkzeug.exceptions import BadRequest, HTTPException, InternalServerError, MethodNotAllowed, NotFound
from werkzeug.routing import BaseConverter, Map, MapAdapter, RequestRedirect, Rule
from werkzeug.routing.converters import DEFAULT_CONVERTERS
from werkzeug.wrappers import Response

from txservices import configuration, kinds
from txservices.constants import CALL_ID_STACK_CONTEXT_KEY
from txservices.exceptions import ConfigurationError
from txservices.extensions import ProviderCollector, SharedExtension
from txservices.httpcontext import CALL_ID_STACK_HEADER, ids_in, trace_in
from txservices.monitoring.health import PAGES
from txservices.utils import import_from_path
from txservices.utils.address import PORT_MAX, WEB_ADDRESS, host_and_port
from txservices.utils.forks import leave, owners
from txservices.web.accesslog import COMBINED, JSON, AccessLog
from txservices.web.addresses import Place, places_of
from txservices.web.finishing import cors_of
from txservices.web.forwarded import X_FORWARDED, Forwarded, Trusted
from txservices.web.health import HealthPage
from txservices.web.messages import HttpRequest
from txservices.web.origins import is_loopback
from txservices.web.ours import ours
from txservices.web.pool import Queue
from txservices.web.problems import http_response, unavailable
from txservices.web.returns import empty_response
from txservices.web.site import Answer, Received, WebSite

__all__ = ["WebServer", "parse_address"]

HOST = re.compile(rb"[A-Za-z0-9.\-_]+(?::(\d{1,5}))?")  # a Host header that may be repeated in a redirect
CALL_IDS = CALL_ID_STACK_HEADER.encode()
CONTEXT = {CALL_IDS.lower(), b"traceparent"}  # headers with a caller's context
MATCHES_MAX = 1_024  # URLs whose rules are known
URI_MAX = 256  # bytes of one
# werkzeug's converters make the same of a text each time, and nothing that a method could change
LASTING = set(DEFAULT_CONVERTERS.values())
VARIABLE = re.compile(r"<(?:(?P<converter>[^<>:]*(?:\([^)]*\))?):)?[^<>:]+>")

log = Logger()


def parse_address(text: object) -> tuple[str, int]:
    """Host and port of ``[host:]port``; without a host it is 127.0.0.1. ``ConfigurationError`` for anything else."""
    key = configuration.WEB_SERVER_ADDRESS
    kind = kinds.WEB_PLACE
    address = host_and_port(text, WEB_ADDRESS) if isinstance(text, (str, int)) and kind.check(text) else None
    if address is None:
        raise ConfigurationError(f"{key.name}: {kinds.shown(text)} is no {kind.noun}: write {kind.write}")
    return address


@frozen
class Match:
    """Which rule a URL matches, and with which values."""

    route: str
    endpoint: str
    method: str
    path: str
    values: dict[str, Any]


class Router(KleinResource):
    """Finds the endpoint for a request and lets Klein call it."""

    # Klein's own render binds its url_map again for each request, and makes an IKleinRequest and four Deferreds.
    # That is as much work as all the rest of a request. This render binds the map once and makes nothing.

    def __init__(self, app: Klein, routes: Mapping[str, Any]) -> None:
        super().__init__(app)
        self.app = app
        self.routes = routes
        self.adapter: MapAdapter = app.url_map.bind("localhost")
        self.matches: dict[tuple[bytes, bytes], Match] = {}

    def render(self, request: Received) -> Any:  # type: ignore[override]  # our site makes no other request
        try:
            match = self.find(request)
            request.route = match.route
            asked = HttpRequest(request, match.method, match.path, match.values.copy())
            self.app.execute_endpoint(match.endpoint, request, asked)
        except HTTPException as error:
            request.answer(self.without_endpoint(request, error))
        return NOT_DONE_YET

    def is_streamed(self, request: Received) -> bool:
        """Whether the method for a request reads the body as it comes."""
        try:
            return getattr(self.routes[self.find(request).endpoint], "stream", False)
        except HTTPException:
            return False

    def find(self, request: Received) -> Match:
        """The rule for a request. It is kept for the next request of the same URL."""
        known = self.matches.get((request.method, request.uri))
        if known is not None:
            return known
        method = request.method.decode("ascii").upper()
        path = path_of(request.uri)
        rule, values = self.match(path, method)
        match = Match(rule.rule, rule.endpoint, method, path, dict(values))
        if len(request.uri) <= URI_MAX and LASTING.issuperset(map(type, rule._converters.values())):
            if len(self.matches) >= MATCHES_MAX:
                self.matches.clear()
            self.matches[request.method, request.uri] = match
        return match

    def body_max_of(self, request: Received, otherwise: int) -> int:
        """How many bytes the body of a request may have, by its URL."""
        try:
            own = getattr(self.routes[self.find(request).endpoint], "body_max", None)
        except HTTPException:  # which is answered later
            own = None
        return otherwise if own is None else own

    def match(self, path: str, method: str) -> tuple[Rule, Mapping[str, Any]]:
        try:
            return self.adapter.match(path, method, return_rule=True)
        except ValueError:  # from a converter, for example for a number with more digits than Python reads
            raise NotFound() from None
        except HTTPException:
            raise
        except Exception:  # from a converter of the user's
            log.failure("a converter has failed for {path!r}", path=path)
            raise ours(InternalServerError("internal error, the log has it")) from None

    def without_endpoint(self, request: Received, error: HTTPException) -> Response:
        """werkzeug's response for a URL that nobody serves: not found, another method, or a redirect."""
        if request.uri == b"*" and request.method == b"OPTIONS":  # of the server in general, RFC 9110, 9.3.7
            return empty_response(204, {})
        if isinstance(error, MethodNotAllowed) and error.valid_methods:
            error.valid_methods = sorted(error.valid_methods)
            if request.method == b"OPTIONS":
                return self.options(request, error.valid_methods)
        if isinstance(error, RequestRedirect):
            try:
                self.redirect(request)
            except HTTPException as again:
                error = again
        response = http_response(error, request.site.as_problem)
        if request.site.cors is not None:
            request.site.cors.allow(response.headers, request.getHeader("Origin"))
        return response

    def options(self, request: Received, methods: Collection[str]) -> Response:
        """The answer to OPTIONS: the methods of a URL, and what pages of other origins may do there."""
        asked = request.getHeader("Access-Control-Request-Method")
        if asked is not None and asked in methods:
            rule, _ = self.match(path_of(request.uri), asked)
            finishing = getattr(self.routes[rule.endpoint], "finishing", None)
            if finishing is not None and finishing.cors is not None:
                preflight: Response = finishing.cors.preflight(request.getHeader("Origin"), methods)
                return preflight
        return empty_response(204, {"Allow": ", ".join(sorted({*methods, "OPTIONS"}))})

    def redirect(self, request: Received) -> None:
        """Match again, with the host name that the client used, and raise the redirect to that host."""
        host = request.getHeader(b"Host") or b""
        known = HOST.fullmatch(host)
        if known is None or int(known[1] or 0) > PORT_MAX:
            here = request.getHost()
            host = b"%b:%d" % (getattr(here, "host", "localhost").encode(), getattr(here, "port", 80))
        query = request.uri.partition(b"?")[2].decode("latin-1")
        adapter = self.app.url_map.bind(host.decode("ascii"), query_args=query, url_scheme=request.scheme)
        adapter.match(path_of(request.uri), request.method.decode("ascii"))


class Below(BaseConverter):
    """What is below a prefix of the URLs: nothing, or a slash and any path; with ``root`` a path without its slash."""

    part_isolating = False

    def __init__(self, map: Map, root: bool = False) -> None:
        super().__init__(map)
        self.regex = ".*" if root else "(?:/.*)?"


def path_of(uri: bytes) -> str:
    """The decoded path of a request's URL. ``BadRequest`` if there is no path, or if path or query is not UTF-8."""
    path, _, query = uri.partition(b"?")
    if not path.startswith(b"/"):
        if not path.lower().startswith((b"http://", b"https://")):  # the form that proxies are sent, RFC 9112, 3.2.2
            raise ours(BadRequest("The URL has no path."))
        path = b"/" + path.partition(b"://")[2].partition(b"/")[2]
    if b"%" in path:
        path = unquote_to_bytes(path)
    try:
        query.decode()
        return path.decode()
    except UnicodeDecodeError:
        raise ours(BadRequest("The URL is not UTF-8.")) from None


class Listener(Service):
    """An address of the process, or several, and all URLs that are served there.

    Args:
        key: the row of the configuration that its address comes from.
        places: where it listens, if that is more than host and port.
        converters: for variables of URLs, besides werkzeug's, by their names.

    Attributes:
        host, port: where it listens. If port 0 is configured, ``port`` is the real one once it listens.
        app: the Klein app with the routes.
    """

    def __init__(
        self,
        host: str,
        port: int,
        site: WebSite,
        key: configuration.Key[Any] = configuration.WEB_SERVER_ADDRESS,
        places: Sequence[Place] = (),
        converters: Mapping[str, type[BaseConverter]] | None = None,
    ) -> None:
        self.converters = dict(converters or {})
        self.host = host
        self.places = places or [Place(f"{host}:{port}", host, port)]
        self.key = key
        self.port = self.wanted_port = port
        self.site = site
        self.claims: dict[tuple[str, ...], Any] = {}  # method and URL -> the handler that has it
        self.serving: dict[Any, None] = {}
        self.begin_app()
        self.listening: Any = None  # the port of the first place
        self.others: list[Any] = []  # those of the others
        owners.add(self)

    def disown(self) -> None:
        """Called in a forked child: the port is its parent's."""
        self.listening = leave(self.listening)
        self.others = [leave(each) for each in self.others]

    def begin_app(self) -> None:
        self.app = Klein()
        self.app.url_map.converters.update(self.converters, below=Below)
        self.routes: dict[str, Any] = {}  # endpoint -> handler; also stopped ones, which answer 503
        self.site.resource = self.router = Router(self.app, self.routes)

    def register(self, handler: Any) -> None:
        """Serve a handler's URL. ``ConfigurationError`` if another handler serves it already, or if it is not a URL."""
        try:
            rule = handler.get_url_rule()
            claims = claims_of(rule)
            taken = [self.claims[claim] for claim in claims if claim in self.claims]
            for other in taken:
                if other in self.serving:
                    raise ConfigurationError(
                        f"{other.where} and {handler.where} both serve {handler.method} {rule.rule}: change one's URL"
                    )
            if taken:  # by handlers that have stopped: the same service has started again, or one in its place
                self.forget(taken)
            self.route(handler, rule)
        except ConfigurationError:
            raise
        except Exception as error:  # werkzeug raises ValueError, LookupError, SyntaxError
            raise ConfigurationError(f"{handler.where}: {handler.method} {handler.url!r}: {error}") from error
        self.claims.update(dict.fromkeys(claims, handler))
        self.serving[handler] = None

    def serve_health(self, not_ready: Callable[[], list[str]]) -> None:
        """Serve the pages of health. Then the port stays open when all handlers have stopped, up to ``stopService``."""
        if not any(isinstance(each, HealthPage) for each in self.serving):
            for url in PAGES:
                self.register(HealthPage(url, not_ready))

    def route(self, handler: Any, rule: Rule) -> None:
        # Klein would name an endpoint after its function, and all these functions are called `serve`
        endpoint = f"{handler.where} {len(self.routes)}"
        options = {**rule.get_empty_kwargs(), "endpoint": endpoint}
        self.app.route(rule.rule, **options)(handler.serve)
        self.site.streaming = self.site.streaming or getattr(handler, "stream", False)
        self.site.limited = self.site.limited or getattr(handler, "body_max", None) is not None
        self.router.matches.clear()  # the new rule may match them better
        self.routes[endpoint] = handler

    def forget(self, stopped: Iterable[Any]) -> None:
        """Remove the routes of these handlers."""
        # A werkzeug Map can't remove a rule, so a new app is made with the other routes.
        left = [handler for handler in self.routes.values() if handler not in stopped]
        self.claims = {claim: handler for claim, handler in self.claims.items() if handler not in stopped}
        self.begin_app()
        for handler in left:
            self.route(handler, handler.get_url_rule())

    def unregister(self, handler: Any) -> Deferred[None]:
        """Note that a handler has stopped. After the last one the port is closed; fires when that is done."""
        was_there = handler in self.serving
        self.serving.pop(handler, None)
        return self.cancel() if was_there and not self.serving else succeed(None)

    def listen(self) -> None:
        """Open the address, unless it is open. ``ConfigurationError`` if it can't be opened."""
        if self.listening is not None or not self.serving:
            return
        ports: list[Any] = []
        try:
            for place in self.places:
                ports.append(place.listen(self.site, self.site.reactor, self.key.name))
        except BaseException:
            for each in ports:
                each.stopListening()
            raise
        self.listening, *self.others = ports
        self.site.closing = False
        self.port = getattr(self.listening.getHost(), "port", self.wanted_port)
        for place, port in zip(self.places, ports, strict=True):
            log.info("listening at {url}", url=place.shown(port))

    def not_ready(self) -> list[str]:
        """A line if clients can't come in now."""
        closed = self.listening is None and self.serving
        return [f"nothing listens at {', '.join(each.shown() for each in self.places)} yet"] if closed else []

    def cancel(self) -> Deferred[None]:
        """Take no new connections, and close those that are kept open between requests. Others may have one more
        response each. Fires when the port is closed.
        """
        ports, self.listening, self.others = [self.listening, *self.others], None, []
        self.site.cancel()
        stops = [maybeDeferred(each.stopListening) for each in ports if each is not None]
        stopped: Deferred[None] = gatherResults(stops, consumeErrors=True).addCallback(lambda _: None)
        return stopped

    async def close(self) -> None:
        await self.cancel()
        await self.site.close_channels()

    def stopService(self) -> Deferred[None]:
        """Close the port and all connections. Fires when they are closed."""
        super().stopService()
        return Deferred.fromCoroutine(self.close())


def facing(places: Sequence[Place]) -> tuple[str, int]:
    """Host and port of the place that most clients may come to: one beyond the loopback, if there is any."""
    known = [place for place in places if place.host is not None and place.port is not None]
    open_to_others = next((place for place in places if not is_loopback(place.host or "")), places[0])
    port = known[0].port if known and open_to_others.port is None else open_to_others.port
    return open_to_others.host or "0.0.0.0", port or 0


def name_of_listener(places: Sequence[Place]) -> str:
    """The key of a listener among what a process shares."""
    return f"web:{','.join(place.text for place in places)}"


def claims_of(rule: Rule) -> list[tuple[str, ...]]:
    """The methods and URL of a rule. Two URLs that differ only in the names of their variables are the same URL."""
    url = VARIABLE.sub(lambda found: f"<{found['converter'] or 'string'}>", rule.rule)
    place = (url, rule.host or "", rule.subdomain or "")
    methods = rule.methods or ("any method",)
    return [(method, *place) for method in methods if not (method == "HEAD" and "GET" in methods)]


def site_of(config: Mapping[str, Any], clock: Any) -> WebSite:
    """A site with the limits of a configuration."""
    site = WebSite(
        configuration.WEB_BODY_MAX.of(config),
        configuration.WEB_BODY_RATE.of(config),
        configuration.WEB_CONNECTIONS_MAX.of(config),
        configuration.VALUES_MAX.of(config),
        clock,
    )
    site.per_address = configuration.WEB_CONNECTIONS_PER_ADDRESS.of(config)
    site.as_problem = configuration.WEB_PROBLEM_DETAILS.of(config)
    access = configuration.WEB_ACCESS_LOG.of(config)
    site.access = AccessLog(access) if access in (COMBINED, JSON) else None
    trusted = Trusted(configuration.WEB_TRUSTED_PROXIES.of(config))
    if trusted or any(place.tls for place in places_of(configuration.WEB_SERVER_ADDRESS.of(config))):
        site.forwarded = Forwarded(trusted, configuration.WEB_FORWARDED_HEADER.of(config) == X_FORWARDED)
    return site


def converters_of(config: Mapping[str, Any]) -> dict[str, type[BaseConverter]]:
    """The converters that a configuration names. ``ConfigurationError`` for one that isn't there."""
    key = configuration.WEB_CONVERTERS
    found = {}
    for name, path in key.of(config).items():
        try:
            converter = import_from_path(path)
        except ImportError as error:
            raise ConfigurationError(f"{key.name}: {name}: {error}: write the dotted path of a class") from error
        if not (isinstance(converter, type) and issubclass(converter, BaseConverter)):
            raise ConfigurationError(f"{key.name}: {name}: {path} is no subclass of werkzeug's BaseConverter")
        found[name] = converter
    return found


class WebServer(ProviderCollector, SharedExtension):
    """The extension by which the HTTP entrypoints of a container use the process's listener.

    To override ``context_data_from_headers``, make a subclass, and a subclass of the entrypoint with
    ``server = Subclass()``.

    Attributes:
        pending: the answers that running workers have not given yet.
        queue: the requests among them whose workers have not begun.
    """

    listener: Listener | None = None

    def __init__(self) -> None:
        super().__init__()
        self.pending: dict[Deferred[Answer], None] = {}

    def setup(self) -> None:
        container = self.container
        max_workers = configuration.WEB_MAX_WORKERS.of(container.config)
        self.queue = Queue(container.clock, container.service_name, max_workers)

    def find_listener(self) -> Listener:
        """The listener at the configured address. All services of the process share it."""
        config, container = self.container.config, self.container
        places = places_of(configuration.WEB_SERVER_ADDRESS.of(config))

        def make() -> Listener:
            site = site_of(config, container.clock)
            site.cors = cors_of(None, config)
            return Listener(*facing(places), site, places=places, converters=converters_of(config))

        listener: Listener = container.shared.get(name_of_listener(places), make)
        return listener

    @property
    def port(self) -> int:
        """The port that is listened on. It is known once the service has started."""
        assert self.listener is not None, "the port is known when the service has started"
        return self.listener.port

    def use_listener(self) -> Listener:
        """The listener. It opens when the container starts."""
        if self.listener is None:
            self.listener = self.find_listener()
        return self.listener

    def register_provider(self, provider: Any) -> None:
        super().register_provider(provider)
        self.use_listener().register(provider)

    def unregister_provider(self, provider: Any) -> Deferred[None]:
        """Note that an entrypoint has stopped. After the process's last one, fires when the port is closed."""
        super().unregister_provider(provider)
        return succeed(None) if self.listener is None else self.listener.unregister(provider)

    def start(self) -> None:
        if self.listener is not None:
            if configuration.WEB_HEALTH.of(self.container.config):
                self.listener.serve_health(self.container.shared.not_ready)
            self.listener.listen()

    def stop(self) -> Deferred[None]:
        """Called when the container's workers have ended or were given up. Answers 503 to what still waits."""
        return super().stop().addCallback(lambda _: self.abort())

    def kill(self) -> None:
        self.abort()

    def abort(self) -> None:
        as_problem = configuration.WEB_PROBLEM_DETAILS.of(self.container.config)
        for answer in list(self.pending):
            answer.callback(unavailable(as_problem))

    def context_data_from_headers(self, request: HttpRequest) -> dict[str, Any]:
        """The context data with which the worker begins. A subclass may override this: by default it is empty.

        The ids of the calls that led to the request, and its trace, are added to it, unless it has its own.
        """
        # empty, because any client may claim anything in a header
        return {}

    def context_data_for(self, request: HttpRequest) -> dict[str, Any]:
        """The context data with which the worker begins, with the caller's ids and trace: see ``httpcontext``."""
        data = self.context_data_from_headers(request)
        received = request.received
        if CONTEXT.isdisjoint([name.lower() for name, _ in received.head.headers]) or not isinstance(data, dict):
            return data
        return {**caller_in(received.requestHeaders, self.container.parent_calls_tracked), **data}


def caller_in(headers: Headers, ids_max: int) -> dict[str, Any]:
    """What a request's headers say of the calls that led to it, as context data."""
    found: dict[str, Any] = {}
    texts = [text.decode("latin-1") for text in headers.getRawHeaders(CALL_IDS, ())]
    if len(texts) == 1:  # two are as bad as a wrong one
        ids = ids_in(texts[0], ids_max)
        if ids:
            found[CALL_ID_STACK_CONTEXT_KEY] = ids
    parents = [text.decode("latin-1") for text in headers.getRawHeaders(b"traceparent", ())]
    if len(parents) == 1:
        state = b",".join(headers.getRawHeaders(b"tracestate", ())).decode("latin-1")
        found.update(trace_in(parents[0], state))
    return found
