"""Waits for what the code under test does: for a call, whose outcome it gives, and for what a test is told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import CoroutineType
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txservices.extensions import ExcInfo
from txservices.utils import default_reactor, tasks

__all__ = ["Heard", "WaitResult", "wait_for_call"]

TIMEOUT = 30.0  # seconds

Callback = Callable[[Any, Any, Any, "ExcInfo | None"], Any]


class Heard:
    """Keeps each thing that it is called with, and lets a test wait until there are enough.

        heard = Heard()

        class Listener:
            name = "listener"

            @event_handler("source", "type")
            def handle(self, data):
                heard(data)

        await self.start(Listener)
        await self.dispatch("source", "type", 1)
        self.assertEqual(await heard.wait(), [1])

    Attributes:
        things: what it was called with, in order.
    """

    def __init__(self) -> None:
        self.things: list[Any] = []
        self.waiting: list[tuple[int, Deferred[list[Any]]]] = []

    def __call__(self, thing: Any = None) -> None:
        self.things.append(thing)
        due = [each for each in self.waiting if each[0] <= len(self.things)]
        self.waiting = [each for each in self.waiting if each[0] > len(self.things)]
        for _, waiter in due:
            waiter.callback(list(self.things))

    def wait(self, count: int = 1) -> Deferred[list[Any]]:
        """Fires with everything heard until now, as soon as that is ``count`` things or more."""
        waiter: Deferred[list[Any]] = Deferred()
        if len(self.things) >= count:
            waiter.callback(list(self.things))
        else:
            self.waiting.append((count, waiter))
        return waiter


class WaitResult:
    """The outcome of a call: ``get`` returns its result or raises its error."""

    class NotReady(Exception):
        """The call has not ended yet: use ``get`` after the ``async with`` block."""

    def __init__(self) -> None:
        self.ready = False
        self.result: Any = None
        self.exc_info: ExcInfo | None = None

    @property
    def has_result(self) -> bool:
        """Whether the call has ended, with a result or an error."""
        return self.ready

    @property
    def has_exception(self) -> bool:
        """Whether the call has ended with an error."""
        return self.exc_info is not None

    def send(self, result: Any, exc_info: ExcInfo | None) -> None:
        if not self.ready:  # the first one counts
            self.ready, self.result, self.exc_info = True, result, exc_info

    def get(self) -> Any:
        """The call's result. Raises the call's error, or ``NotReady``."""
        if not self.ready:
            raise self.NotReady()
        if self.exc_info is not None:
            raise self.exc_info[1]
        return self.result


@asynccontextmanager
async def wait_for_call(
    obj: Any, target: str, callback: Callback | None = None, timeout: float = TIMEOUT, clock: Any = None
) -> AsyncIterator[WaitResult]:
    """Wait, at the end of the ``async with`` block, until ``obj.target`` was called and its Deferred has fired.

    With a ``callback(args, kwargs, result, exc_info)`` it waits for a call for which the callback returns something
    true. Raises Twisted's ``TimeoutError`` after ``timeout`` seconds.
    """
    original = getattr(obj, target)
    called: Deferred[None] = Deferred()
    waited = WaitResult()

    def tell(args: Any, kwargs: Any, result: Any, exc_info: ExcInfo | None) -> None:
        if called.called:
            return
        try:
            if callback is None or callback(args, kwargs, result, exc_info):
                waited.send(result, exc_info)
                called.callback(None)
        except Exception as error:  # from the callback
            called.errback(error)

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            result = original(*args, **kwargs)
        except Exception as error:
            tell(args, kwargs, None, (type(error), error, error.__traceback__))
            raise
        if isinstance(result, CoroutineType):
            result = tasks.run(result)
        if not isinstance(result, Deferred):
            tell(args, kwargs, result, None)
            return result

        def fired(value: Any) -> Any:
            if isinstance(value, Failure):
                assert value.type is not None and value.value is not None
                tell(args, kwargs, None, (value.type, value.value, value.getTracebackObject()))
            else:
                tell(args, kwargs, value, None)
            return value

        return result.addBoth(fired)

    with patch.object(obj, target, call):
        yield waited
        await called.addTimeout(timeout, default_reactor(clock))
