"""What service code uses of eventlet, by real threads. Only where nameko's names lead here.

``sleep``, an ``Event``, a ``Queue``, a pool, a semaphore and a call of another service end early for a ``Timeout`` of
their thread, and for its ``kill``. Any other wait, as that of a socket, is Python's own and ends when it ends.
"""

from __future__ import annotations

import os
import traceback
from typing import Any, NoReturn

from txservices.migration.green.convenience import connect, listen
from txservices.migration.green.event import Event
from txservices.migration.green.pool import GreenPile, GreenPool
from txservices.migration.green.queue import Queue
from txservices.migration.green.semaphore import Semaphore
from txservices.migration.green.thread import (
    GreenletExit,
    GreenThread,
    getcurrent,
    kill,
    sleep,
    spawn,
    spawn_after,
    spawn_n,
)
from txservices.migration.green.timeout import Timeout, with_timeout
from txservices.migration.mistakes import missing_of_eventlet

__all__ = [
    "Event",
    "GreenPile",
    "GreenPool",
    "GreenThread",
    "GreenletExit",
    "Queue",
    "Semaphore",
    "StopServe",
    "Timeout",
    "connect",
    "getcurrent",
    "import_patched",
    "is_monkey_patched",
    "kill",
    "listen",
    "monkey_patch",
    "sleep",
    "spawn",
    "spawn_after",
    "spawn_n",
    "with_timeout",
]


class StopServe(Exception):
    """eventlet's; nothing raises it here."""


def monkey_patch(**modules: Any) -> None:
    """Does nothing: threads wait well with the standard library's own modules."""


def is_monkey_patched(module: Any) -> bool:
    """Always false: nothing is patched."""
    return False


def import_patched(name: str, *modules: Any, **kwargs: Any) -> Any:
    """The module itself."""
    from importlib import import_module

    return import_module(name)


HERE = os.path.dirname(os.path.dirname(__file__)) + os.sep


def __getattr__(name: str) -> NoReturn:
    """Say where somebody asks for what is not here, and what to write."""
    if name.startswith("__"):
        raise AttributeError(name)
    stack = reversed(traceback.extract_stack())
    at = next((each for each in stack if not each.filename.startswith((HERE, "<frozen importlib"))), None)
    where = f"{at.filename}, line {at.lineno}: " if at else ""
    raise AttributeError(f"{where}{missing_of_eventlet(name)}", name=name)
