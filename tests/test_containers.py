"""A container's life: what starts and stops in which order, and what happens to workers meanwhile."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.logger import capturedLogs, formatEvent

from tests.noting import ALL, ContainerCase, Service
from txservices.containers import (
    EXTENSION_TIMEOUT,
    KILL_TIMEOUT,
    ServiceContainer,
)
from txservices.exceptions import ConfigurationError, ContainerBeingKilled
from txservices.utils.life import State


class Starting(ContainerCase):
    """``start``."""

    def test_setup_before_start(self) -> None:
        """Every extension is set up before any starts; then it fires."""
        waiting: Deferred[None] = Deferred()
        self.config["Dependency.setup"] = lambda: waiting
        starting = self.container.start()
        self.assertTrue(self.container.started)
        self.assertEqual(set(self.steps), {f"{each}.setup" for each in ALL})
        self.assertNoResult(starting)
        waiting.callback(None)
        self.assertEqual(set(self.steps[4:]), {f"{each}.start" for each in ALL})
        self.successResultOf(starting)

    def test_coroutines(self) -> None:
        """Each step of an extension's life may be async."""

        async def setup() -> None:
            await waiting

        waiting: Deferred[None] = Deferred()
        self.config["Inner.setup"] = setup
        starting = self.container.start()
        self.assertNoResult(starting)
        waiting.callback(None)
        self.successResultOf(starting)

    def test_error(self) -> None:
        """The first error of an extension is that of the start; what else was waiting is cancelled."""
        cancelled: list[Any] = []
        self.config["Inner.setup"] = lambda: Deferred(cancelled.append)
        self.config["Fires.setup"] = lambda: fail(ConfigurationError("no"))
        self.failureResultOf(self.container.start(), ConfigurationError)
        self.assertEqual(len(cancelled), 1)
        self.assertNotIn("Shared.start", self.steps)
        self.successResultOf(self.container.stop())

    def test_logged(self) -> None:
        """The log says whose error it was, unless that tells itself what to do, or the start was stopped."""
        for error, lines in ((ValueError("why"), 1), (ConfigurationError("no"), 0), (CancelledError(), 0)):
            container = ServiceContainer(Service, {"Fires.start": lambda error=error: fail(error)}, clock=self.clock)
            with capturedLogs() as logged:
                self.failureResultOf(container.start(), type(error))
            told = [formatEvent(event) for event in logged if "its start has failed" in formatEvent(event)]
            self.assertEqual(len(told), lines)
            self.assertTrue(all(line.endswith(f"its start has failed: {error!r}") for line in told), told)

    def test_stopped_meanwhile(self) -> None:
        """Stopped while it starts, it gives the start up and stops."""
        self.config["Dependency.start"] = lambda: Deferred()
        starting = self.container.start()
        self.successResultOf(self.container.stop())
        self.failureResultOf(starting, CancelledError)

    def test_as_a_service(self) -> None:
        """It is a Twisted service: startService and stopService do the same."""
        self.container.startService()
        self.assertEqual((self.container.running, self.container.started), (1, True))
        self.successResultOf(self.container.stopService())
        self.assertEqual(self.container.running, 0)

    def test_as_a_service_that_fails(self) -> None:
        """As a Twisted service that can't start it ends, and says why."""
        self.config["Inner.start"] = lambda: 1 // 0
        self.container.startService()
        self.failureResultOf(self.container.wait(), ZeroDivisionError)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class Stopping(ContainerCase):
    """``stop``."""

    def setUp(self) -> None:
        super().setUp()
        self.successResultOf(self.container.start())
        self.steps.clear()

    def test_order(self) -> None:
        """Entrypoints, workers, dependencies, what is inside them."""
        waiting: Deferred[Any] = Deferred()
        self.spawn(lambda: waiting)
        self.steps.clear()
        stopping = self.container.stop()
        self.assertEqual(self.steps, ["Fires.stop"])
        waiting.callback("result")
        self.successResultOf(stopping)
        over = ["handle_result", "Dependency.worker_result", "Dependency.worker_teardown", "Dependency.stop"]
        self.assertEqual(self.steps[1:5], over)
        self.assertEqual(sorted(self.steps[5:]), ["Inner.stop", "Shared.stop"])
        self.assertEqual(self.handled, ["result"])
        self.successResultOf(self.container.wait())

    def test_waiting_workers(self) -> None:
        """Workers that wait for their turn have it."""
        waiting: list[Deferred[Any]] = [Deferred() for _ in range(3)]
        for each in waiting:
            self.spawn(lambda each=each: each)
        stopping = self.container.stop()
        for n, each in enumerate(waiting):
            self.assertNoResult(stopping)
            each.callback(n)
        self.successResultOf(stopping)
        self.assertEqual(self.handled, [0, 1, 2])

    def test_extension_that_does_not_end(self) -> None:
        """The stop of an extension has ten seconds, and its kill one. Then the others end without it."""
        for method, seconds in (("stop", EXTENSION_TIMEOUT), ("kill", KILL_TIMEOUT)):
            self.setUp()
            self.config[f"Dependency.{method}"] = Deferred
            with capturedLogs() as logged:
                ending = getattr(self.container, method)()
                self.clock.advance(seconds - 0.1)
                self.assertNoResult(ending)
                self.assertFalse(self.container.gave_up)
                self.clock.advance(0.2)
            self.successResultOf(ending)
            self.assertTrue(self.container.gave_up)
            self.assertIn(f"Inner.{method}", self.steps)
            self.assertRegex(
                formatEvent(logged[0]), f"Dependency.* has not ended {seconds:g} s after its {method} was called"
            )

    def test_timeout(self) -> None:
        """Workers that take too long are cancelled; no entrypoint is told, dependencies are torn down."""
        cancelled: list[Any] = []
        for _ in range(3):
            self.spawn(lambda: Deferred(cancelled.append))
        stopping = self.container.stop()
        self.clock.advance(4.9)
        self.assertNoResult(stopping)
        self.clock.advance(0.2)
        self.successResultOf(stopping)
        self.assertEqual((len(cancelled), self.handled), (2, []))
        self.assertEqual(self.steps.count("Dependency.worker_teardown"), 2)
        self.assertTrue(self.container.gave_up)

    def test_no_timeout(self) -> None:
        """With null for SHUTDOWN_TIMEOUT they take as long as they take."""
        container = ServiceContainer(Service, {"SHUTDOWN_TIMEOUT": None}, clock=self.clock)
        self.successResultOf(container.start())
        waiting: Deferred[None] = Deferred()
        container.spawn_worker(container.entrypoints[0], (lambda: waiting,), {})
        stopping = container.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        waiting.callback(None)
        self.successResultOf(stopping)

    def test_twice(self) -> None:
        """A second stop does nothing and fires with the first; so does a kill afterwards."""
        waiting: Deferred[None] = Deferred()
        self.config["Inner.stop"] = lambda: waiting
        first, second = self.container.stop(), self.container.stop()
        self.assertNoResult(second)
        waiting.callback(None)
        self.successResultOf(first)
        self.successResultOf(second)
        self.successResultOf(self.container.kill())
        self.assertEqual(self.steps.count("Fires.stop"), 1)
        self.assertNotIn("Fires.kill", self.steps)

    def test_errors(self) -> None:
        """An extension that fails to stop is logged and keeps no other from stopping."""
        self.config["Fires.stop"] = self.config["Inner.stop"] = lambda: 1 // 0
        self.successResultOf(self.container.stop())
        self.assertIn("Shared.stop", self.steps)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_no_worker_afterwards(self) -> None:
        """Once workers are done there are no new ones."""
        refused: list[Exception] = []

        def stop() -> None:
            refused.append(self.assertRaises(ContainerBeingKilled, self.spawn, lambda: None))

        self.config["Dependency.stop"] = stop
        self.successResultOf(self.container.stop())
        self.assertEqual(len(refused), 1)
        self.assertRaises(ContainerBeingKilled, self.spawn, lambda: None)

    def test_by_its_own_worker(self) -> None:
        """A method that stops its service is let finish."""
        waiting: Deferred[Any] = Deferred()

        async def method() -> Any:
            self.container.stop()
            return await waiting

        self.spawn(method)
        self.assertNotIn("Dependency.stop", self.steps)
        waiting.callback("result")
        self.assertEqual(self.handled, ["result"])
        self.assertIs(self.container.life.state, State.ENDED)


