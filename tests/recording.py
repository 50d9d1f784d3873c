"""A container whose workers' lives are noted."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.trial.unittest import TestCase

from txservices.containers import ServiceContainer, WorkerContext
from txservices.extensions import DependencyProvider, Entrypoint

hook = Entrypoint.decorator
variable: ContextVar[str] = ContextVar("variable", default="unset")


class Recorder(DependencyProvider):
    """Notes each hook in ``worker_ctx.data["calls"]``, and does what the test put into ``data`` for it."""

    def note(self, worker_ctx: WorkerContext, hook: str, *more: Any) -> Any:
        worker_ctx.data["calls"].append((hook, self.attr_name, *more))
        acts: dict[Any, Any] = worker_ctx.data
        return acts.get((hook, self.attr_name), lambda: None)()

    def get_dependency(self, worker_ctx: WorkerContext) -> Any:
        return self.note(worker_ctx, "get")

    def worker_setup(self, worker_ctx: WorkerContext) -> Any:
        return self.note(worker_ctx, "setup")

    def worker_result(self, worker_ctx: WorkerContext, result: Any = None, exc_info: Any = None) -> Any:
        return self.note(worker_ctx, "result", result, exc_info and exc_info[0])

    def worker_teardown(self, worker_ctx: WorkerContext) -> Any:
        return self.note(worker_ctx, "teardown")


class Plain(DependencyProvider):
    """Has only a value."""

    def get_dependency(self, worker_ctx: WorkerContext) -> Any:
        return "value"


class Service:
    name = "service"

    one = Recorder()
    plain = Plain()
    two = Recorder()

    @hook
    def run(self, does: Any) -> Any:
        return does(self)

    @hook(expected_exceptions=[KeyError])
    async def wait(self, deferred: Deferred[Any]) -> Any:
        return await deferred

    @hook
    @inlineCallbacks
    def generate(self, deferred: Deferred[Any]) -> Any:
        value = yield deferred
        return value

    @hook(blocking=True)
    def block(self, does: Any) -> Any:
        return does(self)


class Case(TestCase):
    """A container, and a way to have its methods called."""

    def setUp(self) -> None:
        self.container = ServiceContainer(Service, {"max_workers": 3})
        self.calls: list[Any] = []
        self.handled: list[Any] = []
        self.over: list[Any] = []
        self.container.on_worker_ended.append(lambda ctx, result, exc_info: self.over.append((result, exc_info)))

    def spawn(self, method: str, *args: Any, handle_result: Any = None, **does: Any) -> WorkerContext:
        entrypoint = next(each for each in self.container.entrypoints if each.method_name == method)
        data: dict[Any, Any] = {tuple(key.split("_")): value for key, value in does.items()}
        data["calls"] = self.calls
        return self.container.spawn_worker(entrypoint, args, {}, data, handle_result or self.handle_result)

    def handle_result(self, worker_ctx: WorkerContext, result: Any, exc_info: Any) -> Any:
        self.calls.append(("handle", result, exc_info and exc_info[0]))
        self.handled.append((result, exc_info))
        return result, exc_info

    def hooks(self) -> list[str]:
        return [" ".join(str(each) for each in call[:2]) for call in self.calls]
