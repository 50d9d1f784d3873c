"""A life: every way from state to state, and what becomes of the steps on it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from txservices.utils.life import NEXT, Life, State

# What was called, and the state that leads to: with steps that wait, and when they are done.
WAYS = [
    ([], State.NEW, State.NEW),
    (["start"], State.STARTING, State.RUNNING),
    (["stop"], State.STOPPING, State.ENDED),
    (["kill"], State.KILLED, State.ENDED),
    (["start", "stop"], State.STOPPING, State.ENDED),
    (["start", "kill"], State.KILLED, State.ENDED),
    (["start", "stop", "kill"], State.KILLED, State.ENDED),
    (["start", "stop", "stop"], State.STOPPING, State.ENDED),
    (["start", "kill", "stop"], State.KILLED, State.ENDED),
    (["start", "kill", "kill"], State.KILLED, State.ENDED),
    (["stop", "start"], State.STOPPING, State.ENDED),
    (["kill", "start"], State.KILLED, State.ENDED),
]


class Lives(TestCase):
    """``Life``."""

    def setUp(self) -> None:
        self.calls: list[str] = []
        self.does: dict[str, Any] = {}
        self.life = Life(
            "the owner", *([self.step(f"{each} {n}") for n in (1, 2)] for each in ("start", "stop", "kill"))
        )

    def step(self, name: str) -> Any:
        def take() -> Any:
            self.calls.append(name)
            return self.does.get(name, lambda: None)()

        return take

    def begin(self, names: list[str]) -> None:
        """Call these methods, one after the other."""
        for name in names:
            getattr(self.life, name)().addErrback(lambda failure: failure.trap(CancelledError))

    def test_every_transition(self) -> None:
        """Only those in the table are possible; every other one is refused and changes nothing."""
        for before in State:
            for after in State:
                self.life.state = before
                self.assertEqual(self.life.may(after), after in NEXT[before])
                if after in NEXT[before]:
                    self.life.become(after)
                    self.assertIs(self.life.state, after)
                else:
                    error = self.assertRaises(RuntimeError, self.life.become, after)
                    self.assertIn(f"the owner is {before.value} and can't be {after.value}", str(error))
                    self.assertIs(self.life.state, before)

    def test_the_table(self) -> None:
        """Nothing leads back, nothing leads out of the end, and every state leads to it."""
        order = list(State)
        for before, possible in NEXT.items():
            self.assertTrue(all(order.index(after) > order.index(before) for after in possible))
        self.assertEqual([state for state in State if not NEXT[state]], [State.ENDED])

    def test_ways(self) -> None:
        """Each way leads to its state, while its steps wait and when they are done."""
        for names, waiting, done in WAYS:
            self.setUp()
            steps: dict[str, Deferred[None]] = {f"{each} 1": Deferred() for each in ("start", "stop", "kill")}
            self.does = {name: lambda step=step: step for name, step in steps.items()}
            self.begin(names)
            self.assertIs(self.life.state, waiting, names)
            for step in steps.values():
                if not step.called:
                    step.callback(None)
            self.assertIs(self.life.state, done, names)

    def test_steps_in_order(self) -> None:
        """Each step is taken when the one before has fired."""
        first: Deferred[None] = Deferred()
        self.does["start 1"] = lambda: first
        starting = self.life.start()
        self.assertEqual(self.calls, ["start 1"])
        self.assertNoResult(starting)
        first.callback(None)
        self.successResultOf(starting)
        self.assertEqual(self.calls, ["start 1", "start 2"])

    def test_start_twice(self) -> None:
        """A second start is a mistake of the caller."""
        self.successResultOf(self.life.start())
        self.assertRaises(RuntimeError, self.life.start)

    def test_start_after_the_end(self) -> None:
        """Started when it is stopped already, it takes no step of the start."""
        self.successResultOf(self.life.stop())
        self.failureResultOf(self.life.start(), CancelledError)
        self.assertEqual(self.calls, ["stop 1", "stop 2"])

    def test_start_fails(self) -> None:
        """An error in a step ends the start; it can be stopped then."""
        self.does["start 1"] = lambda: fail(ValueError("why"))
        self.failureResultOf(self.life.start(), ValueError)
        self.assertEqual((self.calls, self.life.state), (["start 1"], State.STARTING))
        self.successResultOf(self.life.stop())
        self.successResultOf(self.life.wait())

    def test_stop_while_starting(self) -> None:
        """A stop cancels the step of the start that is under way, and the start takes no other."""
        cancelled: list[Any] = []
        self.does["start 1"] = lambda: Deferred(cancelled.append)
        starting = self.life.start()
        self.successResultOf(self.life.stop())
        self.failureResultOf(starting, CancelledError)
        self.assertEqual((len(cancelled), self.calls), (1, ["start 1", "stop 1", "stop 2"]))

    def test_death_while_starting(self) -> None:
        """A start fails with the error that the life dies of, while a step waits and if it is dead already."""
        self.does["start 1"] = lambda: Deferred()
        starting = self.life.start()
        self.life.kill(Failure(ValueError("why")))
        self.failureResultOf(starting, ValueError)
        self.failureResultOf(self.life.start(), ValueError)
        self.flushLoggedErrors(ValueError)

    def test_kill_while_stopping(self) -> None:
        """So does a kill with the steps of a stop, which is no error in the log; both fire when it has ended."""
        self.does["stop 1"] = lambda: Deferred()
        stopping = self.life.stop()
        self.assertNoResult(stopping)
        self.successResultOf(self.life.kill())
        self.successResultOf(stopping)
        self.assertEqual(self.calls, ["stop 1", "kill 1", "kill 2"])

    def test_by_its_own_step(self) -> None:
        """A step of the start that stops it cancels what that start goes on to wait for."""
        waiting: list[Any] = []

        def stop_and_wait() -> Deferred[None]:
            self.life.stop()
            return Deferred(waiting.append)

        self.does["start 1"] = stop_and_wait
        self.failureResultOf(self.life.start(), CancelledError)
        self.assertEqual((len(waiting), self.calls), (1, ["start 1", "stop 1", "stop 2"]))
        self.assertIs(self.life.state, State.ENDED)

    def test_step_fails(self) -> None:
        """An error in a step of the end is logged, and the next step is taken."""
        self.does["stop 1"] = lambda: 1 // 0
        self.successResultOf(self.life.stop())
        self.assertEqual(self.calls, ["stop 1", "stop 2"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_wait(self) -> None:
        """It fires at the end, for those who waited before and for those who come later."""
        before = self.life.wait()
        self.assertNoResult(before)
        self.life.stop()
        self.successResultOf(before)
        self.successResultOf(self.life.wait())

    def test_failure(self) -> None:
        """It fails with the first failure; whoever killed it is told of the end alone."""
        before = self.life.wait()
        first: Deferred[None] = Deferred()
        self.does["kill 1"] = lambda: first
        killed = self.life.kill(Failure(ValueError("why")))
        self.life.kill(Failure(KeyError("other")))
        self.assertNoResult(killed)
        first.callback(None)
        self.successResultOf(killed)
        self.failureResultOf(before, ValueError)
        self.failureResultOf(self.life.wait(), ValueError)

    def test_nobody_waits(self) -> None:
        """A failure that nobody waits for is logged, also if a step of the kill had to be waited for."""
        first: Deferred[None] = Deferred()
        self.does["kill 1"] = lambda: first
        self.life.kill(Failure(ValueError("why")))
        first.callback(None)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
