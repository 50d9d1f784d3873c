"""``nameko.runners``: a runner that waits, with containers that do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from txservices import runners
from txservices.migration.containers import get_container_cls
from txservices.migration.settings import config as process_config
from txservices.migration.waiting import waits

__all__ = ["ServiceRunner", "run_services"]


class ServiceRunner(runners.ServiceRunner):
    """nameko's: ``start``, ``stop``, ``kill`` and ``wait`` wait, unless the reactor's thread calls them."""

    def __init__(self, config: Mapping[str, Any] | None = None, clock: Any = None) -> None:
        super().__init__(process_config if config is None else config, clock)

    def container_cls(self) -> type[Any]:
        return get_container_cls(self.config)

    add_service = waits(runners.ServiceRunner.add_service)
    start = waits(runners.ServiceRunner.start)
    stop = waits(runners.ServiceRunner.stop)
    kill = waits(runners.ServiceRunner.kill)
    wait = waits(runners.ServiceRunner.wait)


@contextmanager
def run_services(
    config: Mapping[str, Any], *services: type[Any], kill_on_exit: bool = False
) -> Iterator[ServiceRunner]:
    """Run services for the time of a ``with`` block, which gets the runner."""
    runner = ServiceRunner(config)
    for each in services:
        runner.add_service(each)
    try:
        runner.start()
        yield runner
    finally:
        (runner.kill if kill_on_exit else runner.stop)()
