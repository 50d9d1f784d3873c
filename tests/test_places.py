"""How many workers run and may run, those apart among them, and what a stop waits for beside them."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txservices.containers import ServiceContainer
from txservices.extensions import Entrypoint
from txservices.workers import Workers

hook = Entrypoint.decorator


class Apart(Entrypoint):
    """Its workers run apart, as those of HTTP."""

    apart = True


class Service:
    name = "service"

    @hook
    async def call(self, until: Deferred[Any]) -> Any:
        return await until

    @hook
    async def stay(self, until: Deferred[Any]) -> Any:
        try:
            await Deferred()
        except CancelledError:
            return await until

    @Apart.decorator
    async def request(self, until: Deferred[Any]) -> Any:
        return await until


class Case(SynchronousTestCase):
    """A container with one worker, and two apart."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.container = ServiceContainer(Service, {"max_workers": 1, "WEB_MAX_WORKERS": 2}, clock=self.clock)
        self.workers: Any = self.container.workers
        self.call, self.request, self.stay = sorted(self.container.entrypoints, key=lambda each: each.method_name)

    def spawn(self, entrypoint: Entrypoint) -> Deferred[None]:
        """Begin a worker. It ends when the Deferred fires."""
        until: Deferred[None] = Deferred()
        self.container.spawn_worker(entrypoint, (until,), {})
        return until


class Numbers(Case):
    """Workers that run, and those that may."""

    def test_under_way(self) -> None:
        """All that run are under way, each in its own places, and a stop waits for the last of them."""
        call, first, second = map(self.spawn, (self.call, self.request, self.request))
        drained = self.workers.drain()
        self.assertEqual((self.workers.running, self.workers.apart.running, self.workers.under_way), (1, 2, 3))
        first.callback(None)
        call.callback(None)
        self.assertEqual((self.workers.running, self.workers.apart.running, self.workers.under_way), (0, 1, 1))
        self.assertNoResult(drained)
        self.assertNoResult(self.workers.drain())
        second.callback(None)
        self.successResultOf(drained)
        self.successResultOf(self.workers.drain())

    def test_places(self) -> None:
        """Places apart count only where something runs there; one is there without a number."""
        self.assertEqual(self.workers.places, 3)
        self.assertEqual(ServiceContainer(type("Plain", (), {"name": "plain"}), {"max_workers": 5}).workers.places, 5)
        self.assertEqual(Workers(Service, 1, self.clock).apart.max_workers, 1)


class Waiting(Case):
    """Turns, and what ended workers have left to do."""

    def test_queued_by_a_turn(self) -> None:
        """A turn may queue another one and have the queued begin: they begin one after the other, however many."""
        begun: list[int] = []

        def begin() -> None:
            begun.append(self.workers.waiting)
            if len(begun) < 3_000:
                self.workers.wait(self.call, begin)
                self.workers.begin_queued()

        self.workers.wait(self.call, begin)
        self.workers.begin_queued()
        self.assertEqual(begun, [0] * 3_000)
        self.assertFalse(self.workers.beginning_queued)

    def test_forgotten(self) -> None:
        """A turn that is forgotten never begins, and those who wait for that are told that nothing waits any more."""
        told: list[str] = []
        self.workers.on_none_queued.append(lambda: told.append("none"))
        turn = self.workers.wait(self.call, lambda: told.append("begun"))
        drained = self.workers.drain()
        self.assertEqual((self.workers.waiting, len(self.clock.getDelayedCalls())), (1, 1))
        self.assertNoResult(drained)
        for _ in range(2):
            self.workers.forget(turn)
            self.assertEqual((self.workers.waiting, told), (0, ["none"]))
        self.successResultOf(drained)
        self.assertEqual(self.clock.getDelayedCalls(), [])  # nobody looks whether it waits for long
        self.spawn(self.call).callback(None)
        self.assertEqual(told, ["none"])

    def test_left(self) -> None:
        """A stop waits for what a worker has left to do, and an abort cancels it, then and later."""
        rest: Deferred[int] = Deferred()
        self.workers.leave(rest)
        drained = self.workers.drain()
        self.assertNoResult(drained)
        rest.callback(1)
        self.successResultOf(drained)
        self.assertEqual((self.successResultOf(rest), self.workers.rests), (1, set()))
        before: Deferred[int] = Deferred()
        after: Deferred[int] = Deferred()
        self.workers.leave(before)
        self.assertNoResult(before)
        self.successResultOf(Deferred.fromCoroutine(self.workers.abort()))
        self.workers.leave(after)
        for each in (before, after):
            self.failureResultOf(each, CancelledError)
        self.assertEqual(self.workers.rests, set())

    def test_never_ran(self) -> None:
        """A turn begins although its caller waits for a moment only, if nobody knows how long the method takes."""
        told: list[str] = []
        self.workers.wait(self.call, lambda: told.append("begun"), 0.5, lambda: told.append("given up"))
        self.workers.begin_queued()
        self.assertEqual(told, ["begun"])

    def test_decoded_in_vain(self) -> None:
        """A place that was held for a message which begins no worker leaves nothing to those that begin later."""
        since = self.workers.hold()
        self.clock.advance(3)
        waited: list[float] = []
        self.workers.release(since, lambda: waited.append(self.workers.waited))
        self.assertEqual((waited, self.workers.waited, self.workers.running), ([3.0], 0.0, 0))

    def test_stays(self) -> None:
        """An abort does not wait for a worker that goes on although it was cancelled."""
        until = self.spawn(self.stay)
        self.successResultOf(Deferred.fromCoroutine(self.workers.abort()))
        self.assertEqual((self.workers.running, self.clock.getDelayedCalls()), (1, []))
        until.callback(None)
        self.assertEqual(self.workers.running, 0)
