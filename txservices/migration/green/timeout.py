"""``eventlet.Timeout``: an error in a thread that has waited too long for something of eventlet's, or for a call."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from txservices.utils import default_reactor

__all__ = ["Timeout", "with_timeout"]

here = threading.local()  # .timeouts: those of this thread that count


class Timeout(BaseException):
    """Raised in the thread that has made it, where it waits ``seconds`` later, unless it was cancelled before.

    Args:
        seconds: None for never.
        exception: what to raise in its place. If it is False, the ``with`` block ends without an error.
    """

    def __init__(self, seconds: float | None = None, exception: Any = None) -> None:
        super().__init__(seconds)
        self.seconds = seconds
        self.exception = exception
        self.start()

    def start(self) -> None:
        """Begin to count. Making it has done that already."""
        if self.seconds is not None:
            self.ends = time.monotonic() + self.seconds
            timeouts_here().append(self)

    @property
    def pending(self) -> bool:
        """Whether it still counts."""
        return self in timeouts_here()

    @classmethod
    def start_new(cls, timeout: Any = None, exception: Any = None) -> Timeout:
        """A timeout of so many seconds; one that is given is itself."""
        return timeout if isinstance(timeout, cls) else cls(timeout, exception)

    def cancel(self) -> None:
        """It counts no more."""
        if self.pending:
            timeouts_here().remove(self)

    def raised(self) -> BaseException:
        """What to raise when its time is over. It counts no more."""
        self.cancel()
        if self.exception is None or self.exception is False or self.exception is True:
            return self
        error: BaseException = self.exception() if isinstance(self.exception, type) else self.exception
        return error

    def __enter__(self) -> Timeout:
        if not self.pending:
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.cancel()
        return error is self and self.exception is False

    def __str__(self) -> str:
        return "" if self.seconds is None else f"{self.seconds:g} second{'' if self.seconds == 1 else 's'}"


def with_timeout(seconds: float, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call that within so many seconds. Else gives ``timeout_value``, or raises ``Timeout`` if that isn't given."""
    has_value = "timeout_value" in kwargs
    value = kwargs.pop("timeout_value", None)
    timeout = Timeout(seconds)
    try:
        return function(*args, **kwargs)
    except Timeout as error:
        if error is timeout and has_value:
            return value
        raise
    finally:
        timeout.cancel()


def timeouts_here() -> list[Timeout]:
    try:
        found: list[Timeout] = here.timeouts
    except AttributeError:
        found = here.timeouts = []
    return found


def forget() -> None:
    """Drop all timeouts of this thread: somebody else's work begins in it."""
    timeouts_here().clear()


def earliest() -> Timeout | None:
    """The timeout of this thread that is over first."""
    return min(timeouts_here(), key=lambda timeout: timeout.ends, default=None)


def in_time(wait: Callable[[Callable[[Deferred[Any]], Deferred[Any]]], Any]) -> Any:
    """Have a thread wait for a Deferred of the reactor's, no longer than its timeouts let it.

    ``wait`` gets a function to put the Deferred through in the reactor.
    """
    timeout = earliest()
    if timeout is None:
        return wait(lambda deferred: deferred)
    late: list[bool] = []

    def give_up(deferred: Deferred[Any]) -> Deferred[Any]:
        def cancel() -> None:
            late.append(True)
            deferred.cancel()

        left = max(timeout.ends - time.monotonic(), 0)
        delayed = default_reactor().callLater(left, cancel)

        def ended(result: Any) -> Any:
            if delayed.active():
                delayed.cancel()
            return result

        return deferred.addBoth(ended)

    try:
        return wait(give_up)
    except CancelledError:
        if late:
            raise timeout.raised() from None
        raise
