"""What the log tells of workers that take long, in virtual time, in the words of `txservices run`."""

from __future__ import annotations

import io
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase

from txservices.busy import HOLDERS_MAX, Busy, Running
from txservices.callids import this_worker
from txservices.command import logs
from txservices.containers import ServiceContainer
from txservices.extensions import Entrypoint, WorkerContext

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
        self.lines: list[tuple[str, WorkerContext | None]] = []  # with the worker in whose name it was told
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)

    def observe(self, event: LogEvent) -> None:
        self.lines.append((formatEvent(event), this_worker.get()))

    def told(self, text: str) -> list[str]:
        return [line for line, _ in self.lines if text in line]

    def methods(self, text: str) -> list[str | None]:
        """The methods in whose name lines with this text were told."""
        return [worker and worker.entrypoint.method_name for line, worker in self.lines if text in line]

    def spawn(self, method: str, *args: Any, stack: list[str] | None = None) -> None:
        entrypoint = next(each for each in self.container.entrypoints if each.method_name == method)

        def handle_result(worker_ctx: Any, result: Any, exc_info: Any) -> Any:
            self.ended.append(result if exc_info is None else exc_info[0])
            return result, exc_info

        context = {} if stack is None else {"call_id_stack": stack}
        self.container.spawn_worker(entrypoint, args, {}, context, handle_result)


ID = "[0-9a-f-]{36}"