class Killing(ContainerCase):
    """``kill``."""

    def setUp(self) -> None:
        super().setUp()
        self.successResultOf(self.container.start())
        self.steps.clear()

    def test_at_once(self) -> None:
        """Workers are cancelled, those that wait for their turn forgotten, and extensions killed, once each."""
        for _ in range(3):
            self.spawn(lambda: Deferred())
        self.steps.clear()
        self.successResultOf(self.container.kill())
        self.assertEqual(sum(len(line.queued) for line in self.container.workers.lines.values()), 0)
        self.assertEqual(self.steps[0], "Fires.kill")
        self.assertEqual(
            sorted(set(self.steps)), sorted([*(f"{each}.kill" for each in ALL), "Dependency.worker_teardown"])
        )
        self.assertEqual(self.steps.count("Fires.kill"), 1)
        self.assertEqual(self.handled, [])
        self.assertRaises(ContainerBeingKilled, self.spawn, lambda: None)

    def test_reason(self) -> None:
        """``wait`` fails with what it was killed for, for all who wait; a second reason changes nothing."""
        before = self.container.wait()
        self.successResultOf(self.container.kill(ValueError("why")))
        self.container.kill(KeyError("other"))
        self.failureResultOf(before, ValueError)
        self.failureResultOf(self.container.wait(), ValueError)

    def test_nobody_waits(self) -> None:
        """If nobody waits for it, the reason is in the log."""
        self.container.spawn_managed(lambda: fail(ValueError("why")))
        self.assertIs(self.container.life.state, State.ENDED)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_while_stopping(self) -> None:
        """A kill hurries a stop that hangs."""
        self.config["Fires.stop"] = lambda: Deferred()
        stopping = self.container.stop()
        self.assertNoResult(stopping)
        self.successResultOf(self.container.kill())
        self.successResultOf(stopping)
        self.assertNotIn("Dependency.stop", self.steps)
        self.assertIn("Dependency.kill", self.steps)

    def test_errors(self) -> None:
        """An extension that fails to be killed keeps nothing from ending."""
        self.config["Dependency.kill"] = lambda: 1 // 0
        self.successResultOf(self.container.kill())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_by_its_own_worker(self) -> None:
        """A worker that kills its container and then waits is cancelled as well."""
        cancelled: list[Any] = []

        def method() -> Any:
            self.container.kill()
            return Deferred(cancelled.append)

        self.spawn(method)
        self.assertEqual(len(cancelled), 1)
        self.assertEqual(self.handled, [])


