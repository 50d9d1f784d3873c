"""The places of a service's workers, and the lines in which turns wait for a place: one line for each entrypoint with a
limit of its own, and one for all others of the service.

    Places.wait -> Line.add -> [a worker ends] -> Places.ended -> begin_queued -> oldest -> the turn's ``begin``

A turn that waits for the limit of one entrypoint holds up no turn in another line. Among the lines that may go on, the
turn that has waited longest is the next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from contextvars import copy_context
from functools import partial
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from txservices.busy import Busy
from txservices.deadlines import FOREVER
from txservices.extensions import Entrypoint
from txservices.utils.waiting import Waiters

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


class Line:
    """Turns that wait for the workers of a service, the oldest first. The log tells if they wait for long.

    Attributes:
        max_workers: how many may run.
        full: whether that many run, so that no turn of this line may begin.
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


class Places:
    """The places of a service's workers: how many run, and what waits for one of them to end.

    Args:
        apart: how many workers may run apart.

    Attributes:
        running: how many workers run, without those that are queued, and without those that run apart.
        apart: those that run apart, and what waits for them.
        waiting: how many turns wait for one of the running workers to end.
        lines: where the turns wait: the service's line, and those of entrypoints with limits of their own.
        waited: seconds; so long the turn or the message that is begun now has waited.
        rests: what workers that have ended have left to do, as the rest of a response.
        on_none_queued: each is called when nothing waits any more.
        aborted: whether workers may have been cancelled before they ended.
    """

    def __init__(self, busy: Busy, max_workers: int, clock: Any, apart: int) -> None:
        self.busy = busy
        self.max_workers = max_workers
        self.clock = clock
        self.running = 0
        self.waiting = 0
        self.waited = 0.0
        self.beginning_queued = False
        self.line = Line(busy, max_workers, clock, self)
        self.apart = ApartLine(busy, apart, clock, self)
        self.lines: dict[Entrypoint | None, Line] = {None: self.line}
        self.rests: set[Deferred[Any]] = set()
        self.on_none_queued: list[Callable[[], None]] = []
        self.idle: Waiters[None] = Waiters()
        self.aborted = False

    def limit(self, entrypoint: Entrypoint, max_workers: int) -> None:
        """Have no more than so many workers of an entrypoint run at a time."""
        if entrypoint.apart:
            line: LimitedLine = LimitedApartLine(self.busy, entrypoint, max_workers, self.apart, self)
        else:
            line = LimitedLine(self.busy, entrypoint, max_workers, self.line, self)
        entrypoint.limit = line
        self.lines[entrypoint] = line

    def have_apart(self, entrypoint: Entrypoint) -> None:
        """Have the workers of an entrypoint run apart from the service's others."""
        self.apart.entrypoints.append(entrypoint)
        if entrypoint.limit is None:
            entrypoint.limit = self.apart
            self.lines[entrypoint] = self.apart

    @property
    def under_way(self) -> int:
        """How many workers run in all."""
        return self.running + self.apart.running

    @property
    def places(self) -> int:
        """How many workers may run in all."""
        return self.max_workers + (self.apart.max_workers if self.apart.entrypoints else 0)

    def wait(
        self,
        entrypoint: Entrypoint,
        begin: Callable[[], None],
        patience: float = FOREVER,
        give_up: Callable[[], None] | None = None,
    ) -> Turn:
        """See ``extensions.Turns``."""
        now = self.clock.seconds()
        in_context = partial(copy_context().run, begin)  # and not in that of the worker whose end begins it
        self.waiting += 1
        turn = Turn(in_context, entrypoint, now - self.waited, now + patience, give_up)
        self.lines.get(entrypoint, self.line).add(turn)
        return turn

    def forget(self, turn: Turn) -> None:
        """See ``extensions.Turns``."""
        line = self.lines.get(turn.entrypoint, self.line)
        if turn in line.queued:
            line.queued.remove(turn)
            self.waiting -= 1
            self.none_queued([line])
            self.tell_idle()

    def hold(self) -> float:
        """See ``extensions.Turns``."""
        self.running += 1
        since: float = self.clock.seconds() - self.waited  # for its turn, before its body was found to be long
        return since

    def release(self, since: float, receive: Callable[[], None]) -> None:
        """See ``extensions.Turns``."""
        self.running -= 1
        self.waited = self.clock.seconds() - since
        try:
            receive()
        finally:
            self.waited = 0.0
            self.running += 1
            self.ended()

    def leave(self, rest: Deferred[Any]) -> None:
        """See ``extensions.Turns``."""
        self.rests.add(rest)

        def done(result: Any) -> Any:
            self.rests.discard(rest)
            self.tell_idle()
            return result

        rest.addBoth(done)
        if self.aborted:
            rest.cancel()

    def ended(self) -> None:
        self.running -= 1
        if self.waiting:
            self.begin_queued()
        if self.idle.waiting:  # quicker than its len()
            self.tell_idle()

    def begin_queued(self) -> None:
        """Begin the turns for which there is a place."""
        if self.beginning_queued:  # the loop below goes on with them
            return
        # In a loop: if each began at the end of the one before, a thousand workers that don't wait would recurse.
        self.beginning_queued = True
        try:
            alone = len(self.lines) == 1  # no entrypoint has a limit of its own
            while self.waiting:
                if alone:
                    line = self.line if self.running < self.max_workers else None
                else:
                    line = oldest(self.lines.values())
                if line is None:
                    break
                self.waiting -= 1
                turn = line.queued.popleft()
                now = self.clock.seconds()
                self.waited = now - turn.since
                mean, deviation = self.busy.took.get(turn.entrypoint, (0.0, 0.0))
                if turn.give_up is not None and turn.deadline < now + mean + 2 * deviation:
                    # Its caller gives up before it can end, and to run it would make the next one late, too.
                    turn.give_up()
                else:
                    turn.begin()
        finally:
            self.beginning_queued = False
            self.waited = 0.0
        self.none_queued(self.lines.values())

    def none_queued(self, lines: Iterable[Line]) -> None:
        """Watch the lines no more in which nothing waits, and tell if nothing waits at all."""
        for line in lines:
            if not line.queued:
                line.watch_no_more()
        if not self.waiting:
            for call in self.on_none_queued:
                call()

    def tell_idle(self) -> None:
        if not (self.running or self.apart.running or self.waiting or self.rests):
            self.idle.fire(None)

    def drain(self) -> Deferred[None]:
        """Fires when no worker runs or is queued, and nothing is left of those that have ended."""
        return self.idle.wait() if self.under_way or self.waiting or self.rests else succeed(None)


def oldest(lines: Iterable[Line]) -> Line | None:
    """The line whose first turn has waited longest, among those with turns that may begin. None if there is no such."""
    found = None
    for line in lines:
        if line.queued and not line.full and (found is None or line.queued[0].since < found.queued[0].since):
            found = line
    return found
