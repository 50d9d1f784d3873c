"""``eventlet.greenpool``: so many threads at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from txservices.migration.green.semaphore import Semaphore
from txservices.migration.green.thread import GreenThread, log_error, spawn, wait_until, woken

__all__ = ["GreenPile", "GreenPool"]

SIZE = 1_000  # threads of a pool that is given no size, as eventlet's


class GreenPool:
    """Threads, of which ``size`` run at a time. To spawn a further one waits until one of them ends."""

    def __init__(self, size: int = SIZE) -> None:
        self.size = size
        self.sem = Semaphore(size)
        self.coroutines_running: set[GreenThread] = set()

    def free(self) -> int:
        """How many more may run now."""
        return self.sem.balance

    def running(self) -> int:
        """How many run."""
        return len(self.coroutines_running)

    def waiting(self) -> int:
        """0: those that wait are not counted."""
        return 0

    def resize(self, size: int) -> None:
        """Have so many run at a time from now on."""
        woken(lambda: self.sem.add(size - self.size))
        self.size = size

    def spawn(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> GreenThread:
        """Call that in a thread, when there is room for it."""
        self.sem.acquire()
        thread = spawn(function, *args, **kwargs)
        self.coroutines_running.add(thread)
        thread.link(self.ended)
        return thread

    def spawn_n(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """``spawn``, of which nobody asks the outcome: an error is logged."""
        self.spawn(function, *args, **kwargs).link(log_error)

    def ended(self, thread: GreenThread) -> None:
        self.coroutines_running.discard(thread)
        self.sem.release()

    def waitall(self) -> None:
        """Wait until all of them have ended."""
        wait_until(lambda: not self.coroutines_running)

    def starmap(self, function: Callable[..., Any], iterable: Iterable[Any]) -> Iterator[Any]:
        """The results of the function for each item's arguments, in their order; called in threads."""
        pile = GreenPile(self)
        for args in iterable:
            if self.free() <= 0 and pile.threads:
                yield next(pile)
            pile.spawn(function, *args)
        yield from pile

    def imap(self, function: Callable[..., Any], *iterables: Iterable[Any]) -> Iterator[Any]:
        """``map``, in threads. The results come in order."""
        return self.starmap(function, zip(*iterables, strict=False))


class GreenPile:
    """Threads whose results are read one after another, in the order in which they were spawned."""

    def __init__(self, size_or_pool: int | GreenPool = SIZE) -> None:
        self.pool = size_or_pool if isinstance(size_or_pool, GreenPool) else GreenPool(size_or_pool)
        self.threads: deque[GreenThread] = deque()

    def spawn(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Call that in a thread of the pool."""
        self.threads.append(self.pool.spawn(function, *args, **kwargs))

    def __iter__(self) -> GreenPile:
        return self

    def __next__(self) -> Any:
        if not self.threads:
            raise StopIteration
        return self.threads.popleft().wait()