class Managed(ContainerCase):
    """``spawn_managed``."""

    def test_error(self) -> None:
        """An error in background work kills the container and is why."""
        self.successResultOf(self.container.start())
        work: Deferred[None] = Deferred()
        self.container.spawn_managed(lambda: work, "work")
        waiting = self.container.wait()
        work.errback(ValueError("why"))
        self.failureResultOf(waiting, ValueError)
        self.assertIn("Fires.kill", self.steps)

    def test_cancelled_at_the_end(self) -> None:
        """Work that still runs at the end is cancelled, and that is no error."""
        cancelled: list[Any] = []

        async def work() -> None:
            await Deferred(cancelled.append)

        self.successResultOf(self.container.start())
        working = self.container.spawn_managed(work)
        self.successResultOf(self.container.stop())
        self.assertEqual(len(cancelled), 1)
        self.successResultOf(working)
        self.successResultOf(self.container.wait())

    def test_done(self) -> None:
        """Work that is done is forgotten."""
        self.successResultOf(self.container.start())
        self.successResultOf(self.container.spawn_managed(lambda: None))
        self.assertEqual(self.container.managed, set())

    def test_all_done(self) -> None:
        """The end of the last work is told, and not that of one before."""
        self.successResultOf(self.container.start())
        works: list[Deferred[None]] = [Deferred(), Deferred()]
        for work in works:
            self.container.spawn_managed(lambda work=work: work)
        told = self.container.none_managed.wait()
        works[0].callback(None)
        self.assertNoResult(told)
        works[1].callback(None)
        self.successResultOf(told)

    def test_goes_on_at_the_end(self) -> None:
        """Work that goes on after it was cancelled holds up no stop: without asyncio it has heard of it by then."""

        async def work() -> None:
            try:
                await Deferred()
            except CancelledError:
                await Deferred()

        self.successResultOf(self.container.start())
        self.container.spawn_managed(work)
        self.successResultOf(self.container.stop())

    def test_error_at_the_end(self) -> None:
        """Work that fails while it is cancelled is logged, and why the container died."""

        async def work() -> None:
            try:
                await Deferred()
            except CancelledError:
                raise ValueError("why") from None

        self.successResultOf(self.container.start())
        self.container.spawn_managed(work)
        self.successResultOf(self.container.stop())
        self.failureResultOf(self.container.wait(), ValueError)
        self.flushLoggedErrors(ValueError)

    def test_cancelled_by_somebody_else(self) -> None:
        """Work that is cancelled while the container runs has failed."""
        self.successResultOf(self.container.start())
        work: Deferred[None] = Deferred()
        self.container.spawn_managed(lambda: work)
        waiting = self.container.wait()
        work.cancel()
        self.failureResultOf(waiting, CancelledError)
