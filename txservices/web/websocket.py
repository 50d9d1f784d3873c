"""WebSockets: methods that browsers call, and a hub that sends events to browsers. At ``/ws``, on the port of HTTP.

    class Chat:
        name = "chat"
        hub = WebSocketHubProvider()

        @rpc
        def say(self, socket_id, text):
            self.hub.broadcast("room", "said", {"text": text})

A client sends a request as JSON, ``{"method": "say", "data": {"text": "hi"}, "correlation_id": 1}``. It is sent a
``result`` with that id, and events. Its requests are handled one after the other, in their order.

    Socket -> Connection.receive -> WebSocketRpc.handle_message -> spawn_worker -> Connection.answer -> Socket

    WebSockets          the URL /ws of the process: its sockets, and the methods of all its services
    WebSocketServer     the extension by which the entrypoints and hubs of one container use it

All services of a process share its sockets: a client calls the methods of all of them through one socket, so two
methods must not have the same name. A channel belongs to one service. Every process has clients of its own. A page of
another origin can't connect unless ``WEBSOCKET_ORIGINS`` names that origin: browsers let any page try, and they send
the user's cookies along.

This module needs wsproto: ``pip install 'txservices[websocket]'``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from werkzeug.routing import Rule
from werkzeug.wrappers import Response

from txservices import configuration
from txservices.exceptions import ConfigurationError
from txservices.extensions import DependencyProvider, Entrypoint, ProviderCollector, SharedExtension, WorkerContext
from txservices.web.connection import STACK, Answer, Connection
from txservices.web.hub import BlockingHub, Clients, WebSocketHub
from txservices.web.listener import Listener
from txservices.web.messages import HttpRequest
from txservices.web.origins import is_ours
from txservices.web.problems import error_response, unavailable
from txservices.web.received import Received
from txservices.web.server import WebServer
from txservices.web.sockets import Backlogs, CloseReason, Messages, Socket, handshake

__all__ = ["WebSocketHub", "WebSocketHubProvider", "WebSocketRpc", "rpc"]

log = Logger()


class WebSockets(Service):
    """The WebSockets at one address of the process, for all its services. The listener knows it as a URL's handler.

    Attributes:
        methods: the methods of all services by their names, since a request names no service.
        servers: the extensions of all services that run, or whose workers still run.
    """

    url = "/ws"
    method = "GET"

    def __init__(self, listener: Listener, config: Mapping[str, Any]) -> None:
        self.listener = listener
        self.body_max = configuration.WEB_BODY_MAX.of(config)
        self.values_max = configuration.VALUES_MAX.of(config)
        origins = configuration.WEBSOCKET_ORIGINS.of(config)
        self.origins = [origins] if isinstance(origins, str) else origins
        subprotocols = configuration.WEBSOCKET_SUBPROTOCOLS.of(config)
        self.subprotocols = [subprotocols] if isinstance(subprotocols, str) else subprotocols or []
        self.methods: dict[str, WebSocketRpc] = {}
        self.servers: dict[WebSocketServer, None] = {}
        self.connections = Clients()
        self.backlogs = Backlogs()
        self.messages = Messages()

    @property
    def where(self) -> str:
        return f"the WebSockets of {', '.join(server.container.service_name for server in self.servers)}"

    @property
    def stopped(self) -> bool:
        """Whether all services have stopped taking requests."""
        return all(server.stopped for server in self.servers)

    def add(self, server: WebSocketServer) -> None:
        """Add a service. The URL is served from the first one on."""
        closed = self.stopped
        self.servers[server] = None
        if closed:
            self.listener.register(self)

    def claim(self, provider: WebSocketRpc) -> None:
        """Add a method. ``ConfigurationError`` if another service has a method of the same name."""
        name = provider.method_name
        other = self.methods.get(name)
        if other is not None and other.server is not provider.server and not other.server.stopped:
            one, two = (each.container.service_name for each in (other, provider))
            raise ConfigurationError(
                f"{one} and {two} both have a WebSocket method {name!r}, at one {self.url}: rename one, or run the"
                f" services in two processes, each with its own {configuration.WEB_SERVER_ADDRESS.name}"
            )
        self.methods[name] = provider

    def cancel(self) -> Deferred[None]:
        """Serve the URL no more, if all services have stopped. Fires when the listener has taken note of it."""
        return self.listener.unregister(self) if self.stopped else succeed(None)

    def remove(self, server: WebSocketServer) -> Deferred[None]:
        """Remove a service that has ended. After the last one all sockets are closed."""
        closed = self.cancel()
        self.servers.pop(server, None)
        if not self.servers:
            self.methods.clear()
            for connection in list(self.connections.values()):
                connection.socket.close(CloseReason.GOING_AWAY, "the service has stopped")
        return closed

    def get_url_rule(self) -> Rule:
        return Rule(self.url, methods=[self.method])

    def serve(self, received: Received, request: HttpRequest) -> None:
        """Open a socket, or answer why it is refused."""
        refused = self.refuse(request)
        opened = refused or handshake(received, request, self.subprotocols)
        if isinstance(opened, Response):
            received.answer(opened)
            return
        contexts = {server: server.web.context_data_for(request) for server in self.servers}
        connection = Connection(self, received, contexts)
        self.connections[connection.socket_id] = connection
        connection.socket = Socket(
            received, *opened, self.body_max, connection.receive, connection.gone, self.backlogs, self.messages
        )
        connection.send_event("connected", {"socket_id": connection.socket_id})

    def refuse(self, request: HttpRequest) -> Response | None:
        if self.stopped:
            return unavailable(self.listener.site.as_problem)
        origin = request.headers.get("Origin")
        host = request.headers.get("Host", "")
        if origin is None or is_ours(origin, host, self.listener.host, self.origins):
            return None
        key = configuration.WEBSOCKET_ORIGINS.name
        log.warn("a page of {origin} may not open a WebSocket: add it to {key} if it should", origin=origin, key=key)
        return error_response(f"pages of {origin} are not in {key}", 403, self.listener.site.as_problem)


class WebSocketServer(ProviderCollector, SharedExtension):
    """The extension by which the entrypoints and hubs of a container use the process's WebSockets.

    Attributes:
        sockets: the process's WebSockets.
        stopped: whether the container takes no more requests.
    """

    web = WebServer()
    sockets: WebSockets | None = None
    stopped = False

    def setup(self) -> None:
        self.join()

    def join(self) -> WebSockets:
        """The process's WebSockets. At the first call this service is added to them."""
        if self.sockets is None:
            container = self.container
            listener = self.web.use_listener()
            key = f"websockets:{listener.host}:{listener.wanted_port}"
            sockets: WebSockets = container.shared.get(key, lambda: WebSockets(listener, container.config))
            self.sockets = sockets
            sockets.add(self)
        return self.sockets

    def register_provider(self, provider: Any) -> None:
        super().register_provider(provider)
        self.join().claim(provider)

    def unregister_provider(self, provider: Any) -> Deferred[None]:
        """Note that an entrypoint has stopped. After the last one no request is taken; running ones are answered."""
        super().unregister_provider(provider)
        if self._providers or self.sockets is None:
            return succeed(None)
        self.stopped = True
        return self.sockets.cancel()

    def stop(self) -> Deferred[None]:
        """Called when the container's workers have ended."""
        self.stopped = True
        return succeed(None) if self.sockets is None else self.sockets.remove(self)

    def kill(self) -> Deferred[None]:
        return self.stop()


