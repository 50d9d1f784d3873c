"""Returns of mandatory messages: each outcome goes to its own message, whatever the messages have in common."""

from __future__ import annotations

from functools import partial
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import DeferredList
from twisted.trial.unittest import SynchronousTestCase

from tests.amqp.peer import Peer
from tests.services import OnRabbitMQ, ServicesCase
from txservices.amqp.entities import Exchange, Queue
from txservices.amqp.publishing import Publishing
from txservices.exceptions import UndeliverableMessage
from txservices.wire import codec, frames
from txservices.wire.spec import BASIC_CLASS, FRAME_BODY, FRAME_HEADER, FRAME_METHOD

NO_ROUTE = {"reply_code": 312, "reply_text": "NO_ROUTE", "exchange": "x"}
LARGE = frames.FRAME_MAX - 7  # bytes of a payload: one more than a frame may have


class ReturnsTests(SynchronousTestCase):
    """A channel, and a broker that the test plays."""

    def setUp(self) -> None:
        self.peer = Peer()
        self.peer.connect()
        self.channel = self.peer.open_channel()
        self.channel.on_confirmed = lambda publishing, error: publishing.done(error)
        self.outcomes: dict[int, Any] = {}  # of each message, by its number

    def publish(
        self, key: str = "k", body: bytes = b"", properties: dict[str, Any] | None = None, mandatory: bool = True
    ) -> None:
        number = self.channel.published + 1
        done = partial(self.outcomes.__setitem__, number)
        header = codec.encode_properties(properties or {})
        self.channel.publish(Publishing("x", key, mandatory, header, body, done, 0.0))

    def returned(self, key: str = "k", body: bytes = b"", properties: dict[str, Any] | None = None) -> None:
        self.peer.content(1, "basic.return", properties or {}, body, routing_key=key, **NO_ROUTE)

    def ack(self, tag: int, multiple: bool = False) -> None:
        self.peer.method(1, "basic.ack", delivery_tag=tag, multiple=multiple)

    def undeliverable(self) -> list[int]:
        """The messages that were reported undeliverable. Nothing is kept of any when all are answered for."""
        if not self.channel.unconfirmed:
            self.assertEqual(self.channel.returns, {})
        self.assertFalse(self.peer.protocol.closed)
        return sorted(number for number, error in self.outcomes.items() if type(error) is UndeliverableMessage)

    def test_one_id(self) -> None:
        """Of messages with one id, the one that came back is undeliverable: told apart by all that they have."""
        several: list[list[dict[str, Any]]] = [
            [{"key": "k"}, {"key": "missing"}],
            [{"body": b"a"}, {"body": b"b"}],
            [{"properties": {"message_id": "a"}}, {"properties": {"message_id": "b"}}],
            [{"properties": {"headers": {"to": 1}}}, {"properties": {"headers": {"to": 2}}}],
            [{"properties": {"headers": {"to": 1}}}, {}],
            [{"mandatory": False}, {}],
        ]
        for messages in several:
            for multiple in (False, True):
                for lost in (0, 1):
                    if messages[lost].get("mandatory", True):
                        self.setUp()
                        for each in messages:
                            self.publish(**each)
                        self.returned(**{name: value for name, value in messages[lost].items() if name != "mandatory"})
                        self.ack(2, multiple)
                        self.ack(1)
                        self.assertEqual(self.undeliverable(), [lost + 1], (messages, multiple))
                        self.assertEqual(len(self.outcomes), 2)

    def test_answered_singly(self) -> None:
        """Of identical ones it is the one whose ack comes next."""
        for _ in range(6):
            self.publish()
        for tag in (2, 5, 4):
            self.returned()
            self.ack(tag)
            self.returned(key="another", body=b"that nobody sent")
        self.ack(6, multiple=True)
        self.assertEqual(self.undeliverable(), [2, 4, 5])

    def test_many_identical(self) -> None:
        """As many of them are undeliverable as came back, within a moment, however many there are."""
        for _ in range(10_000):
            self.publish()
        for _ in range(9_000):
            self.returned()
        self.ack(10_000, multiple=True)
        self.assertEqual((len(self.undeliverable()), len(self.outcomes)), (9_000, 10_000))

    def test_many_different(self) -> None:
        """A return is looked for among those with its names."""
        for number in range(10_000):
            self.publish(f"k{number}")
        for number in range(0, 10_000, 2):
            self.returned(f"k{number}")
        self.ack(0, multiple=True)
        self.assertEqual(self.undeliverable(), list(range(1, 10_000, 2)))

    def test_written_anew(self) -> None:
        """RabbitMQ 4 sorts the tables of what it returns, and writes some numbers in another way."""
        for headers in ({"b": 1, "a": [1.5, {"d": None, "c": b"\xff"}]}, {"a": 1, "b": 2}):
            self.publish(properties={"headers": headers})
        header = b"\x20\x00\x00\x00\x00\x16\x01al" + (1).to_bytes(8, "big") + b"\x01bl" + (2).to_bytes(8, "big")
        payload = codec.encode_method("basic.return", routing_key="k", **NO_ROUTE)
        self.peer.write(frames.content_frames(1, payload, header, b""))
        self.ack(2, multiple=True)
        self.assertEqual(self.undeliverable(), [2])

    def test_unreadable(self) -> None:
        """One that can't be read, or is too large, goes by exchange and routing key; the connection stays."""
        payload = codec.encode_method("basic.return", routing_key="k", **NO_ROUTE)
        method = frames.frame(FRAME_METHOD, 1, payload)
        self.channel.assembler.body_max = 1000
        for data in (
            frames.content_frames(1, payload, b"\x80\x00\x04caf\xe9", b"body"),
            frames.content_frames(1, payload, b"\x00\x03", b"body"),
            method + frames.frame(FRAME_HEADER, 1, frames.HEADER.pack(BASIC_CLASS, 0, 0).ljust(LARGE, b"x")),
            method
            + frames.frame(FRAME_HEADER, 1, frames.HEADER.pack(BASIC_CLASS, 0, 3).ljust(LARGE, b"x"))
            + frames.frame(FRAME_BODY, 1, b"abc"),
            frames.content_frames(1, payload, b"\0\0", b"x" * 1001),
        ):
            last = self.channel.published
            self.outcomes.clear()
            self.publish("another", b"body")
            self.publish(body=b"body")
            self.publish("another", b"body")
            self.peer.write(data)
            self.ack(last + 3, multiple=True)
            self.assertEqual((self.undeliverable(), len(self.outcomes)), ([last + 2], 3))

    def test_names_that_are_no_text(self) -> None:
        """A return with names that nobody has published to is nobody's, and forgotten with the last ack."""
        self.publish("café")
        for key in (b"caf\xe9", b"\xff" * 255, "café"):
            self.peer.content(1, "basic.return", {}, b"", routing_key=key, **NO_ROUTE)
        self.ack(1)
        self.assertEqual(self.undeliverable(), [1])

    def test_any(self) -> None:
        """As hypothesis publishes, and as RabbitMQ answers: a return before its ack, acks one by one or together."""
        properties: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
            ({}, {"message_id": ""}, {"message_id": "a"}, {"message_id": "a", "headers": {"a": 1}}, {"type": "a"})
        )
        messages = st.tuples(
            st.sampled_from(("k", "l")), st.sampled_from((b"", b"b")), properties,
            st.sampled_from(("confirmed", "returned", "pending", "not mandatory")),
        )  # fmt: skip

        @settings(max_examples=100, deadline=None, database=None)
        @given(st.lists(st.tuples(messages, st.booleans()), max_size=30))
        def try_one(turns: list[tuple[Any, bool]]) -> None:
            self.setUp()
            lost: dict[str, int] = {}  # how many came back of those that are the same
            pending: list[int] = []
            kinds = []
            for tag, ((key, body, properties, fate), together) in enumerate(turns, 1):
                kinds.append(repr((key, body, properties, fate == "not mandatory")))
                self.publish(key, body, properties, mandatory=fate != "not mandatory")
                if fate == "returned":
                    lost[kinds[-1]] = lost.get(kinds[-1], 0) + 1
                    self.returned(key, body, properties)
                if fate == "pending":
                    pending.append(tag)
                elif together:
                    self.ack(tag, multiple=True)
                    pending.clear()
                else:
                    self.ack(tag)
                    if fate == "returned":
                        self.assertIsInstance(self.outcomes[tag], UndeliverableMessage)
            for tag in pending:
                self.ack(tag)
            self.assertEqual(len(self.outcomes), len(turns))
            found: dict[str, int] = {}
            for number in self.undeliverable():
                found[kinds[number - 1]] = found.get(kinds[number - 1], 0) + 1
            self.assertEqual(found, lost)

        try_one()


