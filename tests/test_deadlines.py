"""Deadlines that travel with calls, workers that are cancelled at theirs, and calls that their callers cancel."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import capturedLogs, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.services import OnRabbitMQ, ServicesCase
from txservices import deadlines
from txservices.amqp.entities import Exchange
from txservices.cancelling import CANCELLED_MAX, Cancelling
from txservices.command import logs
from txservices.deadlines import CLOCKS_DIFFER_MAX, add_headers, is_over, take_time_left, time_left, time_of_day
from txservices.events import EventDispatcher, event_handler
from txservices.exceptions import CallerGone, RemoteError, RpcTimeout, WorkerTimeout
from txservices.extensions import DependencyProvider, WorkerContext
from txservices.observers import observers
from txservices.rpc import RpcProxy, rpc
from txservices.testing.stage import messages_in
from txservices.testing.waiting import Heard
from txservices.web.handlers import http

DEADLINE, TIME_LEFT = "nameko.call_deadline", "nameko.call_time_left"


def headers_for(seconds: float) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    add_headers(headers, seconds)
    return headers


class ReckonedTests(SynchronousTestCase):
    """How much time is left, by the two headers."""

    def setUp(self) -> None:
        self.now = 1_000_000.0
        self.patch(deadlines, "time", self)

    def time(self) -> float:
        return self.now

    def test_sent(self) -> None:
        """Right after the sending it is what the sender said, if the clocks are the same."""
        headers: dict[str, Any] = {"x": 1}
        add_headers(headers, 10)
        self.assertEqual(headers, {"x": 1, DEADLINE: 1_000_010.0, TIME_LEFT: 10.0})
        self.assertEqual(time_left(headers_for(10)), 10)

    def test_clocks(self) -> None:
        """Clocks that differ by 5 s harm no call; one that is behind gives no more time than there was."""
        headers = headers_for(10)
        for differ in (-3600, -5, 5):
            self.now = 1_000_000.0 + differ
            self.assertEqual(time_left(headers), 10, differ)

    def test_waited(self) -> None:
        """Time that passes on the way is counted, but for 5 s."""
        headers = headers_for(10)
        for passed, left in ((2, 10), (7, 8), (14, 1), (15, 0), (20, -5)):
            self.now = 1_000_000.0 + passed
            self.assertEqual(time_left(headers), left)
        self.assertEqual(CLOCKS_DIFFER_MAX, 5)

    def test_strangers(self) -> None:
        """Headers that are no times say nothing."""
        values: list[Any] = [None, "soon", True, float("nan"), float("inf"), [], {}]
        for value in values:
            self.assertIsNone(time_left({DEADLINE: value, TIME_LEFT: 10}), value)
            self.assertEqual(time_left({DEADLINE: 1_000_010, TIME_LEFT: value}), 15, value)

    def test_is_over(self) -> None:
        """A request is over when nothing is left; one that says nothing, or nonsense, is not."""
        headers = headers_for(10)
        for passed, over in ((0, False), (14.9, False), (15, True), (20, True)):
            self.now = 1_000_000.0 + passed
            self.assertEqual(is_over(headers), over, passed)
        never = float("-inf")
        for stranger in ({}, {DEADLINE: "soon"}, {DEADLINE: float("nan")}, {DEADLINE: never}, {TIME_LEFT: 0.0}):
            self.assertFalse(is_over(stranger), stranger)
        self.assertTrue(is_over({DEADLINE: 10**9, TIME_LEFT: 0}))  # whole numbers, as another client may write them

    def test_taken_out(self) -> None:
        """A worker's context has neither: its own calls have their own."""
        context: dict[str, Any] = {"call_deadline": 1_000_010, "call_time_left": 10.0, "language": "en"}
        self.assertEqual((take_time_left(context), context), (10, {"language": "en"}))
        self.assertIsNone(take_time_left(context))

    def test_taken_out_as_read(self) -> None:
        """What is taken out of a context says what it says in a message, whatever it is."""
        times: list[Any] = [self.now + 10, self.now - 10, 8.0, 0.0, -1.0, 1_000_010, 3, True, None, "soon", []]
        times += map(float, ("nan", "inf", "-inf"))
        for deadline in times:
            for at_sending in times:
                taken = take_time_left({"call_deadline": deadline, "call_time_left": at_sending})
                self.assertEqual(taken, time_left({DEADLINE: deadline, TIME_LEFT: at_sending}), (deadline, at_sending))

    def test_time_of_day(self) -> None:
        """The time of day in so many seconds is later than now."""
        self.assertEqual(time_of_day(2.5), 1_000_002.5)


