"""Things that the extensions of a container, or of all containers of a process, share."""

from __future__ import annotations

from typing import Any

from twisted.application.service import Service as TwistedService
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from tests.noting import Service
from txservices.containers import ServiceContainer
from txservices.shared import SharedServices


class SharedThings(TestCase):
    """``SharedServices``."""

    class Thing(TwistedService):
        def __init__(self, stops: list[Any], stopping: Any = None) -> None:
            self.stops, self.stopping = stops, stopping

        def stopService(self) -> Any:
            super().stopService()
            self.stops.append(self.name)
            return self.stopping

    def test_one_for_a_key(self) -> None:
        """The first to ask makes it, the others get the same."""
        shared = SharedServices()
        first = shared.get("a", lambda: self.Thing([]))
        self.assertIs(shared.get("a", lambda: self.fail("made twice")), first)
        self.assertIsNot(shared.get("b", lambda: self.Thing([])), first)

    def test_names(self) -> None:
        """It knows the names of the services, each once."""
        shared = SharedServices()
        for _ in range(2):
            ServiceContainer(Service, {}, shared, Clock())
        self.assertEqual(list(shared.containers), ["service"])

    def test_started(self) -> None:
        """A service that is made there runs at once if the whole runs, and is started with it otherwise."""
        shared = SharedServices()
        before = shared.get("a", lambda: self.Thing([]))
        self.assertFalse(before.running)
        shared.startService()
        after = shared.get("b", lambda: self.Thing([]))
        self.assertTrue(before.running and after.running)

    def test_stopped(self) -> None:
        """Stopping stops all, the newest first, and fires when all have."""
        shared = SharedServices()
        stops: list[Any] = []
        waiting: Deferred[None] = Deferred()
        shared.get("a", lambda: self.Thing(stops, waiting))
        shared.get("b", lambda: self.Thing(stops))
        shared.startService()
        stopping = shared.stopService()
        self.assertEqual(stops, ["b", "a"])
        self.assertNoResult(stopping)
        waiting.callback(None)
        self.successResultOf(stopping)

    def test_stopped_twice(self) -> None:
        """A second stop waits for the first, which goes on also if nobody waits for it any more."""
        shared = SharedServices()
        stops: list[Any] = []
        cancelled: list[Any] = []
        waiting: Deferred[None] = Deferred(cancelled.append)
        shared.get("a", lambda: self.Thing(stops, waiting))
        shared.startService()
        first, second = shared.stopService(), shared.stopService()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertNoResult(second)
        waiting.callback(None)
        self.successResultOf(second)
        self.assertEqual((stops, cancelled), (["a"], []))

    def test_stopped_again(self) -> None:
        """A service that is made after a stop is stopped by the next one."""
        shared = SharedServices()
        stops: list[Any] = []
        shared.get("a", lambda: self.Thing(stops))
        for _ in range(2):
            shared.startService()
            self.successResultOf(shared.stopService())
        self.assertEqual(stops, ["a", "a"])

    def test_told_before(self) -> None:
        """Whoever asked is told before anything stops, and not any more once the stop is under way."""
        shared = SharedServices()
        told: list[Any] = []
        waiting: Deferred[None] = Deferred()
        shared.on_stopping.append(lambda: told.append("stopping"))
        shared.get("a", lambda: self.Thing(told, waiting))
        shared.startService()
        shared.stopping()
        stopping = shared.stopService()
        shared.stopping()
        waiting.callback(None)
        self.successResultOf(stopping)
        self.assertEqual(told, ["stopping", "a"])

    def test_killed_while_it_stops(self) -> None:
        """A kill does not interrupt what is shared while it stops, and does not stop it again."""
        steps: list[Any] = []
        waiting: Deferred[None] = Deferred()
        container = ServiceContainer(Service, {}, None, Clock())
        container.shared.get("a", lambda: self.Thing(steps, waiting))
        container.shared.on_stopping.append(lambda: steps.append("stopping"))
        self.successResultOf(container.start())
        stopping, killing = container.stop(), container.kill()
        self.assertNoResult(killing)
        waiting.callback(None)
        self.successResultOf(stopping)
        self.successResultOf(killing)
        self.assertEqual(steps, ["stopping", "a"])

    def test_killed(self) -> None:
        """A container that is killed tells its own shared services before they stop, and others' nothing."""
        steps: list[Any] = []
        for given in (None, SharedServices()):
            container = ServiceContainer(Service, {}, given, Clock())
            container.shared.get("a", lambda: self.Thing(steps))
            container.shared.on_killing.append(lambda: steps.append("killing"))
            self.successResultOf(container.start())
            self.successResultOf(container.kill())
        self.assertEqual(steps, ["killing", "a"])

    def test_container_waits_for_it(self) -> None:
        """A container has stopped when its own shared services have; it tells others' nothing."""
        steps: list[Any] = []
        waiting: Deferred[None] = Deferred()
        for given in (None, SharedServices()):
            container = ServiceContainer(Service, {}, given, Clock())
            container.shared.get("a", lambda: self.Thing(steps, waiting))
            container.shared.on_stopping.append(lambda: steps.append("stopping"))
            self.successResultOf(container.start())
            stopping = container.stop()
            if given is None:
                self.assertNoResult(stopping)
                waiting.callback(None)
            self.successResultOf(stopping)
        self.assertEqual(steps, ["stopping", "a"])

    def test_owner_stops_it(self) -> None:
        """A container's own is stopped with it, after its extensions; one that was given is not."""
        steps: list[Any] = []
        for given in (None, SharedServices()):
            config = {"Inner.stop": lambda: steps.append("inner")}
            container = ServiceContainer(Service, config, given, Clock())
            thing = container.shared.get("a", lambda: self.Thing(steps))
            self.successResultOf(container.start())
            self.assertEqual(thing.running, given is None)
            self.successResultOf(container.stop())
        self.assertEqual(steps, ["inner", "a", "inner"])
