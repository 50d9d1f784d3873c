"""A delivery that can't be read costs one message: it is rejected, and the channel and its connection go on."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.amqp.peer import Peer
from tests.peer import method
from tests.services import OnRabbitMQ, ServicesCase, consuming
from txservices.amqp.channel import Channel
from txservices.amqp.entities import Exchange, Message, Queue
from txservices.events import event_handler
from txservices.testing.waiting import Heard
from txservices.wire import codec, frames
from txservices.wire.spec import BASIC_CLASS, FRAME_BODY, FRAME_HEADER, FRAME_METHOD
from txservices.wire.tables import LONG

JSON = codec.encode_properties({"content_type": "application/json"})
NOT_UTF8 = [b"caf\xe9", b"\xff", b"\xc3", b"a.\xed\xa0\x80.b", b"\xf5" * 255, b"\x80abc"]
LARGE = frames.FRAME_MAX - 7  # bytes of a payload: one more than a frame may have


def header(properties: bytes, size: int) -> bytes:
    return frames.frame(FRAME_HEADER, 1, frames.HEADER.pack(BASIC_CLASS, 0, size) + properties)


def headers(field: bytes, name: bytes = b"\x01k") -> bytes:
    """Properties whose headers have one field of these bytes."""
    return b"\x20\x00" + LONG.pack(len(name + field)) + name + field


# Properties that can't be read.
BAD_PROPERTIES = [
    b"\x80\x00\x04caf\xe9",  # a content type that is not UTF-8
    b"\x80\x00\xffshort",
    b"\x80\x00",
    b"\x00\x01\x00\x00",  # a second word of flags
    b"\x00\x02",
    b"\x00\x00trailing",
    b"\x20\x00\x00\x00\x00\xff",
    b"\x20\x00\xff\xff\xff\xff",
    *(headers(letter + b"\x00" * 8) for letter in (b"Z", b"\x00", b"?", b"\xff")),
    *(headers(letter) for letter in (b"S", b"I", b"d", b"T", b"A", b"F", b"D")),
    headers(b"A\x00\x00\x00\x09I\x00\x00\x00\x01Z\x00\x00\x00"),
    headers(b"t\x01", b"\x02\xff\xff"),
    headers(b"t\x01" * 3),
    headers((b"F" + LONG.pack(1 << 20)) * 40),
]


def deliver(tag: int, properties: bytes = JSON, body: bytes = b"{}", routing_key: bytes = b"k", **names: Any) -> bytes:
    arguments = {"exchange": "x", "routing_key": routing_key, "consumer_tag": "tag", **names}
    payload = codec.encode_method("basic.deliver", delivery_tag=tag, **arguments)
    return frames.content_frames(1, payload, properties, body)


def large(tag: int, size: int = LARGE, body: bytes = b"{}") -> bytes:
    """A delivery with a header frame that is over frame_max."""
    payload = codec.encode_method("basic.deliver", delivery_tag=tag, exchange="x", routing_key="k", consumer_tag="tag")
    bodies = [frames.frame(FRAME_BODY, 1, body[start : start + 1000]) for start in range(0, len(body), 1000)]
    properties = b"\x20\x00".ljust(size - frames.HEADER.size, b"\xce")
    return b"".join([frames.frame(FRAME_METHOD, 1, payload), header(properties, len(body)), *bodies])


class UnreadableTests(SynchronousTestCase):
    """Deliveries to a channel, with good ones around them."""

    def setUp(self) -> None:
        self.peer = Peer()
        self.peer.connect()
        self.channel: Channel = self.peer.open_channel()
        self.messages: list[Message] = []
        self.channel.consume("q", "tag", self.messages.append)
        self.peer.method(1, "basic.consume-ok", consumer_tag="tag")
        self.peer.sent()
        self.tag = 0

    def costs_itself(self, bad: bytes, chunk: int | None = None, settled: str = "basic.reject") -> None:
        """The bad delivery, which has the next tag, is settled at once; the good one behind it is taken."""
        self.tag += 2
        data = bad + deliver(self.tag)
        for start in range(0, len(data), chunk or len(data)):
            self.peer.write(data[start : start + (chunk or len(data))])
        self.peer.clock.advance(0)
        self.assertEqual([name for _, name, _ in self.peer.sent()], [settled])
        self.assertEqual(self.peer.found[0][1].args["delivery_tag"], self.tag - 1)
        self.assertEqual([message.delivery_tag for message in self.messages], [self.tag])
        self.messages.pop().ack()
        self.peer.clock.advance(0)
        self.assertEqual([name for _, name, _ in self.peer.sent()], ["basic.ack"])
        self.assertEqual((self.channel.unsettled, self.peer.protocol.closed), (0, False))

    def test_names(self) -> None:
        """A routing key or an exchange that is not UTF-8."""
        for name in NOT_UTF8:
            self.costs_itself(deliver(self.tag + 1, routing_key=name))
            self.costs_itself(deliver(self.tag + 1, exchange=name))

    def test_properties(self) -> None:
        """Types that are none, strings that are not UTF-8, sizes that do not fit, flags that do not exist."""
        for properties in BAD_PROPERTIES:
            self.costs_itself(deliver(self.tag + 1, properties))

    def test_large_headers(self) -> None:
        """A header over frame_max is dropped as it comes, and so is its body, however the bytes are cut."""
        for size in (LARGE, LARGE + 1, 2 * LARGE, 1 << 20):
            for body in (b"", b"{}", b"x" * 5000):
                for chunk in (None, 65_536, 4096, 1009):
                    self.costs_itself(large(self.tag + 1, size, body), chunk)
        self.assertIs(self.channel.assembler.body, None)

    def test_byte_by_byte(self) -> None:
        """The beginning of a header that is too large may come in any pieces."""
        bad = large(1)
        for end in range(frames.HEADER.size + 60):
            with self.subTest(end=end):
                self.setUp()
                self.peer.write(bad[:end])
                self.peer.write(bad[end:])
                self.peer.clock.advance(0)
                self.assertEqual([name for _, name, _ in self.peer.sent()], ["basic.reject"])

    def test_large_bodies(self) -> None:
        """A body over the limit is dropped as it comes."""
        self.channel.assembler.body_max = 10_000
        for size in (10_001, 20_000, 300_000):
            self.costs_itself(deliver(self.tag + 1, body=b"x" * size), 5000)

    def test_stream(self) -> None:
        """A message that can't be rejected, since it comes from a stream, is acked."""
        self.channel.rejects = False
        self.costs_itself(deliver(self.tag + 1, routing_key=b"\xff"), settled="basic.ack")

    def test_answers(self) -> None:
        """A message that was asked for fails its question, and is left to whoever asked."""
        asked = self.channel.get("q")
        payload = codec.encode_method("basic.get-ok", delivery_tag=1, exchange="x", routing_key="k")
        self.peer.write(frames.frame(FRAME_METHOD, 1, payload) + header(b"\0\0" + b"x" * LARGE, 0))
        self.assertIn("over the", str(self.failureResultOf(asked).value))
        self.assertEqual([name for _, name, _ in self.peer.sent()], ["basic.get"])

    def test_words(self) -> None:
        """The text of a close or of an alarm that the broker cut in the middle of a character is read nevertheless."""
        self.peer.write(method(0, "connection.blocked", reason=b"disk \xc3"))
        self.assertEqual(self.peer.protocol.blocked, "disk \\xc3")
        told: list[Any] = []
        self.channel.on_closed = told.append
        self.peer.write(method(1, "channel.close", reply_code=404, reply_text=b"NOT_FOUND - \xe2\x82"))
        self.assertEqual(told[0].text, "NOT_FOUND - \\xe2\\x82")
        self.assertFalse(self.peer.protocol.closed)

    def test_other_large_frames(self) -> None:
        """A method or a body over frame_max is 501 as before: no broker sends one."""
        for kind in (FRAME_METHOD, FRAME_BODY):
            self.setUp()
            self.peer.write(frames.frame(kind, 1, b"x" * LARGE))
            self.assertEqual(self.peer.sent()[-1][2]["reply_code"], 501)

    def test_any(self) -> None:
        """Whatever names and properties hypothesis thinks of."""

        @settings(max_examples=100, deadline=None, database=None)
        @given(st.binary(max_size=40), st.binary(min_size=2, max_size=60), st.binary(max_size=20))
        def try_one(name: bytes, properties: bytes, field: bytes) -> None:
            for data in (properties, headers(field)):
                self.tag += 2
                self.peer.write(deliver(self.tag - 1, data, routing_key=name) + deliver(self.tag))
                for message in self.messages:
                    message.ack()
                self.messages.clear()
                self.assertEqual((self.channel.unsettled, self.peer.protocol.closed), (0, False))
            self.peer.clock.advance(0)

        try_one()


