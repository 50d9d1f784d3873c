"""How the services of a process serve HTTP at one address.

    Router      finds the handler for a request, and lets Klein call it: see ``router``
    Listener    the address, with its Klein app; all services of the process share one: see ``listener``
    WebServer   the extension by which the HTTP entrypoints of one container use the listener

It also begins the context of a worker, with what a request's headers say of its caller.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.web.http_headers import Headers
from werkzeug.exceptions import HTTPException as HTTPException  # here is where nameko has it

from txservices import configuration, kinds
from txservices.constants import CALL_ID_STACK_CONTEXT_KEY
from txservices.exceptions import ConfigurationError
from txservices.extensions import ProviderCollector, SharedExtension
from txservices.httpcontext import CALL_ID_STACK_HEADER, ids_in, trace_in
from txservices.utils.address import WEB_ADDRESS, host_and_port
from txservices.web.addresses import places_of
from txservices.web.finishing import cors_of
from txservices.web.listener import Listener, facing, name_of_listener, site_of
from txservices.web.messages import HttpRequest
from txservices.web.pool import Queue
from txservices.web.problems import unavailable
from txservices.web.received import Answer
from txservices.web.router import converters_of

__all__ = ["WebServer", "parse_address"]

CALL_IDS = CALL_ID_STACK_HEADER.encode()
CONTEXT = {CALL_IDS.lower(), b"traceparent"}  # headers with a caller's context


def parse_address(text: object) -> tuple[str, int]:
    """Host and port of ``[host:]port``; without a host it is 127.0.0.1. ``ConfigurationError`` for anything else."""
    key = configuration.WEB_SERVER_ADDRESS
    kind = kinds.WEB_PLACE
    address = host_and_port(text, WEB_ADDRESS) if isinstance(text, (str, int)) and kind.check(text) else None
    if address is None:
        raise ConfigurationError(f"{key.name}: {kinds.shown(text)} is no {kind.noun}: write {kind.write}")
    return address


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
