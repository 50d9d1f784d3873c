"""Knows of the workers that wait for something how long they take, which are slow, and which have run for longest.

This costs nothing where no worker waits for anything: a worker that holds the reactor is the watchdog's. ``lines``
tells in the log of a service whose workers are all busy.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any, NamedTuple

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from txservices.callids import ids_of, on_behalf_of
from txservices.deadlines import FOREVER
from txservices.extensions import Entrypoint, WorkerContext

HOLDERS_MAX = 5  # workers named in a line of the log, those that have run for longest

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


class Busy:
    """Watches the workers of one service.

    Args:
        slow: seconds after which a worker is slow; None for no such line.
        running: the workers that wait for something, the oldest first.

    Attributes:
        took: for each entrypoint the seconds that its methods take: their mean and deviation.
    """

    def __init__(self, service: str, slow: float | None, clock: Any, running: Mapping[Any, Running]) -> None:
        self.service = service
        self.slow = FOREVER if slow is None else slow
        self.clock = clock
        self.running = running
        self.took: dict[Entrypoint, tuple[float, float]] = {}

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

    def holders(self, entrypoint: Entrypoint | None = None) -> str:
        """The workers that have run for longest, in words for a log line; those of one entrypoint if it is given."""
        now = self.clock.seconds()
        running = (each for each in self.running.values() if entrypoint in (None, each.worker.entrypoint))
        named = [
            f"{self.service}.{each.worker.entrypoint.method_name} for {now - each.began:.1f} s [{ids_of(each.worker)}]"
            for each in islice(running, HOLDERS_MAX)
        ]
        more = ", …" if next(running, None) is not None else ""
        return ", ".join(named) + more if named else "bodies that are still being decoded"