class UnreadableOnEmbeddedTests(ServicesCase):
    """A stranger's messages to an event handler."""

    outgrown = 0  # dead letters that arrive with a header over frame_max; the embedded broker drops such

    async def test_costs_one_message(self) -> None:
        """The good events before, between and after them are handled; no connection is lost, nothing comes again."""
        heard, rejected = Heard(), Heard()

        def observe(event: dict[str, Any]) -> None:
            if "can't be read, rejected" in (event.get("log_format") or ""):
                rejected()

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

        class Listener:
            name = "listener"

            @event_handler("src", "#")
            def hear(self, value: Any) -> None:
                heard(value)

        (container,) = await self.start(Listener)
        connections = self.connections()
        dead = await self.dead_letters(connections)
        protocol = await connections.consuming.when_connected()
        channel = await protocol.open_channel()
        ours = consuming(container).protocol
        for number, key in enumerate(NOT_UTF8):
            self.send(channel, key, b"%d" % -number)
            self.send(channel, b"good", b"%d" % number)
        await heard.wait(len(NOT_UTF8))
        self.assertEqual(heard.things, list(range(len(NOT_UTF8))))
        await rejected.wait(len(NOT_UTF8) + self.outgrown)
        self.assertEqual(dead.things, [])
        self.assertIs(consuming(container).protocol, ours)

    async def dead_letters(self, connections: Any) -> Heard:
        """Messages that outgrow a frame when they are dead-lettered: their header is over frame_max for a consumer."""
        heard = Heard()
        exchange = Exchange("dead", type="fanout")
        queue = Queue("dying", arguments={"x-dead-letter-exchange": "dead", "x-message-ttl": 0})
        await connections.publisher.declare(exchange, queue, Queue("dead", exchange))
        taken = connections.consume(Queue("dead", exchange), heard, 10)
        await taken.ready
        for _ in range(3):
            await connections.publisher.publish("", "dying", b"", {"headers": {"x": "x" * 130_900}})
        return heard

    def send(self, channel: Channel, key: bytes, body: bytes) -> None:
        payload = codec.encode_method("basic.publish", exchange="src.events", routing_key=key)
        channel.client.write(frames.content_frames(channel.id, payload, JSON, body))


class UnreadableOnRabbitTests(OnRabbitMQ, UnreadableOnEmbeddedTests):
    """The same on RabbitMQ."""

    outgrown = 3
