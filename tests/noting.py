"""A service container that notes each step of its life, on a clock of the test's."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from txservices.containers import (
    ServiceContainer,
)
from txservices.extensions import DependencyProvider, Entrypoint, Extension, SharedExtension


class Noting:
    """Notes each step of its life in ``container.steps``, and does what the test put there for it."""

    container: Any
    title: str

    def note(self, step: str) -> Any:
        name = f"{self.title}.{step}"
        self.container.steps.append(name)
        return self.container.does.get(name, lambda: None)()

    def setup(self) -> Any:
        return self.note("setup")

    def start(self) -> Any:
        return self.note("start")

    def stop(self) -> Any:
        return self.note("stop")

    def kill(self) -> Any:
        return self.note("kill")


class Inner(Noting, Extension):
    title = "inner"


class Shared(Noting, SharedExtension):
    title = "shared"


class Dependency(Noting, DependencyProvider):
    title = "dependency"
    inner = Inner()
    shared = Shared()

    def worker_teardown(self, worker_ctx: Any) -> None:
        self.note("teardown")


class Hook(Noting, Entrypoint):
    title = "entrypoint"
    shared = Shared()


class Service:
    name = "service"

    dependency = Dependency()

    @Hook.decorator
    def method(self, does: Any) -> Any:
        return does()


class NotingContainer(ServiceContainer):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.steps: list[str] = []
        self.does: dict[str, Any] = {}
        super().__init__(*args, **kwargs)


ALL = {"entrypoint", "dependency", "inner", "shared"}


class Case(TestCase):
    """A container on a clock of the test's."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.container = NotingContainer(Service, {"SHUTDOWN_TIMEOUT": 5, "max_workers": 2}, clock=self.clock)
        self.steps = self.container.steps
        self.does = self.container.does
        self.handled: list[Any] = []

    def spawn(self, does: Any) -> None:
        def handle_result(worker_ctx: Any, result: Any, exc_info: Any) -> Any:
            self.handled.append(result)
            return result, exc_info

        self.container.spawn_worker(self.container.entrypoints[0], (does,), {}, None, handle_result)
