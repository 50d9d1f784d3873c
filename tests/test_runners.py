"""Several services in one process: together they start, and together they end."""

from __future__ import annotations

from typing import Any

from twisted.application.service import Service as TwistedService
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.trial.unittest import TestCase

from txservices.containers import ServiceContainer
from txservices.exceptions import ConfigurationError
from txservices.extensions import Entrypoint
from txservices.runners import ServiceRunner, run_services
from txservices.utils.life import State


class Hook(Entrypoint):
    """Does, at each step of its life, what the test put into the configuration for it."""

    def do(self, step: str) -> Any:
        steps = self.container.config["steps"]
        steps.append(f"{self.container.service_name}.{step}")
        return self.container.config.get(steps[-1], lambda: None)()

    def start(self) -> Any:
        return self.do("start")

    def stop(self) -> Any:
        return self.do("stop")

    def kill(self) -> Any:
        return self.do("kill")


class One:
    name = "one"

    @Hook.decorator
    def method(self) -> None: ...


class Two(One):
    name = "two"


class AnotherOne(One):
    name = "one"


class Special(ServiceContainer):
    """A container of another class."""


class SharedThing(TwistedService):
    """Notes that it is stopped."""

    def __init__(self, steps: list[str]) -> None:
        self.steps = steps

    def stopService(self) -> None:
        super().stopService()
        self.steps.append("shared.stop")


class Running(TestCase):
    """``ServiceRunner``."""

    def setUp(self) -> None:
        self.steps: list[str] = []
        self.config: dict[str, Any] = {"steps": self.steps}
        self.runner = ServiceRunner(self.config)
        self.containers = [self.runner.add_service(cls) for cls in (One, Two)]
        self.thing = self.runner.shared.get("thing", lambda: SharedThing(self.steps))

    def test_names(self) -> None:
        """It knows its services, in the order in which they were added."""
        self.assertEqual(self.runner.service_names, ["one", "two"])
        self.assertEqual(self.runner.containers, self.containers)
        self.assertEqual(list(self.runner), self.containers)
        self.assertIs(self.containers[0].shared, self.containers[1].shared)

    def test_same_name(self) -> None:
        """A service of a name that is there already replaces it; the same class twice runs once."""
        self.runner.add_service(AnotherOne)
        self.runner.add_service(Two)
        self.assertEqual(self.runner.service_names, ["one", "two"])
        self.assertIs(self.runner.containers[0].service_cls, AnotherOne)

    def test_container_cls(self) -> None:
        """SERVICE_CONTAINER_CLS says which container."""
        runner = ServiceRunner({"SERVICE_CONTAINER_CLS": f"{__name__}.Special"})
        self.assertIsInstance(runner.add_service(One), Special)

    def test_start_and_stop(self) -> None:
        """All start; all stop, and then what they share."""
        self.successResultOf(self.runner.start())
        self.assertEqual(self.steps, ["one.start", "two.start"])
        self.assertTrue(self.thing.running)
        waiting = self.runner.wait()
        self.assertNoResult(waiting)
        self.successResultOf(self.runner.stop())
        self.assertEqual(self.steps[2:], ["one.stop", "two.stop", "shared.stop"])
        self.successResultOf(waiting)
        self.successResultOf(self.runner.stop())
        self.successResultOf(self.runner.wait())
        self.assertEqual(len(self.steps), 5)

    def test_one_dies(self) -> None:
        """The first that dies takes the others with it, in order, and its error is that of ``wait``."""
        self.successResultOf(self.runner.start())
        waiting = self.runner.wait()
        self.containers[0].kill(ValueError("why"))
        self.failureResultOf(waiting, ValueError)
        self.failureResultOf(self.runner.wait(), ValueError)
        self.assertEqual(self.steps[2:], ["one.kill", "two.stop", "shared.stop"])

    def test_one_dies_unwatched(self) -> None:
        """If nobody waits, the error is in the log."""
        self.successResultOf(self.runner.start())
        self.containers[0].kill(ValueError("why"))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertIs(self.runner.life.state, State.ENDED)

    def test_start_fails(self) -> None:
        """If one can't start, none goes on, and its error is that of the start."""
        cancelled: list[Any] = []
        self.config["one.start"] = lambda: Deferred(cancelled.append)
        self.config["two.start"] = lambda: fail(ConfigurationError("no"))
        self.failureResultOf(self.runner.start(), ConfigurationError)
        self.assertEqual(len(cancelled), 1)
        self.assertEqual(self.steps[2:], ["one.kill", "two.kill", "shared.stop"])
        self.successResultOf(self.runner.stop())

    def test_stop_while_starting(self) -> None:
        """Stopped before all have started, it stops, and the start is cancelled."""
        self.config["two.start"] = lambda: Deferred()
        starting = self.runner.start()
        self.successResultOf(self.runner.stop())
        self.failureResultOf(starting, CancelledError)

    def test_one_dies_while_they_start(self) -> None:
        """One that dies before its peer has begun: the peer takes no step of its start."""
        self.config["one.start"] = lambda: self.containers[0].kill(ValueError("why")) and None
        starting = self.runner.start()
        self.failureResultOf(starting, ValueError)
        self.failureResultOf(self.runner.wait(), ValueError)
        self.assertEqual(self.steps, ["one.start", "one.kill", "two.stop", "shared.stop"])
        self.flushLoggedErrors(ValueError)

    def test_kill(self) -> None:
        """Killed, all end at once, also in the middle of a stop."""
        self.successResultOf(self.runner.start())
        self.config["one.stop"] = lambda: Deferred()
        stopping = self.runner.stop()
        self.assertNoResult(stopping)
        self.successResultOf(self.runner.kill())
        self.successResultOf(stopping)
        self.assertEqual(self.steps[-1], "shared.stop")

    def test_as_a_service(self) -> None:
        """It is a Twisted service."""
        self.runner.startService()
        self.assertEqual(self.steps, ["one.start", "two.start"])
        self.successResultOf(self.runner.stopService())
        self.assertEqual(self.runner.running, 0)

    def test_as_a_service_that_fails(self) -> None:
        """One that can't start is logged."""
        self.config["two.start"] = lambda: 1 // 0
        self.runner.startService()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIs(self.runner.life.state, State.ENDED)

    async def test_run_services(self) -> None:
        """Services for the time of a block; however it ends, they have ended."""
        async with run_services(self.config, One) as runner:
            self.assertEqual(runner.service_names, ["one"])
            self.assertEqual(self.steps, ["one.start"])
        self.assertEqual(self.steps, ["one.start", "one.stop"])
        with self.assertRaises(ValueError):
            async with run_services(self.config, One, kill_on_exit=True):
                raise ValueError("in the block")
        self.assertEqual(self.steps[2:], ["one.start", "one.kill"])
