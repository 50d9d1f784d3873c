"""What happens in a process is told to its observers: each event with its arguments, in order, and once."""

from __future__ import annotations

from contextvars import ContextVar
from functools import partial
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.observing import hearing
from txservices.callids import this_worker
from txservices.containers import ServiceContainer, WorkerContext
from txservices.exceptions import (
    AlreadyHandled,
    CallerGone,
    WorkerTimeout,
)
from txservices.extensions import Entrypoint
from txservices.observers import CANCELLED, ERROR, EXPECTED, OK, TIMEOUT, Observer, observers
from txservices.retry import Retry
from txservices.workers import Workers

hook = Entrypoint.decorator
mark: ContextVar[str] = ContextVar("mark", default="unset")


class Hooked:
    """A service whose workers do what a test gives them."""

    name = "hooked"

    @hook(expected_exceptions=KeyError, worker_timeout=5)
    def run(self, does: Any) -> Any:
        return does()


class WorkersTests(SynchronousTestCase):
    """The beginning and the end of workers, by virtual time."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.container = ServiceContainer(Hooked, {"max_workers": 1}, clock=self.clock)
        self.workers = self.container.workers
        self.told = hearing(self, "worker_started", "worker_ended")

    def spawn(self, does: Any, handle_result: Any = None) -> WorkerContext:
        return self.container.spawn_worker(self.container.entrypoints[0], (does,), {}, None, handle_result)

    def ended(self) -> list[tuple[Any, ...]]:
        """Of each worker that has ended: outcome, seconds waited and run, class of the error."""
        return [(*told, type(error)) for _, _, *told, error in self.told.of("worker_ended")]

    def test_in_order(self) -> None:
        """Each worker is told of when it begins, in its turn, and when it has ended."""
        first: Deferred[int] = Deferred()
        workers = [self.spawn(lambda: first), self.spawn(lambda: 2)]
        self.assertEqual(self.told.told, [("worker_started", workers[0])])
        self.clock.advance(2)
        first.callback(1)
        started, ended = ([each[0] for each in self.told.of(name)] for name in ("worker_started", "worker_ended"))
        self.assertEqual((len(started), len(ended)), (2, 2))
        self.assertEqual(
            self.told.told,
            [
                ("worker_started", workers[0]),
                ("worker_ended", workers[0], OK, 0.0, 2.0, None),
                ("worker_started", workers[1]),
                ("worker_ended", workers[1], OK, 2.0, 0.0, None),
            ],
        )

    def test_waited_for_its_body(self) -> None:
        """What a worker has waited is for its turn, and then for its long body to be decoded, whatever its limits."""
        (entrypoint,) = self.container.entrypoints
        for max_workers, apart in ((None, False), (1, False), (None, True), (1, True)):
            self.told.told.clear()
            self.workers = self.container.workers = Workers(Hooked, 1, self.clock)
            entrypoint.apart, entrypoint.limit, entrypoint.full = apart, None, False
            if max_workers is not None:
                self.workers.limit(entrypoint, max_workers)
            if apart:
                self.workers.have_apart(entrypoint)
            places = entrypoint.limit or self.workers
            since: list[float] = []
            first: Deferred[None] = Deferred()
            self.spawn(lambda first=first: first)
            self.workers.wait(entrypoint, lambda places=places, since=since: since.append(places.hold()))
            self.clock.advance(1)
            first.callback(None)
            self.clock.advance(2)
            places.release(since[0], partial(self.spawn, lambda: 1))
            self.spawn(lambda: 2)
            with self.subTest(max_workers=max_workers, apart=apart):
                self.assertEqual([waited for _, waited, _, _ in self.ended()], [0.0, 3.0, 0.0])

    def test_waited_again(self) -> None:
        """If there is no place when its body is decoded, as others decode bodies, the worker waits on."""
        since = [self.workers.hold() for _ in range(2)]
        self.clock.advance(1)
        self.workers.release(since[0], partial(self.spawn, lambda: 1))
        self.clock.advance(2)
        self.assertEqual(self.ended(), [])
        self.workers.release(since[1], lambda: None)
        self.assertEqual(self.ended(), [(OK, 3.0, 0.0, type(None))])

    def test_outcomes(self) -> None:
        """The outcome is that of the method, or of what was done with its result."""

        def failed(kind: type[BaseException]) -> Any:
            def does() -> Any:
                raise kind

            return does

        def changed(worker: WorkerContext, result: Any, exc_info: Any) -> Any:
            return None, None

        def broken(worker: WorkerContext, result: Any, exc_info: Any) -> Any:
            raise ValueError("not written")

        cases: list[tuple[Any, Any, str, type[Any]]] = [
            (lambda: 1, None, OK, type(None)),
            (failed(ValueError), None, ERROR, ValueError),
            (failed(SystemExit), None, ERROR, SystemExit),
            (failed(KeyError), None, EXPECTED, KeyError),
            (failed(Retry), None, ERROR, Retry),
            (failed(AlreadyHandled), None, EXPECTED, AlreadyHandled),
            (failed(CancelledError), None, ERROR, CancelledError),  # of something that it has cancelled itself
            (failed(WorkerTimeout), None, ERROR, WorkerTimeout),  # of a worker that it has called
            (failed(ValueError), changed, OK, type(None)),
            (lambda: 1, broken, ERROR, ValueError),
        ]
        for does, handle_result, outcome, kind in cases:
            self.told.told.clear()
            self.spawn(does, handle_result)
            with self.subTest(outcome=outcome, kind=kind):
                self.assertEqual(self.ended(), [(outcome, 0.0, 0.0, kind)])
            self.flushLoggedErrors()

    def test_failed_only(self) -> None:
        """Who wants to know of failed workers alone is told of no others, with the seconds since each first waited.

        For a worker that succeeds and waits for nothing, nobody looks at the clock.
        """
        observers.remove(self.told)
        self.addCleanup(observers.add, self.told)
        told = hearing(self, "worker_failed")
        looks: list[None] = []
        seconds = self.clock.seconds
        with patch.object(self.clock, "seconds", lambda: looks.append(None) or seconds()):
            self.spawn(lambda: 1)
        self.assertEqual(looks, [])
        waiting: Deferred[None] = Deferred()
        for does in (dict[str, int]().popitem, lambda: waiting):
            worker = self.spawn(does)
        self.clock.advance(2)
        waiting.errback(ValueError("late"))
        ended = [(*rest, type(error)) for _, _, *rest, error in told.told]
        self.assertEqual(ended, [(EXPECTED, 0.0, 0.0, KeyError), (ERROR, 0.0, 2.0, ValueError)])
        self.assertIs(told.told[1][1], worker)
        self.flushLoggedErrors()

    def test_time_is_up(self) -> None:
        """A worker that its limit of time ends is a TIMEOUT; one that goes on nevertheless has its own outcome."""

        async def goes_on() -> int:
            try:
                return await Deferred()
            except CancelledError:
                return 1

        for does, outcome, kind in ((Deferred, TIMEOUT, WorkerTimeout), (goes_on, OK, type(None))):
            self.told.told.clear()
            self.spawn(does)
            self.clock.advance(5)
            self.assertEqual(self.ended(), [(outcome, 0.0, 5.0, kind)])
        self.flushLoggedErrors()

    def test_caller_has_gone(self) -> None:
        """A worker that is cancelled because its caller has gone is CANCELLED."""
        worker = self.spawn(Deferred)
        self.workers.abort_worker(worker, CallerGone("it has gone"))
        self.assertEqual(self.ended(), [(CANCELLED, 0.0, 0.0, CallerGone)])

    def test_stop(self) -> None:
        """Workers that a stop cancels are CANCELLED, as is one whose result is not handled any more."""
        waiting: Deferred[int] = Deferred()
        self.spawn(lambda: waiting)
        self.workers.cancel()
        waiting.callback(1)
        self.assertEqual(self.ended(), [(CANCELLED, 0.0, 0.0, type(None))])
        self.told.told.clear()
        self.workers.cancelled = False
        self.spawn(Deferred)
        self.successResultOf(Deferred.fromCoroutine(self.workers.abort()))
        self.assertEqual(self.ended(), [(CANCELLED, 0.0, 0.0, CancelledError)])

    def test_own_context(self) -> None:
        """Both are told in the worker's own context: what an observer sets at the beginning is there until the end."""
        found = []

        class Marks(Observer):
            def worker_started(self, worker: WorkerContext) -> None:
                found.append(this_worker.get() is worker)
                mark.set("set")
                worker.data["trace"] = "1"

            def worker_ended(self, worker: WorkerContext, *args: Any) -> None:
                found.append(mark.get())

        observer = Marks({})
        observers.add(observer)
        self.addCleanup(observers.remove, observer)
        waiting: Deferred[None] = Deferred()
        worker = self.spawn(lambda: found.append(mark.get()) or waiting)
        waiting.callback(None)
        self.assertEqual((found, mark.get()), ([True, "set", "set"], "unset"))
        self.assertEqual(worker.context_data["trace"], "1")

    def test_added_in_between(self) -> None:
        """Who begins to listen while a worker runs is not told of its end: the seconds are not known."""
        waiting: Deferred[None] = Deferred()
        observers.remove(self.told)
        self.addCleanup(observers.add, self.told)
        self.spawn(lambda: waiting)
        later = hearing(self, "worker_ended")
        waiting.callback(None)
        self.assertEqual(later.told, [])
