"""One call on many things at once."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredLock, DeferredSemaphore, succeed
from twisted.trial.unittest import SynchronousTestCase

from txservices.utils.concurrency import SpawningProxy, SpawningSet, fail_fast_imap


class Items(SynchronousTestCase):
    """Calls that the test answers."""

    def setUp(self) -> None:
        self.calls: dict[Any, Deferred[Any]] = {}
        self.cancelled: list[Any] = []
        self.came: list[Any] = []

    def call(self, item: Any) -> Deferred[Any]:
        self.calls[item] = Deferred(lambda _: self.cancelled.append(item))
        return self.calls[item]

    def take(self, pool: Any, items: Any, most: int = 99) -> Deferred[None]:
        async def take() -> None:
            outcomes = fail_fast_imap(pool, self.call, items)
            async for outcome in outcomes:
                self.came.append(outcome)
                if len(self.came) == most:
                    await outcomes.aclose()
                    return

        return Deferred.fromCoroutine(take())


class FailFastTests(Items):
    """``fail_fast_imap``."""

    def test_as_they_come(self) -> None:
        """Outcomes come in the order in which calls end."""
        taken = self.take(DeferredSemaphore(3), "abc")
        for item in "bca":
            self.calls[item].callback(item.upper())
        self.successResultOf(taken)
        self.assertEqual(self.came, ["B", "C", "A"])

    def test_at_once(self) -> None:
        """No more run at once than the pool lets through."""
        taken = self.take(DeferredSemaphore(2), "abc")
        self.assertEqual(sorted(self.calls), ["a", "b"])
        self.calls["a"].callback(1)
        self.assertEqual(sorted(self.calls), ["a", "b", "c"])
        for item in "bc":
            self.calls[item].callback(1)
        self.successResultOf(taken)

    def test_lock(self) -> None:
        """With a lock for a pool they run one after the other."""
        taken = self.take(DeferredLock(), "ab")
        self.assertEqual(sorted(self.calls), ["a"])
        self.calls["a"].callback(1)
        self.calls["b"].callback(2)
        self.successResultOf(taken)
        self.assertEqual(self.came, [1, 2])

    def test_error(self) -> None:
        """The first error is raised; calls that run are cancelled, and those that wait for their turn never made."""
        taken = self.take(DeferredSemaphore(3), "abcd")
        self.calls["c"].callback(1)
        self.calls["b"].errback(KeyError("b"))
        self.assertEqual(self.failureResultOf(taken, KeyError).value.args, ("b",))
        self.assertEqual(self.came, [1])
        self.assertEqual(sorted(self.cancelled), ["a", "d"])

    def test_cancelled(self) -> None:
        """Cancelling the taker cancels the calls."""
        taken = self.take(DeferredSemaphore(2), "ab")
        taken.cancel()
        self.failureResultOf(taken, CancelledError)
        self.assertEqual(sorted(self.cancelled), ["a", "b"])

    def test_leaving(self) -> None:
        """A taker that has enough cancels those that are left."""
        taken = self.take(DeferredSemaphore(2), "ab", most=1)
        self.calls["a"].callback(1)
        self.successResultOf(taken)
        self.assertEqual((self.came, self.cancelled), ([1], ["b"]))

    def test_nothing(self) -> None:
        """Of no items nothing comes."""
        self.successResultOf(self.take(DeferredSemaphore(2), ""))
        self.assertEqual(self.came, [])


class Item:
    """Something with a method."""

    def __init__(self, name: str, calls: dict[str, Deferred[Any]]) -> None:
        self.name = name
        self.calls = calls
        self.cancelled = False

    def method(self, *args: Any, **kwargs: Any) -> Deferred[Any]:
        self.given = args, kwargs
        self.calls[self.name] = Deferred(self.cancel)
        return self.calls[self.name]

    def cancel(self, _: Any) -> None:
        self.cancelled = True


class SpawningTests(Items):
    """``SpawningProxy`` and ``SpawningSet``."""

    def setUp(self) -> None:
        super().setUp()
        self.items = [Item(name, self.calls) for name in "ab"]

    def test_all(self) -> None:
        """Each is called with the same arguments; results come in the order of the items."""
        called = SpawningProxy(self.items).method(1, key=2)
        self.calls["b"].callback("B")
        self.assertNoResult(called)
        self.calls["a"].callback("A")
        self.assertEqual(self.successResultOf(called), ["A", "B"])
        self.assertEqual([item.given for item in self.items], [((1,), {"key": 2})] * 2)

    def test_values(self) -> None:
        """Methods that do not wait may give values, or be ``async``."""

        class Plain:
            def method(self) -> int:
                return 1

            async def other(self) -> int:
                return await succeed(2)

        self.assertEqual(self.successResultOf(SpawningProxy([Plain()]).method()), [1])
        self.assertEqual(self.successResultOf(SpawningProxy([Plain()]).other()), [2])
        self.assertEqual(self.successResultOf(SpawningProxy([]).method()), [])

    def test_error(self) -> None:
        """An error is told when all have ended."""
        called = SpawningProxy(self.items).method()
        self.calls["a"].errback(KeyError())
        self.assertNoResult(called)
        self.calls["b"].callback(None)
        self.failureResultOf(called, KeyError)
        self.assertFalse(self.items[1].cancelled)

    def test_abort_on_error(self) -> None:
        """With ``abort_on_error`` it is told at once, and the others are cancelled."""
        called = SpawningProxy(self.items, abort_on_error=True).method()
        self.calls["a"].errback(KeyError())
        self.failureResultOf(called, KeyError)
        self.assertTrue(self.items[1].cancelled)

    def test_set(self) -> None:
        """A set has a proxy of its members."""
        items = SpawningSet(self.items)
        called = items.all.method()
        for each in self.calls.values():
            each.callback(1)
        self.assertEqual(self.successResultOf(called), [1, 1])
