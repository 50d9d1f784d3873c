"""A WebSocket for tests: over TCP here; the fixture ``websocket`` has it in memory, and is in ``test_pytest``."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol

from txservices.exceptions import MethodNotFound, RemoteError
from txservices.testing import TestCase
from txservices.testing.websocket import VirtualSocket, make_virtual_socket, open_socket
from txservices.utils import default_reactor
from txservices.web.handlers import http
from txservices.web.websocket import WebSocketHubProvider, rpc


class Chat:
    """A service with a hub."""

    name = "chat"
    hub = WebSocketHubProvider()

    @rpc
    def join(self, socket_id, room):
        self.hub.subscribe(socket_id, room)
        self.hub.broadcast(room, "joined", {"room": room, "text": "x" * 70_000})

    @rpc
    def echo(self, socket_id, value):
        return value

    @rpc
    def fail(self, socket_id):
        raise ValueError("why")

    @rpc
    def wait(self, socket_id):
        return Deferred()

    @http("GET", "/page")
    def page(self, request):
        return "page"


class SocketTests(TestCase):
    """``make_virtual_socket``, and what it gives."""

    async def connect(self) -> VirtualSocket:
        """In memory."""
        await self.start(Chat)
        return await open_socket(self.stage.web_endpoint(), "here")

    async def test_calls(self) -> None:
        """A call gives its result, or raises its error."""
        socket = await self.connect()
        self.assertEqual(await socket.rpc("echo", value=[1, "é"]), [1, "é"])
        with self.assertRaises(RemoteError) as raised:
            await socket.rpc("fail")
        self.assertEqual(raised.exception.exc_type, "ValueError")
        self.flushLoggedErrors(ValueError)
        with self.assertRaises(MethodNotFound):
            await socket.rpc("nothing")

    async def test_several(self) -> None:
        """Calls under way at once have each its own result."""
        socket = await self.connect()
        calls = [socket.rpc("echo", value=value) for value in range(5)]
        self.assertEqual([await call for call in calls], list(range(5)))

    async def test_events(self) -> None:
        """Events are kept by their type until they are asked for, or waited for."""
        socket = await self.connect()
        kind, data = await socket.wait_for_event("connected")
        self.assertEqual((kind, list(data)), ("connected", ["socket_id"]))
        waiting = socket.wait_for_event("joined")
        await socket.rpc("join", room="r")
        self.assertEqual((await waiting)[1]["room"], "r")
        self.assertEqual(socket.get_event_queue("joined").pending, [])
        await socket.rpc("join", room="s")
        self.assertEqual([data["room"] for _, data in socket.get_event_queue("joined").pending], ["s"])

    async def test_close(self) -> None:
        """After a close by either side, calls are not answered any more; closing twice is no error."""
        socket = await self.connect()
        waiting = socket.rpc("wait")
        await socket.close()
        await socket.close()
        with self.assertRaises(ConnectionError):
            await waiting

    async def test_cancelled(self) -> None:
        """A call that is given up ends with CancelledError, and its late answer disturbs nobody."""
        socket = await self.connect()
        call = socket.rpc("echo", value=1)
        call.cancel()
        await self.assertFailure(call, CancelledError)
        self.assertEqual(await socket.rpc("echo", value=2), 2)

    async def test_service_stops(self) -> None:
        """A service that stops closes it."""
        (container,) = await self.start(Chat)
        socket = await open_socket(self.stage.web_endpoint(), "here")
        await container.stop()
        await socket.gone

    async def test_refused(self) -> None:
        """A server that has no WebSocket there says so by its status."""
        await self.start(Chat)
        with self.assertRaises(ConnectionError) as raised:
            await open_socket(self.stage.web_endpoint(), "here", "/page")
        self.assertIn("status 200", str(raised.exception))

    async def test_over_tcp(self) -> None:
        """``make_virtual_socket`` connects by host and port, and says so if it is cut off before it is open."""

        class Deaf(Protocol):
            def dataReceived(self, data: bytes) -> None:
                heard.append(data)
                self.transport.loseConnection()

        heard: list[bytes] = []
        listening: Any = await TCP4ServerEndpoint(default_reactor(), 0, interface="127.0.0.1").listen(
            Factory.forProtocol(Deaf)
        )
        self.addCleanup(listening.stopListening)
        port = listening.getHost().port
        with self.assertRaises(ConnectionError):
            await make_virtual_socket("127.0.0.1", port, "/ws2")
        self.assertTrue(b"".join(heard).startswith(b"GET /ws2 HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % port))
