"""Whose call a request is a part of: the headers that bring the ids of calls and the trace, from anybody."""

from __future__ import annotations

from typing import Any, ClassVar

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.services import ServicesCase
from tests.web.chat import Client
from tests.web.peer import WebTestCase
from txservices.extensions import DependencyProvider, WorkerContext
from txservices.httpclient import HttpAnswer, HttpClient
from txservices.httpcontext import IDS_TEXT_MAX, ids_in, ids_written, trace_in
from txservices.web.handlers import HttpRequestHandler, http
from txservices.web.server import WebServer
from txservices.web.websocket import WebSocketRpc, WebSocketServer
from txservices.web.websocket import rpc as websocket_rpc

PARENT = f"00-{'a' * 32}-{'b' * 16}-01"


class Told(DependencyProvider):
    def get_dependency(self, worker_ctx: WorkerContext) -> WorkerContext:
        return worker_ctx


class OwnServer(WebServer):
    def context_data_from_headers(self, request):
        return {"call_id_stack": ["own"], "user_id": "bob"}


class OwnHandler(HttpRequestHandler):
    server = OwnServer()


class Web:
    name = "web"
    context = Told()
    api = HttpClient()

    @http("GET", "/told")
    def told(self, request: Any) -> str:
        data = self.context.data
        return repr((self.context.call_id_stack[:-1], data.get("traceparent"), data.get("tracestate")))

    @OwnHandler.decorator("GET", "/own")
    def own(self, request: Any) -> str:
        return repr((self.context.call_id_stack[:-1], self.context.data))

    @http("GET", "/on")
    async def on(self, request: Any) -> str:
        answer: HttpAnswer = await self.api.get(request.args["url"])
        return answer.text()


