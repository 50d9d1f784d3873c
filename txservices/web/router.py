"""From the URL of a request to its handler, by werkzeug's rules; and the answer if no handler serves that URL.

    Received -> Router.render -> find -> Klein's execute_endpoint -> the handler
                              -> without_endpoint: 404, 405, a redirect, or the answer to OPTIONS

The rule for a URL is kept, so that it is looked up once.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from attrs import frozen
from klein import Klein
from klein.resource import KleinResource
from twisted.logger import Logger
from twisted.web.server import NOT_DONE_YET
from werkzeug.exceptions import BadRequest, HTTPException, InternalServerError, MethodNotAllowed, NotFound
from werkzeug.routing import BaseConverter, Map, MapAdapter, RequestRedirect, Rule
from werkzeug.routing.converters import DEFAULT_CONVERTERS
from werkzeug.wrappers import Response

from txservices import configuration
from txservices.exceptions import ConfigurationError
from txservices.utils import import_from_path
from txservices.utils.address import PORT_MAX
from txservices.web.messages import HttpRequest
from txservices.web.ours import ours
from txservices.web.problems import http_response
from txservices.web.received import Received
from txservices.web.returns import empty_response

HOST = re.compile(rb"[A-Za-z0-9.\-_]+(?::(\d{1,5}))?")  # a Host header that may be repeated in a redirect
MATCHES_MAX = 1_024  # URLs whose rules are known
URI_MAX = 256  # bytes of one
# werkzeug's converters make the same of a text each time, and nothing that a method could change
LASTING = set(DEFAULT_CONVERTERS.values())

log = Logger()


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
