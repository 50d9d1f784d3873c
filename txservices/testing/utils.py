"""What tests look for in containers, and values that equal many."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import DEFAULT, Mock

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.task import deferLater

from txservices.containers import ServiceContainer
from txservices.extensions import DependencyProvider, Extension
from txservices.runners import ServiceRunner
from txservices.workers import WorkerContext, default_reactor


def get_extension(container: ServiceContainer, extension_cls: type[Extension], **match_attrs: Any) -> Any:
    """The container's first extension of that class whose attributes have those values, or None."""
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
    """Fires with the mock once it is called, now if it was; ``TimeoutError`` after ``timeout`` seconds."""
    if mock_method.called:
        return succeed(mock_method)
    effect = mock_method.side_effect
    before = Mock(side_effect=effect, return_value=DEFAULT)  # DEFAULT: what the mock itself returns

    def leave(result: Any) -> Any:
        mock_method.side_effect = effect
        return result

    def call(*args: Any, **kwargs: Any) -> Any:
        if not called.called:
            called.callback(mock_method)
        return before(*args, **kwargs)

    called: Deferred[Mock] = Deferred()
    called.addBoth(leave)
    mock_method.side_effect = call
    return called.addTimeout(timeout, default_reactor() if clock is None else clock)


def assert_stops_raising(
    fn: Callable[[], Any],
    exception_type: type[Exception] = Exception,
    timeout: float = 10,
    interval: float = 0.1,
    clock: Any = None,
) -> Deferred[Any]:
    """Call ``fn`` every ``interval`` seconds until it raises no such error; fires with what it gave then.

    Fails with its error once ``timeout`` seconds have passed.
    """
    clock = default_reactor() if clock is None else clock
    deadline = clock.seconds() + timeout

    async def call() -> Any:
        while True:
            try:
                return await maybeDeferred(fn)
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

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<AnyInstanceOf-{self.cls.__name__}>"


ANY_PARTIAL = AnyInstanceOf(partial)


class DummyProvider(DependencyProvider):
    """Injects what it is given."""

    def __init__(self, dependency: Any = None) -> None:
        self.dependency = dependency

    def get_dependency(self, worker_ctx: WorkerContext) -> Any:
        return self.dependency


def unpack_mock_call(call: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of a ``unittest.mock.call``."""
    return call.args, call.kwargs


def find_free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens at, now."""
    with socket.socket() as bound:
        bound.bind((host, 0))
        port: int = bound.getsockname()[1]
    return port