class ReturnsOnEmbeddedTests(ServicesCase):
    """The same with a broker, whose returns and acks come as they do."""

    async def lost(self, messages: list[tuple[str, str, dict[str, Any]]]) -> list[int]:
        """Which of these are undeliverable, published at once: exchange, routing key, properties."""
        publish = self.publisher.publish
        outcomes = await DeferredList(
            [publish(exchange, key, b"body", dict(each), mandatory=True) for exchange, key, each in messages],
            consumeErrors=True,
        )
        for succeeded, failure in outcomes:
            if not succeeded:
                failure.trap(UndeliverableMessage)
        return [number for number, (succeeded, _) in enumerate(outcomes) if not succeeded]

    async def test_own_outcomes(self) -> None:
        """Messages with one id, or none, between a queue and nowhere; and copies that only their headers tell apart."""
        self.publisher = self.connections().publisher
        queue, matching = Queue("q", Exchange("direct"), "here"), Exchange("matching", type="headers")
        await self.publisher.declare(queue, matching, Queue("all"))
        channel = await (await self.publisher.connection.when_connected()).open_channel()
        await channel.queue_bind(queue="q", exchange="matching", routing_key="", arguments={"to": "q"})
        for properties in ({"message_id": "one"}, {"message_id": ""}, {}, {"message_id": "1", "delivery_mode": 2}):
            here, missing = ("direct", "here", properties), ("direct", "missing", properties)
            self.assertEqual(await self.lost([missing, here]), [0])
            self.assertEqual(await self.lost([here, missing]), [1])
            self.assertEqual(await self.lost([here, missing] * 200), list(range(1, 400, 2)))
            self.assertEqual(await self.lost([missing] * 100), list(range(100)))
            ours: Any = ("matching", "", {**properties, "headers": {"to": "q", "b": [1.5, {"d": None, "c": 1 << 40}]}})
            others: Any = ("matching", "", {**properties, "headers": {"to": "others", "b": {"b": 1, "a": 2}}})
            self.assertEqual(
                await self.lost([ours, others] * 50 + [others] * 10), [*range(1, 100, 2), *range(100, 110)]
            )


class ReturnsOnRabbitTests(OnRabbitMQ, ReturnsOnEmbeddedTests):
    """The same on RabbitMQ."""