class WebSocketHubProvider(DependencyProvider[WebSocketHub]):
    """Injects the service's ``WebSocketHub``."""

    server = WebSocketServer()

    def setup(self) -> None:
        self.hub = WebSocketHub(self.container.service_name, self.server.join().connections)

    def get_dependency(self, worker_ctx: WorkerContext) -> WebSocketHub:
        return cast(WebSocketHub, BlockingHub(self.hub)) if worker_ctx.blocking else self.hub


class WebSocketRpc(Entrypoint):
    """Calls a method ``(self, socket_id, **data)`` for each request of a client that names it."""

    server = WebSocketServer()

    def setup(self) -> None:
        self.server.register_provider(self)

    @property
    def stopped(self) -> bool:
        """Whether its service takes no more requests."""
        return self.server.stopped

    def stop(self) -> Deferred[None]:
        return self.server.unregister_provider(self)

    def kill(self) -> Deferred[None]:
        return self.stop()

    def handle_message(self, connection: Connection, data: dict[str, Any], answer: Answer) -> None:
        """Run a worker and give its outcome to ``answer``. May raise ``IncorrectSignature``."""
        args = (connection.socket_id,)
        self.check_signature(args, data)

        handle_result = partial(connection.handle_result, answer)  # by which traces find the connection
        # a service that started after the connection was opened has no context data there yet
        context_data = connection.contexts.setdefault(self.server, {})

        def begin() -> None:
            if self.server in connection.stacks:
                context_data[STACK] = connection.stacks[self.server]  # a worker takes it out
            self.container.spawn_worker(self, args, data, context_data, handle_result)

        workers = self.container.workers
        if (workers.running < workers.max_workers and not self.full) or workers.cancelled:
            begin()
        else:
            connection.wait(workers, self, begin)


rpc = WebSocketRpc.decorator
