"""``nameko.testing.waiting``: see ``txservices.testing.waiting``."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from txservices.migration.green.thread import wait_until, woken
from txservices.testing.waiting import Callback, WaitResult

__all__ = ["WaitResult", "wait_for_call"]


@contextmanager
def wait_for_call(obj: Any, target: str, callback: Callback | None = None) -> Iterator[WaitResult]:
    """Wait, at the end of the ``with`` block, until ``obj.target`` was called, in whatever thread.

    With a ``callback(args, kwargs, result, exc_info)``: for a call for which the callback returns something true.
    """
    original = getattr(obj, target)
    called = threading.Event()
    waited = WaitResult()

    def tell(args: Any, kwargs: Any, result: Any, exc_info: Any) -> None:
        if not waited.ready and (not callable(callback) or callback(args, kwargs, result, exc_info)):
            waited.send(result, exc_info)
            woken(called.set)

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            result = original(*args, **kwargs)
        except Exception as error:
            tell(args, kwargs, None, (type(error), error, error.__traceback__))
            raise
        tell(args, kwargs, result, None)
        return result

    with patch.object(obj, target, call):
        yield waited
        wait_until(called.is_set)
