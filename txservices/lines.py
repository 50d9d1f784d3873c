"""The lines in which turns wait: one for each entrypoint with a limit of its own, one for all others of a service.

    Workers.wait -> Line.add -> [a worker ends] -> oldest -> Workers begins it

Whoever waits for a limit of one entrypoint holds up nobody in another line. Among the lines that may go on, the turn
that has waited longest is the next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from txservices.busy import Busy
from txservices.extensions import Entrypoint

BUSY_AFTER = 5.0  # seconds that all workers are busy, and others wait, before the log tells it

log = Logger()


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


class Places(Protocol):
    """The places of a service's workers: see ``extensions.Turns``."""

    running: int

    def hold(self) -> float: ...

    def release(self, since: float, receive: Callable[[], None]) -> None: ...


class Line:
    """Turns that wait for the workers of a service, the oldest first. The log tells if they wait for long.

    Attributes:
        max_workers: how many may run.
        full: whether they run, so that no turn of this line may begin.
        since: when the first began to wait.
    """

    def __init__(self, busy: Busy, max_workers: int, clock: Any, places: Places) -> None:
        self.queued: deque[Turn] = deque()
        self.places = places
        self.busy = busy
        self.max_workers = max_workers
        self.clock = clock
        self.since = 0.0
        self.call: IDelayedCall | None = None  # tells it, if they are busy still
        self.interval = BUSY_AFTER  # seconds between two lines
        self.quiet_until = 0.0  # no line before

    @property
    def full(self) -> bool:
        return self.places.running >= self.max_workers

    @property
    def waits_for(self) -> tuple[int, str, Entrypoint | None]:
        """The number of workers that it waits for, whose they are, and of which entrypoint alone."""
        return self.max_workers, self.busy.service, None

    def add(self, turn: Turn) -> None:
        self.queued.append(turn)
        if self.call is None:
            self.since = turn.since
            self.call = self.clock.callLater(max(BUSY_AFTER, self.quiet_until - turn.since), self.tell)

    def tell(self) -> None:
        """All are still busy. The next line comes after twice the time, also if some were free meanwhile."""
        now = self.clock.seconds()
        if now - self.quiet_until >= self.interval:
            self.interval = BUSY_AFTER
        self.quiet_until = now + self.interval
        self.call = self.clock.callLater(self.interval, self.tell)
        self.interval *= 2
        most, whose, entrypoint = self.waits_for
        log.warn(
            "all {most} workers of {whose} have been busy for {busy:.1f} s, {waiting} calls wait, the first for"
            " {waited:.1f} s. Oldest: {holders}",
            most=most,
            whose=whose,
            busy=now - self.since,
            waiting=len(self.queued),
            waited=now - self.queued[0].since,
            holders=self.busy.holders(entrypoint),
        )

    def watch_no_more(self) -> None:
        """Nothing waits here any more."""
        if self.call is not None:
            self.call.cancel()
            self.call = None


class LimitedLine(Line):
    """Turns that wait for the workers of one entrypoint, which has a limit of its own.

    Attributes:
        running: how many of its workers run. ``Entrypoint.full`` is whether that is all it may have.
    """

    def __init__(self, busy: Busy, entrypoint: Entrypoint, max_workers: int, service: Line, places: Places) -> None:
        super().__init__(busy, max_workers, service.clock, places)
        self.entrypoint = entrypoint
        self.service = service
        self.running = 0

    @property
    def full(self) -> bool:
        return self.entrypoint.full or self.service.full

    @property
    def waits_for(self) -> tuple[int, str, Entrypoint | None]:
        if self.running < self.max_workers:
            return self.service.waits_for
        return self.max_workers, f"{self.busy.service}.{self.entrypoint.method_name}", self.entrypoint

    def begun(self) -> None:
        """One of its workers begins."""
        self.running += 1
        self.entrypoint.full = self.running >= self.max_workers

    def ended(self) -> None:
        """One of its workers has ended."""
        self.running -= 1
        self.entrypoint.full = self.running >= self.max_workers

    def hold(self) -> float:
        """See ``extensions.Turns``."""
        self.begun()
        return self.places.hold()

    def release(self, since: float, receive: Callable[[], None]) -> None:
        """See ``extensions.Turns``."""
        self.ended()
        self.places.release(since, receive)


class ApartLine(Line):
    """Turns that wait for workers which run apart from the service's others, in places of their own: HTTP's.

    Attributes:
        running: how many of them run. They are not counted in ``Workers.running``.
        entrypoints: whose workers they are. ``Entrypoint.full`` is whether all places are taken, or all of its own.
    """

    def __init__(self, busy: Busy, max_workers: int, clock: Any, places: Places) -> None:
        super().__init__(busy, max_workers, clock, places)
        self.running = 0
        self.entrypoints: list[Entrypoint] = []

    @property
    def full(self) -> bool:
        return self.running >= self.max_workers

    @property
    def waits_for(self) -> tuple[int, str, Entrypoint | None]:
        return self.max_workers, f"{self.busy.service} over HTTP", None

    def begun(self) -> None:
        """One of these workers begins, and has been counted as one of the service's."""
        self.running += 1
        self.places.running -= 1
        if self.running == self.max_workers:
            self.tell_entrypoints()

    def ended(self) -> None:
        """One of these workers has ended, and is then counted as one of the service's that has."""
        self.running -= 1
        self.places.running += 1
        if self.running == self.max_workers - 1:
            self.tell_entrypoints()

    def tell_entrypoints(self) -> None:
        for each in self.entrypoints:
            own = each.limit
            each.full = self.full or (isinstance(own, LimitedLine) and own.running >= own.max_workers)

    # a message whose body is being decoded has its worker's place; no such message comes by HTTP
    def hold(self) -> float:
        return self.places.hold()

    def release(self, since: float, receive: Callable[[], None]) -> None:
        self.places.release(since, receive)


class LimitedApartLine(LimitedLine):
    """Turns that wait for workers of one entrypoint with a limit of its own, which run apart."""

    service: ApartLine

    def begun(self) -> None:
        super().begun()
        self.service.begun()

    def ended(self) -> None:
        super().ended()
        self.service.ended()
        self.entrypoint.full = self.entrypoint.full or self.service.full


def oldest(lines: Iterable[Line]) -> Line | None:
    """The line whose first turn has waited longest, among those with turns that may begin. None if there is no such."""
    found = None
    for line in lines:
        if line.queued and not line.full and (found is None or line.queued[0].since < found.queued[0].since):
            found = line
    return found
