"""Waiting for several at once.

``Waiters`` are fired together, ``call_all`` calls and waits together, ``Unconfirmed`` waits until a count is zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.python.failure import Failure

from txservices.utils import tasks

T = TypeVar("T")


class Waiters(Generic[T]):
    """Deferreds that wait for the same thing and fire together when it happens.

    It can happen again: whoever waits after it waits for the next time. A waiter that is cancelled waits no more.
    """

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        self.waiting: list[Deferred[T]] = []

    def __len__(self) -> int:
        """How many wait now."""
        return len(self.waiting)

    def wait(self) -> Deferred[T]:
        """A Deferred that fires with the value given to ``fire``, or fails with the error given to ``fail``."""
        waiter: Deferred[T] = Deferred(self.forget)
        self.waiting.append(waiter)
        return waiter

    def fire(self, value: T) -> None:
        """Fire all that wait, in the order in which they came."""
        waiting, self.waiting = self.waiting, []
        for waiter in waiting:
            if not waiter.called:  # else one before it has cancelled it
                waiter.callback(value)

    def fail(self, error: Failure | BaseException) -> None:
        """Fail all that wait, in the order in which they came."""
        waiting, self.waiting = self.waiting, []
        for waiter in waiting:
            if not waiter.called:
                waiter.errback(error)

    def forget(self, waiter: Deferred[T]) -> None:
        if waiter in self.waiting:
            self.waiting.remove(waiter)


class Failed(Protocol):
    """The outcome of a message that has failed.

    Attributes:
        lost: the error, if nobody has looked at it.
    """

    @property
    def lost(self) -> Exception | None: ...


class Unconfirmed:
    """How many messages somebody has published without the broker's answer yet, and what waits for the last answer.

    Attributes:
        failed: those of a worker's that have failed, until ``lost`` is asked.
        calls: the calls of other services among them that have no answer yet.
    """

    __slots__ = ("calls", "count", "failed", "waiting")

    def __init__(self) -> None:
        self.calls: set[Any] = set()
        self.count = 0
        self.failed: list[Failed] = []
        self.waiting: list[Callable[[], None]] = []

    def add(self) -> None:
        """Count one message more."""
        self.count += 1

    def remove(self) -> None:
        """The broker has answered for one of them, or never will."""
        self.count -= 1
        if not self.count:
            waiting, self.waiting = self.waiting, []
            for call in waiting:
                call()

    def then(self, call: Callable[[], None]) -> None:
        """Call that once no message is left; that may be now."""
        if self.count:
            self.waiting.append(call)
        else:
            call()

    def lost(self) -> Exception | None:
        """The first failure that nobody has looked at. It is told once."""
        failed, self.failed = self.failed, []
        return next((error for each in failed if (error := each.lost) is not None), None)

    def wait(self) -> Deferred[None]:
        """Fires once no message is left."""
        waiter: Deferred[None] = Deferred()
        self.then(partial(waiter.callback, None))
        return waiter


async def call_all(calls: Iterable[Callable[[], Any]]) -> None:
    """Call all at once and wait for all; the first error cancels the others and is raised."""
    waiting = [tasks.call(each) for each in calls]
    try:
        await gatherResults(waiting, consumeErrors=True)
    except FirstError as error:
        for each in waiting:
            each.cancel()
        cause: BaseException = error.subFailure.value  # type: ignore[assignment]  # Twisted has it Optional
        raise cause from None
