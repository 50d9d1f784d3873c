"""Limits of single entrypoints: what waits for one holds up nobody else."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseNeverReceived

from tests.services import OnRabbitMQ, ServicesCase
from tests.test_busy import Case as BusyCase
from txservices.amqp.entities import Queue
from txservices.containers import ServiceContainer
from txservices.events import event_handler
from txservices.exceptions import ConfigurationError, RpcTimeout
from txservices.extensions import Entrypoint
from txservices.messaging import ConsumerOptions, consume
from txservices.rpc import FURTHER_CONSUMERS_MAX, Rpc, rpc
from txservices.serialization.bounds import HERE_MAX
from txservices.testing.waiting import Heard
from txservices.web.handlers import http

hook = Entrypoint.decorator


class Service:
    name = "service"

    @hook(max_workers=1, worker_timeout=100)
    async def slow(self, until: Deferred[Any]) -> Any:
        return await until

    @hook(max_workers=2)
    async def other(self, until: Deferred[Any]) -> Any:
        return await until

    @hook(max_workers=1)
    def at_once(self) -> str:
        return "at once"

    @hook
    async def quick(self, until: Deferred[Any] | None = None) -> Any:
        return "quick" if until is None else await until


class Waiting(BusyCase):
    """Turns of entrypoints with limits and without, in virtual time, in a service with three workers."""

    def setUp(self) -> None:
        super().setUp()
        self.container = ServiceContainer(Service, {"max_workers": 3}, clock=self.clock)

    def running(self) -> tuple[int, int]:
        return self.container.workers.running, self.container.workers.waiting

    def several(self, method: str, number: int) -> list[Deferred[Any]]:
        untils: list[Deferred[Any]] = [Deferred() for _ in range(number)]
        for until in untils:
            self.spawn(method, until)
            self.clock.advance(0.01)
        return untils

    def test_others_go_on(self) -> None:
        """What waits for a limit waits in its own line, in order, and the others run."""
        slow = self.several("slow", 3)
        self.spawn("quick")
        self.assertEqual((self.running(), self.ended), ((1, 2), ["quick"]))
        for number, until in enumerate(slow):
            until.callback(number)
            self.spawn("quick")
        self.assertEqual((self.running(), self.ended), ((0, 0), ["quick", 0, "quick", 1, "quick", 2, "quick"]))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_service_is_full(self) -> None:
        """The service's own limit holds as well; the one that has waited longest is next, if its limit lets it."""
        slow, quick = self.several("slow", 2), self.several("quick", 2)
        other, more = self.several("other", 1), self.several("quick", 1)
        self.assertEqual(self.running(), (3, 3))
        quick[0].callback("quick 0")  # the second of slow has waited longer, but slow is at its limit
        other[0].callback("other")
        more[0].callback("more")
        self.assertEqual((self.running(), self.ended), ((2, 1), ["quick 0", "other", "more"]))
        slow[0].callback("slow 0")
        slow[1].callback("slow 1")
        self.assertEqual((self.running(), self.ended[3:]), ((1, 0), ["slow 0", "slow 1"]))

    def test_ends(self) -> None:
        """A worker gives its place back however it ends: at once, with an error, or cancelled at its time's end."""
        for _ in range(3):
            self.spawn("at_once")
        self.assertEqual((self.running(), self.ended), ((0, 0), ["at once"] * 3))
        self.several("slow", 2)[0].errback(ZeroDivisionError())
        self.assertEqual(self.running(), (1, 0))
        self.several("slow", 1)
        self.clock.advance(100)
        self.assertEqual(self.running(), (1, 0))
        self.flushLoggedErrors()

    def test_recursion(self) -> None:
        """A thousand that wait for one place, and don't wait when they have it, run one after the other."""
        until = self.several("slow", 1)[0]
        done: Deferred[Any] = Deferred()
        done.callback("done")
        for _ in range(1000):
            self.spawn("slow", done)
        until.callback("first")
        self.assertEqual((self.running(), len(self.ended)), ((0, 0), 1001))

    def test_given_up(self) -> None:
        """A call whose caller is gone when its turn comes is not begun."""
        until = self.several("slow", 1)[0]
        workers, outcomes = self.container.workers, list[str]()
        entrypoint = next(each for each in self.container.entrypoints if each.method_name == "slow")
        for patience in (5, 500):
            begun, given_up = partial(outcomes.append, "begun"), partial(outcomes.append, "given up")
            workers.wait(entrypoint, begun, patience, given_up)
        self.clock.advance(20)
        until.callback(None)
        self.assertEqual(outcomes, ["given up", "begun"])

    def test_told(self) -> None:
        """The log says which limit calls wait for, the entrypoint's or the service's, and who has the places."""
        slow = self.several("slow", 3)
        self.spawn("quick", Deferred())
        self.clock.advance(5)
        (line,) = self.told("have been busy")
        self.assertRegex(
            line, r"^all 1 workers of service\.slow have been busy for 5\.0 s, 2 calls wait, the first for"
        )
        self.assertRegex(line, r"Oldest: service\.slow for 5\.0 s \[[^,]*\]$")
        self.lines.clear()
        self.several("quick", 1)
        slow[0].callback(None)  # the next one of slow begins, and the service stays full
        self.several("other", 2)
        self.clock.advance(5)
        told = sorted(self.told("have been busy"))
        self.assertRegex(told[0], r"^all 1 workers of service\.slow have been busy for 10\.\d s, 1 calls wait")
        self.assertRegex(told[1], r"^all 3 workers of service have been busy for 5\.0 s, 2 calls wait")
        self.assertIn("service.quick", told[1])

    def test_killed(self) -> None:
        """A kill forgets what waits, and nothing is left on the clock."""
        self.several("slow", 3)
        self.successResultOf(self.container.kill())
        self.assertEqual((self.running(), self.clock.getDelayedCalls()), ((0, 0), []))
        (told,) = self.told("is killed")
        self.assertIn("1 workers were running and 2 waiting", told)


