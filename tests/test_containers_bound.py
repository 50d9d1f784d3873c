"""A container by its class: the extensions that it finds there, and the configuration's part in it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import TestCase

from tests.noting import ContainerCase, Service
from txservices import configuration
from txservices.containers import (
    ServiceContainer,
    get_container_cls,
    get_service_name,
)
from txservices.exceptions import ConfigurationError
from txservices.extensions import DependencyProvider, Entrypoint
from txservices.shared import SharedServices


class OtherContainer(ServiceContainer):
    """A container class of a user's own."""


class Names(ContainerCase):
    """The attributes that nameko's extensions find on a container."""

    def test_serializers(self) -> None:
        """The formats that are written and read, as the configuration says."""
        self.assertEqual((self.container.serializer, self.container.accept), ("json", ["json"]))
        container = ServiceContainer(Service, {"serializer": "yaml", "ACCEPT": ["yaml", "json"]})
        self.assertEqual((container.serializer, container.accept), ("yaml", ["yaml", "json"]))
        self.assertEqual(ServiceContainer(Service, {"serializer": "yaml"}).accept, ["yaml"])

    def test_interface(self) -> None:
        """Extensions are bound to the container's interface: itself, or what a subclass puts there."""
        self.assertIs(self.container.interface, self.container)
        seen: list[Any] = []

        class Wrapped(ServiceContainer):
            @property
            def interface(self) -> Any:
                seen.append(self)
                return self

        container = Wrapped(Service, {})
        self.assertEqual(set(map(id, seen)), {id(container)})

    def test_workers(self) -> None:
        """``spawn_worker`` gives the worker, which knows its container; its end is told, and an abort is seen."""
        container, ended = self.container, []
        container.on_worker_ended.append(lambda worker, result, exc_info: ended.append((worker, result)))
        self.successResultOf(container.start())
        worker = container.spawn_worker(container.entrypoints[0], (lambda: 7,), {})
        self.assertIs(worker.container, container)
        self.assertEqual(ended, [(worker, 7)])
        self.assertFalse(container.workers_aborted)
        self.successResultOf(container.kill())
        self.assertTrue(container.workers_aborted)

    def test_replaced_dependencies(self) -> None:
        """Dependencies that were replaced before the start are the ones that workers get."""
        seen: list[Any] = []

        class Other(DependencyProvider):
            def worker_setup(self, worker_ctx: Any) -> None:
                seen.append(worker_ctx)

        self.container.dependencies[:] = [Other().bind(self.container, "dependency")]
        self.successResultOf(self.container.start())
        self.spawn(lambda: None)
        self.assertEqual(len(seen), 1)

    def test_spawn_managed_thread(self) -> None:
        """nameko's name for background work: what is given is ``async`` or gives a Deferred, in no thread."""
        work: Deferred[None] = Deferred()
        self.successResultOf(self.container.start())
        working = self.container.spawn_managed_thread(lambda: work, "work")
        waiting = self.container.wait()
        work.errback(ValueError("why"))
        self.successResultOf(working)
        self.failureResultOf(waiting, ValueError)


class Configured(TestCase):
    """Values that are read from classes and from the configuration."""

    def test_name(self) -> None:
        """A service has a name, and it is a string."""

        class Nameless:
            pass

        class Numbered:
            name = 5

        self.assertEqual(get_service_name(Service), "service")
        for cls, text in ((Nameless, "must define a `name` attribute (tests."), (Numbered, "must be a string (tests.")):
            self.assertIn(text, str(self.assertRaises(ConfigurationError, get_service_name, cls)))

    def test_class(self) -> None:
        """A class whose instances the workers can't make is refused."""

        class Needing:
            name = "needing"

            def __init__(self, value: Any) -> None: ...

        self.assertRaises(ConfigurationError, ServiceContainer, Needing, {})

    def test_worker_timeout(self) -> None:
        """An entrypoint without a limit of its own has the configured one."""

        class Limited:
            name = "limited"

            @Entrypoint.decorator
            def one(self) -> None: ...

            @Entrypoint.decorator(worker_timeout=2)
            def two(self) -> None: ...

        container = ServiceContainer(Limited, {"WORKER_TIMEOUT": 5})
        self.assertEqual(
            {each.method_name: each.worker_timeout for each in container.entrypoints}, {"one": 5, "two": 2}
        )

    def test_what_it_reads(self) -> None:
        """How many workers it has, and how many parents of a call it tracks, come from the configuration."""
        for config, expected in (
            ({"max_workers": 3, configuration.PARENT_CALLS_TRACKED.name: 2}, (3, 2)),
            ({}, (configuration.MAX_WORKERS.default, configuration.PARENT_CALLS_TRACKED.default)),
        ):
            container = ServiceContainer(Service, config)
            self.assertEqual((container.workers.max_workers, container.parent_calls_tracked), expected)

    def test_wrong_configuration(self) -> None:
        """A mistake in the configuration is refused at once; a key nobody knows is a warning, once for a process."""
        self.assertRaises(ConfigurationError, ServiceContainer, Service, {"max_workers": "many"})
        self.assertRaises(ConfigurationError, ServiceContainer, Service, {"HEARTBEAT": "x"})  # others will read that
        self.assertRaises(ConfigurationError, ServiceContainer, Service, {"OBSERVERS": ["os.nothing"]})
        lines: list[str] = []

        def observe(event: Any) -> None:
            lines.append(event["log_format"].format(**event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        ServiceContainer(Service, {"MAX_WORKER": 5}, SharedServices())
        self.assertEqual(lines, [])
        ServiceContainer(Service, {"MAX_WORKER": 5})
        self.assertIn("MAX_WORKER", "".join(lines))

    def test_max_workers(self) -> None:
        """Ten, unless something else than nothing is configured."""
        for config, number in (({}, 10), ({"max_workers": 3}, 3), ({"max_workers": 0}, 10)):
            self.assertEqual(ServiceContainer(Service, config).max_workers, number)

    def test_container_cls(self) -> None:
        """Another class of container can be named."""
        self.assertIs(get_container_cls({}), ServiceContainer)
        path = f"{__name__}.OtherContainer"
        self.assertEqual(get_container_cls({"SERVICE_CONTAINER_CLS": path}).__name__, "OtherContainer")
        error = self.assertRaises(ConfigurationError, get_container_cls, {"SERVICE_CONTAINER_CLS": "os.nothing"})
        self.assertIn("SERVICE_CONTAINER_CLS", str(error))
