"""Bounds of a session of the embedded broker: sizes of frames, its caches, and bytes for those who do not read."""

from __future__ import annotations

import struct

from twisted.trial.unittest import SynchronousTestCase

from tests.broker.peer import Client, publish
from txservices.broker import assemblers, session, vhost
from txservices.wire import codec, frames
from txservices.wire.spec import FRAME_BODY, FRAME_HEADER, FRAME_METHOD


class LimitTests(SynchronousTestCase):
    """The size of frames that a client has agreed on, and the bounds of caches."""

    def test_frames_in(self) -> None:
        """A frame with a payload of the size agreed on is taken, as by RabbitMQ; one byte more is 501."""
        for size, names in ((4096, []), (4104, []), (4105, ["connection.close"])):
            client = Client().open(frame_max=4096)
            client.write(frames.frame(FRAME_METHOD, 1, codec.encode_method("basic.publish", routing_key="q")))
            client.write(frames.frame(FRAME_HEADER, 1, struct.pack(">HHQ", 60, 0, 9000) + b"\0\0"))
            client.write(frames.frame(FRAME_BODY, 1, b"x" * (size - 8)))
            self.assertEqual(client.names(), names, size)

    def test_frames_out(self) -> None:
        """A message goes out in frames of the size agreed on, no larger and no more of them than it takes."""
        for size, sizes in ((4088, [4096]), (4089, [4096, 9]), (8176, [4096, 4096]), (8177, [4096, 4096, 9])):
            client = Client().open(frame_max=4096)
            client.declare("q")
            client.write(b"".join(bodies_of(publish("q", b"x" * size))))
            client.consume("q")
            bodies: list[int] = []
            reader = frames.FrameReader(
                lambda kind, channel, payload, into=bodies: (
                    into.append(len(payload) + 8) if kind == FRAME_BODY else None
                )
            )
            reader.feed(client.transport.value())
            self.assertEqual(bodies, sizes)

    def test_what_is_remembered_has_a_bound(self) -> None:
        """Ever new routing keys take no more memory than the bounds of the two caches say."""
        self.patch(assemblers, "PUBLISHES_MAX", 8)
        self.patch(vhost, "ROUTES_MAX", 8)
        client = Client().open()
        client.declare("q")
        for number in range(100):
            client.publish(f"key-{number}")
            self.assertLessEqual(len(client.session.vhost.publishes), 8)
            self.assertLessEqual(len(client.broker.vhosts["/"].routes), 8)
        self.patch(vhost, "ROUTED_MAX", 20)
        self.patch(vhost, "ROUTES_MAX", 100)
        for name in ("a", "b", "c"):
            client.declare(name)
            client.call(1, "queue.bind", queue=name, exchange="amq.fanout")
        for number in range(100):
            client.write(publish(f"key-{number}", exchange="amq.fanout"))
            routes = client.broker.vhosts["/"].routes
            self.assertLessEqual(sum(map(len, routes.values())), 20)
        client.publish("q", b"routed all the same")
        client.consume("q")
        self.assertEqual(client.bodies(), [b"routed all the same"])


def bodies_of(message: bytes) -> list[bytes]:
    """A message whose body is in one large frame, in frames of 4,096 bytes."""
    found: list[bytes] = []

    def take(kind: int, channel: int, payload: bytes) -> None:
        size = 4088 if kind == FRAME_BODY else len(payload)
        found.extend(frames.frame(kind, channel, payload[at : at + size]) for at in range(0, len(payload), size))

    frames.FrameReader(take).feed(message)
    return found


class BackPressureTests(SynchronousTestCase):
    """A client that does not read."""

    def setUp(self) -> None:
        self.client = Client().open()
        self.client.declare("q")
        self.client.consume("q", no_ack=True)
        self.client.sent()

    def test_deliveries_stop(self) -> None:
        """While the transport is paused messages stay in their queue, and go in order when it is not."""
        other = Client(self.client.broker).open()
        self.client.transport.producer.pauseProducing()
        for number in range(3):
            other.publish("q", b"%d" % number)
        self.assertEqual(self.client.sent(), [])
        self.client.transport.producer.resumeProducing()
        self.assertEqual(self.client.bodies(), [b"0", b"1", b"2"])

    def test_nothing_is_read_from_one_who_does_not_read(self) -> None:
        """Answers that nobody reads are bounded: past that nothing is read from the client either."""
        self.client.transport.producer.pauseProducing()
        self.client.declare("get")
        self.client.publish("get", b"x" * session.BACKLOG_MAX)
        self.assertEqual(self.client.transport.producerState, "producing")
        self.client.method(1, "basic.get", queue="get")
        self.assertEqual(self.client.transport.producerState, "paused")
        self.client.transport.producer.resumeProducing()
        self.assertEqual(self.client.transport.producerState, "producing")

    def test_full_at_each_write(self) -> None:
        """A transport whose buffer is full says so at each write, as Twisted's: that does not begin the count anew."""
        transport = self.client.transport
        write = transport.write

        def write_and_say(data: bytes) -> None:
            write(data)
            transport.producer.pauseProducing()

        transport.write = write_and_say
        self.client.declare("get")
        self.client.publish("get", b"x" * (session.BACKLOG_MAX // 4))
        gets = 0
        while transport.producerState == "producing":
            self.client.method(1, "basic.get", queue="get")
            self.client.method(1, "basic.reject", delivery_tag=gets + 1, requeue=True)
            gets += 1
            self.assertLess(gets, 10)

    def test_one_long_delivery(self) -> None:
        """A delivery that alone fills the transport does not keep the broker from reading, so heartbeats are heard."""
        transport = self.client.transport
        write = transport.write

        def write_and_say(data: bytes) -> None:
            write(data)
            if len(data) > 10_000:
                transport.producer.pauseProducing()

        transport.write = write_and_say
        Client(self.client.broker).open().publish("q", b"x" * 2 * session.BACKLOG_MAX)
        self.assertEqual(transport.producerState, "producing")
