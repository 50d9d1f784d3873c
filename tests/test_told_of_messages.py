"""What happens between a process and its broker is told to observers: connections, consumers, messages, retries."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.observing import failing, hearing
from tests.peer import FramePeer
from tests.services import OnRabbitMQ, ServicesCase, TrustsNewQueues, consuming
from txservices.amqp import publisher as publisher_module
from txservices.amqp.connection import Connection
from txservices.amqp.entities import Queue
from txservices.amqp.publisher import Publisher
from txservices.events import event_handler
from txservices.exceptions import ConnectionLost, PublishBufferFull, UndeliverableMessage
from txservices.messaging import consume
from txservices.retry import Reject, Retry
from txservices.testing.waiting import Heard
from txservices.utils.address import parse_address

ADDRESS = parse_address("amqp://user:s3cret@localhost/vh")
SHOWN = "amqp://user:********@localhost:5672/vh"
CONSUMERS = ("consumer_started", "consumer_ended")


class PublishTests(SynchronousTestCase):
    """Messages of a publisher, by virtual time."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.publisher = Publisher(Connection((ADDRESS,), "tests", self.clock), self.clock)
        self.told = hearing(self, "message_published", "message_confirmed")

    def publish(self, timeout: float | None = None) -> Any:
        return self.publisher.publish_then("x", "k", b"12345", {}, False, self.done, timeout)

    def done(self, error: Exception | None) -> None:
        """Whoever has published is told after the observers."""
        self.told.told.append(("done",))

    def test_confirmed(self) -> None:
        """A message is told of with its bytes when it is published, and with its seconds when it is confirmed."""
        self.clock.advance(5)
        publishing = self.publish()
        size = publishing.size
        self.clock.advance(3)
        self.publisher.confirmed(publishing, None)
        self.assertEqual(
            self.told.told,
            [("message_published", "x", "k", size), ("message_confirmed", "x", "k", 3.0, None), ("done",)],
        )
        self.assertGreater(size, 5)

    def test_errors(self) -> None:
        """One that the broker can't have is told of with its error, also one that is not taken at all."""
        self.patch(publisher_module, "UNCONFIRMED_MAX", 1)
        self.publish()
        refused = [self.publish(timeout=3)]
        self.publisher.abort()
        refused.append(self.publish(timeout=3))
        self.assertEqual([each.deadline for each in refused], [3, 3])  # a call looks at it
        told = [(event, type(args[-1])) for event, *args in self.told.of("message_published", "message_confirmed")]
        published = ("message_published", int)
        self.assertEqual(
            told,
            [
                published,
                published,
                ("message_confirmed", PublishBufferFull),
                ("message_confirmed", ConnectionLost),
                published,
                ("message_confirmed", ConnectionLost),
            ],
        )

    def test_not_written(self) -> None:
        """Nothing is told of a message that AMQP can't carry."""
        with self.assertRaises(ValueError):
            self.publisher.publish_then("x", "k" * 300, b"", {}, False, self.done)
        with self.assertRaises(ValueError):
            self.publisher.publish_then("x", "k", b"", {"headers": {"long": "x" * 200_000}}, False, self.done)
        self.assertEqual(self.told.told, [])


class BlockedTests(SynchronousTestCase):
    """A broker that takes no messages for a while."""

    def test_blocked(self) -> None:
        """It is told of with the reason, the address without its password, and the connection's purpose."""
        told = hearing(self, "blocked", "unblocked")
        connection = Connection((ADDRESS,), "txservices: publishes", Clock())
        protocol = connection.make_protocol(ADDRESS)
        peer = FramePeer(protocol)
        protocol.makeConnection(peer.transport)
        peer.method(0, "connection.start", version_minor=9, mechanisms=b"PLAIN", locales=b"en_US")
        peer.method(0, "connection.tune", channel_max=2047, frame_max=131072, heartbeat=0)
        peer.method(0, "connection.open-ok")
        peer.method(0, "connection.blocked", reason="low on memory")
        peer.method(0, "connection.unblocked")
        self.assertEqual(
            told.told, [("blocked", SHOWN, "publishes", "low on memory"), ("unblocked", SHOWN, "publishes")]
        )


class Listener:
    """Fails as a test says."""

    name = "listener"
    heard = Heard()
    error: BaseException | None = None

    def attempt(self, data: Any) -> None:
        self.heard(data)
        if self.error is not None:
            raise self.error

    @consume(Queue("plain"))
    def plain(self, data: Any) -> None:
        self.attempt(data)

    @consume(Queue("again"), requeue_on_error=True)
    def again(self, data: Any) -> None:
        error, Listener.error = self.error, None
        self.heard(data)
        if error is not None:
            raise error

    @event_handler("source", "type", retry=Retry(attempts=2, delay=0.02, jitter=0))
    def hear(self, data: Any) -> None:
        self.attempt(data)


