"""Traces for tests: OpenTelemetry's SDK, which keeps what is recorded in memory, and the spans as a tree."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler
from twisted.trial.unittest import SynchronousTestCase

from txservices.monitoring.traces import Traces
from txservices.observers import observers


class Recorded:
    """What is recorded while a test runs.

    Attributes:
        tracer: makes spans of the test's own.
    """

    def __init__(self, case: SynchronousTestCase, sampler: Sampler | None = None) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("test")
        self.traces = Traces({}, self.provider)
        observers.add(self.traces)
        case.addCleanup(self.end)

    def end(self) -> None:
        """Record no more."""
        if self.traces in observers.all:
            observers.remove(self.traces)
            self.traces.stop()

    @property
    def spans(self) -> list[ReadableSpan]:
        """The spans that have ended, in the order in which they began."""
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def named(self, name: str, kind: str = "") -> ReadableSpan:
        """The one span of that name, and of that kind."""
        (span,) = [each for each in self.spans if each.name == name and kind in ("", each.kind.name)]
        return span

    def tree(self) -> list[str]:
        """A line for each span, ``KIND name``, below its parent and indented; in one trace or in several."""
        ids = {context_of(each).span_id for each in self.spans}
        lines: list[str] = []

        def below(parent: int | None, depth: int) -> None:
            for each in self.spans:
                above = None if each.parent is None or each.parent.span_id not in ids else each.parent.span_id
                if above == parent:
                    lines.append(f"{'  ' * depth}{each.kind.name} {each.name}")
                    below(context_of(each).span_id, depth + 1)

        below(None, 0)
        return lines

    def traces_seen(self) -> set[int]:
        """The ids of all traces."""
        return {context_of(each).trace_id for each in self.spans}


def context_of(span: ReadableSpan) -> Any:
    assert span.context is not None
    return span.context


def said(span: ReadableSpan) -> dict[str, Any]:
    """The attributes of a span."""
    return dict(span.attributes or {})
