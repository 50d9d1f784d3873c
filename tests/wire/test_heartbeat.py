"""The heartbeat of both ends, on a clock."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txservices.wire.heartbeat import Heartbeat

INTERVAL = 10


class HeartbeatTests(SynchronousTestCase):
    """A beat each half interval without a write; the end after two intervals without a byte."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.sent: list[float] = []
        self.given_up: list[float] = []
        self.heartbeat = Heartbeat(
            self.clock,
            lambda: self.sent.append(self.clock.seconds()),
            lambda: self.given_up.append(self.clock.seconds()),
        )

    def hear(self) -> None:
        self.heartbeat.read_at = self.clock.seconds()

    def test_beats_where_nothing_was_written(self) -> None:
        """Each half interval has its beat, unless something else was written in it."""
        self.heartbeat.start(INTERVAL)
        for seconds in range(1, 16):
            self.clock.advance(1)
            if seconds == 7:
                self.heartbeat.wrote = True
        self.assertEqual(self.sent, [5, 15])

    def test_two_intervals_exactly(self) -> None:
        """The peer is given up two intervals after its last byte, once, no sooner and no later."""
        self.heartbeat.start(INTERVAL)
        self.clock.pump([1] * 7)
        self.hear()
        self.clock.advance(19.75)
        self.assertEqual(self.given_up, [])
        self.clock.advance(0.25)
        self.assertEqual(self.given_up, [27])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_byte_in_time(self) -> None:
        """A peer that speaks just before its time is over is never given up."""
        self.heartbeat.start(INTERVAL)
        for _ in range(20):
            self.clock.advance(19.75)
            self.hear()
        self.assertEqual(self.given_up, [])

    def test_held_up(self) -> None:
        """A byte that is read only after this process was held up counts, in either of two turns of the reactor."""
        for turns in (1, 2):
            self.heartbeat.start(INTERVAL)
            self.clock.advance(19)
            later = self.clock.seconds() + 100
            self.clock.rightNow = later  # nothing ran meanwhile
            self.after_turns(turns, self.hear)
            self.clock.advance(0)
            self.assertEqual(self.given_up, [])
            self.clock.advance(19)
            self.assertEqual(self.given_up, [])
            self.clock.advance(1)
            self.assertEqual(self.given_up, [later + 20])
            self.given_up.clear()

    def after_turns(self, turns: int, call: Callable[[], None]) -> None:
        """Call in that many turns of the reactor; other calls of the last turn come after it."""
        if turns:
            self.clock.callLater(0, self.after_turns, turns - 1, call)
        else:
            call()

    def test_held_up_by_a_dead_peer(self) -> None:
        """Held up or not, a peer of whom nothing has come is given up."""
        self.heartbeat.start(INTERVAL)
        self.clock.rightNow = 100
        self.clock.advance(0)
        self.assertEqual(self.given_up, [100])

    def test_started_anew(self) -> None:
        """Another interval takes the place of the first, and counts from then."""
        self.heartbeat.start(INTERVAL)
        self.clock.advance(4)
        self.heartbeat.start(2)
        self.clock.advance(3.5)
        self.assertEqual(self.given_up, [])
        self.clock.advance(0.5)
        self.assertEqual(self.given_up, [8])

    def test_stopped(self) -> None:
        """Stopped, or with an interval of 0, it leaves nothing on the clock."""
        self.heartbeat.stop()
        self.heartbeat.start(INTERVAL)
        self.assertEqual(self.heartbeat.interval, INTERVAL)
        self.heartbeat.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.heartbeat.start(0)
        self.assertEqual((self.heartbeat.interval, self.clock.getDelayedCalls()), (0, []))
