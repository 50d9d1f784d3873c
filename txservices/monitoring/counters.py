"""Counts what workers and calls do, for as long as somebody looks. Pure.

A ``Counter`` has a slot for each of the latest seconds, and in it how many took about as long as each other: it keeps
no single time, and adding one is a few additions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import frexp, ldexp
from time import monotonic
from typing import Any

from txservices.monitoring.answers import Counts, Edge, MethodCounts
from txservices.observers import ERROR, TIMEOUT, Observer

__all__ = ["FAILED", "Counter", "Counting", "merged", "quantile", "time_of", "window_of"]

SLOTS = 10  # of a second each: what is shown as "now"
STEPS = 8  # ranges of times between one and its double, so that a time is known within 7 %
STEP_MAX = 500  # numbers of ranges that are read, up to some 10**18 seconds
STEP_LENGTH = 5  # characters of such a number
SHORTEST = 0.000001  # seconds; what is shorter counts as this
EDGES_MAX = 1000  # methods of others that one process calls, each counted
FAILED = (ERROR, TIMEOUT)  # outcomes that are somebody's failure


class Counter:
    """Counts one thing, with the times that it took.

    Args:
        now: seconds of the clock that all its times are of.
    """

    __slots__ = ("count", "errors", "failed", "second", "since", "slots")

    def __init__(self, now: float) -> None:
        self.since = now
        self.second = int(now)
        self.count = self.errors = 0
        self.slots: list[dict[int, int]] = [{} for _ in range(SLOTS)]  # how often, by the range of its time
        self.failed = [0] * SLOTS

    def add(self, now: float, seconds: float, failed: bool) -> int:
        """Count one that took so many seconds and ended now. Gives the number of its range of times."""
        if now >= self.second + 1:
            self.forget(now)
        mantissa, exponent = frexp(seconds if seconds > SHORTEST else SHORTEST)
        step = exponent * STEPS + int(mantissa * 2 * STEPS)
        slot = self.slots[self.second % SLOTS]
        slot[step] = slot.get(step, 0) + 1
        self.count += 1
        if failed:
            self.errors += 1
            self.failed[self.second % SLOTS] += 1
        return step

    def forget(self, now: float) -> None:
        """Empty the slots of the seconds that have begun since."""
        for second in range(max(self.second, int(now) - SLOTS) + 1, int(now) + 1):
            self.slots[second % SLOTS] = {}
            self.failed[second % SLOTS] = 0
        self.second = int(now)

    def counts(self, now: float, window: float) -> Counts:
        """What is counted, with rates over the latest ``window`` seconds: those of ``window_of``."""
        if now >= self.second + 1:
            self.forget(now)
        steps: dict[int, int] = {}
        for slot in self.slots:
            for step, number in slot.items():
                steps[step] = steps.get(step, 0) + number
        total = sum(steps.values())
        return {
            "count": self.count,
            "errors": self.errors,
            "rate": total / window if window else 0.0,
            "error_rate": sum(self.failed) / window if window else 0.0,
            "p50": quantile(steps, total, 0.5),
            "p99": quantile(steps, total, 0.99),
            "times": {str(step): number for step, number in sorted(steps.items())},
        }


def merged(counts: Iterable[Counts]) -> Counts:
    """Counts of several as if they were of one."""
    steps: dict[int, int] = {}
    count = errors = 0
    rate = error_rate = 0.0
    for each in counts:
        count += each["count"]
        errors += each["errors"]
        rate += each["rate"]
        error_rate += each["error_rate"]
        for text, number in each.get("times", {}).items():
            step = step_in(text)
            if step is not None and number > 0:
                steps[step] = steps.get(step, 0) + number
    total = sum(steps.values())
    return {
        "count": count,
        "errors": errors,
        "rate": rate,
        "error_rate": error_rate,
        "p50": quantile(steps, total, 0.5),
        "p99": quantile(steps, total, 0.99),
        "times": {str(step): number for step, number in sorted(steps.items())},
    }


def step_in(text: str) -> int | None:
    """The number of a range of times; None for one that no process writes."""
    try:
        step = int(text[:STEP_LENGTH])
    except ValueError:
        return None
    return step if abs(step) <= STEP_MAX else None


def time_of(step: int) -> float:
    """The seconds in the middle of a range of times."""
    exponent, rest = divmod(step - STEPS, STEPS)
    return ldexp((rest + STEPS + 0.5) / (2 * STEPS), exponent)


def window_of(since: float, now: float) -> float:
    """The seconds that the slots cover now, of something that is counted since then."""
    return now - max(since, int(now) - SLOTS + 1)


def quantile(steps: Mapping[int, int], total: int, part: float) -> float | None:
    """The time that so large a part took at most; the middle of its range. None if nothing was counted."""
    left = total * part
    for step in sorted(steps):
        left -= steps[step]
        if left <= 0:
            return time_of(step)
    return None


class Counting(Observer):
    """Counts the workers and calls of a process, from its making on.

    Args:
        config: that of the process.
        shared: what the services of that process share: there may be several processes in one, in tests.
        connections: those by which the services make their calls.
    """

    def __init__(self, config: Mapping[str, Any], shared: Any, connections: Any) -> None:
        super().__init__(config)
        self.shared = shared
        self.connections = connections
        self.since = monotonic()
        self.workers: dict[Any, Counter] = {}
        self.calls: dict[tuple[str, str, str], Counter] = {}

    def worker_ended(
        self, worker: Any, outcome: str, waited: float, seconds: float, error: BaseException | None
    ) -> None:
        """See ``Observer``."""
        now = monotonic()
        counter = self.workers.get(worker.entrypoint)
        if counter is None:
            if worker.container.shared is not self.shared:
                return
            counter = self.workers[worker.entrypoint] = Counter(now)
        counter.add(now, seconds, outcome in FAILED)

    def call_ended(self, call: Any, outcome: str, seconds: float, error: BaseException | None) -> None:
        """See ``Observer``."""
        client = call.client
        if client.connections is not self.connections:
            return  # of a standalone proxy: no service calls by it
        now = monotonic()
        key = client.name, call.service, call.name
        counter = self.calls.get(key)
        if counter is None:
            if len(self.calls) >= EDGES_MAX:
                return
            counter = self.calls[key] = Counter(now)
        counter.add(now, seconds, outcome in FAILED)

    def window(self, now: float) -> float:
        """The seconds that the rates of now are taken over."""
        return window_of(self.since, now)

    def methods(self, now: float) -> list[MethodCounts]:
        """The counts of each method that was called."""
        window = self.window(now)
        return [
            {
                "service": entrypoint.container.service_name,
                "method": entrypoint.method_name,
                "entrypoint": type(entrypoint).__name__,
                **counter.counts(now, window),
            }
            for entrypoint, counter in self.workers.items()
        ]

    def edges(self, now: float) -> list[Edge]:
        """The counts of each method of others that was called from here."""
        window = self.window(now)
        return [
            {
                "service": service,
                "target": target,
                "method": name[len(target) + 1 :],
                **counter.counts(now, window),
            }
            for (service, target, name), counter in self.calls.items()
        ]
