"""Methods that block: each runs in a thread of the reactor's pool, and asks the reactor for what it can't do there.

Threads.run -> [in a thread: the method -> in_reactor -> Threads.call, in the reactor -> what that gives] -> result
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import deferLater
from twisted.internet.threads import blockingCallFromThread, deferToThreadPool

from txservices.exceptions import ContainerBeingKilled
from txservices.utils import default_reactor

this_thread = threading.local()  # .threads: those of the container whose blocking method it runs


def in_reactor(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function in the reactor's thread, wait for what it gives, and give that or raise its error.

    For the thread of a ``blocking`` method, where what a dependency injects can't be awaited. Raises
    ``ContainerBeingKilled`` once the container has stopped waiting for its workers.
    """
    threads: Threads | None = getattr(this_thread, "threads", None)
    if threads is None:
        raise RuntimeError("in_reactor() waits, which only a method with blocking = True may: await elsewhere")
    if threads.closed:  # a reactor that is joining its threads answers nobody
        raise ContainerBeingKilled()
    in_context = partial(copy_context().run, function)  # what it logs there is the worker's
    return blockingCallFromThread(default_reactor(), threads.call, in_context, args, kwargs)


class Threads:
    """The threads of one container's blocking methods.

    Attributes:
        closed: whether they get an error for what they ask.
    """

    def __init__(self) -> None:
        self.closed = False
        self.calls: set[Deferred[Any]] = set()  # what was asked and not answered yet

    def run(self, method: Callable[..., Any], args: Any, kwargs: Any) -> Deferred[Any]:
        """Call a method in a thread, with our context variables; fires with what it returns, or fails as it does."""
        reactor = default_reactor()
        context = copy_context()
        return deferToThreadPool(reactor, reactor.getThreadPool(), context.run, self.in_thread, method, args, kwargs)

    def in_thread(self, method: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        this_thread.threads = self
        try:
            return method(*args, **kwargs)
        finally:
            this_thread.threads = None

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Deferred[Any]:
        """A thread's ``in_reactor``, here in the reactor's."""
        if self.closed:
            raise ContainerBeingKilled()
        calling = maybeDeferred(function, *args, **kwargs)
        self.calls.add(calling)

        def called(result: Any) -> Any:
            self.calls.discard(calling)
            return result

        calling.addBoth(called)
        if self.closed:  # by what the function did
            calling.cancel()
        return calling

    def abandon(self) -> Deferred[None] | None:
        """Cancel what they wait for; where that is something, fires when they have been told, in the next turn.

        A thread can't be ended: it gets an error at its next ``in_reactor``.
        """
        calls = list(self.calls)
        for each in calls:
            each.cancel()
        return deferLater(default_reactor(), 0) if calls else None


def grow_pool(number: int) -> None:
    """Have the reactor's pool grow: a thread for each worker, so that they never take those that look up names."""
    if number:
        pool = default_reactor().getThreadPool()
        pool.adjustPoolsize(maxthreads=pool.max + number)
