"""The span of a worker in the code of its method: the current one, and no other worker's."""

from __future__ import annotations

from typing import Any

from opentelemetry import trace
from twisted.internet.defer import Deferred

from tests.monitoring.traced import Front, Reads, Shop, Stock, TracesCase, began, handled
from tests.tracing import Recorded, context_of
from txservices.messaging import Publisher
from txservices.rpc import RpcProxy, rpc


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
