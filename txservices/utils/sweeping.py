"""A sweep: records whose deadline has passed are taken out of a dict, by one delayed call for all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime

SWEEP_INTERVAL = 0.1  # seconds
SWEEP_RATE = 100_000  # records looked at in a second, at most: if more are pending, the interval grows


class HasDeadline(Protocol):
    """A record that can be swept: ``deadline`` in seconds of the clock, infinity for no deadline."""

    @property
    def deadline(self) -> float: ...


K = TypeVar("K")
R = TypeVar("R", bound=HasDeadline)


class Sweeper(Generic[K, R]):
    """Takes overdue records out of ``pending`` and calls ``expire`` with each.

    A ``callLater`` and its cancel for each message cost more than the rest of an RPC's bookkeeping.

    Attributes:
        call: the next sweep; None while nothing is watched.
    """

    def __init__(
        self,
        clock: IReactorTime,
        pending: dict[K, R],
        expire: Callable[[K, R], None],
        interval: float = SWEEP_INTERVAL,
    ) -> None:
        self.clock = clock
        self.pending = pending
        self.expire = expire
        self.interval = interval
        self.call: IDelayedCall | None = None

    def watch(self) -> None:
        """Sweep from now on, for as long as something is pending. To be called after each addition."""
        if self.call is None:
            delay = max(self.interval, len(self.pending) / SWEEP_RATE)
            self.call = self.clock.callLater(delay, self.sweep)

    def sweep(self) -> None:
        self.call = None
        now = self.clock.seconds()
        pending = self.pending
        overdue = [key for key, record in pending.items() if record.deadline <= now]
        try:
            for key in overdue:
                record = pending.pop(key, None)
                if record is not None:  # else ``expire`` of an earlier one has taken it out
                    self.expire(key, record)
        finally:  # also if ``expire`` has raised: the reactor logs that, and the others are due next time
            if pending:
                self.watch()

    def stop(self) -> None:
        """Sweep no more, until the next ``watch``."""
        if self.call is not None:
            self.call.cancel()
            self.call = None
