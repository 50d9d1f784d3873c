"""Traces: OpenTelemetry's spans of workers, calls and publishes, with ``TRACES: true`` in the configuration.

    worker_started    headers or context data -> the parent -> a span, current in the worker's context -> worker.data
    call_started      the current span -> a span -> the headers of the request
    publish_started   the current span -> a span -> the headers of the message

What records and sends the spans is whatever the process has set up by OpenTelemetry's API: see docs/tracing.md. With
nothing set up, traces that come in are passed on, and that is all.

This module needs opentelemetry-api: ``pip install 'txservices[traces]'``.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

try:
    from opentelemetry import trace
except ImportError as error:
    raise ImportError(f"TRACES needs opentelemetry-api: pip install 'txservices[traces]' ({error})") from error

from opentelemetry.context import attach, get_current
from opentelemetry.trace import INVALID_SPAN, Link, NonRecordingSpan, Span, SpanContext, SpanKind, TraceFlags

from txservices import __version__
from txservices.callids import further_ids, this_worker
from txservices.constants import HEADER_PREFIX
from txservices.extensions import Entrypoint, WorkerContext
from txservices.monitoring import spans, w3c
from txservices.monitoring.roots import roots_of
from txservices.observers import ERROR, OK, Observer

__all__ = ["Traces"]

PREFIX = f"{HEADER_PREFIX}."
# What a sampler says of itself that records no child of a span that is not recorded, as the SDK's own do by default.
FOLLOWS = ("remoteParentNotSampled:AlwaysOffSampler", "localParentNotSampled:AlwaysOffSampler")

worker_span: ContextVar[Span] = ContextVar("worker_span", default=INVALID_SPAN)


class Traces(Observer):
    """Makes a span for each worker, each call, and each event or message that is published.

    Args:
        provider: makes the spans; OpenTelemetry's global one if it isn't given.
    """

    def __init__(self, config: Mapping[str, Any], provider: trace.TracerProvider | None = None) -> None:
        super().__init__(config)
        provider = trace.get_tracer_provider() if provider is None else provider
        self.tracer = provider.get_tracer("txservices", __version__)
        said = description_of(provider)
        self.follows = all(each in said for each in FOLLOWS)
        self.roots = roots_of(self.tracer, said)
        self.shapes: dict[Entrypoint, spans.Shape] = {}
        self.recorded: dict[Any, Span] = {}  # of calls by their correlation ids, of publishes by themselves
        further_ids.append(ids_of_span)

    def stop(self) -> None:
        further_ids.remove(ids_of_span)

    def shape_of(self, entrypoint: Entrypoint) -> spans.Shape:
        shape = self.shapes.get(entrypoint)
        if shape is None:
            shape = self.shapes[entrypoint] = spans.shape_of(entrypoint)
        return shape

    def parent_of(self, carrier: Mapping[str, Any], prefix: str = "") -> SpanContext | w3c.NotRecorded | None:
        """The span that has led here, if there is one. Of a trace that is not recorded it is always one."""
        parent: SpanContext | w3c.NotRecorded | None = w3c.not_recorded(carrier, prefix) if self.follows else None
        if parent is None:
            parent = w3c.parent_of(carrier, prefix)
            if parent is None and self.roots is not None:
                parent = self.roots.not_recorded()
        return parent

    def worker_started(self, worker: WorkerContext) -> None:
        worker_span.set(INVALID_SPAN)  # else it might be that of a worker whose publish has led to this one, in memory
        shape = self.shape_of(worker.entrypoint)
        data, carrier = worker.data, shape.carrier(worker)
        baggage = w3c.baggage_of(carrier[w3c.BAGGAGE]) if w3c.BAGGAGE in carrier else {}
        if baggage:
            data[w3c.BAGGAGE] = carrier[w3c.BAGGAGE]
        elif w3c.BAGGAGE in data:
            del data[w3c.BAGGAGE]
        parent = self.parent_of(carrier)
        if type(parent) is w3c.NotRecorded:
            attach(w3c.received(parent, baggage))  # as the current span, so that no part of the trace is recorded
            parent.send(data)
            return
        context = w3c.received(None if parent is None else NonRecordingSpan(parent), baggage)
        name, attributes = shape.begins(worker)
        links = [Link(parent)] if shape.links and parent is not None else None
        span = self.tracer.start_span(name, context, shape.kind, attributes, links)
        attach(trace.set_span_in_context(span, context))
        if span.is_recording():
            worker_span.set(span)
        w3c.send(span.get_span_context(), data)

    def worker_ended(
        self, worker: WorkerContext, outcome: str, waited: float, seconds: float, error: BaseException | None
    ) -> None:
        span = worker_span.get()
        if span is not INVALID_SPAN and span.is_recording():
            self.shape_of(worker.entrypoint).end(span, worker, outcome, waited, error)

    def call_started(self, call: Any, context: Any, headers: dict[str, Any]) -> None:
        span = self.begin(context, headers, call.name, SpanKind.CLIENT, spans.rpc(call.name))
        if span is not None:
            self.recorded[call.correlation_id] = span

    def call_ended(self, call: Any, outcome: str, seconds: float, error: BaseException | None) -> None:
        span = self.recorded.pop(call.correlation_id, None)
        if span is not None:
            spans.end(span, outcome, error)

    def http_call_started(self, call: Any, context: Any, headers: dict[str, Any]) -> None:
        span = self.begin(context, headers, call.method, SpanKind.CLIENT, spans.asking(call), prefix="")
        if span is not None:
            self.recorded[call] = span

    def http_call_ended(self, call: Any, outcome: str, seconds: float, error: BaseException | None) -> None:
        span = self.recorded.pop(call, None)
        if span is not None:
            if call.status is not None:
                spans.answered(span, call.status)
            spans.end(span, outcome, error)

    def publish_started(self, publish: Any, context: Any, headers: dict[str, Any]) -> None:
        if w3c.TRACEPARENT in headers:
            return  # the publisher gives one of its own, which must stay
        to = spans.destination(publish.exchange, publish.routing_key)
        span = self.begin(
            context, headers, f"publish {to}", SpanKind.PRODUCER, spans.publishing(to, publish.routing_key)
        )
        for key in w3c.KEYS:  # under their own names, too: others know no context of nameko's
            if PREFIX + key in headers:
                headers[key] = headers[PREFIX + key]
        if span is not None:
            self.recorded[publish] = span

    def publish_ended(self, publish: Any, error: BaseException | None) -> None:
        span = self.recorded.pop(publish, None)
        if span is not None:
            spans.end(span, OK if error is None else ERROR, error)

    def begin(
        self,
        sender: Any,
        headers: dict[str, Any],
        name: str,
        kind: SpanKind,
        attributes: dict[str, Any],
        prefix: str = PREFIX,
    ) -> Span | None:
        """Begin the span of something that is sent, and write it into the headers. None if it is not recorded.

        Its parent is the current span, if the sender's own code runs now. If not, that is a callback which somebody
        else's message has led to: then it is the span of the sender, which the headers of its context have.
        """
        context = get_current()
        here: Any = context.get(w3c.SPAN_KEY)
        if isinstance(sender, WorkerContext) and this_worker.get() is not sender:
            here = None
        if type(here) is w3c.NotRecorded:
            here.send(headers, prefix)
            w3c.send_baggage(context, headers, prefix)
            return None
        current: SpanContext | None = None if here is None else here.get_span_context()
        if current is None or not current.is_valid:
            parent = self.parent_of(headers, prefix)
            if type(parent) is w3c.NotRecorded:
                parent.send(headers, prefix)
                return None
            context = w3c.received(None if parent is None else NonRecordingSpan(parent), {})
        else:
            w3c.send_baggage(context, headers, prefix)
            if self.follows and not current.trace_flags & TraceFlags.SAMPLED:  # to ask the sampler takes longer
                w3c.send(current, headers, prefix)
                return None
        span = self.tracer.start_span(name, context, kind, attributes)
        w3c.send(span.get_span_context(), headers, prefix)
        return span if span.is_recording() else None


def ids_of_span(worker: WorkerContext) -> dict[str, str]:
    """The ids of the span in which a line of a worker's is logged, for that line."""
    above = w3c.parent_of(worker.data)
    if above is None:
        return {}
    here = trace.get_current_span().get_span_context()
    if here.trace_id != above.trace_id:  # the line is logged about the worker from elsewhere
        here = above
    return {"trace_id": trace.format_trace_id(here.trace_id), "span_id": trace.format_span_id(here.span_id)}


def description_of(provider: trace.TracerProvider) -> str:
    """What the provider's sampler says of itself."""
    describe = getattr(getattr(provider, "sampler", None), "get_description", None)
    return str(describe()) if callable(describe) else ""
