"""What nameko's own tests leave out, and its users have met: poison messages, a stop that does things twice, a start
that never ends, requests while it stops, ticks that were missed.
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

from tests import rabbitmq
from tests.conformance.cases import JSON, QUEUE, RPC, Case, Waiting
from tests.services import Heard
from tests.web.peer import WebTestCase, text
from txservices.amqp.entities import Exchange, Queue
from txservices.containers import ServiceContainer
from txservices.events import EventDispatcher, event_handler
from txservices.exceptions import DeclarationMismatch, DecodeError, MalformedRequest
from txservices.messaging import Publisher, consume
from txservices.rpc import RpcProxy, rpc
from txservices.standalone.events import event_dispatcher
from txservices.timer import timer
from txservices.web.handlers import http

GOOD = {"args": [1], "kwargs": {}}
DEEP = b"[" * 100_000
UNKNOWN = {"__type__": "unknown", "__value__": 1}

# what a request is -> the type of the error that it is answered with, and words of its text
BAD_REQUESTS: list[tuple[Any, dict[str, Any], str, str]] = [
    (b"", {}, "MalformedRequest", "can't be read"),
    (b"{", {}, "MalformedRequest", "can't be read"),
    (b"\xff\xfe", {}, "MalformedRequest", "can't be read"),
    (DEEP, {}, "MalformedRequest", "can't be read"),
    ({"args": [UNKNOWN], "kwargs": {}}, {}, "MalformedRequest", "can't be read"),
    ({"args": [{"__type__": "datetime", "__value__": "x"}], "kwargs": {}}, {}, "MalformedRequest", "can't be read"),
    (GOOD, {"headers": {"compression": "application/x-gzip"}}, "MalformedRequest", "can't be read"),
    (GOOD, {"headers": {"compression": ["odd"]}}, "MalformedRequest", "can't be read"),
    (GOOD, {"content_type": None}, "MalformedRequest", "content type None is not accepted"),
    (GOOD, {"content_type": "application/data"}, "MalformedRequest", "not accepted"),
    (GOOD, {"content_type": "text/plain"}, "MalformedRequest", "not accepted"),
    (GOOD, {"content_type": "application/json; charset=utf-8"}, "MalformedRequest", "not accepted"),
    ({}, {}, "MalformedRequest", "missing `args` or `kwargs`"),
    ([1], {}, "TypeError", ""),
    (None, {}, "TypeError", ""),
    ("text", {}, "TypeError", ""),
    ({"args": None, "kwargs": {}}, {}, "IncorrectSignature", ""),
    ({"args": [1], "kwargs": [1]}, {}, "IncorrectSignature", ""),
    ({"args": [1], "kwargs": {"self": 1}}, {}, "IncorrectSignature", "multiple values for argument 'self'"),
]

# what a service that is called, told and sent messages can't read, and words of the line in its log
BAD_MESSAGES: list[tuple[bytes, dict[str, Any], str]] = [
    (b"", {}, "can't be read"),
    (b"{", {}, "can't be read"),
    (b"\xff", {}, "can't be read"),
    (DEEP, {}, "can't be read"),
    (json.dumps(UNKNOWN).encode(), {}, "can't be read"),
    (b"1", {"headers": {"compression": "application/x-gzip"}}, "can't be read"),
    (b"1", {"headers": {"compression": 7}}, "can't be read"),
    (b"1", {"content_type": "text/plain"}, "'text/plain' is not accepted"),
    (b"1", {"content_type": "application/x-python-serialize"}, "is not accepted"),
]
BAD_STACKS: list[Any] = ["text", 7, None, {"a": 1}, [], [7, None], b"\xff"]


def service(heard: Heard) -> type:
    """A service that is called, told and sent messages."""

    class Service:
        name = "service"

        @rpc
        def call(self, value):
            heard(value)
            return value

        @rpc
        def leave(self, which):
            raise (SystemExit, KeyboardInterrupt, GeneratorExit)[which]("out")

        @event_handler("source", "type")
        def hear(self, value):
            heard(value)

        @consume(QUEUE)
        def take(self, value):
            heard(value)

    return Service


class Poison(Case):
    """No message ends a service, and none comes again for ever. nameko's container dies of some, and of each again."""

    async def begin(self) -> Heard:
        self.heard = Heard()
        (self.container,) = await self.start(service(self.heard))
        return self.heard

    async def well(self, heard: list[Any]) -> None:
        """The service runs, answers, has heard this and nothing else, and has left nothing in its queues."""
        self.assertEqual(await (await self.cluster()).service.call("well"), "well")
        self.assertTrue(self.container.running and not self.container.being_killed)
        self.assertEqual(self.heard.things, [*heard, "well"])
        await self.container.stop()
        for name in ("rpc-service", "evt-source-type--service.hear", "q"):
            self.assertEqual(self.left_in(name), 0, name)

    async def test_requests(self) -> None:
        """What is no request is answered with the reason."""
        await self.begin()
        for body, properties, exc_type, words in BAD_REQUESTS:
            error = await self.error_of("service.call", body, **properties)
            self.assertEqual(error["exc_type"], exc_type, (body, properties))
            self.assertIn(words, error["value"])
        await self.well([])

    async def test_requests_without_reply_to(self) -> None:
        """What is no request and can't be answered is rejected, with the reason in the log."""
        await self.begin()
        lines = self.lines()
        for body, properties, _, words in BAD_REQUESTS:
            lines.things.clear()
            await self.publish("nameko-rpc", "service.call", body, **properties)
            (line,) = await lines.wait()
            self.assertIn("service.call has no reply_to, rejected: ", line)
            self.assertIn(words, line)
        await self.well([])

    async def test_good_requests_without_reply_to(self) -> None:
        """A good request that can't be answered is done once; one without a correlation id is answered without."""
        heard = await self.begin()
        await self.publish("nameko-rpc", "service.call", GOOD)
        self.assertEqual(await heard.wait(), [1])
        reply = await self.request("service.call", GOOD, correlation_id=None)
        self.assertNotIn("correlation_id", reply.properties)
        await self.well([1, 1])

    async def test_stacks(self) -> None:
        """A call id stack that is none is ignored, for calls, events and messages."""
        heard = await self.begin()
        for stack in BAD_STACKS:
            headers = {"nameko.call_id_stack": stack, "nameko.": 1, "": 2}
            await self.request("service.call", GOOD, headers=headers)
            await self.publish("source.events", "type", 1, headers=headers)
            await self.publish("x", "key", 1, headers=headers)
        await heard.wait(3 * len(BAD_STACKS))
        await self.well([1] * 3 * len(BAD_STACKS))

    async def test_events_and_messages(self) -> None:
        """What can't be read is rejected, to the queue's dead letters if it has them, with the reason in the log."""
        await self.begin()
        lines = self.lines()
        for body, properties, words in BAD_MESSAGES:
            for exchange, key, method in (("source.events", "type", "hear"), ("x", "key", "take")):
                lines.things.clear()
                await self.publish(exchange, key, body, **properties)
                (line,) = await lines.wait()
                self.assertRegex(line, f"^service.{method}: <Message .* rejected: .*{words}")
        await self.well([])

    async def test_bodies_without_a_type(self) -> None:
        """A body of no type, or of application/data, is text for events and messages."""
        heard = await self.begin()
        for content_type in (None, "application/data", "application/text"):
            await self.publish("source.events", "type", b"\xc3\xb8", content_type=content_type)
            await self.publish("x", "key", b"\xc3\xb8", content_type=content_type)
        await heard.wait(6)
        await self.well(["ø"] * 6)

    async def test_exits(self) -> None:
        """SystemExit and its like, raised by a method, are errors at the caller; nameko's process ends by them."""
        await self.begin()
        for which, name in enumerate(("SystemExit", "KeyboardInterrupt", "GeneratorExit")):
            error = await self.error_of("service.leave", {"args": [which], "kwargs": {}})
            self.assertEqual((error["exc_type"], error["value"]), (name, "out"))
        self.assertEqual(len(self.flushLoggedErrors(SystemExit, KeyboardInterrupt, GeneratorExit)), 3)
        await self.well([])

    async def test_replies(self) -> None:
        """A reply that can't be read fails its call; nameko drops it, and the caller waits for ever."""
        waiting = Waiting()
        await self.start(waiting.service)
        cluster = await self.cluster()
        client = cluster._client
        for body, properties, _ in BAD_MESSAGES:
            call = cluster.waiting.method()
            await waiting.called(len(waiting.answers) + 1)
            (correlation_id,) = client.pending
            whole = {**JSON, "correlation_id": correlation_id, **properties}
            await self.bare.publish("nameko-rpc", client.reply_to, body, whole, mandatory=True)
            with self.assertRaises(DecodeError):
                await call
        for answer in waiting.answers:
            answer.callback("late")
        self.assertEqual(client.pending, {})


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
        """What runs when the service is told to stop is finished, answered and acked; the next instance sees none."""
        for with_proxy in (False, True):
            self.config["AMQP_URI"] += "x"
            self._bare = None
            began, answers = Heard(), []
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

    async def begin(self) -> None:
        await self.bare.declare(
            Exchange("source.events", type="topic"),
            Queue("rpc-calls", RPC, "calls.*", arguments={"x-max-length": 3}),
            Queue("evt-source-type--hears.hear", durable=True, auto_delete=True),
            Queue("q", arguments={"x-message-ttl": 1000}),
            Exchange("tells.events", type="topic", durable=False),
            Exchange("published", type="fanout"),
        )

    async def test_start_is_refused(self) -> None:
        """The start fails with what exists and how it differs, and the service can be stopped."""
        await self.begin()

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
            await self.stops[-1]()


class MismatchesOnRabbitMQ(Mismatches):
    """The same where most brokers are."""

    skip = rabbitmq.skip
    timeout = 100

    async def begin(self) -> None:
        node = rabbitmq.node()
        self.config["AMQP_URI"] = node.uri(node.new_vhost())
        await super().begin()


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
