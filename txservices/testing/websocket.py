"""A client of ``web.websocket``, for tests: over TCP, or in memory with pytest's fixture ``websocket``.

    socket = await make_virtual_socket("127.0.0.1", 8000)
    await socket.rpc("say", text="hi")
    await socket.wait_for_event("said")     # ("said", {"text": "hi"})
    await socket.close()

This module needs wsproto: ``pip install 'txservices[websocket]'``.
"""

from __future__ import annotations

import json
import uuid
from collections import defaultdict
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from txservices.exceptions import deserialize
from txservices.utils import default_reactor

__all__ = ["VirtualSocket", "make_virtual_socket", "open_socket"]

try:
    from wsproto import ConnectionType, WSConnection
    from wsproto.events import AcceptConnection, CloseConnection, Ping, RejectConnection, Request, TextMessage
except ImportError as error:
    raise ImportError(f"WebSockets need wsproto: pip install 'txservices[websocket]' ({error})") from error


class VirtualSocket(Protocol):
    """An open WebSocket: it calls methods, and keeps events until the test takes them."""

    def __init__(self, host: str, path: str) -> None:
        self.request = Request(host=host, target=path)
        self.ws = WSConnection(ConnectionType.CLIENT)
        self.opened: Deferred[VirtualSocket] = Deferred()
        self.gone: Deferred[None] = Deferred()
        self.parts: list[str] = []
        self.calls: dict[str, Deferred[Any]] = {}
        self.events: defaultdict[str, DeferredQueue[tuple[str, Any]]] = defaultdict(DeferredQueue)

    def rpc(self, _method: str, /, **data: Any) -> Deferred[Any]:
        """Call a method. Fires with its result, or fails with its error, or with ``ConnectionError``."""
        correlation_id = str(uuid.uuid4())
        call = self.calls[correlation_id] = Deferred(partial(self.forget, correlation_id))
        self.write(TextMessage(json.dumps({"method": _method, "data": data, "correlation_id": correlation_id})))
        return call

    def forget(self, correlation_id: str, _: Any) -> None:
        self.calls.pop(correlation_id, None)

    def get_event_queue(self, event_type: str) -> DeferredQueue[tuple[str, Any]]:
        """The events of that type that have arrived and not been taken, each as ``(event_type, data)``."""
        return self.events[event_type]

    def wait_for_event(self, event_type: str) -> Deferred[tuple[str, Any]]:
        """Take the next event of that type. Fires with ``(event_type, data)``, at once if it has arrived already."""
        return self.get_event_queue(event_type).get()

    def close(self) -> Deferred[None]:
        """Close the WebSocket. Fires when the connection is gone."""
        if not self.gone.called:
            self.write(CloseConnection(1000))
        return self.gone

    # Twisted calls these

    def connectionMade(self) -> None:
        self.write(self.request)

    def dataReceived(self, data: bytes) -> None:
        self.ws.receive_data(data)
        for event in self.ws.events():
            self.react(event)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.failed("the WebSocket's connection is gone")
        self.gone.callback(None)

    def write(self, event: Any) -> None:
        assert self.transport is not None
        self.transport.write(self.ws.send(event))

    def react(self, event: Any) -> None:
        if isinstance(event, AcceptConnection):
            self.opened.callback(self)
        elif isinstance(event, RejectConnection):
            self.failed(f"the WebSocket is refused with status {event.status_code}")
            self.close_connection()
        elif isinstance(event, TextMessage):
            self.parts.append(event.data)
            if event.message_finished:
                parts, self.parts = self.parts, []
                self.message_received(json.loads("".join(parts)))
        elif isinstance(event, Ping):
            self.write(event.response())
        elif isinstance(event, CloseConnection):
            if self.ws.state.name == "REMOTE_CLOSING":
                self.write(event.response())
            self.close_connection()

    def close_connection(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()

    def message_received(self, message: dict[str, Any]) -> None:
        if message["type"] == "event":
            self.events[message["event"]].put((message["event"], message["data"]))
            return
        call = self.calls.pop(message["correlation_id"], None)
        if call is None:
            return  # the call was cancelled
        if message["success"]:
            call.callback(message["data"])
        else:
            call.errback(deserialize(message["error"]))

    def failed(self, why: str) -> None:
        calls, self.calls = self.calls, {}
        for call in calls.values():
            call.errback(ConnectionError(why))
        if not self.opened.called:
            self.opened.errback(ConnectionError(why))


def open_socket(endpoint: IStreamClientEndpoint, host: str, path: str = "/ws") -> Deferred[VirtualSocket]:
    """Open a WebSocket. Fires with the ``VirtualSocket``, or fails with ``ConnectionError`` if it is refused."""

    async def connect() -> VirtualSocket:
        socket: Any = await endpoint.connect(Factory.forProtocol(partial(VirtualSocket, host, path)))
        opened: VirtualSocket = await socket.opened
        return opened

    return Deferred.fromCoroutine(connect())


def make_virtual_socket(host: str, port: int, path: str = "/ws") -> Deferred[VirtualSocket]:
    """Open a WebSocket over TCP. Fires with the ``VirtualSocket``, or fails as ``open_socket`` does."""
    return open_socket(HostnameEndpoint(default_reactor(), host.encode(), port), f"{host}:{port}", path)
