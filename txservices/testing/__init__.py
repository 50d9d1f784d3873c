"""Helpers for those who test services: call a single method, or start services on a broker in memory.

    services    entrypoint_hook, entrypoint_waiter, worker_factory, …: call a method, wait for one, replace dependencies
    waiting     wait_for_call: wait until a method of any object is called
    utils       small helpers, most of them nameko's: get_extension, wait_for_worker_idle, AnyInstanceOf, …
    doubles     the doubles that take the place of dependencies
    stage       ``Stage``: services for one test, with broker, web server and connections in memory
    case        ``TestCase``: trial's, with a stage
    http        a server in memory for what an ``HttpClient`` asks
    rabbit      a client of RabbitMQ's management
    websocket   a client of ``web.websocket``
    pytest      nameko's fixtures, on a stage
    plugin      loads them, and nameko's options, into pytest

Import ``TestCase`` from here, and everything else from its module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from txservices.testing.case import TestCase

__all__ = ["TestCase"]


def __getattr__(name: str) -> Any:
    """Import ``TestCase`` when it is first used: pytest loads this package even in suites that do not use it."""
    if name != "TestCase":
        raise AttributeError(name)
    from txservices.testing.case import TestCase

    return TestCase
