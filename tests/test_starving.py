"""Workers that take long: the log names those that keep others waiting, and a limit ends them."""

from __future__ import annotations

import threading
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from tests.services import OnRabbitMQ, ServicesCase
from txservices.containers import ServiceContainer, WorkerContext
from txservices.exceptions import WorkerTimeout
from txservices.extensions import Entrypoint
from txservices.rpc import rpc
from txservices.testing.waiting import Heard

hook = Entrypoint.decorator


class Service:
    name = "service"

    @hook
    async def long(self, until: Deferred[Any]) -> Any:
        return await until

    @hook(worker_timeout=2)
    async def limited(self, until: Deferred[Any]) -> Any:
        return await until

    @hook(worker_timeout=0)
    async def unlimited(self, until: Deferred[Any]) -> Any:
        return await until

    @hook
    def quick(self) -> str:
        return "quick"


class Case(TestCase):
    """A container in virtual time."""

    config: dict[str, Any] = {"max_workers": 2}

    def setUp(self) -> None:
        self.clock = Clock()
        self.container = ServiceContainer(Service, self.config, clock=self.clock)
        self.ended: list[Any] = []
        self.lines: list[str] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)

    def observe(self, event: LogEvent) -> None:
        self.lines.append(formatEvent(event))

    def told(self, text: str) -> list[str]:
        return [line for line in self.lines if text in line]

    def spawn(self, method: str, *args: Any) -> None:
        entrypoint = next(each for each in self.container.entrypoints if each.method_name == method)

        def handle_result(worker_ctx: Any, result: Any, exc_info: Any) -> Any:
            self.ended.append(result if exc_info is None else exc_info[0])
            return result, exc_info

        self.container.spawn_worker(entrypoint, args, {}, {}, handle_result)


class Starving(Case):
    """All workers are taken."""

    def test_told_at_doubling_intervals(self) -> None:
        """The log names who takes the workers, for how long, and how many wait; after 5, 10, 20 and 40 s."""
        until: Deferred[Any] = Deferred()
        self.spawn("long", until)
        self.clock.advance(3)
        self.spawn("unlimited", until)
        self.spawn("quick")
        for second in range(1, 61):
            self.clock.advance(1)
            self.assertEqual(len(self.told("are taken")), sum(second >= each for each in (5, 10, 20, 40)))
        self.assertIn(
            "all 2 workers of service are taken, 1 calls wait, the first for 5.0 s. Taken by"
            " service.long for 8.0 s, service.unlimited for 5.0 s",
            self.told("are taken")[0],
        )
        until.callback(None)
        self.assertEqual((self.ended, self.clock.getDelayedCalls()), ([None, "quick", None], []))

    def test_first_that_waits_now(self) -> None:
        """A call that is the first of those that wait since another has begun has its own five seconds."""
        until: Deferred[Any] = Deferred()
        for each in (until, Deferred(), Deferred()):
            self.spawn("long", each)
        self.clock.advance(3)
        self.spawn("quick")
        until.callback(None)
        self.clock.advance(2)
        self.clock.advance(2.9)
        self.assertEqual(self.told("are taken"), [])
        self.clock.advance(0.1)
        self.assertIn("1 calls wait, the first for 5.0 s", *self.told("are taken"))

    def test_names(self) -> None:
        """The line names five workers, those that have run for longest, and says whether there are more."""
        for taken, more in ((5, False), (6, True)):
            workers = ServiceContainer(Service, {"max_workers": taken}, clock=self.clock).workers
            long = next(each for each in self.container.entrypoints if each.method_name == "long")
            for _ in range(taken):
                workers.spawn(WorkerContext(self.container, None, long, (Deferred(),)))
                self.clock.advance(1)
            times = ", ".join(f"service.long for {seconds}.0 s" for seconds in range(taken, taken - 5, -1))
            self.assertEqual(workers.holders(), times + (", …" if more else ""))

    def test_not_told(self) -> None:
        """Waits that end in time are not told, however many there are; nor are taken workers for which nobody waits."""
        for _ in range(10):
            until: Deferred[Any] = Deferred()
            self.spawn("long", until)
            self.spawn("long", until)
            self.spawn("quick")
            self.clock.advance(4)
            until.callback(None)
        self.spawn("long", Deferred())
        self.spawn("long", Deferred())
        self.clock.advance(100)
        self.assertEqual(self.told("are taken"), [])

    async def test_stopped(self) -> None:
        """A kill leaves nothing on the clock."""
        for _ in range(3):
            self.spawn("limited", Deferred())
        await self.container.kill()
        self.assertEqual(self.clock.getDelayedCalls(), [])


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
        self.assertEqual((len(self.flushLoggedErrors(WorkerTimeout)), self.container.workers.overdue), (0, set()))

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
