"""Deadlines that travel with a call: how much time its caller still has.

Two headers carry one, and services of nameko pass both on, for they look like a part of the context.
``nameko.call_deadline`` is the time of day at which the caller gives up, in seconds since 1970.
``nameko.call_time_left`` is how many seconds that was from the sending: two machines whose clocks differ still agree on
that.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, MutableMapping
from math import isfinite
from typing import Any, TypeGuard

from txservices.constants import HEADER_PREFIX

__all__ = ["DEADLINE", "FOREVER", "TIME_LEFT", "add_headers", "is_over", "take_time_left", "time_left", "time_of_day"]

DEADLINE_KEY = "call_deadline"  # in a worker's context
TIME_LEFT_KEY = "call_time_left"
DEADLINE = f"{HEADER_PREFIX}.{DEADLINE_KEY}"
TIME_LEFT = f"{HEADER_PREFIX}.{TIME_LEFT_KEY}"
FOREVER = float("inf")  # seconds of a wait without an end, and the deadline that never comes
CLOCKS_DIFFER_MAX = 5.0  # seconds by which the clocks of two machines may differ without harm to calls


def add_headers(headers: MutableMapping[str, Any], seconds: float) -> None:
    """Give the headers of a call its deadline: its caller waits for so many seconds from now on."""
    headers[DEADLINE] = time.time() + seconds
    headers[TIME_LEFT] = float(seconds)


def time_of_day(seconds: float) -> float:
    """The time of day in so many seconds from now, in seconds since 1970."""
    return time.time() + seconds


def time_left(headers: Mapping[str, Any]) -> float | None:
    """Seconds that the caller of a message with such headers waits from now on. None if they don't say.

    It is 0 or less if their time is over. If clocks differ, it may be too much by up to ``CLOCKS_DIFFER_MAX``, so that
    no call is taken for over while its caller waits.
    """
    return reckoned(headers.get(DEADLINE), headers.get(TIME_LEFT))


def take_time_left(context: MutableMapping[str, Any]) -> float | None:
    """``time_left`` for a context that came with a message. It is taken out: the calls of a worker have their own."""
    deadline, at_sending = context.pop(DEADLINE_KEY, None), context.pop(TIME_LEFT_KEY, None)
    if deadline is None:
        return None
    if type(deadline) is float and type(at_sending) is float and deadline - deadline == 0 == at_sending - at_sending:
        left = deadline - time.time() + CLOCKS_DIFFER_MAX  # both finite, as we write them: reckoned without a call
        return at_sending if at_sending < left else left
    return reckoned(deadline, at_sending)


def is_over(headers: Mapping[str, Any]) -> bool:
    """Whether the caller of a message with such headers waits no longer. False if they don't say."""
    deadline = headers.get(DEADLINE)
    if type(deadline) is float and deadline - deadline == 0:  # as we write it: finite
        return deadline + CLOCKS_DIFFER_MAX <= time.time()
    left = time_left(headers)
    return left is not None and left <= 0


def reckoned(deadline: Any, at_sending: Any) -> float | None:
    if not is_time(deadline):
        return None
    left = deadline - time.time() + CLOCKS_DIFFER_MAX
    return min(at_sending, left) if is_time(at_sending) else left


def is_time(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)
