"""``retry``: a call that failed is made again.

    @retry(for_exceptions=ConnectionError, max_attempts=5, delay=0.1, backoff=2)
    async def fetch(): ...

    await fetch()

nameko has it under the same name.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, overload

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.python import threadable

from txservices.utils import default_reactor, tasks

__all__ = ["retry"]

P = ParamSpec("P")

Errors = type[BaseException] | tuple[type[BaseException], ...]


@overload
def retry(wrapped: Callable[P, Any]) -> Callable[P, Any]: ...


@overload
def retry(
    *,
    for_exceptions: Errors = ...,
    max_attempts: int | None = ...,
    delay: float = ...,
    backoff: float = ...,
    max_delay: float | None = ...,
    clock: Any = ...,
) -> Callable[[Callable[P, Any]], Callable[P, Any]]: ...


def retry(
    wrapped: Callable[..., Any] | None = None,
    for_exceptions: Errors = Exception,
    max_attempts: int | None = 3,
    delay: float = 1,
    backoff: float = 1,
    max_delay: float | None = None,
    clock: Any = None,
) -> Any:
    """Decorator, bare or with arguments: a call that fails with one of these errors is made again.

    A call gives a Deferred, of what the function gave in the end or of its last error. A plain function that is called
    in another thread than the reactor's, as in a method with ``blocking = True``, is waited for there instead.

    Args:
        max_attempts: how often it is tried again after the first time; None for no end.
        delay: seconds between two attempts, multiplied by ``backoff`` before each, at most ``max_delay``.
        clock: the reactor, unless told otherwise.
    """
    if wrapped is None:
        return functools.partial(
            retry,
            for_exceptions=for_exceptions,
            max_attempts=max_attempts,
            delay=delay,
            backoff=backoff,
            max_delay=max_delay,
            clock=clock,
        )
    function = wrapped

    def waits() -> Iterator[float]:
        """Seconds before each further attempt of one call."""
        wait, made = delay, 0
        while max_attempts is None or made < max_attempts:
            wait, made = wait * (backoff or 1), made + 1
            yield wait if max_delay is None else min(wait, max_delay)

    async def call_in_reactor(args: Any, kwargs: Any) -> Any:
        for wait in waits():
            try:
                return await tasks.call(function, *args, **kwargs)
            except for_exceptions:
                await deferLater(default_reactor(clock), wait)
        return await tasks.call(function, *args, **kwargs)

    def call_in_thread(args: Any, kwargs: Any) -> Any:
        for wait in waits():
            try:
                return function(*args, **kwargs)
            except for_exceptions:
                time.sleep(wait)
        return function(*args, **kwargs)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if clock is not None or inspect.iscoroutinefunction(function) or threadable.isInIOThread():
            return Deferred.fromCoroutine(call_in_reactor(args, kwargs))
        return call_in_thread(args, kwargs)

    call.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]  # for Entrypoint.check_signature
    return call
