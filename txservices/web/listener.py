"""The address at which a process serves HTTP, and the URLs that its services have there.

The listener opens when the first entrypoint starts, and closes when the last one has stopped. A URL belongs to one
handler: a second one that claims it is a mistake, unless the first has stopped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from klein import Klein
from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred, succeed
from twisted.logger import Logger
from werkzeug.routing import BaseConverter, Rule

from txservices import configuration
from txservices.exceptions import ConfigurationError
from txservices.monitoring.health import PAGES
from txservices.utils.forks import leave, owners
from txservices.web.accesslog import COMBINED, JSON, AccessLog
from txservices.web.addresses import Place, places_of
from txservices.web.forwarded import X_FORWARDED, Forwarded, Trusted
from txservices.web.health import HealthPage
from txservices.web.origins import is_loopback
from txservices.web.router import Below, Router
from txservices.web.site import WebSite

VARIABLE = re.compile(r"<(?:(?P<converter>[^<>:]*(?:\([^)]*\))?):)?[^<>:]+>")

log = Logger()


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
