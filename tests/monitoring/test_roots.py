"""New traces: which are recorded is decided before the SDK is asked, and as it would decide."""

from __future__ import annotations

import os

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, DEFAULT_ON, ParentBased, Sampler, TraceIdRatioBased
from twisted.trial.unittest import SynchronousTestCase

from tests.tracing import Recorded, context_of
from txservices.monitoring.roots import AHEAD, draw, drawing, roots_of
from txservices.observers import observers

RANDOM = 2 * hasattr(RandomIdGenerator, "is_trace_id_random")  # the flag, which older ones do not know


class Ids(RandomIdGenerator):
    """Gives traces these ids."""

    def __init__(self, *ids: int) -> None:
        self.ids = list(ids)

    def generate_trace_id(self) -> int:
        return self.ids.pop(0)


class RootsTests(SynchronousTestCase):
    """Traces that begin here."""

    def test_as_the_sampler(self) -> None:
        """Of each trace the SDK's sampler would have said the same, and the SDK makes a span with the id drawn."""
        for rate in (0.0, 0.1, 0.5, 1e-05, 1.0):
            sampler = ParentBased(TraceIdRatioBased(rate))
            recorded = Recorded(self, sampler)
            roots = recorded.traces.roots
            assert roots is not None
            for half in (0, 1, roots.bound - 1, roots.bound, (1 << 64) - 1):
                trace_id = (5 << 64) + max(half, 0) % (1 << 64)
                recorded.exporter.clear()
                roots.draw = drawing(Ids(trace_id))
                headers: dict[str, str] = {}
                observers.tell(observers.call_started, Call, None, headers)
                observers.tell(observers.call_ended, Call, "ok", 0.0, None)
                is_sampled = sampler.should_sample(None, trace_id, "").decision.is_sampled()
                with self.subTest(rate=rate, half=half):
                    self.assertEqual(headers["nameko.traceparent"][3:35], f"{trace_id:032x}")
                    self.assertEqual(headers["nameko.traceparent"][-2:], f"{RANDOM + is_sampled:02x}")
                    self.assertEqual([context_of(each).trace_id for each in recorded.spans], [trace_id] * is_sampled)
            recorded.end()

    def test_ids_of_ones_own(self) -> None:
        """A generator of ids that is not the SDK's own gives the ids, whatever it is."""
        sampler = ParentBased(TraceIdRatioBased(0.1))
        trace_id = (5 << 64) + (1 << 64) - 1
        provider = TracerProvider(sampler=sampler, id_generator=Ids(trace_id), shutdown_on_exit=False)
        roots = roots_of(provider.get_tracer("test"), sampler.get_description())
        assert roots is not None
        self.assertEqual(str(roots.not_recorded())[3:35], f"{trace_id:032x}")

    def test_each_its_own(self) -> None:
        """No id is given twice, however many traces begin, and ids are as random as the SDK's: any digit comes."""
        sampler = ParentBased(TraceIdRatioBased(0.0))
        roots = roots_of(
            TracerProvider(sampler=sampler, shutdown_on_exit=False).get_tracer("test"), sampler.get_description()
        )
        assert roots is not None
        texts = [str(roots.not_recorded()) for _ in range(3 * AHEAD)]
        _, traces, spans, _ = zip(*(text.split("-") for text in texts), strict=True)
        self.assertEqual((len(set(traces)), len(set(spans))), (len(texts), len(texts)))
        for length, ids in ((32, traces), (16, spans)):
            self.assertEqual([set(column) for column in zip(*ids, strict=True)], [set("0123456789abcdef")] * length)

    def test_fork(self) -> None:
        """A process that is forked draws ids of its own, and not those that its parent has drawn ahead."""
        draw()
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.write(writing, draw().encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as told:
            theirs = told.read()
        os.waitpid(child, 0)
        self.assertRegex(theirs, "^[0-9a-f]{32}-[0-9a-f]{16}$")
        self.assertNotIn(theirs, [draw() for _ in range(AHEAD)])

    def test_other_samplers(self) -> None:
        """Samplers that are not known to decide by the id are asked for each trace."""
        samplers: list[Sampler] = [DEFAULT_ON, ALWAYS_ON, TraceIdRatioBased(0.5)]
        for sampler in samplers:
            tracer = TracerProvider(sampler=sampler, shutdown_on_exit=False).get_tracer("test")
            self.assertIsNone(roots_of(tracer, sampler.get_description()))


class Call:
    """A call that a program makes."""

    name = "shop.sell"
    correlation_id = "1"
