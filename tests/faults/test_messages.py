"""Point 11 of the faults: bad messages among good ones, to everything in a service that takes messages.

    python -m twisted.trial tests.faults.test_messages                    # some; FAULTS_FULL=1 for 10,000
    FAULTS_SEED=1234 python -m twisted.trial tests.faults.test_messages   # that one, among the good ones

A bad one is a request, an event, a message or a reply whose properties, headers and body are anything. All good ones
are answered, the bad ones are settled, nothing is logged as a failure, and the service is as well as before.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from tests import rabbitmq
from tests.faults.growth import memory
from tests.faults.mutations import flip
from tests.faults.scene import FULL, until
from tests.services import ServicesCase
from txservices.amqp.channel import Channel
from txservices.amqp.entities import Queue
from txservices.amqp.publishing import Publishing
from txservices.events import event_handler
from txservices.messaging import consume
from txservices.rpc import rpc
from txservices.wire.codec import encode_properties

BAD = 10_000 if FULL else 1000
BATCH = 50  # bad ones between two lots of good ones
GOOD = 5  # of each kind, in a lot
GROWTH = 60  # MiB
DEEP = 3000

TYPES = (
    "application/json", "text/plain", "application/json; charset=utf-8", "application/data", "", "\0", "nonsense",
    "application/x-python-serialize", "application/x-yaml", "x" * 255,
)  # fmt: skip
ENCODINGS = ("utf-8", "binary", "latin-1", "utf-16", "no-such-code", "", "x" * 255)
WIRE_TYPES = ("datetime", "date", "time", "decimal", "uuid", "bytes", "base64", "nothing", 1, None)


class Bad(Random):
    """Anything but what was meant."""

    def value(self, depth: int = 0) -> Any:
        """Something that JSON can carry, of any shape."""
        if depth < 4 and self.random() < 0.4:
            if self.random() < 0.5:
                return [self.value(depth + 1) for _ in range(self.randrange(4))]
            return {self.choice(("args", "kwargs", "self", "value", "", "é")): self.value(depth + 1) for _ in range(3)}
        scalars = (None, True, 0, -1, 1 << 70, 1.5, float("nan"), float("inf"), "", "text", "\ud800", "x" * 3000)
        return self.choice(scalars)

    def request(self) -> Any:
        """Nearly a request: the malformed ones of nameko's, and more."""
        return self.choice(
            (
                {"kwargs": {}}, {"args": []}, {}, [], [1], None, "text", 3, True, {"args": None, "kwargs": {}},
                {"args": 3, "kwargs": {}}, {"args": [1], "kwargs": None}, {"args": [1], "kwargs": []},
                {"args": [1, 2, 3], "kwargs": {}}, {"args": [], "kwargs": {}}, {"args": "ab", "kwargs": {"self": 1}},
                {"args": {"a": 1}, "kwargs": {"value": 1}}, {"args": [1], "kwargs": {"value": 1}},
                {"args": self.value(), "kwargs": self.value()}, {"args": [self.value()], "kwargs": {}},
                {"args": [{"__type__": self.choice(WIRE_TYPES), "__value__": self.value()}], "kwargs": {}},
                {"result": 1, "error": None}, {"result": None, "error": {"exc_type": self.value()}}, self.value(),
            )
        )  # fmt: skip

    def body(self) -> bytes:
        data = json.dumps(self.request()).encode()
        way = self.randrange(8)
        if way == 0:
            return self.randbytes(self.randrange(200))
        if way == 1:
            return self.choice(
                (b"", b"{", b"[" * DEEP, b'{"a":' * DEEP, b"[" * DEEP + b"]" * DEEP, b"1" * 6000, b"\xff")
            )
        if way == 2:
            return data[: self.randrange(len(data) + 1)]
        if way == 3:
            pieces = [data]
            flip(self, pieces, [])
            return pieces[0]
        return data

    def headers(self) -> dict[str, Any]:
        return {
            self.choice(
                ("nameko.call_id_stack", "nameko.a", "nameko.", "", "compression", "x-death", "x", "é")
            ): self.choice(
                (
                    None,
                    "",
                    [],
                    ["a", None, 1],
                    {},
                    {"a": [{}]},
                    1,
                    1.5,
                    b"\xff",
                    "gzip",
                    "application/x-gzip",
                    "zlib",
                    "é",
                )
            )
            for _ in range(self.randrange(4))
        }

    def properties(self, reply_to: str) -> dict[str, Any]:
        """Properties that are right more often than not."""
        odd: dict[str, tuple[Any, ...]] = {
            "content_type": TYPES,
            "content_encoding": ENCODINGS,
            "delivery_mode": (1, 2),  # RabbitMQ refuses all others, and what is refused reaches no service
            "priority": (0, 9, 255),
            "correlation_id": ("", "\0", "x" * 255),
            "reply_to": ("", "nobody", "service.echo", "#", "x" * 255, reply_to),
            "message_id": ("", "x" * 255),
            "timestamp": (0, (1 << 64) - 1),
            "type": ("", "x" * 255),
            "app_id": ("", "é"),
        }
        properties: dict[str, Any] = {
            "content_type": "application/json", "content_encoding": "utf-8", "delivery_mode": 1, "headers": {},
            "correlation_id": f"bad-{self.randrange(1 << 30)}", "reply_to": reply_to,
        }  # fmt: skip
        for name, values in odd.items():
            chance = self.random()
            if chance < 0.1:
                properties.pop(name, None)
            elif chance < 0.3:
                properties[name] = self.choice(values)
        if self.random() < 0.5:
            properties["headers"] = self.headers()
        return properties

    def address(self, reply_to: str) -> tuple[str, str]:
        """Exchange and routing key: to a method, a handler, a consumer, or back to a caller."""
        method = self.choice(
            ("service.echo", "service.echo", "service.", "service.nothing", "service.name", "service.é")
        )
        return self.choice(
            (("nameko-rpc", method), ("source.events", "told"), ("", "things"), ("nameko-rpc", reply_to))
        )


