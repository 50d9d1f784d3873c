"""WebSockets, with another's client: its frames in and ours out, over memory; and once over TCP."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.sync.client import connect
from websockets.uri import parse_uri

from tests.web.peer import Peer, WebTestCase
from txservices.exceptions import ConfigurationError, ConnectionNotFound
from txservices.runners import ServiceRunner
from txservices.web import sockets
from txservices.web.handlers import http
from txservices.web.websocket import WebSocketHubProvider, rpc


class Client:
    """The client of the ``websockets`` package on a connection that is memory."""

    def __init__(self, peer: Peer, origin: Any = None) -> None:
        self.peer = peer
        self.protocol = ClientProtocol(parse_uri("ws://here:8000/ws"), origin=origin)
        self.protocol.send_request(self.protocol.connect())
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
        """What comes back for a message."""
        self.protocol.send_text(text.encode())
        return self.messages()

    def call(self, method: Any, correlation_id: Any = None, **data: Any) -> list[Any]:
        """What comes back for a request."""
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

    def client(self, origin: Any = None) -> Client:
        return Client(self.peer(), origin)

    def connected(self) -> tuple[Client, str]:
        """A client that is, and its socket's id."""
        client = self.client()
        (first,) = client.messages()
        return client, first["data"]["socket_id"]


class Requests(SocketsCase):
    """Methods called by clients."""

    async def test_connect(self) -> None:
        """A client is told its id first, which its methods get; HTTP is served beside it."""
        await self.start()
        client = self.client()
        (first,) = client.messages()
        self.assertRegex(first["data"]["socket_id"], r"^[0-9a-f-]{36}$")
        self.assertEqual(first, event("connected", first["data"]))
        self.assertEqual(client.call("whoami", 1), [succeeded(first["data"]["socket_id"], 1)])
        self.assertIn(b"a page", self.peer().get("/"))

    async def test_call(self) -> None:
        """A result bears the request's correlation id, whatever that is; text and binary are one."""
        await self.start()
        client, _ = self.connected()
        for correlation_id in (None, 7, "seven", {"a": [7]}):
            self.assertEqual(client.call("echo", correlation_id, value="ø"), [succeeded("ø", correlation_id)])
        client.protocol.send_binary(b'{"method": "echo", "data": {"value": 1}}')
        self.assertEqual(client.messages(), [succeeded(1)])

    async def test_fragments(self) -> None:
        """A message may come in any pieces."""
        await self.start()
        client, _ = self.connected()
        client.protocol.send_text(b'{"method": "echo", ', fin=False)
        client.protocol.send_continuation('"data": {"value": "ø"}}'.encode(), fin=False)
        client.protocol.send_ping(b"between")
        client.protocol.send_continuation(b"", fin=True)
        data = b"".join(client.protocol.data_to_send())
        for index in range(len(data)):
            client.protocol.receive_data(client.peer.send(data[index : index + 1]))
        self.assertEqual(client.messages(), [succeeded("ø")])

    async def test_errors(self) -> None:
        """What goes wrong is told in the error of a result, and the socket goes on."""
        await self.start()
        client, _ = self.connected()
        self.assertEqual(client.call("nothing", 1), [failed("MethodNotFound", correlation_id=1)])
        self.assertEqual(
            client.call("fail", 2), [failed("ValueError", "on purpose", correlation_id=2, path="builtins")]
        )
        (unsigned,) = client.call("echo", 3, other=1)
        self.assertEqual(unsigned["error"]["exc_path"], "nameko.exceptions.IncorrectSignature")
        (unwritten,) = client.call("unwritable", 4)
        self.assertEqual(unwritten["error"]["exc_path"], "nameko.exceptions.UnserializableValueError")
        self.assertEqual(unwritten["correlation_id"], 4)
        self.assertEqual(client.call("echo", value=1), [succeeded(1)])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    async def test_malformed(self) -> None:
        """What is no request is told so, with no correlation id."""
        await self.start()
        client, _ = self.connected()
        malformed = [failed("MalformedRequest", "Invalid JSON data")]
        bad = ["", "{", "1", "[]", "null", '{"correlation_id": 1}', '{"method": []}', '{"method": "echo", "data": [1]}']
        for text in [*bad, "[" * 100_000]:
            self.assertEqual(client.text(text), malformed, text[:30])
        self.assertEqual(client.text('{"method": "whoami", "data": null}')[0]["success"], True)

    async def test_order(self) -> None:
        """Requests of one socket run one at a time, in order; those of another don't wait for them."""
        await self.start()
        client, _ = self.connected()
        other, _ = self.connected()
        for number in range(30):
            client.call("wait", number, value=number)
        self.assertEqual(Chat.calls, [0])
        self.assertEqual(client.peer.transport.producerState, "paused")
        self.assertEqual(other.call("echo", value=1), [succeeded(1)])
        for number in range(30):
            Chat.waiting[number].callback(None)
            self.assertEqual(client.messages(), [succeeded(number, number)])
        self.assertEqual(client.peer.transport.producerState, "producing")

    async def test_left(self) -> None:
        """A client that leaves: what runs for it goes on, what waits is dropped."""
        await self.start()
        client, _ = self.connected()
        client.call("wait", value=1)
        client.call("wait", value=2)
        client.peer.leave()
        Chat.waiting[0].callback(None)
        self.assertEqual(Chat.calls, [1])


