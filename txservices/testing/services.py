"""nameko's helpers for one container: call a method, wait for a method, replace dependencies, restrict entrypoints.

    replace_dependencies(container, "y")
    await container.start()
    with entrypoint_hook(container, "method") as method:
        result = await method(1)

The containers are those of ``TestCase``, of a ``Stage``, or of pytest's ``container_factory``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.python.failure import Failure

from txservices.containers import ServiceContainer
from txservices.exceptions import ContainerBeingKilled, ExtensionNotFound
from txservices.extensions import (
    DependencyProvider,
    Entrypoint,
    ExcInfo,
    WorkerContext,
    is_dependency,
    iter_extensions,
)
from txservices.testing.doubles import double_of
from txservices.testing.utils import get_extension
from txservices.testing.waiting import TIMEOUT, WaitResult
from txservices.utils.life import State
from txservices.utils.signatures import members

__all__ = [
    "DummyEntrypoint",
    "EntrypointWaiterTimeout",
    "MockDependencyProvider",
    "Once",
    "dummy",
    "entrypoint_hook",
    "entrypoint_waiter",
    "get_extension",
    "once",
    "replace_dependencies",
    "restrict_entrypoints",
    "worker_factory",
]

S = TypeVar("S")

WorkerCallback = Callable[[WorkerContext, Any, "ExcInfo | None"], Any]


# Calls ----------------------------------------------------------------------------------------------------------------


@contextmanager
def entrypoint_hook(
    container: ServiceContainer,
    method_name: str,
    context_data: Mapping[str, Any] | None = None,
    timeout: float = TIMEOUT,
) -> Iterator[Callable[..., Deferred[Any]]]:
    """Gives, for the length of a ``with`` block, a function that runs the method in a worker.

    The function returns a Deferred that fires with the method's result or fails with its error, after the worker's
    dependencies are torn down. It fails with the container's error if the container dies, and with
    ``entrypoint_waiter.Timeout`` after ``timeout`` seconds. The entrypoint itself has no part in it: nothing is
    serialized, and wrong arguments are a ``TypeError`` of the method's.

    ``ExtensionNotFound`` if the method has no entrypoint.
    """
    entrypoint = find_entrypoint(container, method_name)
    if entrypoint is None:
        raise ExtensionNotFound(f"No entrypoint for '{method_name}' found on container {container.service_name}")

    def hook(*args: Any, **kwargs: Any) -> Deferred[Any]:
        def handle_result(worker_ctx: WorkerContext, result: Any, exc_info: ExcInfo | None) -> Any:
            return result, exc_info

        def ours(worker_ctx: WorkerContext, result: Any, exc_info: ExcInfo | None) -> bool:
            return worker_ctx.handle_result is handle_result

        async def run() -> Any:
            waited = WaitResult()
            ended = worker_ended(container, ours, waited)
            data = dict(context_data or {})
            try:
                container.spawn_worker(entrypoint, args, kwargs, data, handle_result)
            except ContainerBeingKilled:
                ended.addErrback(lambda _: None)
                ended.cancel()
                raise
            await in_time(ended, container, method_name, timeout)
            return waited.get()

        return Deferred.fromCoroutine(run())

    yield hook


class EntrypointWaiterTimeout(Exception):
    """No worker of the method ended in time, or no worker that the callback accepts."""


class entrypoint_waiter:  # nameko's name
    """Waits, at the end of an ``async with`` block, until a worker of the method has ended.

        async with entrypoint_waiter(container, "handle") as waited:
            await dispatch("source", "type", 1)
        waited.get()    # returns the method's result, or raises its error

    The worker's dependencies are torn down by then. With a ``callback(worker_ctx, result, exc_info)`` it waits for a
    worker for which the callback returns something true. ``entrypoint_waiter.Timeout`` after ``timeout`` seconds.
    """

    Timeout = EntrypointWaiterTimeout

    def __init__(
        self,
        container: ServiceContainer,
        method_name: str,
        timeout: float = TIMEOUT,
        callback: WorkerCallback | None = None,
    ) -> None:
        if find_entrypoint(container, method_name) is None:
            raise RuntimeError(f"{container.service_name} has no entrypoint `{method_name}`")
        self.container = container
        self.method_name = method_name
        self.timeout = timeout
        self.callback = callback

    async def __aenter__(self) -> WaitResult:
        waited = WaitResult()
        self.ended = worker_ended(self.container, self.awaited, waited)
        return waited

    def awaited(self, worker_ctx: WorkerContext, result: Any, exc_info: ExcInfo | None) -> Any:
        if worker_ctx.entrypoint.method_name != self.method_name:
            return False
        return self.callback is None or self.callback(worker_ctx, result, exc_info)

    async def __aexit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if kind is not None:
            self.ended.addErrback(lambda _: None)
            self.ended.cancel()
            return
        await in_time(self.ended, self.container, self.method_name, self.timeout)


def find_entrypoint(container: ServiceContainer, method_name: str) -> Entrypoint | None:
    return next((each for each in container.entrypoints if each.method_name == method_name), None)


def worker_ended(container: ServiceContainer, awaited: WorkerCallback, waited: WaitResult) -> Deferred[None]:
    """Fires when a worker has ended that ``awaited`` accepts, with its outcome in ``waited``.

    Fails with the container's error if the container dies.
    """

    def forget(result: Any) -> Any:
        container.on_worker_ended.remove(observe)
        container_ended.addErrback(lambda _: None)
        container_ended.cancel()
        return result

    def observe(worker_ctx: WorkerContext, result: Any, exc_info: ExcInfo | None) -> None:
        if container.life.state is State.KILLED or ended.called:
            return  # a killed container cancels its workers; its own error says more than theirs
        try:
            if awaited(worker_ctx, result, exc_info):
                waited.send(result, exc_info)
                ended.callback(None)
        except Exception as error:  # from the callback
            ended.errback(error)

    def died(result: Any) -> None:
        if not ended.called:
            ended.errback(result if isinstance(result, Failure) else Failure(ContainerBeingKilled()))

    ended: Deferred[None] = Deferred()
    container_ended = container.wait()
    container.on_worker_ended.append(observe)
    ended.addBoth(forget)
    container_ended.addBoth(died)
    return ended


async def in_time(ended: Deferred[None], container: ServiceContainer, method_name: str, timeout: float) -> None:
    try:
        await ended.addTimeout(timeout, container.clock)
    except DeferredTimeout:
        raise EntrypointWaiterTimeout(
            f"Timeout on {container.service_name}.{method_name} after {timeout} seconds"
        ) from None


# Parts ----------------------------------------------------------------------------------------------------------------


def worker_factory(service_cls: type[S], **dependencies: Any) -> S:
    """Make an instance of a service without a container: its methods can be called, and nothing is started.

    A dependency is what the keyword gives, or else a double, see ``testing.doubles``. ``ExtensionNotFound`` if a
    keyword is not the name of a dependency.
    """
    providers = {name: value for name, value in members(service_cls).items() if is_dependency(value)}
    for name in dependencies:
        if name not in providers:
            raise ExtensionNotFound(f"DependencyProvider '{name}' not found on {service_cls}")
    service = service_cls()
    for name, provider in providers.items():
        setattr(service, name, dependencies.get(name) if name in dependencies else double_of(provider, service_cls))
    return service


class MockDependencyProvider(DependencyProvider):
    """Injects the object that it is made with."""

    def __init__(self, dependency: Any = None) -> None:
        self.dependency = dependency

    def get_dependency(self, worker_ctx: WorkerContext) -> Any:
        return self.dependency


def replace_dependencies(container: ServiceContainer, *names: str, **replacements: Any) -> Any:
    """Replace dependencies of a container by doubles, before it starts. Gives the double, or a tuple of several.

    A keyword names a dependency and gives the object to inject in its place. Extensions inside a replaced dependency
    are not started, unless another one has them too: without its ``RpcProxy`` a service has no reply queue.

    ``ExtensionNotFound`` if there is no such dependency, ``RuntimeError`` if the container has started.
    """
    not_started(container, "replace its dependencies")
    twice = [name for name in names if name in replacements or names.count(name) > 1]
    if twice:
        raise RuntimeError(f"Cannot replace the same dependency '{twice[0]}' more than once")
    providers = {provider.attr_name: provider for provider in container.dependencies}
    for name in (*names, *replacements):
        if name not in providers:
            raise ExtensionNotFound(f"Dependency '{name}' not found on {container}")
    doubles = {name: double_of(providers[name], container.service_cls) for name in names}
    for name, replacement in {**doubles, **replacements}.items():
        place = container.dependencies.index(providers[name])
        container.dependencies[place] = MockDependencyProvider(replacement).bind(container, name)
    find_subextensions(container)
    return doubles[names[0]] if len(names) == 1 else tuple(doubles.values())


def restrict_entrypoints(container: ServiceContainer, *names: str) -> None:
    """Keep only the entrypoints of these methods, and the extensions inside them. To be called before the start.

    ``ExtensionNotFound`` if a method has no entrypoint, ``RuntimeError`` if the container has started.
    """
    not_started(container, "restrict its entrypoints")
    known = {entrypoint.method_name for entrypoint in container.entrypoints}
    for name in names:
        if name not in known:
            raise ExtensionNotFound(f"Entrypoint '{name}' not found on {container}")
    container.entrypoints[:] = [each for each in container.entrypoints if each.method_name in names]
    find_subextensions(container)


def not_started(container: ServiceContainer, what: str) -> None:
    if container.started:
        raise RuntimeError(f"{container} has started: {what} before that")


def find_subextensions(container: ServiceContainer) -> None:
    outer = (*container.dependencies, *container.entrypoints)
    container.subextensions[:] = dict.fromkeys(inner for each in outer for inner in iter_extensions(each))


# Entrypoints ----------------------------------------------------------------------------------------------------------


class Once(Entrypoint):
    """Runs the method once, when the service starts, with the arguments that the decorator was given."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        own = {name: kwargs.pop(name) for name in ("expected_exceptions", "sensitive_arguments") if name in kwargs}
        super().__init__(**own)
        self.args = args
        self.kwargs = kwargs

    def start(self) -> None:
        self.container.spawn_worker(self, self.args, self.kwargs)


class DummyEntrypoint(Entrypoint):
    """Never calls the method. For a method that only ``entrypoint_hook`` shall call."""


once = Once.decorator
dummy = DummyEntrypoint.decorator
