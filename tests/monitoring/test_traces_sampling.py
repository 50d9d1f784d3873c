"""Traces that are not sampled, spans that nobody takes, and no SDK at all."""

from __future__ import annotations

import threading
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, TraceIdRatioBased

from tests.monitoring.test_w3c import PARENT, SPAN, TRACE
from tests.monitoring.traced import Reads, TracesCase
from tests.tracing import Recorded
from txservices.monitoring.traces import Traces
from txservices.observers import observers

PLAIN = f"00-{TRACE}-{SPAN}-00"  # a trace that is not sampled


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
