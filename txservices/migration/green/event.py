"""``eventlet.event``: a value that threads wait for, sent once."""

from __future__ import annotations

from typing import Any

from twisted.python.failure import Failure

from txservices.migration.green.thread import wait_until, woken

__all__ = ["NOT_USED", "Event"]


class NOT_USED:  # eventlet's name
    """Stands for no value."""

    def __repr__(self) -> str:
        return "NOT_USED"


NOT_USED = NOT_USED()  # type: ignore[misc, assignment]


class Event:
    """An outcome that is sent once. Everybody who waits for it gets it."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self._sent = False
        self._result: Any = None
        self._error: Any = None

    def ready(self) -> bool:
        """Whether it was sent."""
        return self._sent

    def has_exception(self) -> bool:
        """Whether what was sent is an error."""
        return self._error is not None

    def has_result(self) -> bool:
        """Whether what was sent is a value."""
        return self._sent and self._error is None

    def wait(self, timeout: float | None = None) -> Any:
        """Wait for it: returns the value, or raises the error. None if ``timeout`` seconds are over before."""
        if not wait_until(lambda: self._sent, seconds=timeout):
            return None
        if self._error is not None:
            raise self._error
        return self._result

    def poll(self, notready: Any = None) -> Any:
        """The outcome if there is one, else ``notready``."""
        return self.wait() if self._sent else notready

    def send(self, result: Any = None, exc: Any = None) -> None:
        """Send a value, or an error: an exception, or what ``sys.exc_info`` gives. May be called from any thread."""
        assert not self._sent, f"Trying to re-send() an already-triggered event: {self!r}"
        if isinstance(exc, tuple):
            exc = exc[1] if len(exc) > 1 and isinstance(exc[1], BaseException) else exc[0]
        if isinstance(exc, type):
            exc = exc()
        if isinstance(exc, Failure):
            exc = exc.value
        self._result, self._error, self._sent = result, exc, True
        woken()

    def send_exception(self, *args: Any) -> None:
        """Send an error: an exception, or the three things that ``sys.exc_info`` gives."""
        self.send(None, args if len(args) > 1 else args[0])