class Service:
    """Everything that takes messages."""

    name = "service"
    told: list[Any] = []
    things: list[Any] = []

    @rpc
    def echo(self, value: Any) -> Any:
        return value

    @rpc
    def first(self) -> None:
        pass

    @event_handler("source", "told")
    def hear(self, value: Any) -> None:
        self.told.append(value)

    @consume(Queue("things"))
    def take(self, value: Any) -> None:
        self.things.append(value)


class MessagesCase(ServicesCase):
    """A service, its caller, and somebody with bad messages."""

    timeout = 900 if FULL else 100

    def uri(self) -> str | None:
        """Override this for another broker than the embedded one."""

    async def setUp(self) -> None:
        super().setUp()
        self.config["AMQP_URI"] = self.uri() or self.config["AMQP_URI"]
        Service.told, Service.things = [], []
        self.config["RPC_TIMEOUT"] = 60
        (self.container,) = await self.start(Service)
        self.caller = await self.cluster()
        self.sender = self.connections()
        tap = await self.tap("nameko-rpc", "service.first")
        await self.caller.service.first()
        self.reply_to = (await tap.wait())[0].properties["reply_to"]

    async def open(self) -> Channel:
        """A channel for bad ones, which the broker may close."""
        protocol = await self.connections().consuming.when_connected()
        channel = await protocol.open_channel()
        await channel.confirm_select()
        channel.on_confirmed = lambda publishing, error: publishing.done(error)
        return channel

    def publish(self, channel: Channel, seed: int, spoil: Callable[[Bad, bytes], bytes]) -> Deferred[Any]:
        """Send the bad one of that number. Fires when the broker has it."""
        bad = Bad(seed)
        exchange, key = bad.address(self.reply_to)
        header = spoil(bad, encode_properties(bad.properties(self.reply_to)))
        published: Deferred[Any] = Deferred()
        channel.on_closed = lambda error: published.called or published.errback(error)
        channel.publish(Publishing(exchange, key, False, header, bad.body(), published.callback, 0))
        return published

    async def good(self, lot: int) -> None:
        """Calls, events and messages as they should be: each call is answered, each publish confirmed."""
        marks = [f"good {lot} {number}" for number in range(GOOD)]
        calls = [self.caller.service.echo(mark) for mark in marks]
        json_type = {"content_type": "application/json", "content_encoding": "utf-8"}
        sent = [
            self.sender.publisher.publish(exchange, key, json.dumps(mark).encode(), dict(json_type))
            for mark in marks
            for exchange, key in (("source.events", "told"), ("", "things"))
        ]
        self.assertEqual(await gatherResults(calls, consumeErrors=True), marks)
        await gatherResults(sent, consumeErrors=True)

    async def mix(self, spoil: Callable[[Bad, bytes], bytes] = lambda bad, header: header) -> None:
        given = os.environ.get("FAULTS_SEED")
        seeds = [int(given)] if given else list(range(BAD))
        channel = await self.open()
        before = memory(os.getpid())
        for start in range(0, len(seeds), BATCH):
            batch = seeds[start : start + BATCH]
            await gatherResults([self.publish(channel, seed, spoil) for seed in batch], consumeErrors=True)
            await self.good(start)
            self.assertEqual(self.flushLoggedErrors(), [], f"FAULTS_SEED={batch[0]} to {batch[-1]}")
        marks = {f"good {start} {number}" for start in range(0, len(seeds), BATCH) for number in range(GOOD)}
        for got in (Service.told, Service.things):
            await until(lambda: marks <= {value for value in got if isinstance(value, str)})  # noqa: B023
        grown = memory(os.getpid()) - before
        print(f"\n{self.id()}: {len(seeds)} bad, {3 * len(marks)} good, {grown:+.0f} MiB")
        self.assertLess(grown, GROWTH)
        await self.container.stop()
        for queue in ("rpc-service", "evt-source-told--service.hear", "things"):
            self.assertEqual(await self.left(queue), 0, queue)

    async def left(self, queue: str) -> int:
        """How many messages of a queue nobody has settled, once its consumers are gone."""
        protocol = await self.sender.consuming.when_connected()
        channel = await protocol.open_channel()
        declared = await channel.queue_declare(queue=queue, passive=True)
        count: int = declared.message_count
        return count


class InMemory(MessagesCase):
    """On the embedded broker, where the bytes of the properties can be anything too."""

    async def test_bad_among_good(self) -> None:
        """All good ones are answered, whatever comes between them."""

        def spoil(bad: Bad, header: bytes) -> bytes:
            if bad.random() < 0.2:
                pieces = [header]
                flip(bad, pieces, [])
                flags = int.from_bytes(pieces[0][:2], "big") & ~0x0113  # no user, no expiration: those are refused
                return flags.to_bytes(2, "big") + pieces[0][2:]
            return header

        await self.mix(spoil)


class OnRabbitMQ(MessagesCase):
    """The same on a real one."""

    skip = rabbitmq.skip

    def uri(self) -> str:
        node = rabbitmq.node()
        return node.uri(node.new_vhost())

    async def test_bad_among_good(self) -> None:
        """All good ones are answered, whatever comes between them."""
        await self.mix()
