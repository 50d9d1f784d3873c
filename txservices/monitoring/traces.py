"""Traces: OpenTelemetry's spans of workers, calls and publishes, with ``TRACES: true`` in the configuration.

    worker_started    headers or context data -> the parent -> a span, current in the worker's context -> worker.data
    call_started      the current span -> a span -> the headers of the request
    publish_started   the current span -> a span -> the headers of the message

The process sets up by OpenTelemetry's API who records and sends the spans: see docs/tracing.md. If nothing is set up,
traces that come in are passed on, and that is all.

This module needs opentelemetry-api: ``pip install 'txservices[traces]'``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

try:
    from opentelemetry import trace
except ImportError as error:
    raise ImportError(f"TRACES needs opentelemetry-api: pip install 'txservices[traces]' ({error})") from error

from opentelemetry.context import Context, attach, get_current
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, TraceFlags

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
        self.workers: dict[WorkerContext, Span] = {}  # likewise
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
        parent = parent or w3c.parent_of(carrier, prefix)
        if parent is None and self.roots is not None:
            text = self.roots.not_recorded()
            parent = None if text is None else w3c.NotRecorded(text, "")
        return parent

    def worker_started(self, worker: WorkerContext) -> None:
        shape = self.shapes.get(worker.entrypoint) or self.shape_of(worker.entrypoint)
        data = worker.data
        carrier = data if shape.in_data else shape.carrier(worker)
        baggage = w3c.baggage_of(carrier[w3c.BAGGAGE]) if w3c.BAGGAGE in carrier else w3c.NO_BAGGAGE
        if baggage:
            data[w3c.BAGGAGE] = carrier[w3c.BAGGAGE]
        elif w3c.BAGGAGE in data:
            del data[w3c.BAGGAGE]
        parent: SpanContext | w3c.NotRecorded | None
        parent = w3c.not_recorded(carrier) if self.follows else None  # first: most are not, and each call costs
        if parent is None:
            parent = self.parent_of(carrier)
        if type(parent) is w3c.NotRecorded:
            # as the current span, so that no part of the trace is recorded
            attach(w3c.received(parent, baggage) if baggage else Context({w3c.SPAN_KEY: parent}))
            if w3c.TRACESTATE in data or data.get(w3c.TRACEPARENT) != parent.text:
                parent.send(data)
            return
        context = w3c.received(None if parent is None else NonRecordingSpan(parent), baggage)
        name, attributes = shape.begins(worker)
        links = [Link(parent)] if shape.links and parent is not None else None
        span = self.tracer.start_span(name, context, shape.kind, attributes, links)
        attach(Context({**context, w3c.SPAN_KEY: span}))
        if span.is_recording():
            self.workers[worker] = span
        w3c.send(span.get_span_context(), data)

    def worker_ended(
        self, worker: WorkerContext, outcome: str, waited: float, seconds: float, error: BaseException | None
    ) -> None:
        span = self.workers.pop(worker, None)
        if span is not None and span.is_recording():
            self.shape_of(worker.entrypoint).end(span, worker, outcome, waited, error)

    def call_started(self, call: Any, context: Any, headers: dict[str, Any]) -> None:
        above = self.above(context, headers, PREFIX)
        if above is not None:
            name = call.name
            self.begin(call.correlation_id, above, headers, PREFIX, name, SpanKind.CLIENT, spans.rpc(name))

    def call_ended(self, call: Any, outcome: str, seconds: float, error: BaseException | None) -> None:
        span = self.recorded.pop(call.correlation_id, None)
        if span is not None:
            spans.end(span, outcome, error)

    def http_call_started(self, call: Any, context: Any, headers: dict[str, Any]) -> None:
        above = self.above(context, headers, "")
        if above is not None:
            self.begin(call, above, headers, "", call.method, SpanKind.CLIENT, spans.asking(call))

    def http_call_ended(self, call: Any, outcome: str, seconds: float, error: BaseException | None) -> None:
        span = self.recorded.pop(call, None)
        if span is not None:
            if call.status is not None:
                spans.answered(span, call.status)
            spans.end(span, outcome, error)

    def publish_started(self, publish: Any, context: Any, headers: dict[str, Any]) -> None:
        if w3c.TRACEPARENT in headers:
            return  # the publisher gives one of its own, which must stay
        above = self.above(context, headers, PREFIX)
        if above is not None:
            to = spans.destination(publish.exchange, publish.routing_key)
            attributes = spans.publishing(to, publish.routing_key)
            self.begin(publish, above, headers, PREFIX, f"publish {to}", SpanKind.PRODUCER, attributes)
        for key in w3c.KEYS:  # under their own names, too: others know no context of nameko's
            if PREFIX + key in headers:
                headers[key] = headers[PREFIX + key]

    def publish_ended(self, publish: Any, error: BaseException | None) -> None:
        span = self.recorded.pop(publish, None)
        if span is not None:
            spans.end(span, OK if error is None else ERROR, error)

    def above(self, sender: Any, headers: dict[str, Any], prefix: str) -> Context | None:
        """The context in which the span of something that is sent has to begin, by its headers.

        None if that span is not recorded: then its trace is passed on in the headers, and there is nothing more to do.

        The span's parent is the current span, if the sender's own code runs now. If not, that is a callback which
        somebody else's message has led to: then it is the span of the sender, which the headers of its context have.
        """
        context = get_current()
        here: Any = context.get(w3c.SPAN_KEY)
        if here is not None and isinstance(sender, WorkerContext) and this_worker.get() is not sender:
            here = None
        if type(here) is w3c.NotRecorded:
            here.send(headers, prefix)
            w3c.send_baggage(context, headers, prefix)
            return None
        if here is None and prefix + w3c.TRACEPARENT not in headers and self.roots is not None:
            text = self.roots.not_recorded()
            if text is None:
                return w3c.EMPTY
            headers[prefix + w3c.TRACEPARENT] = text
            headers.pop(prefix + w3c.TRACESTATE, None)
            return None
        current: SpanContext | None = None if here is None else here.get_span_context()
        if current is None or not current.is_valid:
            parent = self.parent_of(headers, prefix)
            if type(parent) is w3c.NotRecorded:
                parent.send(headers, prefix)
                return None
            return w3c.received(None if parent is None else NonRecordingSpan(parent), w3c.NO_BAGGAGE)
        w3c.send_baggage(context, headers, prefix)
        if self.follows and not current.trace_flags & TraceFlags.SAMPLED:  # to ask the sampler takes longer
            w3c.send(current, headers, prefix)
            return None
        return context

    def begin(
        self,
        key: Any,
        above: Context,
        headers: dict[str, Any],
        prefix: str,
        name: str,
        kind: SpanKind,
        attributes: dict[str, Any],
    ) -> None:
        """Begin the span of something that is sent, and write it into the headers."""
        span = self.tracer.start_span(name, above, kind, attributes)
        w3c.send(span.get_span_context(), headers, prefix)
        if span.is_recording():
            self.recorded[key] = span


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
