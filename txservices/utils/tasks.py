"""Coroutines of users. They await Deferreds and, on asyncio's reactor, also what asyncio waits for.

    run(coroutine) -> begin -> [it waits: Steps, which a Task of asyncio's takes] -> Deferred

asyncio's libraries ask which Task they are in before they wait for anything. So on its reactor a coroutine is in a Task
from its first step on. That step is taken at once and not in the loop's next turn: if nothing waits, all is over when
``begin`` returns. Later the Task waits for asyncio's futures itself, and for a future in place of each Deferred.

On other reactors Twisted runs the coroutines. There asyncio's own errors don't help, and ``explained`` says what to do.
"""

from __future__ import annotations

import asyncio
import builtins
import sys
from collections.abc import Callable, Coroutine, Generator, Mapping
from contextvars import Context, copy_context
from functools import partial
from types import CoroutineType, coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, maybeDeferred, succeed
from twisted.python.failure import Failure

from txservices.exceptions import NeedsAsyncio
from txservices.safe import arguments_of, cause_of, is_text, name_of

CANCELLED = (CancelledError, asyncio.CancelledError)  # Twisted's, and asyncio's
CAUSES_MAX = 20  # errors that led to an error, which are looked at
GROUPS = [getattr(builtins, name, None) for name in ("ExceptionGroup", "BaseExceptionGroup")]  # from Python 3.11 on
ENDED = object()

# What is raised where asyncio does not run: the class, and how its text begins
NOT_RUNNING = (
    ("RuntimeError", "no running event loop"),
    ("RuntimeError", "There is no current event loop"),
    ("RuntimeError", "await wasn't used with future"),  # Twisted goes on with a future as if it were a value
    ("AttributeError", "'NoneType' object has no attribute 'create_future'"),  # asyncio.Event, and the like
    ("AsyncLibraryNotFoundError", ""),  # sniffio's
    ("NoEventLoopError", ""),  # anyio's
)


def is_cancel(error: BaseException) -> bool:
    """Whether it is what a cancelled coroutine raises: a ``CancelledError``, or a group of nothing else."""
    kind = type(error)  # not isinstance, which asks the error
    return issubclass(kind, CANCELLED) or (kind in GROUPS and all(map(is_cancel, error.exceptions)))  # type: ignore[attr-defined]  # a group


def asyncio_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop of this process's reactor, if the reactor is asyncio's."""
    return getattr(sys.modules.get("twisted.internet.reactor"), "_asyncioEventloop", None)


def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
    """``maybeDeferred`` for a function of a user's: if it is ``async``, it is run as ``run`` says."""
    return maybeDeferred(called, function, args, kwargs)


def called(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    result = function(*args, **kwargs)
    return run(result) if isinstance(result, CoroutineType) else result


def run(coroutine: Coroutine[Any, Any, Any]) -> Deferred[Any]:
    """Run a coroutine of a user's, in a Task if the reactor is asyncio's. Fires with its result.

    Fails with ``NeedsAsyncio`` if it awaits something of asyncio's on another reactor. A cancel of the Deferred cancels
    whatever the coroutine waits for; the Deferred fires when the coroutine has ended.
    """
    loop = asyncio_loop()
    if loop is None:
        where: str = getattr(coroutine, "__qualname__", "a coroutine")
        return Deferred.fromCoroutine(coroutine).addErrback(failed, where)
    try:
        return begin(coroutine, copy_context(), loop)
    except StopIteration as end:
        return succeed(end.value)
    except BaseException:
        return fail(Failure())


def begin(coroutine: Coroutine[Any, Any, Any], context: Context, loop: asyncio.AbstractEventLoop) -> Deferred[Any]:
    """Take a coroutine's first step, in a Task and in ``context``. Gives what ``run`` gives.

    Raises what the coroutine raises in that step, ``StopIteration`` if it ends there. A loop that does not run yet, as
    when a reactor starts, takes that step when it runs.
    """
    steps = Steps(coroutine, context, loop)
    taken = steps.take()
    taken.send(None)
    steps.task = task = asyncio.Task(taken, loop=loop)
    steps.wait(first(coroutine, context, loop, task) if loop.is_running() else None)
    task.add_done_callback(steps.ended)
    return steps.outcome()


def first(
    coroutine: Coroutine[Any, Any, Any], context: Context, loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]
) -> Any:
    """Take a coroutine's first step in a Task that begins in the loop's next turn. Gives what it waits for."""
    # asyncio offers these functions to those who have Tasks of their own
    outer = asyncio.current_task(loop)  # what happens in its step has led to this
    if outer is not None:
        asyncio._leave_task(loop, outer)
    asyncio._enter_task(loop, task)
    try:
        return context.run(coroutine.send, None)
    except BaseException:
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # the loop may stop before its next turn
        raise
    finally:
        asyncio._leave_task(loop, task)
        if outer is not None:
            asyncio._enter_task(loop, outer)


