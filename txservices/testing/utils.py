"""nameko's small helpers: find extensions, wait for workers and calls, compare with any value, look at a broker."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar
from unittest.mock import DEFAULT, Mock

from twisted.internet.defer import Deferred, DeferredList, DeferredQueue, maybeDeferred, succeed
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from txservices.containers import ServiceContainer
from txservices.extensions import Entrypoint, Extension
from txservices.runners import ServiceRunner
from txservices.testing.rabbit import Client, HTTPError
from txservices.utils import default_reactor, tasks

__all__ = [
    "ANY_PARTIAL",
    "AnyInstanceOf",
    "DummyProvider",
    "MockCallArgs",
    "ResourcePipeline",
    "assert_stops_raising",
    "find_free_port",
    "get_container",
    "get_extension",
    "get_rabbit_connections",
    "reset_rabbit_connections",
    "unpack_mock_call",
    "wait_for_call",
    "wait_for_worker_idle",
]

T = TypeVar("T")


def get_extension(container: ServiceContainer, extension_cls: type[Extension], **match_attrs: Any) -> Any:
    """The container's first extension of that class whose attributes have the given values, or None."""
    for extension in container.extensions:
        if isinstance(extension, extension_cls) and all(
            getattr(extension, name, None) == value for name, value in match_attrs.items()
        ):
            return extension
    return None


def get_container(runner: ServiceRunner, service_cls: type[Any]) -> ServiceContainer | None:
    """The runner's container of that service class, or None."""
    return next((each for each in runner.containers if each.service_cls is service_cls), None)


def wait_for_call(timeout: float, mock_method: Mock, clock: Any = None) -> Deferred[Mock]:
    """Fires with the mock when it is called, or at once if it was called already.

    Fails with Twisted's ``TimeoutError`` after ``timeout`` seconds.
    """
    if mock_method.called:
        return succeed(mock_method)
    effect = mock_method.side_effect
    before = Mock(side_effect=effect, return_value=DEFAULT)  # by DEFAULT the mock returns its own return_value

    def restore(result: Any) -> Any:
        mock_method.side_effect = effect
        return result

    def call(*args: Any, **kwargs: Any) -> Any:
        if not called.called:
            called.callback(mock_method)
        return before(*args, **kwargs)

    called: Deferred[Mock] = Deferred()
    called.addBoth(restore)
    mock_method.side_effect = call
    return called.addTimeout(timeout, default_reactor(clock))


def wait_for_worker_idle(container: ServiceContainer, timeout: float = 10) -> Deferred[None]:
    """Fires when the container has no worker, or at once if it has no worker now.

    Fails with Twisted's ``TimeoutError`` after ``timeout`` seconds. To wait for a worker that has not begun yet, use
    ``entrypoint_waiter``.
    """
    return container.workers.drain().addTimeout(timeout, container.clock)


def assert_stops_raising(
    fn: Callable[[], Any],
    exception_type: type[Exception] = Exception,
    timeout: float = 10,
    interval: float = 0.1,
    clock: Any = None,
) -> Deferred[Any]:
    """Call ``fn`` every ``interval`` seconds until it does not raise ``exception_type``. Fires with its result.

    ``fn`` may return a Deferred or be ``async``. After ``timeout`` seconds its error is raised.
    """
    clock = default_reactor(clock)
    deadline = clock.seconds() + timeout

    async def call() -> Any:
        while True:
            try:
                return await tasks.call(fn)
            except exception_type:
                if clock.seconds() >= deadline:
                    raise
            await deferLater(clock, interval)

    return Deferred.fromCoroutine(call())


class AnyInstanceOf:
    """Equals every instance of a class: ``[AnyInstanceOf(int)] == [3]``."""

    def __init__(self, cls: type[Any]) -> None:
        self.cls = cls

    def __eq__(self, other: object) -> bool:
        return isinstance(other, self.cls)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # type: ignore[assignment]  # an object that equals many others can't have a hash

    def __repr__(self) -> str:
        return f"<AnyInstanceOf-{self.cls.__name__}>"


ANY_PARTIAL = AnyInstanceOf(partial)


