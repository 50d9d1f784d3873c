"""Deadlines that travel with a call: how much time its caller still has.

Two headers carry one, and services of nameko pass both on, for they look like a part of the context.
``nameko.deadline`` is the time of day at which the caller gives up, in seconds since 1970. ``nameko.time_left`` is how
many seconds that was from the sending: two machines whose clocks differ still agree on that.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from math import isfinite
from typing import Any, TypeGuard

from txservices.constants import HEADER_PREFIX

__all__ = ["DEADLINE", "TIME_LEFT", "headers_for", "time_left"]

DEADLINE = f"{HEADER_PREFIX}.deadline"
TIME_LEFT = f"{HEADER_PREFIX}.time_left"
CLOCKS_DIFFER_MAX = 5.0  # seconds by which the clocks of two machines may differ without a harm to calls


def headers_for(seconds: float) -> dict[str, float]:
    """The headers of a call whose caller waits for so many seconds from now."""
    return {DEADLINE: time.time() + seconds, TIME_LEFT: float(seconds)}


def time_left(headers: Mapping[str, Any]) -> float | None:
    """Seconds that the caller of a message with such headers waits from now on. None if they don't say.

    It is 0 or less if its time is over. Where the clocks differ it is too much by up to ``CLOCKS_DIFFER_MAX``, so that
    no call is taken for over while its caller waits.
    """
    deadline, at_sending = headers.get(DEADLINE), headers.get(TIME_LEFT)
    if not is_time(deadline):
        return None
    left = deadline - time.time() + CLOCKS_DIFFER_MAX
    return min(left, at_sending) if is_time(at_sending) else left


def is_time(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)
