"""``nameko.testing.utils``: see ``txservices.testing.utils``, whose helpers these are, waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from txservices.migration.green.thread import sleep
from txservices.migration.green.timeout import Timeout
from txservices.migration.waiting import waits
from txservices.testing import utils

__all__ = [*utils.__all__]


def __getattr__(name: str) -> Any:
    """The helpers that don't wait are the same ones."""
    return getattr(utils, name)


get_rabbit_connections = waits(utils.get_rabbit_connections)
reset_rabbit_connections = waits(utils.reset_rabbit_connections)
wait_for_worker_idle = waits(utils.wait_for_worker_idle)


@contextmanager
def wait_for_call(timeout: float, mock_method: Any) -> Iterator[Any]:
    """Waits, before the ``with`` block, until the mock was called. ``eventlet.Timeout`` after so many seconds."""
    with Timeout(timeout):
        while not mock_method.called:
            sleep(0.01)
    yield mock_method


def assert_stops_raising(
    fn: Callable[[], Any],
    exception_type: type[Exception] = Exception,
    timeout: float = 10,
    interval: float = 0.1,
) -> None:
    """Call ``fn`` every ``interval`` seconds until it does not raise that. ``eventlet.Timeout`` after ``timeout``."""
    with Timeout(timeout):
        while True:
            try:
                fn()
            except exception_type:
                sleep(interval)
            else:
                return


class ResourcePipeline:
    """Makes a resource for each ``get`` and destroys it afterwards. nameko's makes them ahead of time."""

    def __init__(self, create: Callable[[], Any], destroy: Callable[[Any], Any], size: int = 3) -> None:
        if size == 0:
            raise RuntimeError("Zero size would create unbounded resources")
        self.create = create
        self.destroy = destroy

    @contextmanager
    def run(self) -> Iterator[ResourcePipeline]:
        """The time in which it may be used."""
        yield self

    @contextmanager
    def get(self) -> Iterator[Any]:
        """A resource, for the time of the block."""
        resource = self.create()
        try:
            yield resource
        finally:
            self.destroy(resource)
