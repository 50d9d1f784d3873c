"""``retry``: how often, after how long, and for which errors."""

from __future__ import annotations

import inspect
from typing import Any
from unittest.mock import patch

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from txservices.constants import ENTRYPOINTS_ATTRIBUTE
from txservices.rpc import rpc
from txservices.utils.retry import retry


class Failing:
    """Fails as often as told, and notes when it is called."""

    def __init__(self, clock: Clock, times: int, error: type[Exception] = ValueError) -> None:
        self.clock = clock
        self.left = times
        self.error = error
        self.called: list[float] = []

    def __call__(self) -> str:
        self.called.append(self.clock.seconds())
        self.left -= 1
        if self.left >= 0:
            raise self.error("again")
        return "done"


class RetryTests(TestCase):
    """On a clock that the test turns."""

    def setUp(self) -> None:
        self.clock = Clock()

    def call(self, failing: Failing, **options: Any) -> Deferred[Any]:
        async def function() -> str:
            return failing()

        called: Deferred[Any] = retry(clock=self.clock, **options)(function)()
        return called

    def go_on(self, seconds: float) -> None:
        self.clock.pump([0.5] * round(seconds * 2))

    def test_until_done(self) -> None:
        """A call that failed is made again, a second later, until it gives something."""
        failing = Failing(self.clock, 2)
        called = self.call(failing)
        self.go_on(1.5)
        self.assertNoResult(called)
        self.go_on(0.5)
        self.assertEqual(self.successResultOf(called), "done")
        self.assertEqual(failing.called, [0, 1, 2])

    def test_max_attempts(self) -> None:
        """It is tried three times again, or as often as told; then the last error is the call's."""
        for options, expected in (({}, 4), ({"max_attempts": 1}, 2), ({"max_attempts": 0}, 1)):
            failing = Failing(self.clock, 99)
            called = self.call(failing, **options)
            self.go_on(9)
            self.failureResultOf(called, ValueError)
            self.assertEqual(len(failing.called), expected)

    def test_without_end(self) -> None:
        """With ``max_attempts=None`` it is tried until the caller has had enough."""
        failing = Failing(self.clock, 999)
        called = self.call(failing, max_attempts=None)
        self.go_on(50)
        self.assertGreater(len(failing.called), 48)
        called.cancel()
        self.failureResultOf(called)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_other_errors(self) -> None:
        """An error that isn't named in ``for_exceptions`` is the call's error at once."""
        for errors in (KeyError, (KeyError, OSError)):
            failing = Failing(self.clock, 1)
            self.failureResultOf(self.call(failing, for_exceptions=errors), ValueError)
            self.assertEqual(len(failing.called), 1)

    def test_backoff(self) -> None:
        """The wait grows by ``backoff``, up to ``max_delay``; each call begins anew."""
        for begin in (0.0, 100.0):
            self.clock.rightNow = begin
            failing = Failing(self.clock, 3)
            called = self.call(failing, delay=1, backoff=2, max_delay=5)
            self.go_on(12)
            self.assertEqual(self.successResultOf(called), "done")
            self.assertEqual([when - begin for when in failing.called], [0, 2, 6, 11])

    async def test_plain_function(self) -> None:
        """In the reactor's thread a plain function's call gives a Deferred too: nothing is held up."""
        await deferLater(reactor, 0)  # the reactor knows its thread once it has run
        failing = Failing(self.clock, 1)

        @retry(delay=0)
        def function() -> str:
            return failing()

        called = function()
        self.assertIsInstance(called, Deferred)
        self.assertEqual(await called, "done")

    async def test_in_a_thread(self) -> None:
        """In another thread it waits, and gives what the function gave or raises its last error."""
        failing = Failing(self.clock, 2)
        waits: list[float] = []
        with patch("txservices.utils.retry.time.sleep", waits.append):
            patient = retry(failing.__call__, delay=3)  # type: ignore[call-overload]  # nameko takes both at once
            self.assertEqual(await deferToThread(patient), "done")
            self.assertEqual(waits, [3, 3])
            with self.assertRaises(ValueError):
                await deferToThread(retry(Failing(self.clock, 9).__call__))

    def test_bare_on_a_method(self) -> None:
        """Without arguments it decorates as well; a method keeps its signature, and its entrypoints."""

        class Service:
            name = "service"

            @retry
            @rpc
            def method(self, a, b=None):
                """What it does."""

        self.assertEqual(list(inspect.signature(Service.method, follow_wrapped=False).parameters), ["self", "a", "b"])
        self.assertEqual(Service.method.__doc__, "What it does.")
        self.assertEqual(len(getattr(Service.method, ENTRYPOINTS_ATTRIBUTE)), 1)