class Context(DependencyProvider[WorkerContext]):
    """Injects the worker's context."""

    def get_dependency(self, worker_ctx: WorkerContext) -> WorkerContext:
        return worker_ctx


def chain(heard: Heard, **options: Any) -> tuple[type, type, type]:
    """Three services: a calls b, and b calls c, which waits for ever, and tells when it is cancelled."""

    class C:
        name = "c"
        context = Context()

        @rpc(**options)
        async def work(self) -> None:
            heard(self.context)
            try:
                await Deferred()
            except CancelledError:
                heard("cancelled")
                raise

        @rpc(**options)
        def count(self) -> Any:
            return self.context.time_left()

    class B:
        name = "b"
        context = Context()
        c = RpcProxy("c", timeout=60)
        dispatch = EventDispatcher()

        @rpc(**options)
        async def work(self) -> Any:
            heard(self.context)
            return await self.c.work()

        @rpc
        async def count(self) -> Any:
            return await self.c.count()

        @rpc
        async def tell(self) -> None:
            await self.dispatch("told", 1)

    class A:
        name = "a"
        b = RpcProxy("b")
        context = Context()

        @event_handler("b", "told")
        def hear(self, payload: Any) -> None:
            heard((self.context.time_left(), dict(self.context.data)))

        @http("GET", "/work", cancel_on_disconnect=True)
        async def work(self, request: Any) -> str:
            heard("began")
            await self.b.work()
            return "done"

    return A, B, C


