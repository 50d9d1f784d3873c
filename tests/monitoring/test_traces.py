"""Traces across services: one trace from the first request to the last handler, whatever is in between."""

from __future__ import annotations

import sys
import threading
from typing import Any
from unittest.mock import patch

from opentelemetry import baggage, trace
from opentelemetry.context import attach
from opentelemetry.propagate import inject
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, TraceIdRatioBased
from opentelemetry.trace import StatusCode
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks
from twisted.internet.task import Clock

from tests.monitoring.test_w3c import BAD, PARENT, SPAN, TRACE
from tests.services import ServicesCase
from tests.tracing import Recorded, context_of, said
from txservices.amqp.publish import Publisher as Program
from txservices.callids import further_ids, on_behalf_of, this_worker
from txservices.command import logs as logs_of_ours
from txservices.containers import ServiceContainer
from txservices.events import EventDispatcher, event_handler
from txservices.exceptions import ConfigurationError, RemoteError, UndeliverableMessage
from txservices.extensions import Entrypoint, WorkerContext
from txservices.messaging import Publisher, Queue, consume
from txservices.monitoring.traces import Traces, ids_of_span
from txservices.observers import observers
from txservices.retry import Retry
from txservices.rpc import RpcProxy, rpc
from txservices.testing.waiting import Heard
from txservices.timer import timer
from txservices.web.handlers import http

PLAIN = f"00-{TRACE}-{SPAN}-00"  # a trace that is not sampled
handled, began = Heard(), Heard()


class Front:
    name = "front"

    shop = RpcProxy("shop")

    @http("GET,POST", "/buy/<int:number>")
    async def buy(self, request: Any, number: int) -> Any:
        return 200 if number < 500 else number, str(await self.shop.sell(number))

    @http("GET", "/plain")
    def plain(self, request: Any) -> str:
        return "plain"

    @http("GET", "/fails", expected_exceptions=KeyError)
    def fails(self, request: Any) -> str:
        raise {"k": KeyError, "v": ValueError}[request.args["with"]]("no")


class Shop:
    name = "shop"

    stock = RpcProxy("stock")
    dispatch = EventDispatcher()

    @rpc
    async def sell(self, number: int) -> int:
        await self.stock.take(number)
        await self.dispatch("sold", number)
        return number


class Stock:
    name = "stock"

    parcels = Publisher(queue=Queue("parcels"), routing_key="parcels")

    @rpc(expected_exceptions=KeyError)
    async def take(self, number: int) -> None:
        if number == 13:
            raise KeyError("none left")
        if number == 14:
            raise ValueError("amqp://user:secret@host/: " + "x" * 1_000_000)

    @event_handler("shop", "sold")
    async def sold(self, number: int) -> None:
        await self.parcels(number)

    @consume(Queue("parcels"))
    def parcel(self, number: int) -> None:
        handled(number)


class TracesCase(ServicesCase):
    def setUp(self) -> None:
        super().setUp()
        handled.things.clear()
        began.things.clear()


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
                    "code.function.name": f"{__name__}.Front.buy",
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


class Reads:
    """Says what it sees of the trace that it is in."""

    name = "reads"

    other = RpcProxy("reads")
    dispatch = EventDispatcher()
    publish = Publisher()
    tracer: Any = None
    waiting: Deferred[None]

    def sees(self) -> list[Any]:
        here = trace.get_current_span().get_span_context()
        return [here.span_id, dict(baggage.get_all()), threading.current_thread() is threading.main_thread()]

    def inner(self) -> Any:
        with self.tracer.start_as_current_span("own"):
            return self.sees()

    @rpc
    def plain(self) -> Any:
        return self.inner()

    @rpc
    async def awaits(self) -> Any:
        began()
        await self.waiting
        return self.inner()

    @rpc
    @inlineCallbacks
    def yields(self) -> Any:
        began()
        yield self.waiting
        return self.inner()

    @rpc(blocking=True)
    def blocks(self) -> Any:
        return self.inner()

    @rpc
    async def calls(self) -> Any:
        with self.tracer.start_as_current_span("own"):
            return await self.other.plain()

    @rpc(blocking=True)
    def blocks_and_calls(self) -> Any:
        with self.tracer.start_as_current_span("own"):
            return self.other.plain()

    @rpc
    async def says_more(self, more: str) -> Any:
        attach(baggage.set_baggage("more", more) if more else baggage.clear())
        return await self.other.plain()

    @rpc
    def headers(self) -> dict[str, str]:
        found: dict[str, str] = {}
        inject(found)
        return found