class DummyProvider(Entrypoint):
    """An entrypoint without a container, for a test that makes a worker context itself."""

    def __init__(self, method_name: str | None = None) -> None:
        super().__init__()
        self.method_name = method_name  # type: ignore[assignment]  # only a bound entrypoint always has a name


class MockCallArgs(NamedTuple):
    """The arguments of a mock's call."""

    positional: tuple[Any, ...]
    keyword: dict[str, Any]


def unpack_mock_call(call: Any) -> MockCallArgs:
    """The positional and keyword arguments of a ``unittest.mock.call``."""
    return MockCallArgs(call.args, call.kwargs)


def find_free_port(host: str = "127.0.0.1") -> int:
    """The number of a TCP port that nobody listens on at the moment."""
    with socket.socket() as bound:
        bound.bind((host, 0))
        port: int = bound.getsockname()[1]
    return port


def get_rabbit_connections(vhost: str, rabbit_manager: Client) -> Deferred[list[dict[str, Any]]]:
    """Fires with RabbitMQ's description of each connection to that virtual host."""

    async def get() -> list[dict[str, Any]]:
        return [each for each in await rabbit_manager.get_connections() or () if each.get("vhost") == vhost]

    return Deferred.fromCoroutine(get())


def reset_rabbit_connections(vhost: str, rabbit_manager: Client) -> Deferred[None]:
    """Have the broker close every connection to that virtual host. Fires when all requests to do so are answered."""

    async def reset() -> None:
        for each in await get_rabbit_connections(vhost, rabbit_manager):
            try:
                await rabbit_manager.delete_connection(each["name"])
            except HTTPError as error:
                if error.response.status_code != 404:  # 404: the connection has closed by itself
                    raise

    return Deferred.fromCoroutine(reset())


class ResourcePipeline(Generic[T]):
    """Makes resources ahead of time, and destroys used ones in the background.

        pipeline = ResourcePipeline(create, destroy)
        async with pipeline.run():
            async with pipeline.get() as resource: ...

    Args:
        create: makes a resource. It may return a Deferred or be ``async``; ``get`` raises its error.
        destroy: is called with a used resource. It may return a Deferred or be ``async``; ``run`` raises its error.
        size: the number of resources that are kept ready.
    """

    def __init__(self, create: Callable[[], Any], destroy: Callable[[T], Any], size: int = 3) -> None:
        if size < 1:
            raise RuntimeError(f"a pipeline of size {size} never makes anything: give 1 or more")
        self.create = create
        self.destroy = destroy
        self.size = size
        self.running = False
        self.ready: DeferredQueue[tuple[Any, Failure | None]] = DeferredQueue()
        self.making: Deferred[None] = succeed(None)
        self.destroying: list[Deferred[Any]] = []

    @asynccontextmanager
    async def run(self) -> AsyncIterator[ResourcePipeline[T]]:
        """Make resources until the end of the block. The block ends when all of them are destroyed."""
        self.running = True
        self.make_more()
        try:
            yield self
        finally:
            await self.close()

    @asynccontextmanager
    async def get(self) -> AsyncIterator[T]:
        """Take a resource. It is destroyed after the end of the block."""
        resource, failure = await self.ready.get()
        self.make_more()
        if failure is not None:
            failure.raiseException()
        try:
            yield resource
        finally:
            self.discard(resource)

    def make_more(self) -> None:
        if self.making.called:
            self.making = Deferred.fromCoroutine(self.fill())

    async def fill(self) -> None:
        while self.running and len(self.ready.pending) < self.size:
            try:
                self.ready.put((await maybeDeferred(self.create), None))
            except Exception:
                self.ready.put((None, Failure()))

    def discard(self, resource: T) -> None:
        self.destroying.append(maybeDeferred(self.destroy, resource))

    async def close(self) -> None:
        self.running = False
        await self.making
        unused, self.ready.pending = self.ready.pending, []
        for resource, failure in unused:
            if failure is None:
                self.discard(resource)
        destroying, self.destroying = self.destroying, []
        for succeeded, outcome in await DeferredList(destroying, consumeErrors=True):
            if not succeeded:
                outcome.raiseException()