class TravelTests(ServicesCase):
    """A caller's deadline is that of all calls that are made for it."""

    def setUp(self) -> None:
        super().setUp()
        self.config["SHUTDOWN_TIMEOUT"] = 0.05  # of workers that nobody ends

    def tearDown(self) -> None:
        self.flushLoggedErrors(WorkerTimeout, RpcTimeout, RemoteError)

    async def test_through_a_service(self) -> None:
        """A service in the middle waits no longer than its caller does, though it has a minute of its own."""
        heard = Heard()
        await self.start(*chain(heard))
        cluster = await self.cluster(timeout=30)
        call = cluster.b.work()
        for context in await heard.wait(2):
            self.assertLessEqual(context.time_left(), 30)
            self.assertLessEqual(context.deadline, time.time() + 30)
        call.cancel()
        await self.assertFailure(call, CancelledError)
        self.assertLessEqual(await (await self.cluster(timeout=7)).b.count(), 7)
        self.assertGreater(await (await self.cluster(timeout=7)).b.count(), 1)

    async def test_no_deadline(self) -> None:
        """A caller that waits for ever has no deadline; then the service in the middle has its own."""
        heard = Heard()
        _, b, c = chain(heard)
        await self.start(b, c)
        cluster = await self.cluster()
        left = await cluster.c.count.options(timeout=None)()
        self.assertIsNone(left)
        self.assertGreater(await cluster.b.count.options(timeout=None)(), 50)

    async def test_events_have_none(self) -> None:
        """An event that a worker tells has no deadline: its handler has no caller."""
        heard = Heard()
        await self.start(*chain(heard))
        await (await self.cluster({"language": "en"})).b.tell()
        self.assertEqual(await heard.wait(), [(None, {"language": "en"})])

    async def test_passed_on_with_an_event(self) -> None:
        """The deadline of a call that a nameko service passes on with an event is not that of the event's handlers."""
        heard = Heard()
        await self.start(*chain(heard))
        headers = {DEADLINE: time.time() - 60, TIME_LEFT: 1.0, "nameko.language": "en"}
        properties = {"content_type": "application/json", "headers": headers}
        await self.connections().publisher.publish("b.events", "told", b"1", properties)
        self.assertEqual(await heard.wait(), [(None, {"language": "en"})])

    async def test_over(self) -> None:
        """A request whose time is over is not begun, and the broker has it no longer."""
        heard = Heard()
        _, _, c = chain(heard)
        (container,) = await self.start(c)
        publisher = self.connections().publisher
        headers = {DEADLINE: time.time() - 6, TIME_LEFT: 1.0, "nameko.call_id_stack": []}
        properties = {"content_type": "application/json", "reply_to": "nobody", "headers": headers}
        await publisher.publish("nameko-rpc", "c.work", b'{"args": [], "kwargs": {}}', properties)
        self.assertIsNotNone(await (await self.cluster()).c.count())
        self.assertEqual(heard.things, [])
        await container.stop()
        self.assertEqual(await messages_in("rpc-c", self.connections()), 0)

    async def is_cancelled(self, heard: Heard) -> None:
        """The deadline of a call of c's cancels its worker."""
        cluster, timeout = await self.cluster(), 0.2
        while not heard.things:  # the time of the first may be over before a slow machine has begun its worker
            work = cluster.c.work.options(timeout=timeout)
            await self.assertFailure(work(), RpcTimeout, WorkerTimeout)  # one moment ends both
            timeout *= 4
        self.assertEqual((await heard.wait(2))[1], "cancelled")

    async def test_cancelled_at_the_deadline(self) -> None:
        """With ``cancel_at_deadline`` a worker that waits is cancelled when its caller's time is up."""
        heard, told = Heard(), self.logged("its caller's time is up: it is cancelled")
        await self.start(*chain(heard, cancel_at_deadline=True))
        await self.is_cancelled(heard)
        self.assertRegex(told.things[0], r"has taken \d+(\.\d{1,3})? s, and its caller's time is up")

    async def test_by_configuration(self) -> None:
        """The configuration says it for all entrypoints, and one of them may say otherwise."""
        heard = Heard()
        _, b, c = chain(heard)
        containers = await self.start(b, c, CANCEL_AT_DEADLINE=True)
        agreed = {each.method_name: each.cancel_at_deadline for each in containers[1].entrypoints}
        self.assertEqual(agreed, {"work": True, "count": True})
        await self.is_cancelled(heard)

    async def test_caller_cancels(self) -> None:
        """A caller that cancels its call has the worker cancelled, and those of the calls that it waits for."""
        heard = Heard()
        await self.start(*chain(heard, cancel_at_deadline=True))
        cluster = await self.cluster()
        call = cluster.b.work()
        await heard.wait(2)
        call.cancel()
        await self.assertFailure(call, CancelledError)
        self.assertEqual((await heard.wait(3))[2], "cancelled")
        self.flushLoggedErrors(CallerGone)

    async def test_caller_cancels_without_agreement(self) -> None:
        """A service that did not agree runs to its end."""
        heard = Heard()
        (_, container) = await self.start(*chain(heard)[1:])
        cluster = await self.cluster()
        call = cluster.c.work()
        await heard.wait()
        call.cancel()
        await self.assertFailure(call, CancelledError)
        await cluster.c.count()
        self.assertEqual((len(heard.things), container.workers.running), (1, 1))

    async def test_nothing_kept(self) -> None:
        """A worker can be cancelled while it runs, if it agreed to that; of one that has ended nothing is kept."""
        heard, waiting = Heard(), [Deferred[None](), Deferred[None]()]

        class D:
            name = "d"

            @rpc(cancel_at_deadline=True)
            def at_once(self) -> None: ...

            @rpc(cancel_at_deadline=True)
            async def later(self) -> None:
                heard()
                await waiting[0]

            @rpc
            async def without_agreement(self) -> None:
                heard()
                await waiting[1]

        (container,) = await self.start(D)
        workers = container.entrypoints[0].rpc_consumer.cancelling.workers
        cluster = await self.cluster()
        await cluster.d.at_once()
        self.assertEqual(workers, {})
        calls = [cluster.d.later(), cluster.d.without_agreement()]
        await heard.wait(2)
        self.assertEqual([each.entrypoint.method_name for each in workers.values()], ["later"])
        for each, call in zip(waiting, calls, strict=True):
            each.callback(None)
            await call
        self.assertEqual(workers, {})

    async def test_client_leaves(self) -> None:
        """An HTTP client that leaves has the worker cancelled with ``cancel_on_disconnect``, and its calls."""
        heard = Heard()
        await self.start(*chain(heard, cancel_at_deadline=True))
        statuses: list[int] = []
        self.patch(observers, "request_ended", [lambda method, route, status, *_: statuses.append(status)])
        cancelled = Heard()

        def observe(event: dict[str, Any]) -> None:
            if "is cancelled: its" in formatEvent(event):
                cancelled(event["call_id"].rpartition(".")[0])

        for observer in (logs.notes_call_id, observe):
            globalLogPublisher.addObserver(observer)
            self.addCleanup(globalLogPublisher.removeObserver, observer)
        failed = self.logged("is answered")
        request = self.web_session().get("/work")
        await heard.wait(3)
        request.cancel()
        await self.assertFailure(request, Exception)
        self.assertEqual((await heard.wait(4))[3], "cancelled")
        self.flushLoggedErrors(CallerGone)
        self.assertEqual((statuses, failed.things), ([499], []))
        self.assertEqual(sorted(await cancelled.wait(3)), ["a.work", "b.work", "c.work"])


