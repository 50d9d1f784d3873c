"""A worker's context as HTTP headers, both ways: the ids of the calls that led here, and W3C's trace. Pure.

    X-Call-Id-Stack: shop.buy.0d3f…, web.order.77a1…      the oldest first, the caller's own last
    traceparent, tracestate                               as W3C's Trace Context has them

Anybody may have sent them. A header that is not valid is ignored, and no more ids are kept than a call tracks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["CALL_ID_STACK_HEADER", "ids_in", "ids_written", "trace_in", "trace_written"]

CALL_ID_STACK_HEADER = "X-Call-Id-Stack"
TRACEPARENT, TRACESTATE = "traceparent", "tracestate"

IDS_TEXT_MAX = 8_192  # bytes of the header with the ids
ID = re.compile(r"[!-+\--~]{1,255}")  # what is visible in ASCII, without a comma
PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
STATE = re.compile(r"[ -~]{1,512}")


def ids_written(stack: Iterable[Any]) -> str:
    """The header for a call id stack, without texts that are no ids: a stranger's message may have brought them."""
    return ", ".join(each for each in stack if isinstance(each, str) and ID.fullmatch(each))


def ids_in(text: str, most: int) -> list[str]:
    """The ids in that header, the last ones up to ``most``. Empty for one that can't be."""
    if len(text) > IDS_TEXT_MAX:
        return []
    ids = [each.strip(" \t") for each in text.split(",")]
    return ids[-most:] if most and all(map(ID.fullmatch, ids)) else []


def trace_written(data: Mapping[str, Any]) -> dict[str, str]:
    """The headers of the trace that a worker's context data has."""
    return trace_in(data.get(TRACEPARENT), data.get(TRACESTATE))


def trace_in(parent: Any, state: Any) -> dict[str, str]:
    """A trace as context data, and as headers: both texts if they can be, the parent alone, or nothing."""
    if not isinstance(parent, str) or not PARENT.fullmatch(parent):
        return {}
    if isinstance(state, str) and STATE.fullmatch(state):
        return {TRACEPARENT: parent, TRACESTATE: state}
    return {TRACEPARENT: parent}