class Hub(SocketsCase):
    """Events to clients."""

    async def test_broadcast(self) -> None:
        """Who is subscribed gets what is broadcast on a channel, before the result of the call that did it."""
        await self.start()
        (one, _), (two, _) = self.connected(), self.connected()
        self.assertEqual(one.call("subscribe", channel="b"), [succeeded(["b"])])
        self.assertEqual(one.call("subscribe", channel="a"), [succeeded(["a", "b"])])
        self.assertEqual(one.call("subscribe", channel="a"), [succeeded(["a", "b"])])
        self.assertEqual(one.call("broadcast", channel="a", value=1), [event("said", 1), succeeded(None)])
        self.assertEqual(two.call("broadcast", channel="b", value=2), [succeeded(None)])
        self.assertEqual(one.messages(), [event("said", 2)])
        self.assertEqual(one.call("unsubscribe", channel="a"), [succeeded(["b"])])
        self.assertEqual(one.call("unsubscribe", channel="nothing"), [succeeded(["b"])])
        self.assertEqual(one.call("broadcast", channel="a", value=3), [succeeded(None)])

    async def test_unicast(self) -> None:
        """One socket is told, if it is there."""
        await self.start()
        (one, _), (two, two_id) = self.connected(), self.connected()
        self.assertEqual(one.call("unicast", target=two_id, value=1), [succeeded(True)])
        self.assertEqual(two.messages(), [event("told", 1)])
        two.peer.leave()
        self.assertEqual(one.call("unicast", target=two_id, value=1), [succeeded(False)])

    async def test_gone(self) -> None:
        """A socket that has gone can't subscribe, and takes its subscriptions along."""
        await self.start()
        client, socket_id = self.connected()
        client.call("subscribe", channel="a")
        (container,) = self.runner.containers
        (hub,) = [each.hub for each in container.dependencies if isinstance(each, WebSocketHubProvider)]
        client.peer.leave()
        self.assertEqual(hub.connections, {})
        self.assertRaises(ConnectionNotFound, hub.subscribe, socket_id, "a")
        hub.unsubscribe(socket_id, "a")
        hub.broadcast("a", "said", 1)


