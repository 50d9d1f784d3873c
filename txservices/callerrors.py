"""Errors of calls: what a caller gets in place of a result.

They are imported from ``exceptions``, which has all errors, and draws the tree of them.
"""

from __future__ import annotations

from typing import Any


class CallFailed(Exception):
    """A call has no result. What these errors have in common.

    Attributes:
        call: the call as ``service.method``; empty if it isn't known, as in an error that was just raised.
    """

    call = ""

    def __str__(self) -> str:
        text = self.words()
        return f"{text} (call of {self.call})" if self.call else text

    def words(self) -> str:
        """What happened, without the name of the call."""
        return super().__str__()


class RpcTimeout(CallFailed):
    """No reply came in time. The method may have run.

    Attributes:
        timeout: seconds.
        state: what had become of the request by then, in words.
    """

    def __init__(self, timeout: float | None = None, state: str = "") -> None:
        super().__init__(*(() if timeout is None else (timeout,)))
        self.timeout = timeout
        self.state = state

    def words(self) -> str:
        text = "no reply in time" if self.timeout is None else f"no reply within {self.timeout:g} s"
        return f"{text}: {self.state}" if self.state else text


class RpcConnectionError(CallFailed):
    """No reply can come any more. The method may have run."""


class ReplyQueueExpiredWithPendingReplies(RpcConnectionError):
    """We were away from the broker for so long that it deleted our reply queue, and the replies in it."""


class CircuitOpen(CallFailed):
    """Too many calls of a service have failed, and for a while further ones are not sent: see ``CircuitBreaker``.

    Attributes:
        service: its name.
        seconds: until a call is tried again.
    """

    def __init__(self, service: str, seconds: float) -> None:
        super().__init__(service, seconds)
        self.service = service
        self.seconds = seconds

    def words(self) -> str:
        return f"calls of {self.service!r} fail too often: no call is made for the next {self.seconds:g} s"


class RemoteError(Exception):
    """The called method raised an error.

    Attributes:
        exc_type: the name of its class.
        value: its text.
    """

    def __init__(self, exc_type: str | None = None, value: Any = "") -> None:
        super().__init__(f"{exc_type} {value}")
        self.exc_type = exc_type
        self.value = value


class UnknownService(CallFailed):
    """No queue takes calls to that service: it has never run with this broker."""

    def __init__(self, service_name: str) -> None:
        super().__init__(service_name)
        self._service_name = service_name

    def words(self) -> str:
        return f"Unknown service `{self._service_name}`"


class BadRequest(CallFailed):
    """A mistake of the caller, not of the service."""


class MalformedRequest(BadRequest):
    """The request does not have the form of a request."""


class MethodNotFound(BadRequest):
    """The service has no such method."""


class IncorrectSignature(BadRequest):
    """The method does not take these arguments."""


class ConnectionNotFound(BadRequest):
    """The WebSocket is not connected, or no longer."""
