"""The state is asked for while somebody looks."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txservices.page.watch import EVERY, LOOKED, WAIT, Watch


class Watching(SynchronousTestCase):
    """A watch, and what it asks."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.asked = 0
        self.answer: Any = lambda: succeed({"asked": self.asked})
        self.watch = Watch(self.ask, self.clock)

    def ask(self) -> Deferred[dict[str, Any]]:
        self.asked += 1
        answer: Deferred[dict[str, Any]] = self.answer()
        return answer

    def states(self, *waiting: Deferred[bytes]) -> list[Any]:
        return [json.loads(self.successResultOf(each)) for each in waiting]

    def test_nobody_looks(self) -> None:
        """Nothing is asked before the first request, and no more some seconds after the last."""
        self.clock.advance(60)
        self.assertEqual(self.asked, 0)
        self.watch.next(0)
        self.clock.pump([EVERY] * int(10 * LOOKED))
        self.assertLessEqual(self.asked, LOOKED / EVERY + 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_each_state_once(self) -> None:
        """Whoever has a state waits for the next one; those who wait get the same, and it was asked for once."""
        first = self.watch.next(0)
        self.assertEqual(self.states(first), [{"number": 1, "asked": 1}])
        waiting = [self.watch.next(1), self.watch.next(1)]
        self.assertNoResult(waiting[0])
        self.clock.advance(EVERY)
        self.assertEqual(self.states(*waiting), [{"number": 2, "asked": 2}] * 2)
        self.assertEqual(self.states(self.watch.next(1), self.watch.next(0)), [{"number": 2, "asked": 2}] * 2)
        self.assertEqual(self.asked, 2)

    def test_looks_again(self) -> None:
        """After a time in which nobody looked, a new state is asked for, and not an old one given."""
        self.watch.next(0)
        self.clock.pump([EVERY] * int(2 * LOOKED))
        asked = self.asked
        self.assertEqual(self.states(self.watch.next(0)), [{"number": asked + 1, "asked": asked + 1}])

    def test_number_of_another_run(self) -> None:
        """A page that is older than this process gets the next state, whatever number it had."""
        self.watch.next(0)
        self.assertEqual(self.states(self.watch.next(500)), [{"number": 1, "asked": 1}])

    def test_failure(self) -> None:
        """An error is logged, and the next state is given to those who wait."""
        self.answer = lambda: fail(ValueError("no"))
        waiting = self.watch.next(0)
        self.assertNoResult(waiting)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.answer = lambda: succeed({})
        self.clock.advance(EVERY)
        self.assertEqual(self.states(waiting), [{"number": 1}])

    def test_no_answer(self) -> None:
        """Whoever waits for too long is told nothing, and may ask again."""
        self.answer = Deferred
        waiting = self.watch.next(0)
        self.clock.advance(WAIT)
        self.assertEqual(self.successResultOf(waiting), b"")
        self.assertNoResult(self.watch.next(0))

    def test_cancel(self) -> None:
        """After the end nothing is asked, and nobody waits."""
        self.answer = Deferred
        waiting = self.watch.next(0)
        self.watch.cancel()
        self.assertEqual(self.successResultOf(waiting), b"")
        self.assertEqual(self.clock.getDelayedCalls(), [])