class Frames(SocketsCase):
    """What is no WebSocket, or no good one."""

    async def test_no_handshake(self) -> None:
        """A plain request is answered 400, another version of the protocol 426."""
        await self.start()
        self.assertTrue(self.peer().get("/ws").startswith(b"HTTP/1.1 400 "))
        upgrade = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")
        answer = self.peer().get("/ws", *upgrade, "Sec-WebSocket-Version: 12")
        self.assertTrue(answer.startswith(b"HTTP/1.1 426 "), answer)
        self.assertIn(b"Sec-WebSocket-Version: 13\r\n", answer)

    async def test_origin(self) -> None:
        """Pages of another origin are refused, unless the configuration names theirs."""
        await self.start()
        self.assertEqual(self.client("http://here:8000").response.status_code, 101)
        self.assertEqual(self.client("http://elsewhere").response.status_code, 403)

    async def test_origins(self) -> None:
        """The configured origins, and then no others."""
        await self.start(WEBSOCKET_ORIGINS=["http://elsewhere"])
        self.assertEqual(self.client("http://elsewhere").response.status_code, 101)
        self.assertEqual(self.client("http://here:8000").response.status_code, 403)
        self.assertEqual(self.client().response.status_code, 101)

    async def test_bad_frames(self) -> None:
        """Bytes that are no frames, or no text, close the socket with the reason."""
        await self.start()
        for data, code in [(b"\xff" * 20, 1002), (b"\x81\x81\0\0\0\0\xff", 1007), (b"\x81\x01a", 1002)]:
            client, _ = self.connected()
            client.protocol.receive_data(client.peer.send(data))
            self.assertEqual(client.protocol.close_rcvd and client.protocol.close_rcvd.code, code)
            self.assertTrue(client.peer.transport.disconnecting)

    async def test_too_big(self) -> None:
        """A message over ``WEB_BODY_MAX`` closes the socket before all of it has come."""
        await self.start(WEB_BODY_MAX=100)
        client, _ = self.connected()
        client.protocol.send_text(b"x" * 101, fin=False)
        client.messages()
        self.assertEqual(client.protocol.close_rcvd and client.protocol.close_rcvd.code, 1009)

    async def test_does_not_read(self) -> None:
        """A client that takes nothing is left when too much waits for it."""
        self.patch(sockets, "BACKLOG_MAX", 1000)
        await self.start()
        client, _ = self.connected()
        client.call("echo", value="x" * 2000)
        client.peer.channel.pauseProducing()
        client.call("echo", value="x" * 500)
        client.peer.channel.resumeProducing()
        client.call("echo", value="x" * 800)
        client.peer.channel.pauseProducing()
        self.assertTrue(client.peer.transport.connected)
        client.call("echo", value="x" * 1000)
        self.assertFalse(client.peer.transport.connected)

    async def test_close(self) -> None:
        """A client's goodbye is answered."""
        await self.start()
        client, _ = self.connected()
        client.protocol.send_close(1000, "bye")
        client.messages()
        self.assertEqual(client.protocol.close_rcvd and client.protocol.close_rcvd.code, 1000)
        self.assertTrue(client.peer.transport.disconnecting)

    async def test_stop(self) -> None:
        """A service that stops takes no more requests, answers those that run, and says goodbye."""
        await self.start()
        client, _ = self.connected()
        client.call("wait", value=1)
        stopping = self.runner.stop()
        self.assertEqual(client.call("echo", value=2), [])
        Chat.waiting[0].callback(None)
        self.assertEqual(client.messages(), [succeeded(1)])
        self.assertEqual(client.protocol.close_rcvd and client.protocol.close_rcvd.code, 1001)
        await stopping


class News:
    """Another service with sockets, in the same process as ``Chat``."""

    name = "news"
    hub = WebSocketHubProvider()
    slow: Deferred[Any]

    @rpc
    def headlines(self, socket_id):
        self.hub.subscribe(socket_id, "room")
        return self.hub.get_subscriptions(socket_id)

    @rpc
    def publish(self, socket_id, text):
        self.hub.broadcast("room", "news", text)

    @rpc
    def archive(self, socket_id):
        News.slow = Deferred()
        return News.slow


class TwoServices(SocketsCase):
    """Services of one process, at one address."""

    async def start(self, **config: Any) -> None:
        await self.serve(Chat, News, **config)

    async def test_methods_of_both(self) -> None:
        """A client reaches the methods of both by its one socket."""
        await self.start()
        client, socket_id = self.connected()
        self.assertEqual(client.call("whoami"), [succeeded(socket_id)])
        self.assertEqual(client.call("headlines"), [succeeded(["room"])])

    async def test_channels(self) -> None:
        """A channel is the service's own: what one broadcasts the other's subscribers don't hear."""
        await self.start()
        (chats, _), (reads, _) = self.connected(), self.connected()
        chats.call("subscribe", channel="room")
        reads.call("headlines")
        self.assertEqual(chats.call("publish", text="extra"), [succeeded(None)])
        self.assertEqual(reads.messages(), [event("news", "extra")])
        self.assertEqual(reads.call("broadcast", channel="room", value=1), [succeeded(None)])
        self.assertEqual(chats.messages(), [event("said", 1)])
        self.assertEqual(reads.call("unsubscribe", channel="room"), [succeeded([])])
        self.assertEqual(reads.call("headlines"), [succeeded(["room"])])

    async def test_clash(self) -> None:
        """Two methods of one name: the start is refused, and both are named."""

        class Shout:
            name = "shout"

            @rpc
            def echo(self, socket_id, value):
                return value.upper()

        error = await self.assertFailure(Deferred.fromCoroutine(self.serve(Chat, Shout)), ConfigurationError)
        self.assertIn("chat and shout both have a WebSocket method 'echo'", str(error))

    async def test_one_stops(self) -> None:
        """One of them stops: sockets stay for the other, until a client asks for the one that has gone."""
        await self.start()
        (one, _), (two, _) = self.connected(), self.connected()
        chat, _ = self.runner.containers
        await chat.stop()
        self.assertEqual(one.call("headlines"), [succeeded(["room"])])
        self.assertEqual(two.call("whoami"), [])
        self.assertEqual(two.protocol.close_rcvd and two.protocol.close_rcvd.code, 1001)
        again, _ = self.connected()
        self.assertEqual(again.call("headlines"), [succeeded(["room"])])

    async def test_both_stop(self) -> None:
        """All stop: what runs for a client of either is answered, and then the sockets close."""
        await self.start()
        client, _ = self.connected()
        client.call("archive")
        stopping = self.runner.stop()
        self.assertEqual(self.client().response.status_code, 503)
        News.slow.callback("found")
        self.assertEqual(client.messages(), [succeeded("found")])
        self.assertEqual(client.protocol.close_rcvd and client.protocol.close_rcvd.code, 1001)
        await stopping


