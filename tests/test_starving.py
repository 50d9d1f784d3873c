"""A limit ends workers that take too long."""

from __future__ import annotations

import threading
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from tests.services import OnRabbitMQ, ServicesCase
from tests.test_busy import Case
from txservices.exceptions import WorkerTimeout
from txservices.rpc import rpc
from txservices.testing.waiting import Heard


class Limited(Case):
    """``worker_timeout`` and ``WORKER_TIMEOUT``."""

    config = {"max_workers": 2, "WORKER_TIMEOUT": 5}

    def test_cancelled(self) -> None:
        """A worker that takes too long is cancelled, told with an error of its own, and the next one runs."""
        for method in ("limited", "long", "quick"):
            self.spawn(method, *([Deferred()] if method != "quick" else []))
        self.clock.advance(1.9)
        self.assertEqual(self.ended, [])
        self.clock.advance(0.1)
        self.assertEqual(self.ended, [WorkerTimeout, "quick"])
        self.clock.advance(3)
        self.assertEqual(self.ended, [WorkerTimeout, "quick", WorkerTimeout])
        self.assertEqual(len(self.told("its limit: it is cancelled")), 2)
        self.assertEqual(self.methods("its limit: it is cancelled"), ["limited", "long"])
        self.assertEqual((len(self.flushLoggedErrors(WorkerTimeout)), self.container.workers.overdue), (0, {}))

    def test_own_error(self) -> None:
        """A worker that raises an error of its own when it is cancelled fails with that one."""
        self.spawn("limited", Deferred(lambda waiting: waiting.errback(Exception("own"))))
        self.clock.advance(2)
        self.assertEqual((self.ended, len(self.flushLoggedErrors(Exception))), ([Exception], 1))

    def test_no_limit(self) -> None:
        """0 is for no limit, and a worker that ends in time leaves nothing on the clock."""
        until: Deferred[Any] = Deferred()
        self.spawn("unlimited", until)
        self.spawn("long", until)
        self.clock.advance(4)
        until.callback(7)
        self.assertEqual((self.ended, self.clock.getDelayedCalls()), ([7, None], []))


class Callers(ServicesCase):
    """The caller of a method that takes too long."""

    async def test_caller_is_told(self) -> None:
        """Gets a WorkerTimeout, fifty times, and the service answers."""

        class Slow:
            name = "slow"

            @rpc(worker_timeout=0.02)
            def method(self):
                return Deferred()

            @rpc
            def quick(self):
                return "quick"

        await self.start(Slow, max_workers=10)
        slow = (await self.cluster()).slow
        await gatherResults([self.assertFailure(slow.method(), WorkerTimeout) for _ in range(50)])
        self.assertEqual(await slow.quick(), "quick")
        self.flushLoggedErrors()

    async def test_thread(self) -> None:
        """A thread is not ended: the log names it, and its caller gets its result."""
        go_on, told = threading.Event(), Heard()

        class Slow:
            name = "slow"

            @rpc(worker_timeout=0.02, blocking=True)
            def method(self):
                go_on.wait(10)
                return "late"

        def observe(event: LogEvent) -> None:
            if "which can't be ended" in formatEvent(event):
                told(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        await self.start(Slow)
        call = (await self.cluster()).slow.method()
        self.assertIn("slow.method", (await told.wait())[0])
        go_on.set()
        self.assertEqual(await call, "late")
        self.flushLoggedErrors()


class CallersOnRabbitMQ(OnRabbitMQ, Callers):
    """The same on RabbitMQ."""