class Current(TracesCase):
    """The span of a worker is the current one in its code, wherever that runs, and nowhere else."""

    async def test_everywhere(self) -> None:
        """A span of the method's own is a child of its worker's: before and after it waits, and in a thread."""
        recorded = Recorded(self)
        Reads.tracer = recorded.tracer
        await self.start(Reads)
        cluster = await self.cluster()
        for method in ("plain", "awaits", "yields", "blocks"):
            recorded.exporter.clear()
            Reads.waiting = Deferred()
            began.things.clear()
            called = getattr(cluster.reads, method)()
            if method in ("awaits", "yields"):
                await began.wait()
            Reads.waiting.callback(None)  # in the test's own context
            span_id, _, in_reactor = await called
            with self.subTest(method=method):
                name = f"reads.{method}"
                self.assertEqual(recorded.tree(), [f"CLIENT {name}", f"  SERVER {name}", "    INTERNAL own"])
                self.assertEqual(span_id, context_of(recorded.named("own")).span_id)
                self.assertEqual(in_reactor, method != "blocks")
                self.assertFalse(trace.get_current_span().get_span_context().is_valid)

    async def test_calls_in_a_span_of_ones_own(self) -> None:
        """A call is a child of the span in which it is made, also in a thread, and also in a program's span."""
        recorded = Recorded(self)
        Reads.tracer = recorded.tracer
        await self.start(Reads)
        cluster = await self.cluster()
        for method in ("calls", "blocks_and_calls"):
            recorded.exporter.clear()
            with recorded.tracer.start_as_current_span("program"):
                called = getattr(cluster.reads, method)()
            await called
            self.assertEqual(
                recorded.tree(),
                [
                    "INTERNAL program",
                    f"  CLIENT reads.{method}",
                    f"    SERVER reads.{method}",
                    "      INTERNAL own",
                    "        CLIENT reads.plain",
                    "          SERVER reads.plain",
                    "            INTERNAL own",
                ],
            )

    async def test_no_leak(self) -> None:
        """Workers in turn on one thread, and those that one's message begins, have spans of their own."""
        recorded = Recorded(self)
        await self.start(Reads, max_workers=1)
        await self.start(Front, Shop, Stock, max_workers=1)
        cluster = await self.cluster()
        calls = [cluster.reads.headers() for _ in range(20)]
        found = [(await each)["traceparent"][3:35] for each in calls]
        self.assertEqual(len(set(found)), 20)
        await self.dispatch("shop", "sold", 1)  # the broker in memory delivers it in the middle of the dispatch
        await handled.wait()
        traces = {context_of(each).trace_id for each in recorded.spans if each.kind.name != "INTERNAL"}
        self.assertEqual(len(traces), 21)
        self.assertFalse(trace.get_current_span().get_span_context().is_valid)

    async def test_callback_of_another(self) -> None:
        """What a worker sends from a callback that another worker has led to is part of its own trace."""
        recorded = Recorded(self)

        class Waits:
            name = "waits"
            other = RpcProxy("reads")
            publish = Publisher()
            told: Deferred[None] = Deferred()

            @rpc
            def wait(self) -> Deferred[Any]:
                return self.told.addCallback(lambda _: self.other.headers())

            @rpc
            def tell(self) -> None:
                self.told.callback(None)

        await self.start(Reads, Waits)
        cluster = await self.cluster()
        waiting = cluster.waits.wait()
        await cluster.waits.tell()
        found = await waiting
        self.assertEqual(
            int(found["traceparent"][3:35], 16), context_of(recorded.named("waits.wait", "SERVER")).trace_id
        )

    async def test_other_libraries(self) -> None:
        """OpenTelemetry's own functions, as for headers of an HTTP client, take the worker's span and baggage."""
        recorded = Recorded(self)
        await self.start(Reads)
        cluster = await self.cluster(context_data={"baggage": "a=b"})
        found = await cluster.reads.headers()
        served = context_of(recorded.named("reads.headers", "SERVER"))
        self.assertIn(f"00-{served.trace_id:032x}-{served.span_id:016x}-0", found["traceparent"])
        self.assertEqual(found["baggage"], "a=b")

    async def test_baggage(self) -> None:
        """Baggage goes along through calls and events, with what a method adds; what can't be does not."""
        Recorded(self)
        Reads.tracer = trace.NoOpTracer()
        await self.start(Reads)
        for sent, more, arrives in [
            ("a=b", "c d", {"a": "b", "more": "c d"}),
            ("a=b", "", {}),
            ("a=" + "b" * 8191, "c", {"more": "c"}),
            (["a=b"], "c", {"more": "c"}),
        ]:
            cluster = await self.cluster(context_data={"baggage": sent})
            _, found, _ = await cluster.reads.says_more(more)
            with self.subTest(sent=str(sent)[:20], more=more):
                self.assertEqual(found, arrives)


hook = Entrypoint.decorator


