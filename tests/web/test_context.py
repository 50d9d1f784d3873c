"""Whose call a request is a part of: the headers that bring the ids of calls and the trace, from anybody."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase

from tests.services import ServicesCase
from txservices.extensions import DependencyProvider, WorkerContext
from txservices.httpclient import HttpAnswer, HttpClient
from txservices.httpcontext import IDS_TEXT_MAX, ids_in, ids_written, trace_in
from txservices.web.handlers import HttpRequestHandler, http
from txservices.web.server import WebServer

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
