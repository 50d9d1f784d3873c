"""The extensions that a service class declares, bound to its container, with what the configuration says of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import FunctionType
from typing import Any, Protocol

from txservices import configuration, constants
from txservices.authoring import check_count
from txservices.extensions import DependencyProvider, Entrypoint, is_dependency, is_entrypoint
from txservices.utils.signatures import members


class Binds(Protocol):
    """What is asked of the container.

    Attributes:
        interface: the container that extensions are bound to.
    """

    service_cls: Any
    service_name: str
    config: Mapping[str, Any]
    max_workers: int
    web_max_workers: int

    @property
    def interface(self) -> Any: ...


def bound(container: Binds) -> tuple[list[DependencyProvider], list[Entrypoint]]:
    """The dependencies and the entrypoints. ``ConfigurationError`` for a ``max_workers`` that can't be."""
    dependencies: list[DependencyProvider] = []
    entrypoints: list[Entrypoint] = []
    for name, value in members(container.service_cls).items():
        if is_dependency(value):
            dependencies.append(value.bind(container.interface, name))
    for name, value in members(container.service_cls).items():  # anew: a dependency may have added methods
        if is_entrypoint(value):  # which calls no method
            entrypoints.append(value.bind(container.interface, name))
        elif isinstance(value, FunctionType):
            declared = getattr(value, constants.ENTRYPOINTS_ATTRIBUTE, ())
            entrypoints.extend(completed(each.bind(container.interface, name), container) for each in declared)
    return dependencies, entrypoints


def completed(entrypoint: Entrypoint, container: Binds) -> Entrypoint:
    """An entrypoint of a method, with the configuration's values where its own are not given."""
    if entrypoint.worker_timeout is None:
        entrypoint.worker_timeout = configuration.WORKER_TIMEOUT.of(container.config)
    if entrypoint.cancel_at_deadline is None:
        entrypoint.cancel_at_deadline = configuration.CANCEL_AT_DEADLINE.of(container.config)
    if entrypoint.max_workers is not None:
        where = f"{container.service_name}.{entrypoint.method_name}: max_workers"
        if entrypoint.apart:
            check_count(where, entrypoint.max_workers, container.web_max_workers, "which is WEB_MAX_WORKERS")
        else:
            check_count(where, entrypoint.max_workers, container.max_workers, "the service's max_workers")
    return entrypoint
