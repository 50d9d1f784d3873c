"""A service with sockets, and clients of it that are another's: frames in and ours out, over memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri

from tests.web.peer import Peer, WebTestCase
from txservices.web.handlers import http
from txservices.web.websocket import WebSocketHub, WebSocketHubProvider, rpc


class Client:
    """The client of the ``websockets`` package on a connection that is memory."""

    def __init__(
        self, peer: Peer, origin: Any = None, headers: Mapping[str, str] | None = None, **options: Any
    ) -> None:
        self.peer = peer
        self.protocol = ClientProtocol(parse_uri("ws://here:8000/ws"), origin=origin, **options)
        request = self.protocol.connect()
        request.headers.update(headers or {})
        self.protocol.send_request(request)
        self.exchange()
        events = self.protocol.events_received()
        self.response: Any = events[0] if events else None
        self.frames: list[Frame] = events[1:]

    def exchange(self) -> None:
        for data in self.protocol.data_to_send():
            if data:
                self.protocol.receive_data(self.peer.send(data))
        self.protocol.receive_data(self.peer.received())

    def messages(self) -> list[Any]:
        """The messages that have come meanwhile."""
        self.exchange()
        frames, self.frames = [*self.frames, *self.protocol.events_received()], []
        return [json.loads(frame.data) for frame in frames if frame.opcode is Opcode.TEXT]

    def text(self, text: str) -> list[Any]:
        """The answer to a message."""
        self.protocol.send_text(text.encode())
        return self.messages()

    def call(self, method: Any, correlation_id: Any = None, **data: Any) -> list[Any]:
        """The answer to a request."""
        return self.text(json.dumps({"method": method, "data": data, "correlation_id": correlation_id}))


def succeeded(data: Any, correlation_id: Any = None) -> dict[str, Any]:
    return {"type": "result", "success": True, "data": data, "correlation_id": correlation_id}


def failed(exc_type: str, *args: Any, correlation_id: Any = None, path: str = "nameko.exceptions") -> dict[str, Any]:
    error = {
        "exc_type": exc_type,
        "exc_path": f"{path}.{exc_type}",
        "exc_args": list(args),
        "value": str(args[0]) if args else "",
    }
    return {"type": "result", "success": False, "error": error, "correlation_id": correlation_id}


def event(name: str, data: Any) -> dict[str, Any]:
    return {"type": "event", "event": name, "data": data}


class Chat:
    """A service with sockets, and HTTP on the same port."""

    name = "chat"
    hub = WebSocketHubProvider()
    waiting: list[Deferred[Any]] = []
    calls: list[Any] = []

    @rpc
    def echo(self, socket_id, value):
        return value

    @rpc
    def whoami(self, socket_id):
        return socket_id

    @rpc
    def fail(self, socket_id):
        raise ValueError("on purpose")

    @rpc
    def unwritable(self, socket_id):
        return object()

    @rpc
    async def wait(self, socket_id, value):
        self.calls.append(value)
        self.waiting.append(Deferred())
        await self.waiting[-1]
        return value

    @rpc
    def subscribe(self, socket_id, channel):
        self.hub.subscribe(socket_id, channel)
        return self.hub.get_subscriptions(socket_id)

    @rpc
    def unsubscribe(self, socket_id, channel):
        self.hub.unsubscribe(socket_id, channel)
        return self.hub.get_subscriptions(socket_id)

    @rpc
    def broadcast(self, socket_id, channel, value):
        self.hub.broadcast(channel, "said", value)

    @rpc
    def unicast(self, socket_id, target, value):
        return self.hub.unicast(target, "told", value)

    @http("GET", "/")
    def page(self, request):
        return "a page"


class SocketsCase(WebTestCase):
    """A ``Chat`` and its clients."""

    async def setUp(self) -> None:
        super().setUp()
        Chat.waiting, Chat.calls = [], []

    async def start(self, **config: Any) -> None:
        await self.serve(Chat, **config)

    def hub(self) -> WebSocketHub:
        (container,) = self.runner.containers
        (hub,) = [each.hub for each in container.dependencies if isinstance(each, WebSocketHubProvider)]
        return hub

    def client(self, origin: Any = None, **options: Any) -> Client:
        return Client(self.peer(), origin, **options)

    def connected(self) -> tuple[Client, str]:
        """A client that is, and its socket's id."""
        client = self.client()
        (first,) = client.messages()
        return client, first["data"]["socket_id"]
