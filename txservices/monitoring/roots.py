"""Decides of a new trace whether it is recorded, before OpenTelemetry's SDK makes anything of it. Pure.

    Roots.not_recorded   draws the id of a trace -> its traceparent, which is sent on; or None: the SDK makes the span
    generate_trace_id    gives the SDK that id, of which its sampler then decides the same

The SDK's own decision takes several times as long, and most traces are not recorded.
"""

from __future__ import annotations

import re
from functools import partial
from random import getrandbits
from typing import Any

from opentelemetry.trace import Tracer

__all__ = ["Roots"]

# How the sampler that keeps a part of all traces describes itself. It decides by the low half of a trace's id.
RATIO = re.compile(r"ParentBased\{root:TraceIdRatioBased\{([0-9.e-]+)\},")
HALF = 1 << 64
# The SDK's own generator. We ask for random bits directly, as it does: that is two calls less for each trace. It would
# draw an id of zero again, which comes once in 2^64 traces.
RANDOM = ("opentelemetry.sdk.trace.id_generator", "RandomIdGenerator")


class Roots:
    """The ids of new traces, for one tracer.

    Args:
        ids: the SDK's generator of ids.
        rate: the part of the traces that is recorded, from 0 to 1.
    """

    def __init__(self, ids: Any, rate: float) -> None:
        self.generate, self.generate_span_id = ids.generate_trace_id, ids.generate_span_id
        if (type(ids).__module__, type(ids).__name__) == RANDOM:
            self.generate, self.generate_span_id = partial(getrandbits, 128), partial(getrandbits, 64)
        self.bound = round(rate * HALF)
        self.chosen = 0
        self.is_trace_id_random = getattr(ids, "is_trace_id_random", bool)
        self.flags = "02" if self.is_trace_id_random() else "00"

    def not_recorded(self) -> str | None:
        """The ``traceparent`` of a new trace, if that is not recorded."""
        trace_id = self.generate()
        if trace_id % HALF < self.bound:
            self.chosen = trace_id
            return None
        return f"00-{trace_id:032x}-{self.generate_span_id():016x}-{self.flags}"

    def generate_trace_id(self) -> int:
        """The id of the trace that is recorded, for the SDK."""
        chosen, self.chosen = self.chosen, 0
        return chosen or int(self.generate())


def roots_of(tracer: Tracer, description: str) -> Roots | None:
    """The roots of a tracer with a sampler that describes itself so. None if that is not known to decide by the id."""
    ids = getattr(tracer, "id_generator", None)
    ratio = RATIO.match(description)
    if ids is None or ratio is None:
        return None
    roots = Roots(ids, float(ratio[1]))
    tracer.id_generator = roots  # type: ignore[attr-defined]  # of the SDK's class
    return roots
