"""Methods that block: each runs in a thread of the reactor's pool, and asks the reactor for what it can't do there.

Threads.run -> [in a thread: the method -> in_reactor -> Threads.call, in the reactor -> its result] -> result
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue
from traceback import format_stack
from typing import Any, ParamSpec, TypeVar, overload

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import blockingCallFromThread, deferToThreadPool
from twisted.python.failure import Failure

from txservices.exceptions import ContainerBeingKilled
from txservices.utils import default_reactor, tasks
from txservices.utils.forks import end

__all__ = ["in_reactor"]

P = ParamSpec("P")
T = TypeVar("T")

STACKS_MAX = 5  # threads whose stacks a stop tells

this_thread = threading.local()  # .threads: the Threads of the container whose method runs in this thread


@overload
def in_reactor(function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T: ...


@overload
def in_reactor(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...


def in_reactor(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function in the reactor's thread, wait for its result, and return that or raise its error.

    For the thread of a ``blocking`` method, where a Deferred can't be awaited. Raises ``ContainerBeingKilled`` once
    the container has stopped waiting for its workers.
    """
    threads: Threads | None = getattr(this_thread, "threads", None)
    if threads is None:
        raise RuntimeError("in_reactor() waits, which only a method with blocking = True may: await elsewhere")
    if threads.cancelled:  # the reactor may be joining its threads by now, and would never answer
        raise ContainerBeingKilled()
    in_context = partial(copy_context().run, function)  # in it log lines bear the worker's call id
    return threads.wait(in_context, args, kwargs)


class Threads:
    """The threads of one container's blocking methods.

    Attributes:
        cancelled: whether the reactor takes no more calls from them: each gets an error.
    """

    def __init__(self) -> None:
        self.cancelled = False
        self.disowned = False  # in a forked child
        self.calls: set[Deferred[Any]] = set()  # the calls that the reactor has not answered yet
        self.running: dict[int, str] = {}  # the names of the methods that run, by their threads

    def run(self, method: Callable[..., Any], args: Any, kwargs: Any) -> Deferred[Any]:
        """Call a method in a thread, with our context variables. Fires with its result, or fails with its error."""
        reactor = default_reactor()
        context = copy_context()
        return deferToThreadPool(reactor, reactor.getThreadPool(), context.run, self.in_thread, method, args, kwargs)

    def in_thread(self, method: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        this_thread.threads = self
        thread = threading.get_ident()
        self.running[thread] = getattr(method, "__qualname__", str(method))
        try:
            return method(*args, **kwargs)
        finally:
            if self.disowned:
                end()
            del self.running[thread]
            this_thread.threads = None

    def wait(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The part of ``in_reactor`` that waits, in the method's thread."""
        return blockingCallFromThread(default_reactor(), self.call, function, args, kwargs)

    def stacks(self) -> str:
        """Where the methods are that run now, in lines of text that each begin with a new line; at most STACKS_MAX."""
        frames = sys._current_frames()
        running = [(name, frames[thread]) for thread, name in list(self.running.items()) if thread in frames]
        return "".join(
            f"\n{name}, in a thread:\n{''.join(format_stack(frame)).rstrip()}" for name, frame in running[:STACKS_MAX]
        )

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Deferred[Any]:
        """The part of ``in_reactor`` that runs in the reactor's thread."""
        if self.cancelled:
            raise ContainerBeingKilled()
        calling = tasks.call(function, *args, **kwargs)
        self.calls.add(calling)

        def called(result: Any) -> Any:
            self.calls.discard(calling)
            return result

        calling.addBoth(called)
        if self.cancelled:  # by what the function did
            calling.cancel()
        return calling

    def abort(self) -> Deferred[None] | None:
        """Cancel the calls that threads wait for. Fires in the next turn, when they know; None if there were no calls.

        A thread can't be ended: it goes on until its next ``in_reactor``, which raises an error.
        """
        calls = list(self.calls)
        for each in calls:
            each.cancel()
        return deferLater(default_reactor(), 0) if calls else None


class OneThread:
    """One thread of the reactor's pool, in which several functions are called, one after the other.

    Attributes:
        ident: the thread's, once it runs.
    """

    ident: int | None = None

    def __init__(self) -> None:
        self.calls: SimpleQueue[tuple[Deferred[Any], Callable[..., Any], Any, Any] | None] = SimpleQueue()

    def run(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Deferred[Any]:
        """Call a function in the thread, in its turn. Fires with its result, or fails with its error."""
        called: Deferred[Any] = Deferred()
        self.calls.put((called, function, args, kwargs))
        return called

    def serve(self) -> None:
        """What the thread does until ``end``."""
        reactor = default_reactor()
        self.ident = threading.get_ident()
        while (each := self.calls.get()) is not None:
            called, function, args, kwargs = each
            try:
                result = function(*args, **kwargs)
            except BaseException:
                result = Failure()
            reactor.callFromThread(called.callback, result)

    def end(self) -> None:
        """Give the thread back, once it has called what it was given."""
        self.calls.put(None)


def grow_pool(number: int) -> None:
    """Have the reactor's pool grow by a thread for each worker: its own threads are left to look up host names."""
    if number:
        pool = default_reactor().getThreadPool()
        pool.adjustPoolsize(maxthreads=pool.max + number)
