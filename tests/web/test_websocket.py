"""Calls by WebSocket, the hub, and services that share an address; once over TCP."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from websockets.sync.client import connect

from tests import hostile
from tests.observing import hearing
from tests.web.chat import Chat, SocketsCase, event, failed, succeeded
from txservices.exceptions import ConfigurationError, ConnectionNotFound, serialize
from txservices.runners import ServiceRunner
from txservices.web import hub as hubs
from txservices.web.websocket import WebSocketHubProvider, rpc


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
        """A failure is told in the error of a result, and the socket goes on."""
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
        """A message that is no request is answered with an error, with no correlation id."""
        await self.start()
        client, _ = self.connected()
        malformed = [failed("MalformedRequest", "Invalid JSON data")]
        bad = ["", "{", "1", "[]", "null", '{"correlation_id": 1}', '{"method": []}', '{"method": "echo", "data": [1]}']
        not_json = [f'{{"method": "subscribe", "correlation_id": {id}}}' for id in ("NaN", "1e999", "[-Infinity]")]
        for text in [*bad, *not_json, "[" * 100_000]:
            self.assertEqual(client.text(text), malformed, text[:30])
        self.assertEqual(client.text('{"method": "whoami", "data": null}')[0]["success"], True)

    async def test_any_error(self) -> None:
        """Whatever a method raises or gives, its client gets an error, and the socket goes on."""
        errors = [*(hostile.exception(Random(seed)) for seed in range(120)), SystemExit(), GeneratorExit()]
        errors = [error for error in errors if len(json.dumps(serialize(error))) < 500_000]  # the client takes no more
        results = [value for value in hostile.VALUES if type(value) not in (str, int, list, dict, tuple, type(None))]
        results = [value for value in results if type(value) not in (hostile.Text, hostile.Row, hostile.BrokenRow)]
        results += [{hostile.Raising(ValueError): 1}, {1, 2}, float("nan")]

        class Hostile:
            name = "hostile"

            @rpc
            def fail(self, socket_id, number):
                raise errors[number]

            @rpc
            def give(self, socket_id, number):
                return results[number]

        await self.serve(Hostile)
        client, _ = self.connected()
        for method, number in (("fail", len(errors)), ("give", len(results))):
            for each in range(number):
                (answer,) = client.call(method, each, number=each)
                self.assertEqual((answer["success"], answer["correlation_id"]), (False, each))
        self.assertEqual(client.call("nothing")[0]["error"]["exc_type"], "MethodNotFound")
        self.flushLoggedErrors()

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
        """A subscriber gets the events of a channel, before the result of the call that sent them."""
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
        hub = self.hub()
        client.peer.leave()
        self.assertEqual(hub.connections, {})
        self.assertRaises(ConnectionNotFound, hub.subscribe, socket_id, "a")
        hub.unsubscribe(socket_id, "a")
        hub.broadcast("a", "said", 1)
        self.assertEqual(hub.connections.subscriptions, 0)

    async def test_leaves_before_its_turn(self) -> None:
        """A request whose client has left before its worker could begin is dropped."""
        await self.start(max_workers=1)
        (one, _), (two, _), (three, _) = self.connected(), self.connected(), self.connected()
        for number, client in enumerate((one, two, three)):
            client.call("wait", value=number)
        two.peer.leave()
        Chat.waiting[0].callback(None)
        Chat.waiting[1].callback(None)
        self.reactor.pump([0.0] * 3)
        self.assertEqual(Chat.calls, [0, 2])
        self.assertEqual(three.messages(), [succeeded(2)])

    async def test_too_many_channels(self) -> None:
        """The channels of a client, those of all, and their names have limits; beyond them a method raises."""
        self.patch(hubs, "SUBSCRIPTIONS_MAX", 3)
        self.patch(hubs, "SUBSCRIPTIONS_IN_ALL_MAX", 5)
        await self.start()
        hub = self.hub()
        (one, one_id), (two, two_id) = self.connected(), self.connected()
        for name in "abc":
            for _ in range(2):
                hub.subscribe(one_id, name)
        self.assertRaisesRegex(ValueError, "subscribed to 3 channels", hub.subscribe, one_id, "d")
        (refused,) = one.call("subscribe", channel="d")
        self.assertEqual(refused["error"]["exc_type"], "ValueError")
        self.flushLoggedErrors(ValueError)
        hub.subscribe(two_id, "x" * 255)
        self.assertRaisesRegex(ValueError, "255 characters", hub.subscribe, two_id, "x" * 256)
        hub.subscribe(two_id, "b")
        self.assertRaisesRegex(ValueError, "all clients together", hub.subscribe, two_id, "c")
        for _ in range(2):
            hub.unsubscribe(one_id, "a")
        hub.subscribe(two_id, "c")
        one.peer.leave()
        self.assertEqual(hub.connections.subscriptions, 3)
        two.peer.leave()
        self.assertEqual(hub.connections.subscriptions, 0)


class Doors(SocketsCase):
    """Which pages may open a WebSocket, and how it ends."""

    async def test_origin(self) -> None:
        """Pages of another origin are refused, unless the configuration names theirs."""
        await self.start(WEB_SERVER_ADDRESS="0.0.0.0:8000")
        self.assertEqual(self.client("http://here:8000").response.status_code, 101)
        self.assertEqual(self.client("http://elsewhere").response.status_code, 403)

    async def test_loopback(self) -> None:
        """On the loopback, a page of any other name is a stranger's, who has it resolved to 127.0.0.1."""
        await self.start(WEB_SERVER_ADDRESS="127.0.0.1:8000")
        self.assertEqual(self.client("http://here:8000").response.status_code, 403)

    async def test_origins(self) -> None:
        """The configured origins, and then no others."""
        await self.start(WEBSOCKET_ORIGINS=["http://elsewhere"])
        told = hearing(self, "request_ended")
        self.assertEqual(self.client("http://elsewhere").response.status_code, 101)
        self.assertEqual(self.client("http://here:8000").response.status_code, 403)
        self.assertEqual(self.client().response.status_code, 101)
        self.assertEqual([status for _, _, _, status, *_ in told.told], [101, 403, 101])

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


class OverTCP(TestCase):
    """A client in a thread, as other programs are."""

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
