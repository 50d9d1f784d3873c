"""One call on many things at once.

async for answer in fail_fast_imap(DeferredSemaphore(5), fetch, urls): ...   # five at a time

await SpawningSet(extensions).all.start()
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred, DeferredList, DeferredLock, DeferredSemaphore
from twisted.python.failure import Failure

from txservices.utils import tasks

__all__ = ["SpawningProxy", "SpawningSet", "fail_fast_imap"]

T = TypeVar("T")

Pool = DeferredSemaphore | DeferredLock


async def fail_fast_imap(pool: Pool, call: Callable[[T], Any], items: Iterable[T]) -> AsyncIterator[Any]:
    """The outcomes of ``call`` for each item, as they come; as many calls at once as the pool lets through.

    The first error cancels the others and is raised. So does leaving early, without an error.
    """
    outcomes: list[Any] = []
    waiting: list[Deferred[None]] = []

    def ended(outcome: Any) -> None:
        outcomes.append(outcome)
        if waiting:
            waiting.pop().callback(None)

    running = [pool.run(call, item).addBoth(ended) for item in items]
    try:
        for _ in running:
            if not outcomes:
                waiting.append(Deferred())
                await waiting[0]
            outcome = outcomes.pop(0)
            if isinstance(outcome, Failure):
                outcome.raiseException()
            yield outcome
    finally:
        waiting.clear()
        for each in running:
            each.cancel()


class SpawningProxy(Generic[T]):
    """Calls a method of each item at once: ``SpawningProxy(items).stop()`` is a Deferred of the list of what they give.

    It fires when all have ended, and fails with the first item's error; with ``abort_on_error``, as soon as one fails,
    and the others are cancelled.
    """

    def __init__(self, items: Collection[T], abort_on_error: bool = False) -> None:
        self._items = items
        self.abort_on_error = abort_on_error

    def __getattr__(self, name: str) -> Callable[..., Deferred[list[Any]]]:
        def call_each(*args: Any, **kwargs: Any) -> Deferred[list[Any]]:
            def call(item: T) -> Any:
                return getattr(item, name)(*args, **kwargs)

            return Deferred.fromCoroutine(self._call(call))

        return call_each

    async def _call(self, call: Callable[[T], Any]) -> list[Any]:
        if self.abort_on_error:
            pool = DeferredSemaphore(max(1, len(self._items)))
            return [outcome async for outcome in fail_fast_imap(pool, call, self._items)]
        outcomes = await DeferredList([tasks.call(call, item) for item in self._items], consumeErrors=True)
        return [outcome if succeeded else outcome.raiseException() for succeeded, outcome in outcomes]


class SpawningSet(set[T]):
    """A set whose ``all`` calls a method of each member at once: see ``SpawningProxy``."""

    @property
    def all(self) -> SpawningProxy[T]:
        return SpawningProxy(self)