class Hooked:
    """A service whose workers do what a test gives them."""

    name = "hooked"

    @hook(expected_exceptions=KeyError, worker_timeout=5)
    def run(self, does: Any) -> Any:
        return does()

    @timer(interval=10)
    def tick(self) -> None: ...


class Workers(TracesCase):
    """Workers by virtual time, without a broker."""

    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.container = ServiceContainer(Hooked, {"max_workers": 1}, clock=self.clock)

    def spawn(self, does: Any, data: dict[str, Any] | None = None) -> Any:
        (run,) = [each for each in self.container.entrypoints if each.method_name == "run"]
        return self.container.spawn_worker(run, (does,), {}, data)

    def test_bad_parents(self) -> None:
        """Whatever comes as traceparent, tracestate or baggage, the worker runs, and in a trace of its own."""
        recorded = Recorded(self)
        for value in BAD:
            recorded.exporter.clear()
            worker = self.spawn(lambda: None, {"traceparent": value, "tracestate": value, "baggage": value, "a": 1})
            with self.subTest(value=str(value)[:80]):
                (span,) = recorded.spans
                self.assertIsNone(span.parent)
                self.assertEqual(set(worker.data), {"traceparent", "a"})
                self.assertEqual(worker.data["traceparent"][3:35], f"{context_of(span).trace_id:032x}")

    def test_entrypoints_of_others(self) -> None:
        """A worker of any entrypoint has a span, with a parent if its context data names one."""
        recorded = Recorded(self)
        self.spawn(lambda: None, {"traceparent": PARENT})
        span = recorded.named("hooked.run", "INTERNAL")
        self.assertEqual(context_of(span).trace_id, int(TRACE, 16))

    def test_timers(self) -> None:
        """Each tick of a timer is a trace of its own."""
        recorded = Recorded(self)
        (tick,) = [each for each in self.container.entrypoints if each.method_name == "tick"]
        tick.start()
        self.clock.pump([10, 10])
        tick.stop()
        self.assertEqual(recorded.tree(), ["INTERNAL hooked.tick"] * 2)
        self.assertEqual(len(recorded.traces_seen()), 2)

    def test_ends(self) -> None:
        """A worker that ran too long, or was cancelled, says so, and only the first is an error."""
        recorded = Recorded(self)
        self.spawn(Deferred)
        self.spawn(Deferred)
        self.clock.advance(5)
        self.successResultOf(Deferred.fromCoroutine(self.container.workers.abort()))
        late, cancelled = recorded.spans
        self.assertEqual(said(late)["txservices.outcome"], "timeout")
        self.assertEqual(said(late)["error.type"], "txservices.exceptions.WorkerTimeout")
        self.assertEqual(said(cancelled)["txservices.outcome"], "cancelled")
        self.assertEqual(cancelled.status.status_code, StatusCode.UNSET)
        self.assertEqual(said(cancelled)["txservices.waited"], 5.0)
        self.flushLoggedErrors()

    def test_errors_that_resist(self) -> None:
        """An error that raises when it is looked at ends its worker's span all the same."""
        recorded = Recorded(self)

        class Resists(Exception):
            def __str__(self) -> str:
                raise SystemExit("no")

        def fail() -> None:
            raise Resists

        self.spawn(fail)
        self.assertEqual(said(recorded.named("hooked.run"))["error.type"], f"{__name__}.Resists")
        self.flushLoggedErrors()

    def test_log_lines(self) -> None:
        """A line has the ids of the span in which it is logged, and a line about a worker those of the worker's."""
        recorded = Recorded(self)
        found: list[dict[str, str]] = []

        def logs() -> None:
            found.append(ids_of_span(this_worker.get()))
            with recorded.tracer.start_as_current_span("own"):
                found.append(ids_of_span(this_worker.get()))

        worker = self.spawn(logs)
        found.append(on_behalf_of(worker, ids_of_span, worker))
        mine, own = (context_of(recorded.named(name)) for name in ("hooked.run", "own"))
        self.assertEqual([each["trace_id"] for each in found], [f"{mine.trace_id:032x}"] * 3)
        self.assertEqual([int(each["span_id"], 16) for each in found], [mine.span_id, own.span_id, mine.span_id])
        self.assertEqual(ids_of_span(WorkerContext(self.container, None, worker.entrypoint)), {})


