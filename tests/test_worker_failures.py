"""Workers in which something fails, or that are cancelled."""

from __future__ import annotations

import gc
from typing import Any
from unittest import mock

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.logger import globalLogPublisher

from tests.recording import Case, Service
from txservices import workers as workers_module
from txservices.callids import this_worker
from txservices.utils.life import State


class Failing(Case):
    """Errors: whose they are, and what goes on."""

    def test_method(self) -> None:
        """An exception is logged, told, and the dependencies see it."""
        self.spawn("run", lambda service: 1 // 0)
        ((_, exc_info),) = self.handled
        self.assertEqual(exc_info[0], ZeroDivisionError)
        self.assertIs(exc_info[1].__traceback__, exc_info[2])
        self.assertIn(("result", "two", None, ZeroDivisionError), self.calls)
        self.assertEqual(self.hooks()[-1], "teardown two")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_waiting_method(self) -> None:
        """So is one that comes later."""
        waiting: Deferred[Any] = Deferred()
        self.spawn("wait", waiting)
        waiting.errback(ValueError("late"))
        self.assertEqual(self.handled[0][1][0], ValueError)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_expected(self) -> None:
        """An expected exception is a warning in the log, and an error at the caller."""
        self.spawn("wait", fail(KeyError("k")))
        self.assertEqual(self.handled[0][1][0], KeyError)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_exits(self) -> None:
        """SystemExit and its like end the call and nothing more, now or later."""
        for error in (SystemExit(3), KeyboardInterrupt(), GeneratorExit()):
            for method in ("run", "wait"):
                deferred: Deferred[Any] = Deferred()

                def does(service: Any, error: BaseException = error) -> Any:
                    raise error

                if method == "run":
                    self.spawn("run", does)
                    self.assertIs(self.handled.pop()[1][1], error)
                elif not isinstance(error, GeneratorExit):
                    self.spawn("wait", deferred)
                    deferred.errback(error)
                    self.assertIs(self.handled.pop()[1][1], error)
        self.assertEqual(len(self.flushLoggedErrors()), 5)

    def test_get_dependency(self) -> None:
        """Without its dependencies the method is not run; what was injected is torn down."""
        self.spawn("run", lambda service: self.fail("was run"), get_two=lambda: 1 // 0)
        self.assertEqual(self.hooks(), ["get one", "get two", "handle None", "result one", "teardown one"])
        self.flushLoggedErrors(ZeroDivisionError)

    def test_setup(self) -> None:
        """The same for an error in worker_setup; all are injected by then, and all are torn down."""
        self.spawn("run", lambda service: self.fail("was run"), setup_one=lambda: 1 // 0)
        self.assertEqual(self.handled[0][1][0], ZeroDivisionError)
        self.assertEqual(self.hooks()[-2:], ["teardown one", "teardown two"])
        self.assertNotIn("setup two", self.hooks())
        self.flushLoggedErrors(ZeroDivisionError)

    def test_constructor(self) -> None:
        """A service class whose instances can't be made fails its workers, not the container."""
        with mock.patch.object(Service, "__init__", side_effect=ValueError("no")):
            self.spawn("run", lambda service: None)
        self.assertEqual(self.handled[0][1][0], ValueError)
        self.flushLoggedErrors(ValueError)

    def test_result_and_teardown(self) -> None:
        """Errors in worker_result and worker_teardown are logged, and the other dependencies have their turn."""
        self.spawn("run", lambda service: 7, result_one=lambda: 1 // 0, teardown_one=lambda: fail(KeyError()))
        self.assertEqual(self.hooks()[-4:], ["result one", "result two", "teardown one", "teardown two"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError, KeyError)), 2)
        self.assertIsNot(self.container.life.state, State.KILLED)
        self.spawn("run", lambda service: 8)
        self.assertEqual(self.over, [(7, None), (8, None)])

    def test_handle_result(self) -> None:
        """An error in the entrypoint's handle_result is what the dependencies see."""
        self.spawn("run", lambda service: 7, handle_result=lambda ctx, result, exc_info: 1 // 0)
        self.assertIn(("result", "one", None, ZeroDivisionError), self.calls)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_not_handled(self) -> None:
        """An entrypoint whose handle_result fails is told, with the error: it settles what it answers for."""
        told: list[Any] = []
        entrypoint = self.container.entrypoints[0]
        for fails in (lambda: 1 // 0, lambda: fail(ZeroDivisionError())):
            entrypoint.result_not_handled = lambda worker, exc_info: told.append((worker, exc_info[0]))
            worker = self.spawn("run", lambda service: 7, handle_result=lambda ctx, result, exc_info, way=fails: way())
            self.assertEqual(told.pop(), (worker, ZeroDivisionError))
            self.assertEqual(len(self.over.pop()), 2)
        entrypoint.result_not_handled = lambda worker, exc_info: told.remove("nothing")
        self.spawn("run", lambda service: 7, handle_result=lambda ctx, result, exc_info: 1 // 0)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)  # whatever it raises, the rest has its turn
        self.assertEqual((len(self.over), self.hooks()[-1]), (1, "teardown two"))
        self.spawn("run", lambda service: 7)
        self.assertEqual(told, [])
        self.flushLoggedErrors(ZeroDivisionError)

    def test_log_says_where(self) -> None:
        """The line of an error in a hook has the hook and the worker in it."""
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)

        def ended(worker: Any, result: Any, exc_info: Any) -> None:
            raise KeyError("ended")

        self.container.on_worker_ended.insert(0, ended)
        worker = self.spawn(
            "run",
            lambda service: 7,
            handle_result=lambda ctx, result, exc_info: 1 // 0,
            result_one=lambda: 1 // 0,
            teardown_one=lambda: 1 // 0,
        )
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError, KeyError)), 4)
        lines = [event for event in events if "hook" in event]
        self.assertEqual([event["worker"] for event in lines], [worker] * 4)
        names = ["<lambda>", "worker_result", "worker_teardown", "ended"]
        self.assertEqual([event["hook"].rpartition(".")[2] for event in lines], names)
        self.assertEqual(len(self.over), 1)  # the others are told nevertheless

    def test_cancelled_by_somebody_else(self) -> None:
        """A worker whose Deferred is cancelled has failed, and so has one that fails while it is cancelled by us."""
        waiting: Deferred[None] = Deferred()
        self.spawn("wait", waiting)
        waiting.cancel()
        self.assertEqual(len(self.flushLoggedErrors(CancelledError)), 1)
        self.assertEqual(len(self.container.workers.pending), 0)
        self.spawn("run", lambda service: 7, teardown_one=lambda: fail(CancelledError()))
        self.assertEqual(len(self.flushLoggedErrors(CancelledError)), 1)
        self.spawn("wait", Deferred(lambda waiting: waiting.errback(Exception("cancelled"))))
        self.spawn("wait", Deferred(), teardown_one=lambda: fail(Exception("torn down")))
        self.container.kill()
        self.assertEqual(len(self.flushLoggedErrors(Exception)), 2)

    def test_known_to_the_log(self) -> None:
        """While a worker runs, the log can ask which one it is."""
        found: list[Any] = []
        worker = self.spawn("run", lambda service: found.append(this_worker.get()))
        self.assertEqual((found, this_worker.get()), ([worker], None))

    def test_disowned(self) -> None:
        """In a forked child no result is handled and no dependency is told of it: the child ends."""
        workers = self.container.workers
        ended: list[str] = []
        self.patch(workers_module, "end", lambda: ended.append("child"))
        self.spawn("run", lambda service: workers.disown())
        self.assertEqual(self.hooks(), ["get one", "get two", "setup one", "setup two"])
        self.assertEqual((ended, self.handled), (["child"], []))
        workers.cancelled = False
        workers.learn(self.container.dependencies)
        self.spawn("run", lambda service: 7, handle_result=lambda *outcome: workers.disown() or outcome[1:])
        self.assertEqual((ended, [each for each in self.hooks() if "result" in each]), (["child"] * 2, []))
        self.assertTrue(workers.threads.cancelled)
        self.assertTrue(workers.threads.disowned)

    def test_discarded(self) -> None:
        """A worker that Python throws away, its Deferred being lost, does not go on."""
        self.container.on_worker_ended.clear()
        self.spawn("wait", Deferred())
        self.container.workers.pending.clear()
        gc.collect()
        begun = ["get one", "get two", "setup one", "setup two"]
        self.assertEqual(self.hooks(), begun)
        self.calls.clear()
        self.spawn("run", lambda service: 7, handle_result=lambda ctx, result, exc_info: Deferred())
        self.container.workers.pending.clear()
        gc.collect()
        self.assertEqual(self.hooks(), begun)
