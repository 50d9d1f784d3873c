"""Traces across services: one trace from the first request to the last handler, whatever is in between."""

from __future__ import annotations

from typing import Any

from opentelemetry.trace import StatusCode
from twisted.internet.defer import CancelledError, Deferred

from tests.monitoring.test_w3c import PARENT, SPAN, TRACE
from tests.monitoring.traced import Front, Reads, Shop, Stock, TracesCase, began, handled
from tests.tracing import Recorded, context_of, said
from tests.web.chat import Client, SocketsCase
from txservices.amqp.publish import Publisher as Program
from txservices.events import event_handler
from txservices.exceptions import RemoteError, UndeliverableMessage
from txservices.retry import Retry
from txservices.testing.waiting import Heard


class Across(TracesCase):
    """HTTP -> RPC -> RPC, and an event and a message on the way."""

    async def start_all(self) -> None:
        await self.start(Front, Shop, Stock)

    async def test_one_trace(self) -> None:
        """The request's trace goes through calls, events and messages, each span the child of what has led to it."""
        recorded = Recorded(self)
        await self.start_all()
        response = await self.web_session().get("/buy/1", headers={"traceparent": PARENT})
        self.assertEqual(response.code, 200)
        await handled.wait()
        self.assertEqual(
            recorded.tree(),
            [
                "SERVER GET /buy/<int:number>",
                "  CLIENT shop.sell",
                "    SERVER shop.sell",
                "      CLIENT stock.take",
                "        SERVER stock.take",
                "      PRODUCER publish shop.events:sold",
                "        CONSUMER process shop.events:sold:evt-shop-sold--stock.sold",
                "          PRODUCER publish parcels",
                "            CONSUMER process parcels",
            ],
        )
        self.assertEqual(recorded.traces_seen(), {int(TRACE, 16)})
        first = recorded.named("GET /buy/<int:number>")
        assert first.parent is not None
        self.assertEqual((first.parent.span_id, first.parent.is_remote), (int(SPAN, 16), True))
        self.assertEqual(recorded.traces.recorded, {})

    async def test_attributes(self) -> None:
        """Each span says what the conventions for its kind say."""
        recorded = Recorded(self)
        await self.start_all()
        session = self.web_session()
        await session.get("/buy/1", headers={"user-agent": "a test"})
        await handled.wait()
        expected: list[tuple[str, str, dict[str, Any]]] = [
            (
                "GET /buy/<int:number>",
                "SERVER",
                {
                    "http.request.method": "GET",
                    "http.route": "/buy/<int:number>",
                    "http.response.status_code": 200,
                    "url.path": "/buy/1",
                    "url.scheme": "http",
                    "user_agent.original": "a test",
                    "code.function.name": f"{Front.__module__}.Front.buy",
                },
            ),
            ("shop.sell", "CLIENT", {"rpc.system.name": "nameko", "rpc.method": "shop.sell"}),
            ("shop.sell", "SERVER", {"rpc.system.name": "nameko", "rpc.method": "shop.sell"}),
            (
                "publish shop.events:sold",
                "PRODUCER",
                {
                    "messaging.system": "rabbitmq",
                    "messaging.operation.name": "publish",
                    "messaging.operation.type": "send",
                    "messaging.destination.name": "shop.events:sold",
                    "messaging.rabbitmq.destination.routing_key": "sold",
                },
            ),
            (
                "process shop.events:sold:evt-shop-sold--stock.sold",
                "CONSUMER",
                {
                    "messaging.system": "rabbitmq",
                    "messaging.operation.name": "process",
                    "messaging.operation.type": "process",
                    "messaging.destination.name": "shop.events:sold:evt-shop-sold--stock.sold",
                    "messaging.rabbitmq.destination.routing_key": "sold",
                    "messaging.rabbitmq.message.delivery_tag": 1,
                },
            ),
        ]
        for name, kind, attributes in expected:
            span = recorded.named(name, kind)
            with self.subTest(name=name, kind=kind):
                self.assertEqual({**said(span), **attributes}, said(span))
                self.assertEqual((span.status.status_code, span.events), (StatusCode.UNSET, ()))
                self.assertNotIn("error.type", said(span))
        server = said(recorded.named("shop.sell", "SERVER"))
        self.assertRegex(server["txservices.call_id"], r"^shop\.sell\.")
        produced = recorded.named("publish shop.events:sold")
        (link,) = recorded.named("process shop.events:sold:evt-shop-sold--stock.sold").links
        self.assertEqual(link.context.span_id, context_of(produced).span_id)

    async def test_errors(self) -> None:
        """What failed says so, with the error; an expected error is no fault of the service, but of its caller."""
        recorded = Recorded(self)
        await self.start_all()
        cluster = await self.cluster()
        for number, status in ((13, StatusCode.UNSET), (14, StatusCode.ERROR)):
            recorded.exporter.clear()
            with self.assertRaises(RemoteError):
                await cluster.stock.take(number)
            with self.subTest(number=number):
                served, called = (recorded.named("stock.take", kind) for kind in ("SERVER", "CLIENT"))
                kind = "KeyError" if number == 13 else "ValueError"
                self.assertEqual((served.status.status_code, called.status.status_code), (status, StatusCode.ERROR))
                self.assertEqual(said(served)["rpc.response.status_code"], kind)
                self.assertEqual(said(served).get("error.type"), None if number == 13 else kind)
                self.assertEqual(said(served)["txservices.outcome"], "expected" if number == 13 else "error")
                self.assertEqual((said(called)["rpc.response.status_code"], said(called)["error.type"]), (kind, kind))
                self.assertEqual(len(served.events), 0 if number == 13 else 1)
        event = dict(served.events[0].attributes or {})
        self.assertEqual(event["exception.type"], "ValueError")
        self.assertIn("in take", str(event["exception.stacktrace"]))
        for text in (event["exception.message"], event["exception.stacktrace"], served.status.description):
            self.assertRegex(str(text), "amqp://user:\\*+@host")  # cut, and without the password
            self.assertRegex(str(text), "characters left out")
            self.assertLess(len(str(text)), 50_000)
        self.flushLoggedErrors()

    async def test_http_status(self) -> None:
        """From 500 on an answer is the server's error, whether it was raised or returned; below it is none."""
        recorded = Recorded(self)
        await self.start_all()
        session = self.web_session()
        cases = [
            ("/plain", 200, None),
            ("/fails?with=k", 400, None),
            ("/fails?with=v", 500, "ValueError"),
            ("/buy/503", 503, "503"),
            ("/buy/14", 500, "txservices.exceptions.RemoteError"),
        ]
        for url, code, kind in cases:
            recorded.exporter.clear()
            self.assertEqual((await session.get(url)).code, code)
            (span,) = [each for each in recorded.spans if each.name.startswith("GET ")]
            with self.subTest(url=url):
                self.assertEqual(said(span)["http.response.status_code"], code)
                self.assertEqual(said(span).get("error.type"), kind)
                self.assertEqual(span.status.status_code, StatusCode.ERROR if kind else StatusCode.UNSET)
        await handled.wait()
        self.flushLoggedErrors()

    async def test_http_headers(self) -> None:
        """Of headers that can't be, or that come twice, none is heeded: a new trace begins."""
        recorded = Recorded(self)
        await self.start_all()
        session = self.web_session()
        for values in ([b"\xff\xfe"], [PARENT.encode()] * 2, [b"00-1-2-3"], [b""]):
            with self.subTest(values=values):
                recorded.exporter.clear()
                self.assertEqual((await session.get("/plain", headers={"traceparent": values})).code, 200)
                self.assertIsNone(recorded.named("GET /plain").parent)
        recorded.exporter.clear()
        await session.post("/buy/1", headers={"traceparent": PARENT, "tracestate": ["a=1", "b=2"]})
        await handled.wait()
        span = recorded.named("process parcels")
        self.assertEqual(context_of(span).trace_state.to_header(), "a=1,b=2")
        recorded.named("POST /buy/<int:number>")