class TravelOnRabbitMQ(OnRabbitMQ, TravelTests):
    """The same on a RabbitMQ."""


class CancellingTests(SynchronousTestCase):
    """What is noted of cancelled calls."""

    def told(self, correlation_id: str) -> Any:
        return SimpleNamespace(properties={"correlation_id": correlation_id}, ack=lambda: None)

    def test_queue(self) -> None:
        """The queue in which an instance hears of them is its own, and goes with its connection."""
        queues: list[Any] = []
        consumer: Any = SimpleNamespace(consume=lambda queue, receive: queues.append(queue))
        for _ in range(2):
            Cancelling(Any).listen(consumer, "c", Exchange("nameko-rpc"))
        self.assertEqual(len({queue.name for queue in queues}), 2)
        for queue in queues:
            self.assertEqual((queue.durable, queue.exclusive, queue.auto_delete), (False, True, True))

    def test_logged(self) -> None:
        """A worker that is cancelled is told, and not one that goes on, as in a thread."""
        for cancelled, lines in ((True, ["one is cancelled: its caller has cancelled the call"]), (False, [])):
            turns: Any = SimpleNamespace(abort_worker=lambda worker, error, cancelled=cancelled: cancelled)
            cancelling = Cancelling(turns)
            worker: Any = "one"
            cancelling.workers["1"] = worker
            with capturedLogs() as events:
                cancelling.hear(self.told("1"))
            self.assertEqual([formatEvent(event) for event in events], lines)

    def test_bound(self) -> None:
        """Calls that were cancelled before they began are noted up to a number, and the oldest forgotten."""
        cancelling = Cancelling(Any)
        told = [self.told(str(number)) for number in range(CANCELLED_MAX + 1)]
        for each in told:
            cancelling.hear(each)
        self.assertEqual(len(cancelling.cancelled), CANCELLED_MAX)
        self.assertEqual([cancelling.forget(each) for each in (told[0], told[1], told[1])], [False, True, False])
