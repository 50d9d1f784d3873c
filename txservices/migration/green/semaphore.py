"""``eventlet.semaphore``."""

from __future__ import annotations

from typing import Any

from txservices.migration.green.thread import wait_until, woken

__all__ = ["BoundedSemaphore", "Semaphore"]


class Semaphore:
    """Lets so many threads in at a time."""

    def __init__(self, value: int = 1) -> None:
        if value < 0:
            raise ValueError(f"Semaphore must be initialized with a non-negative number, and not {value!r}")
        self.counter = value

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Come in, when there is room. Whether that was so in time."""
        return wait_until(self.take, seconds=timeout if blocking else 0)

    def take(self) -> bool:  # called with the lock that all waits hold
        if self.counter <= 0:
            return False
        self.counter -= 1
        return True

    def release(self) -> bool:
        """Go out."""
        woken(lambda: self.add(1))
        return True

    def add(self, number: int) -> None:
        self.counter += number

    @property
    def balance(self) -> int:
        """How many may come in now."""
        return self.counter

    def locked(self) -> bool:
        """Whether nobody may come in."""
        return self.counter <= 0

    def __enter__(self) -> Semaphore:
        self.acquire()
        return self

    def __exit__(self, *_: Any) -> None:
        self.release()


class BoundedSemaphore(Semaphore):
    """A ``Semaphore`` that nobody may leave who has not come in."""

    def __init__(self, value: int = 1) -> None:
        super().__init__(value)
        self.most = value

    def release(self) -> bool:
        """Go out. ``ValueError`` if nobody is in."""
        if self.counter >= self.most:
            raise ValueError("Semaphore released too many times")
        return super().release()