class Sockets(SocketsCase):
    """A WebSocket's calls."""

    async def test_each_call(self) -> None:
        """Each is a child of whatever opened the socket; without that each begins a trace."""
        recorded = Recorded(self)
        await self.start()
        for headers, traces in (({"traceparent": PARENT, "baggage": "a=b"}, 1), ({}, 3), ({"traceparent": "x"}, 3)):
            recorded.exporter.clear()
            client = Client(self.peer(), headers=headers)
            for value in range(3):
                client.call("echo", value=value)
            spans = recorded.spans
            self.assertEqual(len(spans), 3)
            self.assertEqual(len({context_of(span).trace_id for span in spans}), traces)
            parents = {None if span.parent is None else span.parent.span_id for span in spans}
            self.assertEqual(parents, {int(SPAN, 16) if traces == 1 else None})


class Messages(TracesCase):
    """Messages that are tried again, and messages of other people's."""

    async def test_attempts(self) -> None:
        """Each attempt at a message is a span, all in the trace of the message."""
        recorded = Recorded(self)
        heard = Heard()

        class Flaky:
            name = "flaky"

            @event_handler("shop", "sold", retry=Retry(attempts=3, delay=0, jitter=0))
            def sold(self, data: Any) -> None:
                heard(data)
                if len(heard.things) < 3:
                    raise ValueError("not yet")

        (container,) = await self.start(Flaky)
        await self.dispatch("shop", "sold", 1)
        await heard.wait(3)
        await container.stop()
        name = "process shop.events:sold:evt-shop-sold--flaky.sold"
        self.assertEqual(recorded.tree(), ["PRODUCER publish shop.events:sold", *[f"  CONSUMER {name}"] * 3])
        attempts = [said(each).get("txservices.attempt") for each in recorded.spans[1:]]
        self.assertEqual(attempts, [None, 2, 3])
        self.flushLoggedErrors()

    async def test_on_the_wire(self) -> None:
        """A call has the trace in nameko's context alone, an event and a message under its own name, too."""
        recorded = Recorded(self)
        calls, events = await self.tap("nameko-rpc", "reads.*"), await self.tap("shop.events")
        await self.start(Reads)
        cluster = await self.cluster()
        await cluster.reads.headers()
        await self.dispatch("shop", "sold", 1)
        (call,), (event,) = await calls.wait(), await events.wait()
        called = context_of(recorded.named("reads.headers", "CLIENT"))
        told = context_of(recorded.named("publish shop.events:sold"))
        self.assertIn(f"{called.trace_id:032x}-{called.span_id:016x}", call.headers["nameko.traceparent"])
        self.assertNotIn("traceparent", call.headers)
        self.assertIn(f"{told.trace_id:032x}-{told.span_id:016x}", event.headers["nameko.traceparent"])
        self.assertEqual(event.headers["traceparent"], event.headers["nameko.traceparent"])

    async def test_headers_of_the_publisher(self) -> None:
        """A traceparent that the publisher gives itself stays, and there is no other span for the message."""
        recorded = Recorded(self)
        await self.start(Stock)
        publisher = Program(None)
        publisher.use(self.connections(), self.config)
        await publisher.publish(1, routing_key="parcels", headers={"traceparent": PARENT})
        await handled.wait()
        self.assertEqual(recorded.tree(), ["CONSUMER process parcels"])
        self.assertEqual(recorded.traces_seen(), {int(TRACE, 16)})

    async def test_not_published(self) -> None:
        """A message that the broker can't have is an error of its span."""
        recorded = Recorded(self)
        publisher = Program(None)
        publisher.use(self.connections(), self.config)
        with self.assertRaises(UndeliverableMessage):
            await publisher.publish(1, routing_key="nobody", mandatory=True)
        span = recorded.named("publish nobody")
        self.assertEqual(said(span)["error.type"], "txservices.exceptions.UndeliverableMessage")

    async def test_cancelled_call(self) -> None:
        """A call that its caller cancels is no error."""
        recorded = Recorded(self)
        Reads.waiting = Deferred()
        await self.start(Reads)
        cluster = await self.cluster()
        called = cluster.reads.awaits()
        await began.wait()
        called.cancel()
        with self.assertRaises(CancelledError):
            await called
        span = recorded.named("reads.awaits", "CLIENT")
        self.assertEqual((said(span)["txservices.outcome"], span.status.status_code), ("cancelled", StatusCode.UNSET))
        self.assertEqual(recorded.traces.recorded, {})
        Reads.tracer = recorded.tracer
        Reads.waiting.callback(None)