class Sampling(TracesCase):
    """What is not sampled costs little, and is passed on as not sampled."""

    async def test_not_sampled(self) -> None:
        """Of a trace that is not sampled nothing is recorded, and the next service is told so."""
        for sampler in (ParentBased(ALWAYS_ON), ParentBased(TraceIdRatioBased(0.5)), ALWAYS_OFF):
            recorded = Recorded(self, sampler)
            (container,) = await self.start(Reads)
            cluster = await self.cluster(context_data={"traceparent": PLAIN})
            found = await cluster.reads.headers()
            with self.subTest(sampler=sampler.get_description()):
                self.assertEqual(found["traceparent"][:36], PLAIN[:36])
                self.assertEqual(found["traceparent"][-2:], "00")
                self.assertEqual(recorded.spans, [])
                self.assertEqual(recorded.traces.follows, sampler is not ALWAYS_OFF)
            await container.stop()
            recorded.end()

    async def test_sampler_of_its_own(self) -> None:
        """A sampler that does not heed the parent's decision is asked, and its decision goes on."""
        recorded = Recorded(self, ALWAYS_ON)
        await self.start(Reads)
        cluster = await self.cluster(context_data={"traceparent": PLAIN})
        self.assertEqual((await cluster.reads.headers())["traceparent"][-1:], "1")
        self.assertEqual(recorded.tree(), ["CLIENT reads.headers", "  SERVER reads.headers"])

    async def test_nothing_set_up(self) -> None:
        """Without an SDK a trace that comes in is passed on, a bad one is not, and there is no other."""
        traces = Traces({}, trace.NoOpTracerProvider())
        self.addCleanup(traces.stop)
        observers.add(traces)
        self.addCleanup(observers.remove, traces)
        await self.start(Reads)
        for sent, arrives in ((PARENT, PARENT), ("bad", None)):
            cluster = await self.cluster(context_data={"traceparent": sent})
            self.assertEqual((await cluster.reads.headers()).get("traceparent"), arrives)

    async def test_exporter_that_is_away(self) -> None:
        """An exporter that does not come back holds up no worker: what it can't take is dropped by its queue."""
        go_on = threading.Event()
        self.addCleanup(go_on.set)
        exporting = threading.Event()
        taken: list[int] = []

        class Away(SpanExporter):
            def export(self, spans: Any) -> SpanExportResult:
                exporting.set()
                go_on.wait()
                taken.append(len(spans))
                return SpanExportResult.FAILURE

        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(Away(), max_queue_size=8, max_export_batch_size=4))
        traces = Traces({}, provider)
        self.addCleanup(traces.stop)
        observers.add(traces)
        self.addCleanup(observers.remove, traces)
        await self.start(Reads)
        cluster = await self.cluster()
        for _ in range(50):
            await cluster.reads.headers()
        self.assertTrue(exporting.wait(30))
        await cluster.reads.headers()
        self.assertEqual(taken, [])
        self.assertEqual(traces.recorded, {})
        go_on.set()
        provider.shutdown()
        self.assertLessEqual(sum(taken), 12)


class Configured(TracesCase):
    """``TRACES`` of the configuration."""

    async def test_switched_on(self) -> None:
        """With TRACES a process makes spans by the provider that is set up, until its services have stopped."""
        recorded = Recorded(self)
        recorded.end()
        self.patch(trace, "get_tracer_provider", lambda: recorded.provider)
        (container,) = await self.start(Reads, TRACES=True)
        await (await self.cluster()).reads.headers()
        await container.stop()
        await self.stage.stop()
        self.assertEqual(recorded.tree(), ["CLIENT reads.headers", "  SERVER reads.headers"])
        self.assertEqual((observers.all, further_ids), ([], []))

    def test_extra_is_missing(self) -> None:
        """Without opentelemetry-api the start ends with the line to type."""
        with patch.dict(sys.modules, {"opentelemetry": None}):
            for name in ("traces", "spans", "w3c"):
                del sys.modules[f"txservices.monitoring.{name}"]
            with self.assertRaises(ConfigurationError) as raised:
                ServiceContainer(Hooked, {"TRACES": True})
        self.assertRegex(str(raised.exception), r"^TRACES needs opentelemetry-api: pip install 'txservices\[traces\]' ")

    def test_lines_of_the_log(self) -> None:
        """Twisted's events and standard records of a worker have the ids of its span; without traces they have none."""
        found: list[Any] = []

        def logs() -> None:
            event: dict[str, Any] = {"log_format": "x"}
            logs_of_ours.notes_call_id(event)
            record = logs_of_ours.make_our_record("shop", 20, "path", 1, "x", (), None)
            found.append([event.get("trace_id"), event.get("span_id"), record.trace_id, record.span_id])

        container = ServiceContainer(Hooked, {}, clock=Clock())
        (run,) = [each for each in container.entrypoints if each.method_name == "run"]
        container.spawn_worker(run, (logs,), {})
        recorded = Recorded(self)
        container.spawn_worker(run, (logs,), {})
        span = context_of(recorded.named("hooked.run"))
        ids = [f"{span.trace_id:032x}", f"{span.span_id:016x}"]
        self.assertEqual(found, [[None, None, "-", "-"], [*ids, *ids]])


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
