"""Cases that nameko's own tests leave out, and its users have met: a stop that does things twice, a start that never
ends, requests while it stops, ticks that were missed.
"""

from __future__ import annotations

import json
import uuid
from datetime import date, datetime, time, timezone
from decimal import Decimal
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase

from tests.conformance.cases import QUEUE, RPC, UNKNOWN, Case, service
from tests.services import OnRabbitMQ
from tests.web.peer import WebTestCase, text
from txservices.amqp.entities import Exchange, Queue
from txservices.containers import ServiceContainer
from txservices.events import EventDispatcher, event_handler
from txservices.exceptions import DeclarationMismatch, MalformedRequest
from txservices.messaging import Publisher, consume
from txservices.rpc import RpcProxy, rpc
from txservices.standalone.events import event_dispatcher
from txservices.testing.waiting import Heard
from txservices.timer import timer
from txservices.web.handlers import http


class Stops(Case):
    """A graceful stop never does anything twice. nameko's replies, can't ack any more, and has it all done again."""

    def working(self, began: Heard, answers: list[Deferred[Any]], with_proxy: bool) -> type:
        def work(value: Any) -> Deferred[Any]:
            answers.append(Deferred())
            began(value)
            return answers[-1]

        class Working:
            name = "working"
            dispatch = EventDispatcher()
            if with_proxy:
                other = RpcProxy("working")

            @rpc
            def call(self, value):
                return work(value)

            @event_handler("source", "type")
            def hear(self, value):
                self.dispatch("heard", value)
                return work(value)

            @consume(QUEUE)
            def take(self, value):
                return work(value)

        return Working

    async def test_workers_under_way(self) -> None:
        """A request that runs when the service is told to stop is answered and acked; the next instance sees none."""
        for with_proxy in (False, True):
            self.config["AMQP_URI"] += "x"
            self._bare = None
            began = Heard()
            answers: list[Any] = []
            working = self.working(began, answers, with_proxy)
            (container,) = await self.start(working)
            call = (await self.cluster()).working.call("called")
            async with event_dispatcher(self.config) as dispatch:
                await dispatch("source", "type", "told")
            await self.publish("x", "key", "sent")
            await began.wait(3)
            stopping = container.stop()
            self.assertNoResult(stopping)
            for answer in answers:
                answer.callback("done")
            self.assertEqual(await call, "done")
            await stopping
            for name in ("rpc-working", "evt-source-type--working.hear", "q"):
                self.assertEqual(self.left_in(name), 0, name)

    async def test_many(self) -> None:
        """Of a hundred calls, into which the stop of one of two instances falls, each is done once and answered."""
        done = Heard()

        class Counting:
            name = "counting"

            @rpc
            def count(self, number):
                done(number)
                return deferLater(clock, 0, lambda: number)

        one, _ = await self.start(Counting, Counting, max_workers=3)
        clock = one.clock
        counting = (await self.cluster()).counting
        calls = [counting.count(number) for number in range(100)]
        await done.wait(10)
        await one.stop()
        self.assertEqual(await gatherResults(calls), [*range(100)])
        self.assertEqual(sorted(done.things), [*range(100)])


class Mismatches(Case):
    """A queue or exchange that exists with other properties: 406, on which nameko tries again for ever."""

    async def test_start_is_refused(self) -> None:
        """The start fails with what exists and how it differs, and the service can be stopped."""
        await self.bare.publisher.declare(
            Exchange("source.events", type="topic"),
            Queue("rpc-calls", RPC, "calls.*", arguments={"x-max-length": 3}),
            Queue("evt-source-type--hears.hear", durable=True, auto_delete=True),
            Queue("q", arguments={"x-message-ttl": 1000}),
            Exchange("tells.events", type="topic", durable=False),
            Exchange("published", type="fanout"),
        )

        class Calls:
            name = "calls"

            @rpc
            def method(self): ...

        class Hears:
            name = "hears"

            @event_handler("source", "type")
            def hear(self, data): ...

        class Takes:
            name = "takes"

            @consume(QUEUE)
            def take(self, data): ...

        class Tells:
            name = "tells"
            dispatch = EventDispatcher()

        class Publishes:
            name = "publishes"
            publish = Publisher(exchange=Exchange("published"))

        for refused, words in (
            (Calls, ("rpc-calls", "x-max-length")),
            (Hears, ("evt-source-type--hears.hear", "auto_delete")),
            (Takes, ("'q'", "x-message-ttl")),
            (Tells, ("tells.events", "durable")),
            (Publishes, ("published", "type")),
        ):
            with self.assertRaises(DeclarationMismatch) as raised:
                await self.start(refused)
            for word in words:
                self.assertIn(word, str(raised.exception))
            await self.stage.containers[-1].stop()