class AllBusy(Case):
    """All workers are taken, and others wait."""

    def test_told_at_doubling_intervals(self) -> None:
        """The log names who takes the workers, for how long, and how many wait; after 5, 10, 20 and 40 s."""
        file = io.StringIO()
        observers = (logs.notes_call_id, logs.cleans, logs.to_file(file))
        for observer in observers:
            globalLogPublisher.addObserver(observer)
            self.addCleanup(globalLogPublisher.removeObserver, observer)
        until: Deferred[Any] = Deferred()
        self.spawn("long", until, stack=["web.buy.1", "shop.sell.2"])
        self.clock.advance(3)
        self.spawn("unlimited", until)
        self.spawn("quick")
        for second in range(1, 61):
            self.clock.advance(1)
            self.assertEqual(len(self.told("have been busy")), sum(second >= each for each in (5, 10, 20, 40)))
        self.assertRegex(
            file.getvalue(),
            r"\A\d\d:\d\d:\d\d warn txservices\.lines: all 2 workers of service have been busy for 5\.0 s, 1 calls"
            rf" wait, the first for 5\.0 s\. Oldest: service\.long for 8\.0 s \[service\.long\.{ID} from web\.buy\.1\],"
            rf" service\.unlimited for 5\.0 s \[service\.unlimited\.{ID}\]\n",
        )
        until.callback(None)
        self.assertEqual((self.ended, self.clock.getDelayedCalls()), ([None, "quick", None], []))

    def test_first_that_waits_now(self) -> None:
        """The time that all are busy goes on while calls come and go. The first is the one that waits now."""
        until: Deferred[Any] = Deferred()
        for each in (until, Deferred(), Deferred()):
            self.spawn("long", each)
        self.clock.advance(3)
        self.spawn("quick")
        until.callback(None)
        self.clock.advance(2)
        self.assertIn("have been busy for 5.0 s, 1 calls wait, the first for 2.0 s", *self.told("have been busy"))

    def test_not_told(self) -> None:
        """Waits that end in time are not told, however many there are; nor are taken workers for which nobody waits."""
        for _ in range(10):
            self.busy_for(4)
        self.spawn("long", Deferred())
        self.spawn("long", Deferred())
        self.clock.advance(100)
        self.assertEqual(self.told("have been busy"), [])

    def test_on_and_off(self) -> None:
        """Workers that are all busy for 6 s, again and again, are told as seldom as if they were busy all the time."""
        for times, lines in ((1, 1), (1, 2), (10, 4), (100, 8)):
            for _ in range(times):
                self.busy_for(6)
            self.assertEqual(len(self.told("have been busy")), lines)

    def test_quiet_meanwhile(self) -> None:
        """After a quiet time they are told after five seconds again."""
        for _ in range(20):
            self.busy_for(6)
        self.clock.advance(1000)
        told = len(self.told("have been busy"))
        for more in (1, 2):
            self.busy_for(5)
            self.assertEqual(len(self.told("have been busy")), told + more)
            self.clock.advance(5)

    def busy_for(self, seconds: int) -> None:
        until: Deferred[Any] = Deferred()
        for method in ("long", "long", "quick"):
            self.spawn(method, *([until] if method == "long" else []))
        for _ in range(seconds):
            self.clock.advance(1)
        until.callback(None)

    def test_names(self) -> None:
        """The line names five workers, those that have run for longest, and says whether there are more."""
        for taken, more in ((5, False), (6, True)):
            workers = ServiceContainer(Service, {"max_workers": taken}, clock=self.clock).workers
            long = next(each for each in self.container.entrypoints if each.method_name == "long")
            for _ in range(taken):
                workers.spawn(WorkerContext(self.container, None, long, (Deferred(),)))
                self.clock.advance(1)
            seconds = range(taken, taken - HOLDERS_MAX, -1)
            times = ", ".join(rf"service\.long for {each}\.0 s \[service\.long\.{ID}\]" for each in seconds)
            self.assertRegex(workers.busy.holders(), rf"^{times}{', …' if more else ''}$")

    def test_nobody_runs(self) -> None:
        """All places may be taken by bodies that are still decoded."""
        for _ in range(2):
            self.container.workers.hold()
        self.spawn("quick")
        self.clock.advance(5)
        self.assertIn("Oldest: bodies that are still being decoded", *self.told("have been busy"))

    async def test_stopped(self) -> None:
        """A kill leaves nothing on the clock."""
        for _ in range(3):
            self.spawn("limited", Deferred())
        await self.container.kill()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class Slow(Case):
    """SLOW_WORKER."""

    config = {"max_workers": 1, "SLOW_WORKER": 3}

    def test_told(self) -> None:
        """A worker that runs for as long is told when it ends, with the time that it waited, in its own name."""
        table = ((2.9, 0), (3, 1), (1, 1), (7, 2))
        untils: list[Deferred[Any]] = [Deferred() for _ in table]
        self.clock.advance(1)
        for until in untils:
            self.spawn("long", until)
        for until, (seconds, lines) in zip(untils, table, strict=True):
            self.clock.advance(seconds)
            until.callback(None)
            self.assertEqual(len(self.told("slow: ")), lines)
        self.assertEqual(
            self.told("slow: "),
            [
                "slow: service.long took 3.0 s, after 2.9 s of waiting for its turn",
                "slow: service.long took 7.0 s, after 6.9 s of waiting for its turn",
            ],
        )

    def test_by_whom(self) -> None:
        """The line bears the ids of the worker, and it is told of one that fails, too."""
        globalLogPublisher.addObserver(logs.notes_call_id)
        self.addCleanup(globalLogPublisher.removeObserver, logs.notes_call_id)
        events: list[LogEvent] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        until: Deferred[Any] = Deferred()
        self.spawn("long", until, stack=["web.buy.1"])
        self.clock.advance(4)
        until.errback(ValueError("failed"))
        [event] = [event for event in events if "slow: " in event["log_format"]]
        self.assertEqual(event["waited"], 0)
        self.assertRegex(event["log_ids"], rf"^service\.long\.{ID} from web\.buy\.1$")
        self.flushLoggedErrors(ValueError)


class NeverSlow(Case):
    """SLOW_WORKER is null."""

    config = {"max_workers": 1, "SLOW_WORKER": None}

    def test_not_told(self) -> None:
        """No worker is slow, however long it takes."""
        until: Deferred[Any] = Deferred()
        self.spawn("long", until)
        self.clock.advance(1_000_000)
        until.callback(None)
        self.assertEqual(self.told("slow: "), [])


class Times(SynchronousTestCase):
    """What is learned of the time that methods take."""

    def test_smoothed(self) -> None:
        """It is smoothed as TCP smooths that of a round trip, and so is its deviation."""
        clock = Clock()
        busy = Busy("plain", None, clock, {})
        worker = WorkerContext(self, None, Entrypoint())
        for seconds, expected in ((2.0, (2.0, 0.0)), (10.0, (3.0, 2.0)), (3.0, (3.0, 1.5)), (1.0, (2.75, 1.625))):
            busy.ended(Running(worker, clock.seconds() - seconds, 0.0, None))
            self.assertEqual(busy.took[worker.entrypoint], expected)
