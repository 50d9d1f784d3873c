"""What tests wait for: the outcome of a call that somebody else makes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import CoroutineType
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txservices.extensions import ExcInfo
from txservices.utils import default_reactor

TIMEOUT = 30.0  # seconds

Callback = Callable[[Any, Any, Any, "ExcInfo | None"], Any]


class WaitResult:
    """What came of a call: ``get()`` gives it, or raises its error, once it is there."""

    class NotReady(Exception):
        """It is not there yet: ``get`` comes after the ``async with``."""

    def __init__(self) -> None:
        self.ready = False
        self.result: Any = None
        self.exc_info: ExcInfo | None = None

    def send(self, result: Any, exc_info: ExcInfo | None) -> None:
        self.ready, self.result, self.exc_info = True, result, exc_info

    def get(self) -> Any:
        """The call's result. Raises its error, or ``NotReady``."""
        if not self.ready:
            raise self.NotReady()
        if self.exc_info is not None:
            raise self.exc_info[1]
        return self.result


@asynccontextmanager
async def wait_for_call(
    obj: Any, target: str, callback: Callback | None = None, timeout: float = TIMEOUT, clock: Any = None
) -> AsyncIterator[WaitResult]:
    """Patch ``obj.target``, and at the end of the block wait until it was called, and its Deferred has fired.

    With a ``callback(args, kwargs, result, exc_info)``, until that gives something true. ``TimeoutError`` of
    ``twisted.internet.defer`` if that takes more than ``timeout`` seconds.
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
        except Exception as error:  # the callback's
            called.errback(error)

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            result = original(*args, **kwargs)
        except Exception as error:
            tell(args, kwargs, None, (type(error), error, error.__traceback__))
            raise
        if isinstance(result, CoroutineType):
            result = Deferred.fromCoroutine(result)
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
        await called.addTimeout(timeout, default_reactor() if clock is None else clock)
