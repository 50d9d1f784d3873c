"""A message of a stream can't be rejected: RabbitMQ closes the connection (540) for that, so it is acked."""

from __future__ import annotations

from typing import Any

from tests.amqp.test_unreadable import BAD_PROPERTIES
from tests.services import OnRabbitMQ
from txservices.amqp.entities import Exchange, Message, Queue
from txservices.exceptions import ConnectionClosedByBroker
from txservices.testing.waiting import Heard
from txservices.wire import codec, frames

STREAM = Queue("stream", Exchange("x", type="topic"), "#", arguments={"x-queue-type": "stream"})


class StreamsTests(OnRabbitMQ):
    """A stream's consumer, whose messages can't be read, fail in it, or are rejected by it."""

    async def setUp(self) -> None:
        super().setUp()
        self.ours = self.connections()
        self.heard = Heard()
        connection = self.connections().publisher.connection  # a stranger's
        self.channel = await (await connection.when_connected()).open_channel()

    def receive(self, message: Message) -> None:
        if message.body in (b"rejected", b"requeued"):
            message.reject(requeue=message.body == b"requeued")
        elif message.body != b"fails":
            message.ack()
        self.heard(message.body)
        if message.body == b"fails":
            raise ValueError("the receiver fails")

    def publish(self, body: bytes, key: bytes = b"k", properties: bytes = b"\0\0") -> None:
        payload = codec.encode_method("basic.publish", exchange="x", routing_key=key)
        self.channel.client.write(frames.content_frames(self.channel.id, payload, properties, body))

    def publish_round(self, number: int) -> None:
        """Messages that would be rejected, and a good one behind each."""
        bad: list[dict[str, Any]] = [
            {"body": b"no UTF-8", "key": b"caf\xe9"},
            {"body": b"no UTF-8", "properties": BAD_PROPERTIES[0]},
            {"body": b"fails"},
            {"body": b"rejected"},
            {"body": b"requeued"},
        ]
        for each in bad:
            self.publish(**each)
            self.publish(b"good %d" % number)

    async def test_acked(self) -> None:
        """The consumer goes on at once, over one connection, for as many messages as it would not have prefetched."""
        await self.ours.consume(STREAM, self.receive, 3).ready
        await self.rounds()

    async def test_declared_by_somebody_else(self) -> None:
        """A queue that is not known to be a stream costs one connection; then its messages are acked."""
        await self.ours.publisher.declare(STREAM)
        consumer = self.ours.consume(Queue("stream", passive=True), self.receive, 3)
        await consumer.ready
        again = Heard()
        consumer.on_ready.append(again)
        self.publish(b"rejected")
        await self.heard.wait()
        try:
            await consumer.channel.basic_qos(prefetch_count=3)  # it consumes
        except ConnectionClosedByBroker as error:  # RabbitMQ 4 takes the reject
            self.assertEqual(error.code, 540)
            await again.wait()
        await self.rounds()

    async def rounds(self) -> None:
        """Several, all over one connection."""
        protocol = self.ours.consuming.protocol
        for number in range(4):
            self.publish_round(number)
            while self.heard.things.count(b"good %d" % number) < 5:
                await self.heard.wait(len(self.heard.things) + 1)
        self.assertIs(self.ours.consuming.protocol, protocol)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 4)
