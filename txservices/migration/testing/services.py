"""``nameko.testing.services``: see ``txservices.testing.services``, whose helpers these are, waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from txservices.containers import ServiceContainer
from txservices.migration.containers import block_by_default
from txservices.migration.waiting import entered, waits
from txservices.testing import services
from txservices.testing.services import EntrypointWaiterTimeout, WorkerCallback
from txservices.testing.waiting import TIMEOUT, WaitResult

__all__ = [*services.__all__, "WaitResult"]


def __getattr__(name: str) -> Any:
    """The helpers that don't wait are the same ones."""
    return getattr(services, name)


@contextmanager
def entrypoint_hook(
    container: ServiceContainer,
    method_name: str,
    context_data: Mapping[str, Any] | None = None,
    timeout: float = TIMEOUT,
) -> Iterator[Callable[..., Any]]:
    """Gives a function that runs the method in a worker, waits, and returns its result or raises its error."""
    with services.entrypoint_hook(container, method_name, context_data, timeout) as hook:
        yield waits(hook)


@contextmanager
def entrypoint_waiter(
    container: ServiceContainer,
    method_name: str,
    timeout: float = TIMEOUT,
    callback: WorkerCallback | None = None,
) -> Iterator[WaitResult]:
    """Waits, at the end of a ``with`` block, until a worker of the method has ended."""
    with entered(services.entrypoint_waiter(container, method_name, timeout, callback)) as waited:
        yield waited


entrypoint_waiter.Timeout = EntrypointWaiterTimeout  # type: ignore[attr-defined]  # where nameko has it


def worker_factory(service_cls: type[Any], **dependencies: Any) -> Any:
    """Make an instance of a service without a container. A dependency is what the keyword gives, or a ``MagicMock``."""
    block_by_default(service_cls)
    return services.worker_factory(service_cls, **dependencies)
