"""W3C's Trace Context and Baggage: the three texts that carry a trace from process to process.

    traceparent: 00-<trace id>-<span id>-<flags>     tracestate: vendor=value,...     baggage: key=value,...

``received`` makes a context of them, and ``send`` writes those of a context into headers. Anybody may have sent them:
one that is not valid is ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from typing import Any, final
from urllib.parse import unquote_plus

from opentelemetry.baggage import set_baggage
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.trace import (
    INVALID_SPAN,
    INVALID_SPAN_CONTEXT,
    NonRecordingSpan,
    Span,
    SpanContext,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

KEYS = TRACEPARENT, TRACESTATE, BAGGAGE = "traceparent", "tracestate", "baggage"

TRACEPARENT_MAX = 256  # characters: version 0 has 55, and a later one may have more
TRACESTATE_MAX = 512  # characters: as many have to be passed on
BAGGAGE_MAX = 8_192  # bytes: W3C's limit
BAGGAGE_MEMBERS_MAX = 64  # keys that a worker can read: as many have to be passed on, and the text is, as it is

FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
NOT_RECORDED = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f][02468ace]")
MEMBER = re.compile(r"[ \t]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)[ \t]*=[ \t]*([!#-+\--:<-\[\]-~]*)[ \t]*(?:;.*)?")
STATE = re.compile(r"(?:[a-z0-9][a-z0-9_*/@-]*=[ -+\--<>-~]*)?")
FLAGS = {f"{flags:02x}": TraceFlags(flags) for flags in range(256)}
NO_STATE = TraceState()
NO_BAGGAGE: Mapping[str, str] = {}
EMPTY = Context()
(SPAN_KEY,) = set_span_in_context(INVALID_SPAN, EMPTY)  # the key of the current span in a context

(BAGGAGE_KEY,) = set_baggage("key", "value", EMPTY)  # and that of the baggage

propagator = W3CBaggagePropagator()


@final
class NotRecorded(NonRecordingSpan):
    """A span of another process whose trace is not recorded, as most: its ids are read only if somebody asks for them.

    Args:
        text: its ``traceparent``.
        state: its ``tracestate``, which is right; empty if there is no such header.
    """

    def __init__(self, text: str, state: str) -> None:
        self.text = text
        self.state = state

    def get_span_context(self) -> SpanContext:
        return parent_of({TRACEPARENT: self.text, TRACESTATE: self.state}) or INVALID_SPAN_CONTEXT

    def send(self, headers: MutableMapping[str, Any], prefix: str = "") -> None:
        """See ``send``."""
        headers[prefix + TRACEPARENT] = self.text
        if self.state:
            headers[prefix + TRACESTATE] = self.state
        elif prefix + TRACESTATE in headers:
            del headers[prefix + TRACESTATE]

    def __repr__(self) -> str:
        return f"NotRecorded({self.text!r})"


def not_recorded(carrier: Mapping[str, Any], prefix: str = "") -> NotRecorded | None:
    """``parent_of`` for one that is not recorded; None for any other, and if there is none."""
    text = carrier.get(prefix + TRACEPARENT)
    if type(text) is not str or NOT_RECORDED.fullmatch(text) is None:
        return None
    state = carrier.get(prefix + TRACESTATE)
    return NotRecorded(text, "" if state is None else state_of(state).to_header())


def parent_of(carrier: Mapping[str, Any], prefix: str = "") -> SpanContext | None:
    """The span that has led here, in headers or in a worker's context data. None if there is no such."""
    # The API's own propagator takes twice the time, and a log line for each bad one.
    text = carrier.get(prefix + TRACEPARENT)
    if type(text) is not str or len(text) > TRACEPARENT_MAX:
        return None
    match = FORM.fullmatch(text)
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == "ff" or (version == "00" and more):
        return None
    state = carrier.get(prefix + TRACESTATE)
    known = NO_STATE if state is None else state_of(state)
    parent = SpanContext(int(trace_id, 16), int(span_id, 16), True, FLAGS[flags], known)
    return parent if parent.is_valid else None


def state_of(text: Any) -> TraceState:
    if type(text) is not str or len(text) > TRACESTATE_MAX:
        return NO_STATE
    members = [member.strip(" \t") for member in text.split(",")]  # white space is allowed
    return TraceState.from_header([",".join(members)]) if all(map(STATE.fullmatch, members)) else NO_STATE


def baggage_of(text: Any) -> dict[str, str]:
    """The baggage in a header; empty for one that can't be."""
    if type(text) is not str or len(text) > BAGGAGE_MAX or not text.isascii():
        return {}
    members = filter(None, map(MEMBER.fullmatch, text.split(",", BAGGAGE_MEMBERS_MAX)[:BAGGAGE_MEMBERS_MAX]))
    return {unquote_plus(member[1]): unquote_plus(member[2]) for member in members}


def received(parent: Span | None, baggage: Mapping[str, str]) -> Context:
    """The context in which a span begins whose parent is elsewhere. Nothing of ours is in it."""
    context = EMPTY if parent is None else Context({SPAN_KEY: parent})
    for key, value in baggage.items():
        context = set_baggage(key, value, context)
    return context


def send(span: SpanContext, headers: MutableMapping[str, Any], prefix: str = "") -> None:
    """Write a span into headers, or into a worker's context data, in place of what they have."""
    trace_id, span_id, _, flags, state, is_valid = span  # it is a tuple: each of its attributes takes a call
    if is_valid:
        headers[prefix + TRACEPARENT] = f"00-{trace_id:032x}-{span_id:016x}-{flags:02x}"
    else:
        headers.pop(prefix + TRACEPARENT, None)
    if state is not NO_STATE and state:
        headers[prefix + TRACESTATE] = state.to_header()
    elif prefix + TRACESTATE in headers:
        del headers[prefix + TRACESTATE]


def send_baggage(context: Context, headers: MutableMapping[str, Any], prefix: str = "") -> None:
    """Write a context's baggage into headers, in place of what they have."""
    carrier: dict[str, str] = {}
    if BAGGAGE_KEY in context:
        propagator.inject(carrier, context)
    if carrier:
        headers[prefix + BAGGAGE] = carrier[BAGGAGE]
    elif prefix + BAGGAGE in headers:
        del headers[prefix + BAGGAGE]
