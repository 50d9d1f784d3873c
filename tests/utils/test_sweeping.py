"""Deadlines of many records, watched together."""

from __future__ import annotations

from attrs import define
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from txservices.utils.sweeping import Sweeper


@define
class Record:
    """Something that is pending."""

    deadline: float


class Sweeping(TestCase):
    """``Sweeper``."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.pending: dict[str, Record] = {}
        self.expired: list[str] = []
        self.sweeper = Sweeper(self.clock, self.pending, self.expire)

    def expire(self, key: str, record: Record) -> None:
        self.expired.append(key)

    def add(self, key: str, deadline: float) -> None:
        self.pending[key] = Record(deadline)
        self.sweeper.watch()

    def test_overdue_are_taken_out(self) -> None:
        """Each goes when its time is up, whatever the order in which they came."""
        self.add("late", 5)
        self.add("soon", 1)
        self.add("never", float("inf"))
        self.clock.pump([0.1] * 12)
        self.assertEqual(self.expired, ["soon"])
        self.clock.pump([0.1] * 40)
        self.assertEqual(self.expired, ["soon", "late"])
        self.assertEqual(list(self.pending), ["never"])

    def test_one_call_for_all(self) -> None:
        """However many are pending, one delayed call is scheduled; none when nothing is pending any more."""
        for n in range(100):
            self.add(str(n), 1)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.pending.clear()
        self.clock.advance(0.1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_many_are_looked_at_less_often(self) -> None:
        """With very many pending the interval grows, so that looking stays cheap."""
        self.pending.update((str(n), Record(9)) for n in range(50_000))
        self.sweeper.watch()
        self.assertEqual(self.clock.getDelayedCalls()[0].getTime(), 0.5)

    def test_stop(self) -> None:
        """Stopped, nothing is scheduled; watching again goes on."""
        self.add("one", 1)
        self.sweeper.stop()
        self.sweeper.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.add("two", 1)
        self.clock.pump([0.1] * 11)
        self.assertEqual(self.expired, ["one", "two"])

    def test_expiry_that_raises(self) -> None:
        """An error in one expiry leaves the others for the next time."""

        def expire(key: str, record: Record) -> None:
            self.expire(key, record)
            if key == "bad":
                raise ValueError(key)

        self.sweeper.expire = expire
        self.add("bad", 0)
        self.add("good", 0)
        self.assertRaises(ValueError, self.clock.advance, 0.1)
        self.clock.advance(0.1)
        self.assertEqual(self.expired, ["bad", "good"])

    def test_expiry_that_takes_another_out(self) -> None:
        """An entry that one expiry removes does not expire after it."""
        self.sweeper.expire = lambda key, record: self.pending.clear() or self.expire(key, record)
        self.add("one", 0)
        self.add("two", 0)
        self.clock.advance(0.1)
        self.assertEqual(self.expired, ["one"])
