"""Timers: when they tick, and what can't stop them."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from txservices.containers import ServiceContainer
from txservices.exceptions import ConfigurationError
from txservices.timer import Timer, timer


class Ticking(TestCase):
    """A service with one timer, on a clock of the test's."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.ticks: list[float] = []

    def start(self, does: Any = lambda: None, **options: Any) -> ServiceContainer:
        test = self

        class Service:
            name = "service"

            @timer(**options)
            def tick(self) -> Any:
                test.ticks.append(round(test.clock.seconds(), 3))
                return does()

        container = ServiceContainer(Service, {"SHUTDOWN_TIMEOUT": 5}, clock=self.clock)
        self.successResultOf(container.start())
        return container

    def stop(self, container: ServiceContainer) -> None:
        self.successResultOf(container.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_interval(self) -> None:
        """It ticks at whole intervals, first after one of them."""
        container = self.start(interval=1)
        self.clock.pump([0.5] * 7)
        self.assertEqual(self.ticks, [1, 2, 3])
        self.stop(container)
        self.clock.pump([0.5] * 7)
        self.assertEqual(len(self.ticks), 3)

    def test_eager(self) -> None:
        """An eager one ticks at the start, too."""
        container = self.start(interval=1, eager=True)
        self.clock.advance(1)
        self.assertEqual(self.ticks, [0, 1])
        self.stop(container)

    def test_zero(self) -> None:
        """Without an interval it begins again as soon as it is done."""
        fifth: Deferred[None] = Deferred()
        container = self.start(interval=0, does=lambda: fifth if len(self.ticks) == 5 else None)
        self.clock.advance(0)
        self.assertEqual(self.ticks, [0] * 5)
        stopping = container.stop()
        fifth.callback(None)
        self.successResultOf(stopping)

    def test_never_overlaps(self) -> None:
        """While a tick runs there is no other; those missed are left out, and the next is on time."""
        running: list[Deferred[None]] = []
        container = self.start(interval=1, does=lambda: running.append(Deferred()) or running[-1])
        self.clock.pump([0.5] * 7)
        self.assertEqual(self.ticks, [1])
        running[0].callback(None)
        self.clock.pump([0.25] * 3)
        self.assertEqual(self.ticks, [1, 4])
        running[1].callback(None)
        self.stop(container)

    def test_errors(self) -> None:
        """An exception in the method is logged and the timer goes on."""
        container = self.start(interval=1, does=lambda: 1 // 0)
        self.clock.pump([1, 1, 1])
        self.assertEqual(len(self.ticks), 3)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 3)
        self.stop(container)

    def test_expected_errors(self) -> None:
        """An expected one is no error in the log."""
        container = self.start(interval=1, does=lambda: 1 // 0, expected_exceptions=ZeroDivisionError)
        self.clock.pump([1, 1])
        self.assertEqual(len(self.ticks), 2)
        self.stop(container)

    def test_stop_waits(self) -> None:
        """Stopping lets a running tick finish."""
        running: Deferred[None] = Deferred()
        container = self.start(interval=1, does=lambda: running)
        self.clock.advance(1)
        stopping = container.stop()
        self.assertNoResult(stopping)
        running.callback(None)
        self.successResultOf(stopping)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_kill(self) -> None:
        """Killed, it ends, also with a tick running."""
        cancelled: list[Any] = []
        container = self.start(interval=1, does=lambda: Deferred(cancelled.append))
        self.clock.advance(1)
        self.successResultOf(container.kill())
        self.assertEqual(len(cancelled), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_interval_that_is_none(self) -> None:
        """A value that is no number of seconds is refused where it is written."""
        for interval in (-1, "1", None):
            self.assertIn("give the seconds", str(self.assertRaises(ConfigurationError, Timer, interval)))
