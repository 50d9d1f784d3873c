"""Timers: line 60."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase

from txservices.containers import ServiceContainer
from txservices.timer import timer

# eager, interval, seconds that a tick takes -> when ticks begin, within five seconds
TICKS: list[tuple[bool, float, float, list[float]]] = [
    (False, 1, 0, [1, 2, 3, 4, 5]),
    (True, 1, 0, [0, 1, 2, 3, 4, 5]),
    (False, 2, 0, [2, 4]),
    (False, 1, 0.5, [1, 2, 3, 4, 5]),
    (True, 1, 0.5, [0, 1, 2, 3, 4, 5]),
    (False, 1, 1.5, [1, 3, 5]),
    (True, 1, 1.5, [0, 2, 4]),
    (True, 1, 2.5, [0, 3]),
    (True, 0.5, 1.25, [0, 1.5, 3, 4.5]),
    (False, 5.5, 0, []),
]


class Timers(TestCase):
    """Line 60."""

    def run_timer(self, clock: Clock, does: Any, **options: Any) -> tuple[ServiceContainer, list[float]]:
        began: list[float] = []

        class Ticking:
            name = "ticking"

            @timer(**options)
            def tick(self):
                began.append(clock.seconds())
                return does()

        container = ServiceContainer(Ticking, {}, clock=clock)
        self.successResultOf(container.start())
        return container, began

    def test_line_60_table(self) -> None:
        """When ticks begin, by eagerness, interval and how long they take.

        nameko makes up for missed ticks in a burst; here they are left out, and the next one is on time.
        """
        for eager, interval, takes, expected in TICKS:
            clock = Clock()

            def does(clock: Clock = clock, takes: float = takes) -> Any:
                return deferLater(clock, takes) if takes else None

            container, began = self.run_timer(clock, does, interval=interval, eager=eager)
            clock.pump([0.25] * 20)
            self.assertEqual(began, expected, (eager, interval, takes))
            stopping = container.stop()
            clock.pump([0.25] * 12)
            self.successResultOf(stopping)
            self.assertEqual((began, clock.getDelayedCalls()), (expected, []))

    def test_line_60_kill_and_errors(self) -> None:
        """Errors don't end it; stopped while it sleeps it ends at once; killed with a tick running, too."""
        clock = Clock()
        container, began = self.run_timer(clock, lambda: 1 // 0, interval=1)
        clock.pump([1, 1])
        self.assertEqual((began, len(self.flushLoggedErrors(ZeroDivisionError))), ([1, 2], 2))
        self.successResultOf(container.stop())
        cancelled: list[Any] = []
        container, _ = self.run_timer(clock, lambda: Deferred(cancelled.append), interval=1, eager=True)
        self.successResultOf(container.kill())
        self.assertEqual((len(cancelled), clock.getDelayedCalls()), (1, []))