class Headers(ServicesCase):
    """What a worker makes of them."""

    async def told(self, headers: dict[str, Any], url: str = "/told", **config: Any) -> Any:
        answer = await self.web_session().get(url, headers=headers)
        return eval(await answer.text())

    async def test_taken(self) -> None:
        """The ids go before the worker's own, the last ones if they are many, and the trace is in its data."""
        await self.start(Web, parent_calls_tracked=2)
        self.assertEqual(await self.told({"X-Call-Id-Stack": "a.b.1, c.d.2"}), (["a.b.1", "c.d.2"], None, None))
        self.assertEqual(await self.told({"x-call-id-stack": "1,2,3,4"}), (["3", "4"], None, None))
        self.assertEqual(await self.told({"traceparent": PARENT, "tracestate": "a=1"}), ([], PARENT, "a=1"))

    async def test_not_taken(self) -> None:
        """What can't be is as good as not there, and the request is answered."""
        await self.start(Web)
        for bad in ("", ",", "a b", "é", "a,,b", "x" * 256, "x," * 5000, ["a", "b"]):
            self.assertEqual(await self.told({"X-Call-Id-Stack": bad}), ([], None, None), bad)
        for bad in ("", "x", PARENT.upper(), PARENT + "-", "ff" + PARENT[2:], [PARENT, PARENT], "0" * 10_000):
            self.assertEqual(await self.told({"traceparent": bad}), ([], None, None), bad)

    async def test_none_tracked(self) -> None:
        """A service that tracks no calls takes no ids."""
        await self.start(Web, parent_calls_tracked=0)
        self.assertEqual(await self.told({"X-Call-Id-Stack": "a"}), ([], None, None))

    async def test_own(self) -> None:
        """What an author's own server takes from the headers goes over it."""
        await self.start(Web)
        told = await self.told({"X-Call-Id-Stack": "a", "traceparent": PARENT}, "/own")
        self.assertEqual(told, (["own"], {"user_id": "bob", "traceparent": PARENT}))

    async def test_from_service_to_service(self) -> None:
        """A request that leads to a request: the second service has the ids of both calls, over TCP."""
        (container,) = await self.start(Web)
        server = next(each for each in container.subextensions if isinstance(each, WebServer))
        port = reactor.listenTCP(0, server.use_listener().site, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        url = f"http://127.0.0.1:{port.getHost().port}/told"
        ids, _, _ = await self.told({"X-Call-Id-Stack": "first"}, f"/on?url={url}")
        self.assertEqual(ids[0], "first")
        self.assertRegex(ids[1], r"^web\.on\.")


class OwnSockets(WebSocketServer):
    web = OwnServer()


class OwnRpc(WebSocketRpc):
    server = OwnSockets()


class Calls:
    name = "calls"
    context = Told()

    @websocket_rpc
    def told(self, socket_id: str) -> Any:
        data = self.context.data
        seen = data.get("seen", 0)
        data["seen"] = seen + 1
        return [self.context.call_id_stack[:-1], data.get("traceparent"), seen]


class OwnCalls:
    name = "own_calls"
    context = Told()

    @OwnRpc.decorator
    def own(self, socket_id: str) -> Any:
        return [self.context.call_id_stack[:-1], self.context.data["user_id"]]


class Sockets(WebTestCase):
    """What the calls of a socket make of the headers with which it was opened."""

    def client(self, **headers: str) -> Client:
        return Client(self.peer(), headers={name.replace("_", "-"): value for name, value in headers.items()})

    def told(self, client: Client, method: str = "told") -> Any:
        (answer,) = [each for each in client.call(method) if each["type"] == "result"]
        return answer["data"]

    async def test_taken(self) -> None:
        """Each call has the ids and the trace, and what the calls before it have put into the context."""
        await self.serve(Calls, parent_calls_tracked=2)
        client = self.client(X_Call_Id_Stack="a.b.0, a.b.1, c.d.2", traceparent=PARENT)
        for seen in range(3):
            self.assertEqual(self.told(client), [["a.b.1", "c.d.2"], PARENT, seen])
        for bad in ("a b", "x" * 256):
            self.assertEqual(self.told(self.client(X_Call_Id_Stack=bad, traceparent="x")), [[], None, 0])

    async def test_own(self) -> None:
        """What an author's own server takes from the headers goes over it, for each service its own, in each call."""
        await self.serve(Calls, OwnCalls)
        client = self.client(X_Call_Id_Stack="a")
        for seen in range(2):
            self.assertEqual(self.told(client), [["a"], None, seen])
            self.assertEqual(self.told(client, "own"), [["own"], "bob"])

    async def test_waiting(self) -> None:
        """A call that waited for a worker has the ids, too."""
        await self.serve(Waiting, max_workers=1)
        one, other = self.client(X_Call_Id_Stack="a"), self.client(X_Call_Id_Stack="b")
        one.call("waits")
        self.assertEqual([each for each in other.call("waits") if each["type"] == "result"], [])
        for client, ids in ((one, ["a"]), (other, ["b"])):
            Waiting.gates.pop().callback(None)
            (answer,) = client.messages()
            self.assertEqual(answer["data"], ids)


class Waiting:
    name = "waiting"
    context = Told()
    gates: ClassVar[list[Deferred[None]]] = []

    @websocket_rpc
    async def waits(self, socket_id: str) -> Any:
        self.gates.append(Deferred())
        await self.gates[-1]
        return self.context.call_id_stack[:-1]


class Texts(SynchronousTestCase):
    """The texts by themselves."""

    def test_ids(self) -> None:
        """What is written can be read, and nothing else is."""
        self.assertEqual(ids_in(ids_written(["a.b.c", "d:e/f", 5, None, "g\r\nh", "i,j", "k l", "ü", ""]), 10),
                         ["a.b.c", "d:e/f"])  # fmt: skip
        self.assertEqual(ids_in("a," * (IDS_TEXT_MAX // 2) + "a", 10), [])

    def test_trace(self) -> None:
        """A state goes with its parent, or not at all."""
        self.assertEqual(trace_in(PARENT, "a\nb"), {"traceparent": PARENT})
        self.assertEqual(trace_in(None, "a=1"), {})
        self.assertEqual(trace_in(f"00-{'0' * 32}-{'b' * 16}-01", None), {})