class MismatchesOnRabbitMQ(OnRabbitMQ, Mismatches):
    """The same where most brokers are."""


class Envelopes(Case):
    """Line 1.12 of the facts: what JSON has no word for."""

    values = [
        datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=timezone.utc),
        date(2026, 1, 2),
        time(3, 4, 5),
        Decimal("1.10"),
        uuid.UUID(int=7),
        b"text",
        b"\xff",
    ]

    async def test_both_ways(self) -> None:
        """Times, decimals, UUIDs and bytes come through calls and events as what they were."""
        heard = Heard()

        class Service:
            name = "service"
            dispatch = EventDispatcher()

            @rpc
            def call(self, value):
                self.dispatch("type", value)
                return value

            @event_handler("service", "type")
            def hear(self, value):
                heard(value)

        await self.start(Service)
        self.assertEqual(await (await self.cluster()).service.call({"in": self.values}), {"in": self.values})
        self.assertEqual(await heard.wait(), [{"in": self.values}])

    async def test_on_the_wire(self) -> None:
        """They are in kombu 5.3's envelopes; an older kombu's text stays text."""
        await self.start(service(Heard()))
        written = {"__type__": "uuid", "__value__": {"hex": "0" * 31 + "7", "version": None}}
        reply = await self.request("service.call", {"args": [[written, "2026-01-02T03:04:05Z"]], "kwargs": {}})
        wrapped = {"__type__": "uuid", "__value__": {"hex": "0" * 31 + "7"}}
        self.assertEqual(json.loads(reply.body)["result"], [wrapped, "2026-01-02T03:04:05Z"])

    async def test_what_only_looks_like_one(self) -> None:
        """With one key more an object is itself; with an unknown type it is answered, not dropped."""
        await self.start(service(Heard()))
        cluster = await self.cluster()
        for plain in ({**UNKNOWN, "more": 1}, {"__type__": "datetime"}):
            self.assertEqual(await cluster.service.call(plain), plain)
        with self.assertRaises(MalformedRequest):
            await cluster.service.call(UNKNOWN)


class HttpWhileStopping(WebTestCase):
    """HTTP during shutdown: nameko goes on serving new requests until its workers are done."""

    async def test_new_requests(self) -> None:
        """A request under way is answered; a new one gets 503 at once; then nobody listens."""
        answer: Deferred[str] = Deferred()
        ran = []

        class Slow:
            name = "slow"

            @http("GET", "/slow")
            def slow(self, request):
                return answer

            @http("GET", "/quick")
            def quick(self, request):
                ran.append(request)
                return "quick"

        runner = await self.serve(Slow)
        slow, late = self.peer(), self.peer()
        slow.get("/slow")
        stopping = runner.stop()
        refused = late.get("/quick")
        self.assertTrue(refused.startswith(b"HTTP/1.1 503 SERVICE UNAVAILABLE\r\nRetry-After: "))
        self.assertEqual(ran, [])
        answer.callback("done")
        self.assertEqual(slow.received(), text("200 OK", "done", after="Connection: close"))
        await stopping
        self.assertFalse(late.transport.connected)


class TimerCatchUp(TestCase):
    """Ticks that were missed while one ran: nameko makes up for them, one after the other, in a burst."""

    def test_missed_ticks(self) -> None:
        """They are left out: a first tick of one second delays the next to the next whole interval."""
        clock, began = Clock(), []

        class Ticking:
            name = "ticking"

            @timer(interval=0.25)
            def tick(self):
                began.append(clock.seconds())
                return deferLater(clock, 1.125) if len(began) == 1 else None

        container = ServiceContainer(Ticking, {}, clock=clock)
        self.successResultOf(container.start())
        clock.pump([0.125] * 16)
        self.assertEqual(began, [0.25, 1.5, 1.75, 2.0])
        self.successResultOf(container.stop())
