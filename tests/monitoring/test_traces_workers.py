"""The spans of workers by virtual time, and how traces are switched on."""

from __future__ import annotations

import sys
from typing import Any
from unittest.mock import patch

from opentelemetry import trace
from opentelemetry.trace import StatusCode
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.monitoring.test_w3c import BAD, PARENT, TRACE
from tests.monitoring.traced import Reads, Stock, TracesCase, handled
from tests.tracing import Recorded, context_of, said
from txservices.callids import further_ids, on_behalf_of, this_worker
from txservices.command import logs as logs_of_ours
from txservices.containers import ServiceContainer
from txservices.exceptions import ConfigurationError
from txservices.extensions import Entrypoint, WorkerContext
from txservices.monitoring.traces import ids_of_span
from txservices.observers import observers
from txservices.standalone.events import event_dispatcher
from txservices.standalone.rpc import ClusterRpcProxy
from txservices.timer import timer

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

    async def test_programs(self) -> None:
        """With TRACES in its configuration a program that is no service has spans of its calls and events."""
        recorded = Recorded(self)
        recorded.end()
        self.patch(trace, "get_tracer_provider", lambda: recorded.provider)
        await self.start(Stock)
        config = {**self.config, "TRACES": True}
        async with ClusterRpcProxy(config) as cluster:
            await cluster.stock.take(1)
        self.assertEqual(recorded.tree(), ["CLIENT stock.take", "  SERVER stock.take"])
        recorded.exporter.clear()
        async with event_dispatcher(config) as dispatch:
            await dispatch("shop", "sold", 1)
        await handled.wait()
        self.assertEqual(recorded.tree()[0], "PRODUCER publish shop.events:sold")
        recorded.exporter.clear()
        async with ClusterRpcProxy(self.config) as cluster:
            await cluster.stock.take(1)
        self.assertEqual((recorded.spans, further_ids), ([], []))

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
