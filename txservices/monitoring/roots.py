"""Decides of a new trace whether it is recorded, before OpenTelemetry's SDK makes anything of it. Pure.

    Roots.not_recorded   draws the ids of a trace -> its traceparent, which is sent on; or None: the SDK makes the span
    generate_trace_id    gives the SDK that trace's id, of which its sampler then decides the same

The SDK's own decision takes several times as long, and most traces are not recorded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from random import randbytes
from typing import Any

from opentelemetry.trace import Tracer

__all__ = ["Roots"]

# How the sampler that keeps a part of all traces describes itself. It decides by the low half of a trace's id.
RATIO = re.compile(r"ParentBased\{root:TraceIdRatioBased\{([0-9.e-]+)\},")
HALF = 1 << 64
ALL = "g"  # above each hexadecimal digit
# The SDK's own generator, which takes ids from Python's random numbers. We draw them by the hundred, as text: that
# costs a third. The SDK would draw an id of zero again, which comes once in 2^64 traces.
RANDOM = ("opentelemetry.sdk.trace.id_generator", "RandomIdGenerator")
AHEAD = 128  # pairs of ids that are drawn at once
PAIR = 48  # digits of both

drawn_ahead: list[str] = []
os.register_at_fork(after_in_child=drawn_ahead.clear)  # each process has ids of its own


def draw() -> str:
    """The ids of a new trace and of its first span, as a ``traceparent`` has them."""
    if not drawn_ahead:
        digits = randbytes(AHEAD * PAIR // 2).hex()
        pairs = (digits[start : start + PAIR] for start in range(0, len(digits), PAIR))
        drawn_ahead.extend([f"{pair[:32]}-{pair[32:]}" for pair in pairs])
    return drawn_ahead.pop()


def drawing(ids: Any) -> Callable[[], str]:
    """``draw`` by a generator of ids."""
    if (type(ids).__module__, type(ids).__name__) == RANDOM:
        return draw
    return lambda: f"{ids.generate_trace_id():032x}-{ids.generate_span_id():016x}"


class Roots:
    """The ids of new traces, for one tracer.

    Args:
        ids: the SDK's generator of ids.
        rate: the part of the traces that is recorded, from 0 to 1.
    """

    def __init__(self, ids: Any, rate: float) -> None:
        self.draw = drawing(ids)
        self.generate_span_id = ids.generate_span_id
        self.bound = round(rate * HALF)
        self.bound_text = f"{self.bound:016x}" if self.bound < HALF else ALL
        self.chosen = ""
        self.is_trace_id_random = getattr(ids, "is_trace_id_random", bool)
        self.flags = "02" if self.is_trace_id_random() else "00"

    def not_recorded(self) -> str | None:
        """The ``traceparent`` of a new trace, if that is not recorded."""
        ids = self.draw()
        if ids[16:32] < self.bound_text:
            self.chosen = ids
            return None
        return f"00-{ids}-{self.flags}"

    def generate_trace_id(self) -> int:
        """The id of the trace that is recorded, for the SDK."""
        chosen, self.chosen = self.chosen or self.draw(), ""
        return int(chosen[:32], 16)


def roots_of(tracer: Tracer, description: str) -> Roots | None:
    """The roots of a tracer with a sampler that describes itself so. None if that is not known to decide by the id."""
    ids = getattr(tracer, "id_generator", None)
    ratio = RATIO.match(description)
    if ids is None or ratio is None:
        return None
    roots = Roots(ids, float(ratio[1]))
    tracer.id_generator = roots  # type: ignore[attr-defined]  # of the SDK's class
    return roots
