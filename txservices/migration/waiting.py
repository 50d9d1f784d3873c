"""Functions that wait, as all of nameko's do, unless they are called in the reactor's thread, which must not wait.

[a test, a worker or a thread of a user's]  ->  in_reactor  ->  the function, in the reactor's thread  ->  its value
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from functools import wraps
from typing import Any

from twisted.python import threadable

from txservices import threads
from txservices.migration.green import timeout
from txservices.standalone import reactor_thread
from txservices.utils import tasks


def in_reactor(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call a function in the reactor's thread, wait for its result, and return that or raise its error.

    In that thread itself nothing waits: what the function gives is returned, which may be a Deferred.
    """
    if threadable.isInIOThread():
        return function(*args, **kwargs)
    if getattr(threads.this_thread, "threads", None) is not None:
        return threads.in_reactor(function, *args, **kwargs)
    return timeout.in_time(
        lambda give_up: reactor_thread.in_reactor(lambda: give_up(tasks.call(function, *args, **kwargs)))
    )


def waits(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: ``in_reactor`` for a function or a method."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return in_reactor(function, *args, **kwargs)

    return call


class Waiting:
    """An object whose methods give Deferreds, for code that waits: here they wait and give values."""

    def __init__(self, of: Any) -> None:
        self.of = of

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.of, name)
        return waits(found) if callable(found) else found


@contextmanager
def entered(context: Any) -> Any:
    """Use an asynchronous context manager in a plain ``with``."""
    value = in_reactor(context.__aenter__)
    try:
        yield value
    except BaseException as error:
        if not in_reactor(context.__aexit__, type(error), error, error.__traceback__):
            raise
    else:
        in_reactor(context.__aexit__, None, None, None)