class MessagesTests(TrustsNewQueues, ServicesCase):
    """A service and its broker."""

    def setUp(self) -> None:
        super().setUp()
        Listener.heard, Listener.error = Heard(), None

    def tearDown(self) -> None:
        self.flushLoggedErrors(ValueError, Reject)

    async def test_connections(self) -> None:
        """Each connection is told of when it is there, when it is lost, and when it is closed."""
        told = hearing(self, "connected", "disconnected")
        (container,) = await self.start(Listener)
        connection = consuming(container)
        address = str(connection.address)
        self.assertIn(("connected", address, "listener consumes"), told.told)
        self.assertNotIn("guest:guest", address)
        protocol = connection.protocol
        assert protocol is not None
        told.told.clear()
        again = connection.when_connected
        protocol.abort()
        await protocol.disconnected.wait()
        await again()
        (event, *where, reason), connected = told.told[0], told.told[1]
        self.assertEqual((event, where), ("disconnected", [address, "listener consumes"]))
        self.assertTrue(reason)
        self.assertEqual(connected, ("connected", address, "listener consumes"))
        told.told.clear()
        await container.stop()
        await self.stage.stop()
        reasons = {reason for event, _, _, reason in told.of("disconnected")}
        self.assertEqual(reasons, {"the service is stopping"})
        self.assertIn("listener consumes", {purpose for _, _, purpose, _ in told.told})

    async def test_consumers(self) -> None:
        """Each consumer is told of when the broker delivers, when its queue is deleted, and when it is cancelled."""
        told = hearing(self, *CONSUMERS)
        (container,) = await self.start(Listener)
        queues = ["again", "evt-source-type--listener.hear", "plain"]
        self.assertEqual(sorted(told.told), [("consumer_started", each) for each in queues])
        told.told.clear()
        publisher = self.connections().publisher
        protocol = await publisher.connection.when_connected()
        channel = await protocol.open_channel()
        await channel.queue_delete(queue="plain")
        await told.wait("consumer_started", len(queues) + 1)
        self.assertEqual(told.told, [("consumer_ended", "plain"), ("consumer_started", "plain")])
        told.told.clear()
        await container.stop()
        self.assertEqual(sorted(told.told), [("consumer_ended", each) for each in queues])

    async def test_rejected(self) -> None:
        """A message that goes back, or is rejected for good, is told of with its queue."""
        told = hearing(self, "message_rejected")
        await self.start(Listener)
        publisher = self.connections().publisher
        await publisher.publish("", "plain", b"{", {"content_type": "application/json"})
        await told.wait("message_rejected")
        Listener.error = ValueError("once")
        await publisher.publish("", "again", b"1", {"content_type": "application/json"})
        await Listener.heard.wait(2)
        self.assertEqual(told.told, [("message_rejected", "plain", False), ("message_rejected", "again", True)])

    async def test_retried(self) -> None:
        """A message that is tried again is told of with its attempt and delay; one that is parked, with its error."""
        told = hearing(self, "message_retried", "message_parked")
        queue = "evt-source-type--listener.hear"
        Listener.error = error = ValueError("never")
        await self.start(Listener)
        await self.dispatch("source", "type", 1)
        await told.wait("message_parked")
        self.assertEqual(
            told.told, [("message_retried", queue, 1, 0.02, error), ("message_parked", queue, "ValueError")]
        )
        Listener.error = Reject("no")
        await self.dispatch("source", "type", 1)
        self.assertEqual((await told.wait("message_parked", 2))[1:], [(queue, "Reject")])

    async def test_undeliverable(self) -> None:
        """A message that no queue takes is told of with that error."""
        told = hearing(self, "message_published", "message_confirmed")
        with self.assertRaises(UndeliverableMessage) as raised:
            await self.connections().publisher.publish("", "nobody", b"", {}, mandatory=True)
        (_, exchange, key, _), (_, _, _, seconds, error) = told.told
        self.assertEqual((exchange, key, error), ("", "nobody", raised.exception))
        self.assertGreaterEqual(seconds, 0)

    async def test_observer_that_fails(self) -> None:
        """One that raises in each of these events harms nothing: messages are parked, and the service stops."""
        failing(self)
        Listener.error = ValueError("never")
        await self.start(Listener)
        await self.dispatch("source", "type", 1)
        await self.connections().publisher.declare(Queue("evt-source-type--listener.hear.parked"))
        message = await self.stage.get_message("evt-source-type--listener.hear.parked", timeout=10)
        self.assertEqual(message.payload, 1)
        await self.stage.stop()
        failed = {str(failure.value) for failure in self.flushLoggedErrors(SystemExit)}
        self.assertLessEqual(
            {"connected", "consumer_started", "consumer_ended", "message_published", "message_confirmed"}, failed
        )


class MessagesOnRabbitMQ(OnRabbitMQ, MessagesTests):
    """The same on RabbitMQ."""
