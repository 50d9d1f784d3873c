"""Headers that no frame can carry are refused before they are sent: RabbitMQ would close the connection for them."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.amqp.peer import Peer
from tests.amqp.test_publisher import PublisherCase
from tests.services import OnRabbitMQ, ServicesCase
from txservices.amqp.entities import Queue
from txservices.exceptions import HeadersTooLarge, PublishError
from txservices.rpc import rpc
from txservices.wire.codec import encode_properties
from txservices.wire.frames import FRAME_MAX, header_max


def properties_of(size: int) -> dict[str, Any]:
    """Properties that are encoded in so many bytes, with a message id of one letter."""
    properties: dict[str, Any] = {"message_id": "m", "headers": {"h": ""}}
    properties["headers"]["h"] = "x" * (size - len(encode_properties(properties)))
    assert len(encode_properties(properties)) == size
    return properties


class PublishTests(PublisherCase):
    """Messages to a broker with which larger or smaller frames were agreed on."""

    def refused(self, size: int) -> None:
        """It is raised at once, as a PublishError and a ValueError, and nothing is kept of it."""
        before = list(self.publisher.unconfirmed), self.publisher.unconfirmed_bytes, list(self.publisher.unsent)
        for kind in (PublishError, ValueError):
            error = self.assertRaises(kind, self.publisher.publish, "x", "k", b"", properties_of(size))
            self.assertIsInstance(error, HeadersTooLarge)
        self.assertEqual((error.exchange, error.routing_key, error.size), ("x", "k", size))
        self.assertIn(f"{size} bytes", str(error))
        self.assertEqual(
            (list(self.publisher.unconfirmed), self.publisher.unconfirmed_bytes, list(self.publisher.unsent)), before
        )

    def reconnected_with(self, frame_max: int) -> None:
        clock, self.peer = self.peer.clock, Peer()
        self.peer.clock = self.peer.protocol.clock = clock
        self.peer.connect(frame_max=frame_max)
        self.connected()

    def test_agreed_on(self) -> None:
        """One byte more than a frame has room for is too much."""
        for frame_max in (FRAME_MAX, 4096, 8192):
            self.lose_connection()
            self.reconnected_with(frame_max)
            self.refused(header_max(frame_max) + 1)
            self.refused(2 * FRAME_MAX)
            outcome = self.publisher.publish("x", "k", b"", properties_of(header_max(frame_max)))
            self.peer.sent()
            ((_, content),) = self.peer.found
            self.assertEqual(len(content.header), header_max(frame_max))
            self.peer.method(self.channel, "basic.ack", delivery_tag=1)
            self.successResultOf(outcome)

    def test_while_away(self) -> None:
        """The latest broker's limit holds. What a later one does not take fails then, and the others are sent."""
        self.lose_connection()
        self.refused(header_max(FRAME_MAX) + 1)
        large = [self.publisher.publish("x", "k", b"", properties_of(size)) for size in (header_max(FRAME_MAX), 5000)]
        good = self.publisher.publish("", "q", b"m", properties_of(header_max(4096)))
        self.reconnected_with(4096)
        for each in large:
            self.assertEqual(self.failureResultOf(each, HeadersTooLarge).value.limit, header_max(4096))
        self.assertEqual(self.published(), [b"m"])
        self.lose_connection()
        self.refused(5000)
        self.reconnected_with(4096)
        self.assertEqual(self.published(), [b"m"])
        self.peer.method(self.channel, "basic.ack", delivery_tag=1)
        self.successResultOf(good)
        self.nothing_is_kept()

    def test_suspect(self) -> None:
        """A suspect that became too large holds nobody up."""
        large = self.publisher.publish("x", "k", b"", properties_of(5000))
        good = self.publisher.publish("", "q", b"m", {"message_id": "m"})
        self.peer.method(0, "connection.close", reply_code=541)
        self.lose_connection()
        self.reconnected_with(4096)
        self.failureResultOf(large, HeadersTooLarge)
        self.assertEqual(self.published(), [b"m"])
        self.peer.method(self.channel, "basic.ack", delivery_tag=1)
        self.successResultOf(good)
        self.nothing_is_kept()


class MethodTests(SynchronousTestCase):
    """Methods, which can't be split either."""

    def test_arguments(self) -> None:
        """Arguments that are larger than a frame are a ValueError, and nothing is asked."""
        peer = Peer()
        peer.connect(frame_max=4096)
        channel = peer.open_channel()
        for size in (4096, 200_000):
            self.assertRaises(ValueError, channel.queue_declare, queue="q", arguments={"x": "x" * size})
        self.assertEqual((len(channel.replies), peer.sent()), (0, []))


class TooLargeOnEmbeddedTests(ServicesCase):
    """The largest message and one that is larger, with a broker."""

    async def test_edge(self) -> None:
        """The largest arrives, one byte more is refused, and the connection stays; so with declarations."""
        connections = self.connections()
        publisher = connections.publisher
        await publisher.declare(Queue("q"))
        protocol = publisher.connection.protocol
        self.assertEqual(protocol.frame_max, FRAME_MAX)
        await publisher.publish("", "q", b"", properties_of(header_max(FRAME_MAX)))
        with self.assertRaises(HeadersTooLarge):
            publisher.publish("", "q", b"", properties_of(header_max(FRAME_MAX) + 1))
        with self.assertRaises(ValueError):
            await publisher.declare(Queue("p", arguments={"x-large": "x" * FRAME_MAX}))
        await publisher.publish("", "q", b"", {})
        channel = await protocol.open_channel()
        declared = await channel.queue_declare(queue="q", passive=True)
        self.assertEqual(declared.message_count, 2)
        self.assertIs(publisher.connection.protocol, protocol)

    async def test_call(self) -> None:
        """A call with such headers fails at once, and one beside it is answered."""

        class Echo:
            name = "echo"

            @rpc
            def echo(self, value: int) -> int:
                return value

        await self.start(Echo)
        cluster = await self.cluster()
        beside = cluster.echo.echo(1)
        for headers in ({"h": "x" * FRAME_MAX}, {"h": float("nan")}):
            with self.assertRaises(ValueError):
                cluster.echo.echo.options(headers=headers)(2)
        self.assertEqual(await beside, 1)
        self.assertEqual(await cluster.echo.echo(3), 3)


class TooLargeOnRabbitTests(OnRabbitMQ, TooLargeOnEmbeddedTests):
    """The same on RabbitMQ."""
