"""For who tests services: helpers that call one method, and services started on a broker of the test's own.

    services    call a method, wait for one, leave parts out: entrypoint_hook, entrypoint_waiter, worker_factory, …
    waiting     wait_for_call
    utils       what tests look for in a container, and values that equal many
    doubles     what stands in the place of a dependency
    stage       services of one test, on a broker, a web server and connections in memory
    case        ``TestCase``: trial's, with a stage
    rabbit      RabbitMQ's management
    websocket   a client of ``web.websocket``
    pytest      nameko's fixtures, over a stage

Import ``TestCase`` from here, the rest from its module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from txservices.testing.case import TestCase

__all__ = ["TestCase"]


def __getattr__(name: str) -> Any:
    """``TestCase`` when it is asked for: pytest loads its plugin, and this, in suites that use neither."""
    if name != "TestCase":
        raise AttributeError(name)
    from txservices.testing.case import TestCase

    return TestCase