class Options(SynchronousTestCase):
    """What is refused, in a line."""

    def refused(self, entrypoint: Any, config: dict[str, Any]) -> str:
        def method(self: Any, *args: Any) -> None: ...

        cls = type("Report", (), {"name": "report", "method": entrypoint(method)})
        error = self.assertRaises(ConfigurationError, ServiceContainer, cls, config, clock=Clock())
        return str(error)

    def test_max_workers(self) -> None:
        """A limit is a whole number from 1 to that of the service, for every kind of entrypoint."""
        kinds = (rpc, partial(event_handler, "a", "b"), partial(consume, Queue("q")))
        for value in (0, -1, 6, True, False, 1.5, "3", [1], float("nan")):
            for kind in kinds:
                text = self.refused(kind(max_workers=value), {"max_workers": 5})
                self.assertEqual(
                    text,
                    f"report.method: max_workers: {value!r} is no whole number from 1 to 5, the service's max_workers",
                )
        self.assertIn("to 10,", self.refused(rpc(max_workers=11), {}))
        refused = self.refused(http("GET", "/", max_workers=6), {"WEB_MAX_WORKERS": 5})
        self.assertEqual(
            refused, "report.method: max_workers: 6 is no whole number from 1 to 5, which is WEB_MAX_WORKERS"
        )

    def test_prefetch_count(self) -> None:
        """A prefetch is a whole number that AMQP can carry."""
        for value in (0, -1, 65_536, True, 1.5, "3"):
            text = self.refused(consume(Queue("q"), prefetch_count=value), {})
            self.assertEqual(
                text,
                f"report.method: prefetch_count: {value!r} is no whole number from 1 to 65535, all that AMQP can say",
            )

    def test_exclusive_order(self) -> None:
        """With exclusive order both are 1, and nothing else."""
        wrong: tuple[ConsumerOptions, ...]
        wrong = ({"max_workers": 2}, {"prefetch_count": 10}, {"max_workers": 1, "prefetch_count": 2})
        for options in wrong:
            options["exclusive_order"] = True
            text = self.refused(consume(Queue("q"), **options), {})
            self.assertIn(": with exclusive_order it is 1, and not ", text)
        text = self.refused(consume(Queue("q"), exclusive_order=True, max_workers=True), {})
        self.assertIn("max_workers: True is no", text)


