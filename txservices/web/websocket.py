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

import json
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from werkzeug.routing import Rule
from werkzeug.wrappers import Response

from txservices import configuration
from txservices.constants import CALL_ID_STACK_CONTEXT_KEY
from txservices.exceptions import (
    ConfigurationError,
    ContainerBeingKilled,
    MalformedRequest,
    MethodNotFound,
    UnserializableValueError,
    serialize,
)
from txservices.extensions import (
    DependencyProvider,
    Entrypoint,
    ExcInfo,
    ProviderCollector,
    SharedExtension,
    Turns,
    WorkerContext,
)
from txservices.safe import shown
from txservices.serialization.bounds import HERE_MAX
from txservices.serialization.jsonreader import JsonReader, is_quick
from txservices.utils.background import in_background
from txservices.web.hub import BlockingHub, Clients, WebSocketHub, written
from txservices.web.listener import Listener
from txservices.web.messages import HttpRequest
from txservices.web.origins import is_ours
from txservices.web.problems import error_response, unavailable
from txservices.web.received import Received
from txservices.web.server import WebServer
from txservices.web.sockets import Backlogs, CloseReason, Messages, Socket, handshake

__all__ = ["WebSocketHub", "WebSocketHubProvider", "WebSocketRpc", "rpc"]

WAITING_MAX = 16  # requests of one socket that wait for their turn; beyond them nothing more is read from it
WAITING_BYTES_MAX = 1_048_576  # bytes of these; the one that crosses this is the last

STACK = CALL_ID_STACK_CONTEXT_KEY

Answer = Callable[[Any, BaseException | None], None]

log = Logger()


class Connection:
    """A client: its socket, and its requests, which are handled one at a time.

    Attributes:
        socket_id: its id, for methods and for the hub.
        contexts: the context data of the calls, for each service. All calls to a service share one object, so a call
            finds what an earlier call has changed there.
        stacks: the ids of the calls that led to the socket, for each service: each call begins with them.
        received: the opening handshake.
        subscriptions: pairs of a service's name and a channel.
    """

    def __init__(self, sockets: WebSockets, received: Received, contexts: dict[WebSocketServer, Any]) -> None:
        self.sockets = sockets
        self.received = received
        self.socket_id = str(uuid.uuid4())
        self.contexts = contexts
        self.stacks = {server: data.pop(STACK) for server, data in contexts.items() if STACK in data}
        self.subscriptions: set[tuple[str, str]] = set()
        self.waiting: deque[bytes] = deque()
        self.waiting_bytes = 0
        self.handling = 0  # bytes of the current one
        self.later: Callable[[], Any] | None = None  # begins its worker, when one has ended
        self.paused = self.busy = self.looping = False
        self.socket: Any = None

    def receive(self, message: bytes) -> None:
        if self.sockets.stopped:
            return
        self.waiting.append(message)
        self.waiting_bytes += len(message)
        if not (self.paused or self.has_room()):
            self.paused = True
            self.socket.pause()
        self.handle_waiting()

    def wait(self, workers: Turns, provider: WebSocketRpc, begin: Callable[[], Any]) -> None:
        """Begin a worker when another one has ended, unless the client has left by then."""
        self.later = begin
        workers.wait(provider, self.begin)

    def begin(self) -> None:
        begin, self.later = self.later, None
        if begin is not None:
            begin()

    def gone(self) -> None:
        self.waiting.clear()
        self.later = None
        self.sockets.connections.gone(self)

    def has_room(self) -> bool:
        return len(self.waiting) <= WAITING_MAX and self.waiting_bytes <= WAITING_BYTES_MAX

    def handle_waiting(self) -> None:
        """Handle requests until one of them waits for its method."""
        # a loop and not a recursion: a method that does not wait has answered when `handle` returns
        if self.looping:
            return
        self.looping = True
        while self.waiting and not self.busy and self.socket.open and not self.sockets.stopped:
            self.busy = True
            message = self.waiting.popleft()
            self.handling = len(message)
            self.waiting_bytes -= self.handling
            self.handle(message)
        self.looping = False
        if self.paused and self.has_room():
            self.paused = False
            self.socket.resume()

    def handle(self, message: bytes) -> None:
        if len(message) > HERE_MAX:
            reading = in_background(request_of, message, self.sockets.values_max)
            reading.addCallbacks(self.call, lambda failure: self.answer(None, None, failure.value))
            return
        try:
            request = request_of(message, self.sockets.values_max)
        except MalformedRequest as error:
            self.answer(None, None, error)
        else:
            self.call(request)

    def call(self, request: tuple[str, dict[str, Any], Any]) -> None:
        method, data, correlation_id = request
        try:
            provider = self.sockets.methods.get(method)
            if provider is None:
                raise MethodNotFound()
            if provider.server.stopped:
                raise ContainerBeingKilled()
            provider.handle_message(self, data, partial(self.answer, correlation_id))
        except ContainerBeingKilled:
            self.socket.close(CloseReason.GOING_AWAY, "the service has stopped")
        except BaseException as error:
            self.answer(correlation_id, None, error)

    def answer(self, correlation_id: Any, result: Any, error: BaseException | None) -> None:
        """Send the outcome of the current request, and handle the next one."""
        message = {"type": "result", "correlation_id": correlation_id}
        text = ""
        if error is None:
            try:
                text = written({**message, "success": True, "data": result})
            except BaseException as raised:  # a mapping in the result may raise anything
                log.error("a result for socket {id} can't be JSON: {error}", id=self.socket_id, error=shown(raised))
                error = UnserializableValueError(result)
        if error is not None:
            text = written({**message, "success": False, "error": serialize(error)})
        self.socket.handled(self.handling)
        self.socket.send(text)
        self.busy = False
        self.handle_waiting()

    def handle_result(self, answer: Answer, worker: WorkerContext, result: Any, exc_info: ExcInfo | None) -> Any:
        answer(result, None if exc_info is None else exc_info[1])
        return result, exc_info

    def send_event(self, event: str, data: Any) -> None:
        self.socket.send(written({"type": "event", "event": event, "data": data}))


def request_of(message: bytes, values_max: int) -> tuple[str, dict[str, Any], Any]:
    """Method, data and correlation id of a request. May raise ``MalformedRequest``."""
    try:
        text = message.decode()
        short = len(message) <= HERE_MAX or is_quick(message)
        request = json.loads(text) if short else JsonReader(text, values_max).read_all()
        method, data, correlation_id = request["method"], request.get("data") or {}, request.get("correlation_id")
        if not isinstance(method, str) or not isinstance(data, dict):
            raise TypeError
        written(correlation_id)  # the answer has it, too: no NaN, and nothing too deep
        return method, data, correlation_id
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise MalformedRequest("Invalid JSON data") from None


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


class WebSocketHubProvider(DependencyProvider):
    """Injects the service's ``WebSocketHub``."""

    server = WebSocketServer()

    def setup(self) -> None:
        self.hub = WebSocketHub(self.container.service_name, self.server.join().connections)

    def get_dependency(self, worker_ctx: WorkerContext) -> WebSocketHub | BlockingHub:
        return BlockingHub(self.hub) if worker_ctx.blocking else self.hub


class WebSocketRpc(Entrypoint):
    """Calls a method ``(self, socket_id, **data)`` for each request of a client that names it."""

    server = WebSocketServer()

    def setup(self) -> None:
        self.server.register_provider(self)

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