class Pings(SocketsCase):
    """Who is silent is asked whether he is there."""

    def pass_time(self, seconds: float) -> None:
        self.reactor.pump([1.0] * int(seconds))

    async def test_answered(self) -> None:
        """A client that answers stays, however long it has nothing to say."""
        await self.start()
        client, _ = self.connected()
        for _ in range(5):
            self.pass_time(sockets.PING_INTERVAL + 2)
            client.exchange()  # the ping comes in, and goes out as a pong
            client.exchange()
        self.pass_time(sockets.PING_INTERVAL - 1)
        self.assertEqual(client.call("echo", value=1), [succeeded(1)])

    async def test_dead(self) -> None:
        """A client whose cable was pulled is found within PING_INTERVAL and PING_TIMEOUT; its subscriptions go."""
        await self.start()
        client, socket_id = self.connected()
        client.call("subscribe", channel="room")
        (container,) = self.runner.containers
        (hub,) = [each.hub for each in container.dependencies if isinstance(each, WebSocketHubProvider)]
        self.pass_time(sockets.PING_INTERVAL + sockets.PING_TIMEOUT - 2)
        self.assertEqual(hub.get_subscriptions(socket_id), ["room"])
        self.pass_time(4)
        self.assertFalse(client.peer.transport.connected)
        self.assertRaises(ConnectionNotFound, hub.get_subscriptions, socket_id)

    async def test_busy(self) -> None:
        """A client whose requests wait, so that we don't read from it, is not taken for dead."""
        await self.start()
        client, _ = self.connected()
        for number in range(20):
            client.call("wait", number, value=number)
        self.pass_time(3 * (sockets.PING_INTERVAL + sockets.PING_TIMEOUT))
        self.assertTrue(client.peer.transport.connected)
        for number in range(20):
            Chat.waiting[number].callback(None)
        self.assertEqual(len(client.messages()), 20)

    async def test_goodbye_unheard(self) -> None:
        """A socket that we have closed, and whose client takes nothing any more, does not stay."""
        await self.start()
        client, _ = self.connected()
        transport, aborted = client.peer.transport, []
        self.patch(transport, "loseConnection", lambda: None)  # what was written has not gone out
        self.patch(transport, "abortConnection", lambda: aborted.append(True))
        client.protocol.receive_data(client.peer.send(b"\xff" * 20))
        self.pass_time(sockets.PING_INTERVAL - 1)
        self.assertEqual(aborted, [])
        self.pass_time(2)
        self.assertEqual(aborted, [True])


class OverTCP(TestCase):
    """A client in a thread, as other programs are."""

    timeout = 30

    async def test_blocking_method(self) -> None:
        """Over a socket, and with a method in a thread that uses the hub there."""

        class Threaded:
            name = "threaded"
            blocking = True
            hub = WebSocketHubProvider()

            @rpc
            def join(self, socket_id):
                self.hub.subscribe(socket_id, "room")
                self.hub.broadcast("room", "joined", self.hub.get_subscriptions(socket_id))
                return "done"

        runner = ServiceRunner({"WEB_SERVER_ADDRESS": "127.0.0.1:0"})
        runner.add_service(Threaded)
        await runner.start()
        try:
            (container,) = runner.containers
            (port,) = [each.web.port for each in container.subextensions if hasattr(each, "web")]
            messages = await deferToThread(self.talk, port)
        finally:
            await runner.stop()
        self.assertEqual(messages, [event("joined", ["room"]), succeeded("done")])

    def talk(self, port: int) -> list[Any]:
        with connect(f"ws://127.0.0.1:{port}/ws", proxy=None) as socket:
            socket.recv()
            socket.send('{"method": "join"}')
            return [json.loads(socket.recv()), json.loads(socket.recv())]
