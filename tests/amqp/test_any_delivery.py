"""Everything that a broker may legally deliver: a delivery that can be read is taken, any other costs only itself."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.amqp.peer import Peer
from tests.amqp.test_unreadable import deliver, headers
from tests.services import OnRabbitMQ, ServicesCase
from txservices.amqp.entities import Message, Queue
from txservices.testing.waiting import Heard
from txservices.wire import codec, frames
from txservices.wire.spec import BASIC_CLASS, FRAME_BODY, FRAME_HEADER, FRAME_METHOD
from txservices.wire.tables import LONG, OCTETS, SHORT

# The numbers of each type of a field, and the edges of them. Others than these are bytes behind a length.
NUMBERS = [
    (b"t", "B", (0, 1, 2, 255)), (b"b", "b", (-128, 127)), (b"B", "B", (0, 255)), (b"s", "h", (-32_768, 32_767)),
    (b"u", "H", (65_535,)), (b"I", "i", (-(1 << 31), (1 << 31) - 1)), (b"i", "I", ((1 << 32) - 1,)),
    (b"l", "q", (-(1 << 63), (1 << 63) - 1)), (b"L", "q", (-1, 0)), (b"f", "f", (-0.0, 1e-45, 3.4e38)),
    (b"d", "d", (-0.0, 5e-324, 1.7976931348623157e308)),
    (b"T", "Q", (0, 1 << 31, 1 << 32, 253_402_300_800, 1 << 62, 1 << 63, (1 << 64) - 1)),
    (b"D\x00", "I", (0, 1 << 31, (1 << 32) - 1)), (b"D\xff", "I", (0, 5, (1 << 32) - 1)),
]  # fmt: skip
TEXTS = [b"", b"a\x00b", b"a\xffb", "ø😀".encode(), b"\xed\xa0\x80", b"x" * 100_000]
SHORTSTRS = [b"", b"a", b"a\x00b", b"\xff\xfe", "ø".encode(), b"x" * 255]
NAMES = ("content_type", "content_encoding", "correlation_id", "reply_to", "message_id", "type", "app_id", "cluster_id")


def longstr(data: bytes) -> bytes:
    return LONG.pack(len(data)) + data


def shortstr(data: bytes) -> bytes:
    return OCTETS[len(data)] + data


def nested(depth: int, letter: bytes) -> bytes:
    """Tables or arrays inside each other."""
    field = b"t\x01"
    for _ in range(depth):
        field = letter + longstr(b"\x01a" + field if letter == b"F" else field)
    return field


def flags(name: str) -> bytes:
    return SHORT.pack(next(flag for each, flag, _ in codec.PROPERTY_FLAGS if each == name))


LEGAL = [
    b"\0\0",
    *(headers(letter + struct.pack(">" + kind, number)) for letter, kind, edges in NUMBERS for number in edges),
    *(headers(letter + longstr(text)) for letter in (b"S", b"x") for text in TEXTS),
    *(headers(nested(depth, letter)) for depth in (1, 10, 64, 65, 100, 1000) for letter in (b"F", b"A")),
    *(headers(field) for field in (b"V", b"F" + longstr(b""), b"A" + longstr(b""), b"A" + longstr(b"VVt\x00" * 999))),
    *(headers(b"t\x01", shortstr(key)) for key in (*SHORTSTRS, b"$", b"1", b"x-death", b"x-delay", b"CC ")),
    headers(b"A" + longstr(b"I\0\0\0\x01"), b"\x07x-death"),
    headers(b"A" + longstr(b"F\0\0\0\0"), b"\x07x-death"),
    headers(b"S" + longstr(b"1"), b"\x0fx-received-from"),
    b"\x20\x00" + longstr(b""),
    b"\x20\x00" + longstr(b"\x01kt\x01" * 2),
    b"\x20\x00" + longstr(b"".join(shortstr(b"k%d" % number) + b"V" for number in range(10_000))),
    *(flags(name) + shortstr(text) for name in NAMES for text in SHORTSTRS),
    *(flags("timestamp") + struct.pack(">Q", number) for number in (0, 1 << 32, 253_402_300_800, (1 << 64) - 1)),
    *(flags("priority") + OCTETS[number] for number in (0, 9, 255)),
    *(flags("delivery_mode") + OCTETS[number] for number in (1, 2)),
    *(flags("expiration") + shortstr(text) for text in (b"60000", b"00060000")),
]

field_keys = st.binary(max_size=8).map(shortstr)
numbers = st.one_of(
    [
        st.binary(min_size=struct.calcsize(kind), max_size=struct.calcsize(kind)).map(letter.__add__)
        for letter, kind, _ in NUMBERS
    ]
)
texts = st.binary(max_size=20).map(longstr)
any_fields = st.recursive(
    st.one_of(numbers, texts.map(b"S".__add__), texts.map(b"x".__add__), st.just(b"V")),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda fields: b"A" + longstr(b"".join(fields))),
        st.lists(st.builds(bytes.__add__, field_keys, inner), max_size=4).map(
            lambda fields: b"F" + longstr(b"".join(fields))
        ),
    ),
    max_leaves=8,
)
KINDS: dict[str, st.SearchStrategy[bytes]] = {
    "octet": st.binary(min_size=1, max_size=1),
    "shortstr": st.binary(max_size=255).map(shortstr),
    "table": st.lists(st.builds(bytes.__add__, field_keys, any_fields), max_size=4).map(
        lambda fields: longstr(b"".join(fields))
    ),
    "timestamp": st.binary(min_size=8, max_size=8),
}


@st.composite
def any_properties(draw: Callable[..., Any]) -> bytes:
    present = draw(st.integers(0, (1 << 14) - 1)) << 2
    return struct.pack(">H", present) + b"".join(
        draw(KINDS[kind]) for index, (_, kind) in enumerate(codec.PROPERTIES) if present & 0x8000 >> index
    )


class AnyDeliveryTests(SynchronousTestCase):
    """A channel, and a broker that the test plays."""

    def setUp(self) -> None:
        self.peer = Peer()
        self.peer.connect()
        self.channel = self.peer.open_channel()
        self.messages: list[Message] = []
        self.channel.consume("q", "tag", self.messages.append)
        self.peer.method(1, "basic.consume-ok", consumer_tag="tag")
        self.peer.sent()
        self.tag = 0

    def costs_itself(self, data: bytes, body: bytes) -> None:
        """The delivery with the next tag is taken with its body, or rejected. The good one behind it is taken."""
        self.tag += 2
        self.peer.write(data + deliver(self.tag))
        *taken, good = self.messages
        rejected = [args["delivery_tag"] for _, name, args in self.peer.sent() if name == "basic.reject"]
        self.assertEqual([message.delivery_tag for message in taken] + rejected, [self.tag - 1])
        self.assertEqual((good.delivery_tag, good.body), (self.tag, b"{}"))
        for message in taken:
            self.assertEqual(message.body, body)
            self.assertIsInstance(message.headers, dict)
        for message in self.messages:
            message.ack()
        self.messages.clear()
        self.peer.clock.advance(0)
        self.peer.sent()
        self.assertEqual((self.channel.unsettled, self.peer.protocol.closed), (0, False))

    def test_table(self) -> None:
        """Each property and each type of a field at its edges."""
        for properties in LEGAL:
            self.costs_itself(deliver(self.tag + 1, properties, b"body"), b"body")

    def test_any(self) -> None:
        """Whatever hypothesis thinks of: any names, any properties of any type, a body in any frames."""

        @settings(max_examples=150, deadline=None, database=None)
        @given(
            st.binary(max_size=255),
            st.binary(max_size=255),
            any_properties(),
            st.lists(st.binary(max_size=50), max_size=5),
            st.booleans(),
        )
        def try_one(exchange: bytes, key: bytes, properties: bytes, parts: list[bytes], redelivered: bool) -> None:
            payload = codec.encode_method(
                "basic.deliver", delivery_tag=self.tag + 1, exchange=exchange, routing_key=key, consumer_tag="tag",
                redelivered=redelivered,
            )  # fmt: skip
            body = b"".join(parts)
            parts = parts if body else []  # a message without a body has no frame for it
            while parts and not parts[-1]:
                parts.pop()  # nor one behind its end
            header = frames.HEADER.pack(BASIC_CLASS, 0, len(body)) + properties
            said = [frames.frame(FRAME_METHOD, 1, payload), frames.frame(FRAME_HEADER, 1, header)]
            self.costs_itself(b"".join(said + [frames.frame(FRAME_BODY, 1, part) for part in parts]), body)

        try_one()


class DeliveriesOnEmbeddedTests(ServicesCase):
    """The table, published by a stranger."""

    async def test_table(self) -> None:
        """Each is taken or rejected, and so are the good ones among them, over one connection."""
        settled = Heard()

        def observe(event: dict[str, Any]) -> None:
            if "can't be read, rejected" in (event.get("log_format") or ""):
                settled(b"rejected")

        def receive(message: Message) -> None:
            message.ack()
            settled(message.body)

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        connections = self.connections()
        await connections.consume(Queue("q"), receive, 10).ready
        channel = await (await connections.publisher.connection.when_connected()).open_channel()
        ours = connections.consuming.protocol
        payload = codec.encode_method("basic.publish", routing_key="q")
        for number, properties in enumerate(LEGAL):
            channel.client.write(frames.content_frames(channel.id, payload, properties, b"odd"))
            channel.client.write(frames.content_frames(channel.id, payload, b"\0\0", b"%d" % number))
        bodies = await settled.wait(2 * len(LEGAL))
        self.assertEqual([body for body in bodies if body.isdigit()], [b"%d" % n for n in range(len(LEGAL))])
        self.assertGreater(bodies.count(b"odd"), len(LEGAL) * 0.7)
        self.assertIs(connections.consuming.protocol, ours)
        self.assertFalse(channel.closed)


class DeliveriesOnRabbitTests(OnRabbitMQ, DeliveriesOnEmbeddedTests):
    """The same on RabbitMQ."""
