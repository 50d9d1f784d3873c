"""A service whose extensions note what is called, in a container on a clock of the test's."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from txservices.containers import ServiceContainer
from txservices.extensions import DependencyProvider, Entrypoint, Extension, SharedExtension

ALL = {"Fires", "Dependency", "Inner", "Shared"}


class Noting(Extension):
    """Notes what is called, and does what the test put into the configuration for it."""

    def note(self, step: str) -> Any:
        config = self.container.config
        name = f"{type(self).__name__}.{step}"
        config.get("steps", []).append(name)
        return config.get(name, lambda: None)()

    def setup(self):
        return self.note("setup")

    def start(self):
        return self.note("start")

    def stop(self):
        return self.note("stop")

    def kill(self):
        return self.note("kill")


class Inner(Noting):
    """Is inside the dependency."""


class Shared(Noting, SharedExtension):
    """Is inside dependency and entrypoint."""


class Dependency(Noting, DependencyProvider):
    """Notes a worker's life too."""

    inner = Inner()
    shared = Shared()

    def get_dependency(self, worker_ctx):
        return self.note("get_dependency")

    def worker_setup(self, worker_ctx):
        return self.note("worker_setup")

    def worker_result(self, worker_ctx, result=None, exc_info=None):
        return self.note("worker_result")

    def worker_teardown(self, worker_ctx):
        return self.note("worker_teardown")


class Fires(Noting, Entrypoint):
    """Fires when a test says so."""

    shared = Shared()


class Service:
    """A service of those."""

    name = "service"
    dependency = Dependency()

    @Fires.decorator
    def method(self, does):
        return does()


class ContainerCase(TestCase):
    """A container on a clock of the test's."""

    max_workers = 2

    def setUp(self) -> None:
        self.clock = Clock()
        self.steps: list[str] = []
        self.config: dict[str, Any] = {"steps": self.steps, "max_workers": self.max_workers, "SHUTDOWN_TIMEOUT": 5}
        self.container = ServiceContainer(Service, self.config, clock=self.clock)
        self.handled: list[Any] = []

    def begin(self) -> None:
        self.successResultOf(self.container.start())
        self.steps.clear()

    def spawn(self, does: Any) -> None:
        def handle_result(worker_ctx: Any, result: Any, exc_info: Any) -> Any:
            self.steps.append("handle_result")
            self.handled.append(exc_info[0] if exc_info else result)
            return result, exc_info

        self.container.spawn_worker(self.container.entrypoints[0], (does,), {}, {}, handle_result)
