"""Keeps the latest failures of a process: what an operator looks for when somebody's call has failed."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from traceback import format_exception
from typing import Any

from txservices.monitoring.answers import Failed
from txservices.monitoring.counters import FAILED
from txservices.observers import Observer
from txservices.safe import brief, fits, name_of, safe_for_serialization, shown
from txservices.utils import get_redacted_args
from txservices.utils.printable import shortened
from txservices.utils.secrets import hide, without_secrets

__all__ = ["FAILURES_MAX", "Failures", "cut"]

FAILURES_MAX = 100  # failures that are kept, the latest
FAILURES_EVERY = 10.0  # seconds in which no more than so many are noted; the others are only counted
ERROR_TEXT_MAX = 2_000  # characters of the text of an error
TRACEBACK_MAX = 8_000  # characters of its traceback
ARGUMENTS_MAX = 20  # arguments of a method
CALL_ID_MAX = 300  # characters of a call id
CUT = "[…]"


class Failures(Observer):
    """The latest failures of the workers of a process.

    Args:
        config: that of the process.
        shared: what the services of that process share: there may be several processes in one, in tests.

    Attributes:
        number: how many there were, those that are not kept included.
    """

    def __init__(self, config: Mapping[str, Any], shared: Any) -> None:
        super().__init__(config)
        self.shared = shared
        self.number = 0
        self.kept: deque[Failed] = deque(maxlen=FAILURES_MAX)

    def worker_failed(self, worker: Any, outcome: str, waited: float, seconds: float, error: BaseException) -> None:
        """See ``Observer``."""
        if outcome not in FAILED or worker.container.shared is not self.shared:
            return
        self.number += 1
        now = time.time()
        if len(self.kept) == FAILURES_MAX and 0 <= now - self.kept[0]["at"] < FAILURES_EVERY:
            return
        self.kept.append(
            {
                "number": self.number,
                "at": now,
                "service": worker.service_name,
                "method": worker.entrypoint.method_name,
                "entrypoint": type(worker.entrypoint).__name__,
                "outcome": outcome,
                "seconds": seconds,
                "error": cut(name_of(type(error)), CALL_ID_MAX),
                "text": cut(str(safe_for_serialization(error)), ERROR_TEXT_MAX),
                # both ends: a long text of the error must not leave out its class, nor where it was raised
                "traceback": shortened(hide("".join(format_exception(shown(error)))), TRACEBACK_MAX),
                "arguments": arguments_of(worker),
                "call_id_stack": [cut(str(each), CALL_ID_MAX) for each in worker.call_id_stack],
            }
        )

    def latest(self, most: int, services: list[str] | None) -> list[Failed]:
        """The latest, no more than so many, the newest first: those of some services, or of all."""
        newest_first = [each for each in reversed(self.kept) if not services or each["service"] in services]
        return newest_first[: max(most, 0)]


def arguments_of(worker: Any) -> dict[str, str]:
    """A worker's arguments as text, without what is sensitive. None where they don't fit the method."""
    shown: dict[str, str] = {}
    try:
        redacted = get_redacted_args(worker.entrypoint, *worker.args, **worker.kwargs)
        for name, value in list(redacted.items())[:ARGUMENTS_MAX]:
            safe = without_secrets({name: value})[name] if fits(value) else value
            shown[str(name)] = hide(brief(safe))
    except Exception:  # a value may raise anything
        return shown
    return shown


def cut(text: str, most: int) -> str:
    """The beginning of a text, without secrets, and with a mark if the rest is left out."""
    return hide(text) if len(text) <= most else f"{hide(text)[:most]}{CUT}"
