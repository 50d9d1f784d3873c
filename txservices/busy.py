"""Tells in the log of workers that take long: of each slow one, and of a service whose workers are all busy.

Both cost nothing where no worker waits for anything: a worker that holds the reactor is the watchdog's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, NamedTuple

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from txservices.callids import ids_of, on_behalf_of
from txservices.extensions import Entrypoint, WorkerContext

BUSY_AFTER = 5.0  # seconds that all workers are busy, and others wait, before the log tells it
HOLDERS_MAX = 5  # workers named in that line, those that have run for longest

log = Logger()


class Running(NamedTuple):
    """A worker that waits for something.

    Attributes:
        began: the clock's time when it began.
        waited: seconds that it had waited for its turn.
        timeout: what ends it when its time is up.
    """

    worker: WorkerContext
    began: float
    waited: float
    timeout: IDelayedCall | None


class Turn(NamedTuple):
    """Something that waits for a worker to end.

    Attributes:
        begin: begins a worker, or does something else that must not happen earlier.
        entrypoint: whose method the worker calls.
        since: the clock's time when this began to wait.
        deadline: the time after which nobody waits for the worker any more.
        give_up: called in place of ``begin`` if the worker could not end by then.
    """

    begin: Callable[[], None]
    entrypoint: Entrypoint
    since: float
    deadline: float
    give_up: Callable[[], None] | None


class Busy:
    """Watches the workers of one service.

    Args:
        slow: seconds after which a worker is slow; None for no such line.
        queued: what waits for its turn, the oldest first.
        running: the workers that wait for something, the oldest first.

    Attributes:
        took: for each entrypoint the seconds that its methods take: their mean and deviation.
    """

    def __init__(
        self,
        service: str,
        max_workers: int,
        slow: float | None,
        clock: Any,
        queued: deque[Turn],
        running: Mapping[Any, Running],
    ) -> None:
        self.service = service
        self.max_workers = max_workers
        self.slow = float("inf") if slow is None else slow
        self.clock = clock
        self.queued = queued
        self.running = running
        self.took: dict[Entrypoint, tuple[float, float]] = {}
        self.since = 0.0  # when all workers began to be busy
        self.call: IDelayedCall | None = None  # tells it, if they still are
        self.interval = BUSY_AFTER  # seconds between two lines
        self.quiet_until = 0.0  # no line before

    def ended(self, ended: Running) -> None:
        """Learn how long a method takes, as TCP learns of its round trips (RFC 6298), and tell if that was long."""
        worker = ended.worker
        entrypoint, seconds = worker.entrypoint, self.clock.seconds() - ended.began
        mean, deviation = self.took.get(entrypoint, (seconds, 0.0))
        deviation += (abs(seconds - mean) - deviation) / 4
        self.took[entrypoint] = mean + (seconds - mean) / 8, deviation
        if seconds >= self.slow:
            on_behalf_of(
                worker,
                log.warn,
                "slow: {service}.{method} took {seconds:.1f} s, after {waited:.1f} s of waiting for its turn",
                service=self.service,
                method=entrypoint.method_name,
                seconds=seconds,
                waited=ended.waited,
            )

    # All of them busy

    def watch(self, now: float) -> None:
        """The first begins to wait for its turn."""
        self.since = now
        self.call = self.clock.callLater(max(BUSY_AFTER, self.quiet_until - now), self.tell)

    def tell(self) -> None:
        """All are still busy. The next line comes after twice the time, also if some were free meanwhile."""
        now = self.clock.seconds()
        if now - self.quiet_until >= self.interval:
            self.interval = BUSY_AFTER
        self.quiet_until = now + self.interval
        self.call = self.clock.callLater(self.interval, self.tell)
        self.interval *= 2
        log.warn(
            "all {most} workers of {service} have been busy for {busy:.1f} s, {waiting} calls wait, the first for"
            " {waited:.1f} s. Oldest: {holders}",
            most=self.max_workers,
            service=self.service,
            busy=now - self.since,
            waiting=len(self.queued),
            waited=now - self.queued[0].since,
            holders=self.holders(),
        )

    def holders(self) -> str:
        """The workers that have run for longest, in words for a log line."""
        now = self.clock.seconds()
        oldest = islice(self.running.values(), HOLDERS_MAX)
        named = [
            f"{self.service}.{each.worker.entrypoint.method_name} for {now - each.began:.1f} s [{ids_of(each.worker)}]"
            for each in oldest
        ]
        more = ", …" if len(self.running) > HOLDERS_MAX else ""
        return ", ".join(named) + more if named else "bodies that are still being decoded"

    def watch_no_more(self) -> None:
        """Nothing waits any more."""
        if self.call is not None:
            self.call.cancel()
            self.call = None
