"""Containers, and what an error ends: lines 51 to 55."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from tests.noting import ContainerCase, Service
from txservices.exceptions import ContainerBeingKilled
from txservices.runners import ServiceRunner
from txservices.utils.life import State


class Life(ContainerCase):
    """Lines 51 to 54."""

    max_workers = 1

    def test_line_51_order(self) -> None:
        """All are set up before any starts; entrypoints stop, then workers, dependencies, shared ones; and a worker's
        life is in nameko's order."""
        waiting: Deferred[None] = Deferred()
        self.config["Dependency.setup"] = lambda: waiting
        starting = self.container.start()
        self.assertEqual(sorted(self.steps), ["Dependency.setup", "Fires.setup", "Inner.setup", "Shared.setup"])
        waiting.callback(None)
        self.successResultOf(starting)
        self.assertEqual(sorted(self.steps[4:]), ["Dependency.start", "Fires.start", "Inner.start", "Shared.start"])
        self.steps.clear()
        answer: Deferred[Any] = Deferred()
        self.spawn(lambda: answer)
        stopping = self.container.stop()
        answer.callback("result")
        self.successResultOf(stopping)
        before = ["Dependency.get_dependency", "Dependency.worker_setup"]
        after = ["Dependency.worker_result", "Dependency.worker_teardown"]
        self.assertEqual(
            self.steps[:-2],
            [*before, "Fires.stop", "handle_result", *after, "Dependency.stop"],
        )
        self.assertEqual(sorted(self.steps[-2:]), ["Inner.stop", "Shared.stop"])

    def test_line_52_max_workers(self) -> None:
        """Over max_workers a worker waits; a stop waits for both, and a kill cancels what runs and drops what waits.

        nameko blocks whoever spawns; here nobody can be blocked, and the worker waits in the container.
        """
        self.begin()
        answers: list[Deferred[Any]] = [Deferred(), Deferred()]
        began: list[int] = []
        for number, answer in enumerate(answers):
            self.spawn(lambda n=number, a=answer: began.append(n) or a)
        self.assertEqual(began, [0])
        stopping = self.container.stop()
        answers[0].callback("first")
        self.assertEqual(began, [0, 1])
        self.assertNoResult(stopping)
        answers[1].callback("second")
        self.successResultOf(stopping)
        self.assertEqual(self.handled, ["first", "second"])

    def test_line_52_kill(self) -> None:
        """A kill cancels what runs; its entrypoint is told nothing, and its dependencies are torn down.

        nameko tears nothing down.
        """
        self.begin()
        cancelled: list[Any] = []
        self.spawn(lambda: Deferred(cancelled.append))
        self.spawn(lambda: cancelled.append("never"))
        self.successResultOf(self.container.kill())
        self.assertEqual((len(cancelled), self.handled), (1, []))
        self.assertIn("Dependency.worker_teardown", self.steps)
        self.assertNotIn("Dependency.worker_result", self.steps)
        with self.assertRaises(ContainerBeingKilled):
            self.spawn(lambda: None)

    def test_line_53_managed_work(self) -> None:
        """An error in background work kills the container, once, and is that of ``wait``; a bad kill blocks nobody."""
        self.begin()
        self.config["Dependency.kill"] = lambda: 1 // 0
        works: list[Deferred[None]] = [Deferred(), Deferred()]
        for work in works:
            self.container.spawn_managed(lambda work=work: work)
        ended = self.container.wait()
        works[0].errback(ValueError("why"))
        self.failureResultOf(ended, ValueError)
        self.failureResultOf(self.container.wait(), ValueError)
        self.assertEqual(sorted(self.steps), ["Dependency.kill", "Fires.kill", "Inner.kill", "Shared.kill"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        works[1].addErrback(lambda failure: failure.trap(CancelledError))

    def test_line_54_ends_of_ends(self) -> None:
        """A second stop, a kill after a stop, and a late kill all fire, and nothing is done twice."""
        self.begin()
        self.successResultOf(self.container.stop())
        once = list(self.steps)
        self.successResultOf(self.container.stop())
        self.successResultOf(self.container.kill(ValueError("too late")))
        self.successResultOf(self.container.wait())
        self.assertEqual(self.steps, once)

    def test_line_54_stop_while_killed(self) -> None:
        """A stop during a kill waits for its end, and a kill during a stop does not wait for workers."""
        self.begin()
        waiting: Deferred[None] = Deferred()
        self.config["Fires.kill"] = lambda: waiting
        self.spawn(lambda: Deferred())
        stopping = self.container.stop()
        killing = self.container.kill()
        stopping_again = self.container.stop()
        for each in (stopping, killing, stopping_again):
            self.assertNoResult(each)
        waiting.callback(None)
        for each in (stopping, killing, stopping_again):
            self.successResultOf(each)


class Errors(ContainerCase):
    """Lines 55 and 56."""

    def test_line_55_errors_of_hooks(self) -> None:
        """An error in a dependency's hook is that worker's error, and what was injected is torn down.

        nameko's container dies of it, and the process with that.
        """
        self.begin()
        for step, handled in (
            ("get_dependency", [ZeroDivisionError]),
            ("worker_setup", [ZeroDivisionError]),
            ("worker_result", ["result"]),
            ("worker_teardown", ["result"]),
        ):
            self.steps.clear()
            self.handled.clear()
            self.config[f"Dependency.{step}"] = lambda: 1 // 0
            self.spawn(lambda: "result")
            del self.config[f"Dependency.{step}"]
            self.assertEqual(self.handled, handled, step)
            self.assertEqual("Dependency.worker_teardown" in self.steps, step != "get_dependency")
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1, step)
        self.spawn(lambda: "alive")
        self.assertEqual(self.handled[-1], "alive")
        self.successResultOf(self.container.stop())

    def test_line_55_runner(self) -> None:
        """When one container dies, the runner stops the others, and its ``wait`` fails with the error."""
        runner = ServiceRunner(self.config, self.clock)
        dying = runner.add_service(type("Dying", (Service,), {"name": "dying"}))
        living = runner.add_service(Service)
        self.successResultOf(runner.start())
        self.steps.clear()
        ended = runner.wait()
        work: Deferred[None] = Deferred()
        dying.spawn_managed(lambda: work)
        work.errback(ValueError("why"))
        self.failureResultOf(ended, ValueError)
        self.assertIs(living.life.state, State.ENDED)
        self.assertEqual((self.steps.count("Fires.kill"), self.steps.count("Fires.stop")), (1, 1))