class Steps:
    """The steps of a coroutine after its first, which a Task takes.

    Attributes:
        future: what the Task waits for before the next step; None for the loop's next turn.
        deferred: the Deferred that the future stands for, until that has fired.
        result: what the Deferred has fired with, and at the end what the coroutine has returned; or a Failure.
    """

    __slots__ = ("context", "coroutine", "deferred", "future", "loop", "over", "result", "task")

    task: asyncio.Task[None]
    over: Deferred[Any]

    def __init__(self, coroutine: Coroutine[Any, Any, Any], context: Context, loop: asyncio.AbstractEventLoop) -> None:
        self.coroutine = coroutine
        self.context = context
        self.loop = loop
        self.future: Any = ENDED  # by the first step, unless that waits for something
        self.deferred: Deferred[Any] | None = None
        self.result: Any = None

    async def take(self) -> None:
        """Take them all. The Task runs this, from after the first line on."""
        try:
            await yielded(None)
        except asyncio.CancelledError:  # so early that the Task does not know yet what it waits for
            if self.future is None:
                self.future = self.made_to_wait_for()
            if self.future is not ENDED:
                self.future.cancel()
        step: Callable[[], Any]
        while self.future is not ENDED:
            try:
                await yielded(self.future)
            except GeneratorExit:
                self.coroutine.close()
                raise
            except BaseException as error:  # the Task is cancelled, or the future has failed
                step = partial(self.coroutine.throw, error)
                if self.deferred is not None:
                    self.deferred.cancel()
            else:
                result, self.result = self.result, None
                if isinstance(result, Failure):
                    step = partial(result.throwExceptionIntoGenerator, self.coroutine)
                else:
                    step = partial(self.coroutine.send, result)
            try:
                self.wait(self.context.run(step))
            except StopIteration as end:
                self.result, self.future = end.value, ENDED
            except BaseException:
                self.result, self.future = Failure(), ENDED

    def wait(self, waits_for: Any) -> None:
        """Have the Task wait for what the coroutine has yielded."""
        if not isinstance(waits_for, Deferred):
            self.future = waits_for
            return
        self.deferred = waits_for
        self.future = self.made_to_wait_for()
        waits_for.addBoth(self.fired, self.future)

    def made_to_wait_for(self) -> asyncio.Future[None]:
        """A future that can be yielded to the Task. One that is awaited says the same of itself."""
        future = self.loop.create_future()
        future._asyncio_future_blocking = True
        return future

    def fired(self, result: Any, future: asyncio.Future[None]) -> Any:
        """The Deferred has fired, or is cancelled. The coroutine takes its result from it, but a failure from us."""
        if future is self.future:
            self.deferred = None
        if not future.done():  # else nobody waits for it any more
            self.result = result
            future.set_result(None)
        return None if isinstance(result, Failure) else result

    def cancel(self) -> None:
        """Cancel what the coroutine waits for; in its next step it gets what comes of that."""
        if self.deferred is not None:
            self.deferred.cancel()
        else:
            self.task.cancel()

    def outcome(self) -> Deferred[Any]:
        """Fires with the result. A cancel of it cancels the coroutine, and that any number of times."""

        def cancel(over: Deferred[Any]) -> None:
            self.cancel()
            over.callback(self)

        self.over = Deferred(cancel)
        return self.over.addCallback(lambda result: self.outcome() if result is self else result)

    def ended(self, task: asyncio.Task[None]) -> None:
        result, self.result = self.result, None
        if isinstance(result, Failure) and result.check(asyncio.CancelledError):
            result = Failure(CancelledError())  # Twisted's, which whoever waits for a Deferred knows
        self.over.callback(result)


@coroutine
def yielded(thing: Any) -> Generator[Any, None, None]:
    """Yield that to the Task, and go on when the Task does."""
    yield thing


# Other reactors -------------------------------------------------------------------------------------------------------


def explained(error: BaseException, where: str) -> BaseException:
    """The error; or, if it was raised because asyncio does not run here, ``NeedsAsyncio`` with what to do."""
    said = not_running(error)
    reactor = sys.modules.get("twisted.internet.reactor")
    if said is None or asyncio_loop() is not None:
        return error
    return NeedsAsyncio(
        f"{where} awaits something of asyncio's ({said}), but the reactor here is {type(reactor).__name__}: write"
        " `txservices run --reactor asyncio`, or `twistd --reactor asyncio`"
    )


def not_running(error: BaseException | None) -> str | None:
    """What the error says, or one of its causes, if it says that asyncio does not run here."""
    for _ in range(CAUSES_MAX):
        if error is None:
            break
        name = name_of(type(error))
        text = next(filter(is_text, arguments_of(error)), "")
        if any(name == known and text.startswith(begin) for known, begin in NOT_RUNNING):
            return f"{name}: {text}"
        error = cause_of(error)
    return None


def failed(failure: Failure, where: str) -> Failure:
    assert failure.value is not None
    error = explained(failure.value, where)
    return failure if error is failure.value else Failure(error)
