"""``OBSERVERS`` of the configuration, and the containers that observers may look at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.task import Clock

from tests.services import ServicesCase
from txservices.containers import ServiceContainer
from txservices.exceptions import ConfigurationError
from txservices.extensions import DependencyProvider
from txservices.observers import Observer, observers
from txservices.rpc import rpc
from txservices.runners import ServiceRunner

HERE = __name__


class Notes(Observer):
    """Writes down what it is told, and when it begins and stops."""

    notes: list[Any] = []

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        self.notes.append(("made", config["OBSERVERS"]))

    def worker_ended(self, worker: Any, outcome: str, *args: Any) -> None:
        self.notes.append((worker.entrypoint.method_name, outcome))

    def disconnected(self, address: str, purpose: str, reason: str) -> None:
        self.notes.append(purpose)

    def stop(self) -> None:
        self.notes.append("stopped")


class Stubborn(Observer):
    """Does not stop."""

    def stop(self) -> None:
        raise ValueError("no")


class NotMade(Observer):
    """Needs what the configuration has not."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        raise ConfigurationError("STATSD: give host:port")


class Looks(DependencyProvider[None]):
    """Notes which containers there are when it is set up."""

    def setup(self) -> None:
        Notes.notes.append([each.service_name for each in observers.containers])


class Service:
    """Has one method."""

    name = "service"

    @rpc
    def method(self) -> int:
        return 1


class Another:
    """A service that looks at the others."""

    name = "another"
    looks = Looks()


class ConfiguredTests(ServicesCase):
    """Observers that the configuration names."""

    def setUp(self) -> None:
        super().setUp()
        Notes.notes = []
        self.config["OBSERVERS"] = [f"{HERE}.Notes"]

    async def test_on_the_stage(self) -> None:
        """They are made with the configuration when the first service starts, told until all has ended, and stopped."""
        self.container(Service)
        self.assertEqual((observers.all, Notes.notes), ([], []))
        await self.start(Service)
        await (await self.cluster()).service.method()
        (observer,) = observers.all
        self.assertEqual(observer.config["AMQP_URI"], self.config["AMQP_URI"])
        await self.stage.stop()
        self.assertEqual(Notes.notes[:2], [("made", [f"{HERE}.Notes"]), ("method", "ok")])
        self.assertIn("service consumes", Notes.notes)
        self.assertEqual((Notes.notes[-1], observers.all, observers.held), ("stopped", [], {}))

    async def test_two_runners(self) -> None:
        """Two runners of a process have each of them once, until both have ended; they may start again."""
        runners = [self.stage.runner(self.config, Service) for _ in range(2)]
        for runner in runners:
            await runner.start()
        await (await self.cluster()).service.method()
        self.assertEqual(len(observers.all), 1)
        await runners[0].stop()
        self.assertEqual(len(observers.all), 1)
        await runners[1].kill()
        self.assertEqual(
            [each for each in Notes.notes if "consumes" not in each and "publishes" not in each],
            [("made", [f"{HERE}.Notes"]), ("method", "ok"), "stopped"],
        )
        again = self.stage.runner(self.config, Service)
        await again.start()
        self.assertEqual(len(observers.all), 1)
        await again.stop()
        self.assertEqual(observers.all, [])

    async def test_one_container(self) -> None:
        """A container by itself, which nobody runs, has them as long as it runs."""
        container = ServiceContainer(Service, self.config)
        await container.start()
        self.assertEqual(len(observers.all), 1)
        await container.stop()
        self.assertEqual(observers.all, [])

    async def test_does_not_stop(self) -> None:
        """An error of one that stops is logged, and the others are stopped."""
        await self.start(Another, OBSERVERS=[f"{HERE}.Notes", f"{HERE}.Stubborn"])
        await self.stage.stop()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual((Notes.notes[-1], observers.all), ("stopped", []))

    async def test_not_made(self) -> None:
        """One that can't be made ends the start with its error."""
        with self.assertRaisesRegex(ConfigurationError, "STATSD: give host:port"):
            await self.start(Another, OBSERVERS=[f"{HERE}.NotMade"])
        await self.stage.stop()
        self.assertEqual(observers.all, [])

    def test_mistakes(self) -> None:
        """A name that can't be imported, or is no Observer, is told in one line before anything starts."""
        table = {
            "no_such_module.Statsd": r"OBSERVERS: no_such_module.Statsd can't be imported \(ModuleNotFoundError: .*\):",
            f"{HERE}.Missing": r"OBSERVERS: .*\.Missing can't be imported \(ImportError: there is no 'Missing'",
            f"{HERE}.Service": r"OBSERVERS: .*\.Service is no subclass of txservices.observers.Observer$",
            f"{HERE}.observers": r"OBSERVERS: .* is no subclass",
        }
        for name, line in table.items():
            config = {**self.config, "OBSERVERS": [name]}
            with self.assertRaisesRegex(ConfigurationError, line) as raised:
                ServiceContainer(Service, config, clock=Clock())
            self.assertNotIn("\n", str(raised.exception))
            self.assertRaises(ConfigurationError, ServiceRunner(config).add_service, Service)


class ContainersTests(ServicesCase):
    """The containers of this process."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(observers, "containers", [])  # other tests leave theirs, which have not ended

    async def test_containers(self) -> None:
        """Each is among them from its start, before its extensions are set up, until it has ended or was killed."""
        Notes.notes = []
        (first,) = await self.start(Service)
        self.assertEqual(observers.containers, [first])
        (second,) = await self.start(Another)
        self.assertEqual(Notes.notes, [["service", "another"]])
        await first.stop()
        self.assertEqual(observers.containers, [second])
        await second.kill()
        self.assertEqual(observers.containers, [])
        await self.container(Service).stop()
        self.assertEqual(observers.containers, [])
