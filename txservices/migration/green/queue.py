"""``eventlet.queue``: queues whose waits end for a timeout and for a kill."""

from __future__ import annotations

import queue
from queue import Empty, Full
from typing import Any

from txservices.migration.green.thread import wait_until, woken

__all__ = ["Empty", "Full", "LifoQueue", "LightQueue", "PriorityQueue", "Queue"]


class Waits:
    """Differences of eventlet's queues from Python's: 0 is a queue without room, and None one without a bound."""

    _queue: Any

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put an item in, when there is room. ``Full`` if there is no room in time."""
        if not self.attempt(lambda: self._queue.put_nowait(item), Full, block, timeout):
            raise Full
        woken()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take an item out, when there is one. ``Empty`` if no item comes in time."""
        got: list[Any] = []
        if not self.attempt(lambda: got.append(self._queue.get_nowait()), Empty, block, timeout):
            raise Empty
        woken()
        return got[0]

    def attempt(self, act: Any, refusal: type[Exception], block: bool, timeout: float | None) -> bool:
        def done() -> bool:
            try:
                act()
            except refusal:
                return False
            return True

        return wait_until(done, seconds=timeout) if block else done()

    def put_nowait(self, item: Any) -> None:
        """``put``, without waiting."""
        self.put(item, block=False)

    def get_nowait(self) -> Any:
        """``get``, without waiting."""
        return self.get(block=False)

    def join(self) -> None:
        """Wait until every item that was put in is done."""
        wait_until(lambda: not self._queue.unfinished_tasks)

    def task_done(self) -> None:
        """Say that an item which was taken out is done."""
        self._queue.task_done()
        woken()

    def qsize(self) -> int:
        """How many items are in it."""
        size: int = self._queue.qsize()
        return size

    def empty(self) -> bool:
        """Whether it has no item."""
        return not self.qsize()

    def full(self) -> bool:
        """Whether there is no room in it."""
        is_full: bool = self._queue.full()
        return is_full

    def __len__(self) -> int:
        return self.qsize()

    def __bool__(self) -> bool:
        return True


class Queue(Waits):
    """The items come out in the order in which they went in."""

    made_of: Any = queue.Queue

    def __init__(self, maxsize: int | None = None) -> None:
        self.maxsize = maxsize
        self._queue = self.made_of(maxsize or 0)


LightQueue = Queue


class LifoQueue(Queue):
    """The last item in comes out first."""

    made_of = queue.LifoQueue


class PriorityQueue(Queue):
    """The least item comes out first."""

    made_of = queue.PriorityQueue