class Gate:
    """What a method waits for until it is opened."""

    def __init__(self) -> None:
        self.open = False
        self.waiting: list[Deferred[None]] = []

    async def __call__(self) -> None:
        if not self.open:
            waiting: Deferred[None] = Deferred()
            self.waiting.append(waiting)
            await waiting

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.open = True
        for each in self.waiting:
            each.callback(None)


def reports(heard: Heard, gate: Gate, **options: Any) -> type:
    """A service with slow methods, of which few may run, and a quick one."""

    class Reports:
        name = "reports"

        async def slow(self, number: Any) -> Any:
            heard(number)
            await gate()
            return number

        report = rpc(max_workers=2, **options)(slow)

        @rpc
        def quick(self) -> str:
            return "quick"

        @consume(Queue("orders"), max_workers=1)
        async def order(self, number: Any) -> None:
            await self.slow(number)

        @event_handler("shop", "sold")
        def sold(self, number: Any) -> None:
            heard(number)

        @http("GET", "/slow/<int:number>", max_workers=1)
        async def get(self, request: Any, number: int) -> str:
            return str(await self.slow(number))

        @http("GET", "/quick")
        def get_quick(self, request: Any) -> str:
            return "quick"

    return Reports


class Served(ServicesCase):
    """Services with limits."""

    async def test_rpc(self) -> None:
        """Requests over the limit of their method keep no others away, though they are many times the prefetch."""
        heard = Heard()
        with Gate() as gate:
            (container,) = await self.start(reports(heard, gate), max_workers=4, prefetch_count=4)
            consumer = next(each.rpc_consumer for each in container.entrypoints if isinstance(each, Rpc)).consumer
            cluster = await self.cluster()
            calls = [cluster.reports.report(number) for number in range(30)]
            await heard.wait(2)
            self.assertEqual(await gatherResults([cluster.reports.quick() for _ in range(10)]), ["quick"] * 10)
            self.assertEqual((heard.things, container.workers.running), ([0, 1], 2))
            self.assertGreater(consumer.more, 5)
        self.assertEqual(await gatherResults(calls), list(range(30)))
        self.assertEqual((await cluster.reports.quick(), container.workers.waiting, consumer.more), ("quick", 0, 0))

    async def test_bounded(self) -> None:
        """The prefetch grows up to a limit: then others wait as well, until some have ended."""
        heard = Heard()
        with Gate() as gate:
            (container,) = await self.start(reports(heard, gate), max_workers=4, prefetch_count=4)
            cluster = await self.cluster()
            most = 4 * (1 + FURTHER_CONSUMERS_MAX)
            calls = [cluster.reports.report(number) for number in range(most)]
            calls.append(cluster.reports.quick())
            await self.assertFailure(cluster.reports.quick.options(timeout=0.1)(), RpcTimeout)
            while container.workers.waiting < most - 2:  # on a slow machine
                await deferLater(reactor, 0)
            self.assertEqual(container.workers.waiting, most - 2)
        self.assertEqual((await gatherResults(calls))[-1], "quick")

    async def test_queue_deleted(self) -> None:
        """A queue that is deleted while it has several consumers is there again, with one."""
        heard, again = Heard(), Heard()
        with Gate() as gate:
            (container,) = await self.start(reports(heard, gate), max_workers=4, prefetch_count=4)
            consumer = next(each.rpc_consumer for each in container.entrypoints if isinstance(each, Rpc)).consumer
            cluster = await self.cluster(timeout=None)
            calls = [cluster.reports.report(number) for number in range(10)]
            await cluster.reports.quick()
            self.assertGreater(consumer.more, 1)
            consumer.on_ready.append(again)
            channel = await (await self.connections().consuming.when_connected()).open_channel()
            await channel.queue_delete(queue="rpc-reports")
            await again.wait()
            self.assertEqual((consumer.more, await cluster.reports.quick()), (0, "quick"))
        self.assertEqual(await gatherResults(calls), list(range(10)))
        self.assertEqual(len(again.things), 1)

    async def test_deadline(self) -> None:
        """A request that waits for its method's limit is not begun when its caller has gone."""
        heard = Heard()
        with Gate() as gate:
            (container,) = await self.start(reports(heard, gate))
            cluster = await self.cluster()
            calls = [cluster.reports.report(number) for number in range(2)]
            await heard.wait(2)
            timeout = 0.05
            while not container.workers.waiting:  # the time of the first may be over before a slow machine has sent it
                await self.assertFailure(cluster.reports.report.options(timeout=timeout)(2), RpcTimeout)
                timeout *= 4
        self.assertEqual(await gatherResults(calls), [0, 1])
        self.assertEqual((await cluster.reports.quick(), len(heard.things)), ("quick", 2))

    async def test_long_bodies(self) -> None:
        """Bodies that are decoded in threads count, and messages of one at a time keep their order."""
        heard = Heard()
        (container,) = await self.start(reports(heard, Opened()), max_workers=5)
        publisher, cluster = self.connections().publisher, await self.cluster()
        long = "x" * HERE_MAX
        for number in range(12):
            body = json.dumps([number, long if number % 3 == 0 else ""]).encode()
            await publisher.publish("", "orders", body, {"content_type": "application/json"})
        calls = [cluster.reports.report([number, long]) for number in range(12, 18)]
        await gatherResults(calls)
        await heard.wait(18)
        self.assertEqual([number for number, _ in heard.things if number < 12], list(range(12)))
        limits = [each.limit.running for each in container.entrypoints if each.limit is not None]
        self.assertEqual((set(limits), container.workers.waiting), ({0}, 0))

    async def test_messages(self) -> None:
        """Messages that wait for their handler's limit keep no event away; a stop handles them all."""
        heard = Heard()
        with Gate() as gate:
            (container,) = await self.start(reports(heard, gate), max_workers=3, prefetch_count=5)
            publisher = self.connections().publisher
            for number in range(4):
                await publisher.publish("", "orders", b"%d" % number, {"content_type": "application/json"})
            await heard.wait()
            await self.dispatch("shop", "sold", "sold")
            self.assertEqual(await heard.wait(2), [0, "sold"])
            while container.workers.running > 1:  # the worker of the event has not ended yet
                await deferLater(reactor, 0)
            self.assertEqual((container.workers.running, container.workers.waiting), (1, 3))
            stopped = container.stop()
        await stopped
        self.assertEqual(heard.things, [0, "sold", 1, 2, 3])


class Opened(Gate):
    """A gate that is open."""

    async def __call__(self) -> None:
        return None


class OnRabbitMQServed(OnRabbitMQ, Served):
    """The same on RabbitMQ."""


class Web(ServicesCase):
    """HTTP with limits; no broker is asked."""

    async def test_http(self) -> None:
        """Requests that wait for the limit of their URL keep no others away; clients that left are dropped."""
        heard = Heard()
        with Gate() as gate:
            (container,) = await self.start(reports(heard, gate), max_workers=3)
            web, leaving = self.web_session(), self.web_session()
            slow = [web.get(f"/slow/{number}") for number in range(3)]
            gone = leaving.get("/slow/7")
            self.assertEqual(await (await web.get("/quick")).text(), "quick")
            self.assertEqual((heard.things, container.workers.waiting), ([0], 3))
            await leaving.abort()
            await self.assertFailure(gone, ResponseNeverReceived)
        self.assertEqual([await (await each).text() for each in slow], ["0", "1", "2"])
        self.assertEqual(heard.things, [0, 1, 2])
