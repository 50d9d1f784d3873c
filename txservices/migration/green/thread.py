"""``eventlet.greenthread``: threads that can be waited for, and killed where they wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure

from txservices.migration.green.timeout import earliest
from txservices.threads import Threads, this_thread

__all__ = ["GreenThread", "GreenletExit", "getcurrent", "kill", "sleep", "spawn", "spawn_after", "spawn_n"]

log = Logger()


class GreenletExit(BaseException):
    """Raised in a thread that was killed, where it waits. It ends the thread and is no error."""


current = threading.local()  # .thread: the GreenThread that runs in this thread


class GreenThread:
    """A thread, begun by ``begin``."""

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        threads: Threads | None = None,
        name: str | None = None,
    ) -> None:
        self.function, self.args, self.kwargs = function, args, kwargs
        self.threads = threads
        self.killed: BaseException | None = None
        self.result: Any = None
        self.begun = self.dead = False
        self.links: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = []
        context = copy_context()
        self.thread = threading.Thread(target=context.run, args=(self.run,), name=name, daemon=True)

    def begin(self, seconds: float = 0) -> GreenThread:
        self.seconds = seconds
        self.thread.start()
        return self

    def run(self) -> None:
        this_thread.threads = self.threads
        current.thread = self
        try:
            if self.seconds:
                sleep(self.seconds)
            self.raise_if_killed()
            self.begun = True
            self.result = self.function(*self.args, **self.kwargs)
        except GreenletExit as ended:
            self.result = ended
        except BaseException:
            self.result = Failure()
        finally:
            with waking:
                self.dead = True
                waking.notify_all()
            this_thread.threads = None
        for call, args, kwargs in self.links:
            call(self, *args, **kwargs)

    def raise_if_killed(self) -> None:
        killed, self.killed = self.killed, None
        if killed is not None:
            raise killed

    def outcome(self) -> Any:
        """Its result, or a ``Failure``, once it has ended."""
        return None if isinstance(self.result, GreenletExit) else self.result

    def wait(self) -> Any:
        """Wait for its end. Returns what the function returned, or raises what it raised."""
        wait_until(lambda: self.dead)
        if isinstance(self.result, Failure):
            self.result.raiseException()
        return self.result

    def kill(self, *throw: Any) -> None:
        """Raise ``GreenletExit``, or what is given, in the thread at its next wait for something of eventlet's."""
        error = throw[0] if throw else GreenletExit()
        self.killed = error() if isinstance(error, type) else error
        woken()

    def cancel(self, *throw: Any) -> None:
        """``kill`` it if it has not begun."""
        if not self.begun:
            self.kill(*throw)

    throw = kill

    def link(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Call that with this thread when it ends, in it; at once if it has ended."""
        with waking:
            if not self.dead:
                self.links.append((call, args, kwargs))
                return
        call(self, *args, **kwargs)

    def unlink(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> bool:
        """Undo ``link``. Whether it was there."""
        with waking:
            linked = (call, args, kwargs) in self.links
            if linked:
                self.links.remove((call, args, kwargs))
        return linked

    def __bool__(self) -> bool:
        return self.begun and not self.dead


waking = threading.Condition(
    threading.RLock()
)  # one for all waits: a thread that is killed has to look, whatever it waits for


def wait_until(done: Callable[[], Any], seconds: float | None = None) -> bool:
    """Wait until that is true, or for so many seconds. Gives whether it is true.

    Whoever makes it true calls ``woken``. Raises the thread's ``Timeout`` when its time is over, or the error by which
    it is killed.
    """
    thread: GreenThread | None = getattr(current, "thread", None)
    ends = None if seconds is None else time.monotonic() + seconds
    with waking:
        while True:
            if thread is not None:
                thread.raise_if_killed()
            if done():
                return True
            now = time.monotonic()
            timeout = earliest()
            if timeout is not None and timeout.ends <= now:
                raise timeout.raised()
            if ends is not None and ends <= now:
                return False
            until = [each for each in (ends, timeout.ends if timeout else None) if each is not None]
            waking.wait(min(until) - now if until else None)


def woken(change: Callable[[], object] | None = None) -> None:
    """Have every thread look at what it waits for, after a change that no thread may see half done."""
    with waking:
        if change is not None:
            change()
        waking.notify_all()


def sleep(seconds: float = 0) -> None:
    """Wait that long."""
    wait_until(lambda: False, seconds=seconds)


def spawn(function: Callable[..., Any], *args: Any, **kwargs: Any) -> GreenThread:
    """Call that in a thread of its own."""
    return spawn_after(0, function, *args, **kwargs)


def spawn_after(seconds: float, function: Callable[..., Any], *args: Any, **kwargs: Any) -> GreenThread:
    """Call that in a thread of its own, so many seconds from now."""
    return GreenThread(function, args, kwargs, getattr(this_thread, "threads", None)).begin(seconds)


def spawn_n(function: Callable[..., Any], *args: Any, **kwargs: Any) -> GreenThread:
    """``spawn``, of which nobody asks the outcome: an error is logged."""
    thread = spawn(function, *args, **kwargs)
    thread.link(log_error)
    return thread


def log_error(thread: GreenThread) -> None:
    if isinstance(thread.result, Failure):
        log.failure("in {function}, which was spawned", thread.result, function=thread.function)


def kill(thread: GreenThread, *throw: Any) -> None:
    """``thread.kill``."""
    thread.kill(*throw)


def getcurrent() -> Any:
    """The ``GreenThread`` that runs here, or Python's own thread if none does."""
    return getattr(current, "thread", None) or threading.current_thread()
