"""Connections kept: to the embedded broker in memory, whose sessions a test can cut, and over TCP and TLS."""

from __future__ import annotations

from typing import Any

import trustme
from twisted.application.service import Service
from twisted.internet import reactor, ssl
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import SSL4ServerEndpoint
from twisted.trial.unittest import TestCase

from txservices.amqp import publisher as publisher_module
from txservices.amqp.connection import Connection
from txservices.amqp.connections import Connections
from txservices.amqp.entities import Exchange, Message, Queue
from txservices.broker.memory import brokers
from txservices.broker.server import Broker, Sessions
from txservices.exceptions import (
    BrokerRefused,
    ChannelClosedByBroker,
    ConfigurationError,
    ConnectionLost,
    DeclarationMismatch,
    PublishBufferFull,
    PublishTimeout,
    UndeliverableMessage,
)

EVENTS = Exchange("events", type="topic")
QUEUE = Queue("q", EVENTS, "k.*")


class Inbox:
    """Takes messages, acks them, and fires when as many as asked are there."""

    def __init__(self, ack: bool = True) -> None:
        self.messages: list[Message] = []
        self.ack = ack
        self.waiting: list[tuple[int, Deferred[list[Message]]]] = []

    def receive(self, message: Message) -> None:
        self.messages.append(message)
        if self.ack:
            message.ack()
        for count, waiter in [each for each in self.waiting if each[0] <= len(self.messages)]:
            self.waiting.remove((count, waiter))
            waiter.callback(self.messages)

    def when(self, count: int) -> Deferred[list[Message]]:
        waiter: Deferred[list[Message]] = Deferred()
        if len(self.messages) >= count:
            waiter.callback(self.messages)
        else:
            self.waiting.append((count, waiter))
        return waiter.addTimeout(60, reactor)


class ConnectionsTestCase(TestCase):
    """A broker of its own for each test."""

    def setUp(self) -> None:
        self.name = self.id()
        self.broker = brokers[self.name] = Broker(self.name)
        self.addCleanup(brokers.pop, self.name)
        self.addCleanup(self.broker.close)
        self.connections = self.connect(f"memory://{self.name}")

    def connect(self, uri: Any, **config: Any) -> Connections:
        connections = Connections.from_config({"AMQP_URI": uri, **config})
        connections.startService()
        self.addCleanup(connections.stopService)
        return connections

    def cut(self) -> None:
        """Every connection to the broker is gone, without a word."""
        for session in list(self.broker.sessions):
            session.transport.abortConnection()


class PublishTests(ConnectionsTestCase):
    """Messages are published, confirmed, or published again after a loss."""

    async def test_published_is_delivered(self) -> None:
        """A message arrives with its body, its properties and an id of its own."""
        inbox = Inbox()
        await self.connections.consume(QUEUE, inbox.receive, 10).ready
        await self.connections.publisher.publish(
            "events", "k.a", b"hej", {"headers": {"stack": ["a", "b"]}}, mandatory=True
        )
        (message,) = await inbox.when(1)
        self.assertEqual((message.body, message.headers), (b"hej", {"stack": ["a", "b"]}))
        self.assertEqual(len(message.properties["message_id"]), 36)

    async def test_undeliverable(self) -> None:
        """A mandatory message that no queue takes fails; one that isn't mandatory does not."""
        await self.connections.publisher.declare(EVENTS)
        await self.connections.publisher.publish("events", "nobody", b"", {})
        with self.assertRaises(UndeliverableMessage):
            await self.connections.publisher.publish("events", "nobody", b"", {}, mandatory=True)

    async def test_a_refused_message_costs_itself_alone(self) -> None:
        """Among many on their way, the one to a missing exchange fails, and all others arrive."""
        inbox = Inbox()
        await self.connections.consume(QUEUE, inbox.receive, 10).ready
        publish = self.connections.publisher.publish
        before = [publish("events", "k.a", b"%d" % n, {}) for n in range(20)]
        bad = publish("no-such", "k.a", b"bad", {})
        after = [publish("events", "k.a", b"%d" % n, {}) for n in range(20, 40)]
        await self.assertFailure(bad, ChannelClosedByBroker)
        await gatherResults([*before, *after])
        await inbox.when(40)
        self.assertEqual({message.body for message in inbox.messages}, {b"%d" % n for n in range(40)})
        await publish("events", "k.a", b"still", {})

    async def test_properties_that_amqp_cannot_carry(self) -> None:
        """They raise at once, naming the field, and the next message goes out."""
        error = self.assertRaises(
            ValueError, self.connections.publisher.publish, "", "q", b"", {"headers": {"thing": object()}}
        )
        self.assertIn("thing", str(error))
        await self.connections.publisher.publish("", "nobody", b"", {})

    async def test_sent_again_after_a_loss(self) -> None:
        """Messages that were unconfirmed when the connection went are sent again, in order and with the same ids."""
        inbox = Inbox()
        await self.connections.consume(QUEUE, inbox.receive, 1000).ready
        await self.connections.publisher.publish("events", "k.a", b"first", {})
        confirmed = []
        for number in range(50):
            confirmed.append(
                self.connections.publisher.publish("events", "k.a", b"%d" % number, {"message_id": f"m{number}"})
            )
            if number == 25:
                self.cut()
        await gatherResults(confirmed)

        def in_order() -> list[str]:
            ids = [message.properties["message_id"] for message in inbox.messages if message.body != b"first"]
            return list(dict.fromkeys(ids))

        while len(in_order()) < 50:
            await inbox.when(len(inbox.messages) + 1)
        self.assertEqual(in_order(), [f"m{number}" for number in range(50)])

    async def test_exchange_is_declared_again(self) -> None:
        """After a loss, an exchange that is gone meanwhile is there again before anything is sent to it."""
        await self.connections.publisher.declare(Exchange("short", auto_delete=True))
        vhost = self.broker.vhosts["/"]
        del vhost.exchanges["short"]
        self.cut()
        await self.connections.publisher.publish("short", "k", b"", {})
        self.assertIn("short", vhost.exchanges)

    async def test_mismatch(self) -> None:
        """Declaring a queue that exists with other properties fails, and names the difference."""
        await self.connections.publisher.declare(Exchange("x", type="topic"))
        error = await self.assertFailure(
            self.connections.publisher.declare(Exchange("x", type="fanout")), DeclarationMismatch
        )
        self.assertIn("'type'", str(error))
        self.assertIn("'x'", str(error))


class WithoutBrokerTests(TestCase):
    """Nobody there."""

    def setUp(self) -> None:
        self.connections = Connections.from_config({"AMQP_URI": "amqp://guest:s3cret@127.0.0.1:1/"})
        self.connections.startService()
        self.addCleanup(self.connections.stopService)

    async def test_publish_has_an_end(self) -> None:
        """A message waits for a broker, and fails at its deadline."""
        await self.assertFailure(self.connections.publisher.publish("", "q", b"", {}, timeout=0.05), PublishTimeout)

    async def test_what_waits_is_bounded(self) -> None:
        """Beyond a number or size, a publish fails at once."""
        self.patch(publisher_module, "UNCONFIRMED_MAX", 2)
        kept = [self.connections.publisher.publish("", "q", b"", {}) for _ in range(2)]
        self.failureResultOf(self.connections.publisher.publish("", "q", b"", {}), PublishBufferFull)
        self.patch(publisher_module, "UNCONFIRMED_BYTES_MAX", 10)
        self.failureResultOf(self.connections.publisher.publish("", "q", b"x" * 11, {}), PublishBufferFull)
        await self.connections.stopService()
        for publish in kept:
            self.failureResultOf(publish, ConnectionLost)

    async def test_stops_at_once(self) -> None:
        """A stop doesn't wait for a broker that is not there, and the waiting publishes fail."""
        consumer = self.connections.consume(QUEUE, lambda message: None, 1)
        declared = self.connections.publisher.declare(EVENTS)
        await self.connections.stopService()
        self.assertNoResult(consumer.ready)
        self.failureResultOf(declared, ConnectionLost)

    async def test_made_meanwhile(self) -> None:
        """A connection that is first needed while the others are started is started once, as they are."""
        started: list[str] = []
        start = Connection.startService
        self.patch(Connection, "startService", lambda each: (started.append(each.connection_name), start(each)))
        connections = Connections.from_config({"AMQP_URI": "amqp://guest:guest@127.0.0.1:1/"})

        class Needs(Service):
            def startService(self) -> None:
                connections.publisher.declare(EVENTS).addErrback(lambda failure: None)

        Needs().setServiceParent(connections)
        connections.consuming  # noqa: B018  # it is made before
        connections.startService()
        self.assertEqual(started, ["txservices: publishes", "txservices: consumes"])
        await connections.stopService()

    def test_no_address(self) -> None:
        """A configuration without a broker is the user's mistake."""
        self.assertRaises(ConfigurationError, Connections.from_config, {})


class ConsumerTests(ConnectionsTestCase):
    """Queues kept consumed."""

    async def test_back_after_a_loss(self) -> None:
        """A queue is consumed again by itself. Unacked messages come again, flagged; a late ack has no effect."""
        inbox = Inbox(ack=False)
        consumer = self.connections.consume(QUEUE, inbox.receive, 10)
        await consumer.ready
        await self.connections.publisher.publish("events", "k.a", b"once", {})
        await inbox.when(1)
        self.assertEqual(consumer.unsettled, 1)
        away: list[bool] = []
        connection = self.connections.consuming
        connection.on_changed.append(lambda: away.append(connection.protocol is None))
        self.cut()
        first, second = await inbox.when(2)
        self.assertEqual((first.redelivered, second.redelivered, away), (False, True, [True, False]))
        first.ack()
        self.assertEqual(consumer.unsettled, 1)
        second.ack()
        await consumer.drain()

    async def test_queue_deleted(self) -> None:
        """A queue deleted on the broker is declared again and consumed."""
        inbox = Inbox()
        consumer = self.connections.consume(QUEUE, inbox.receive, 10)
        await consumer.ready
        back: Deferred[None] = Deferred()
        consumer.on_ready.append(lambda: back.callback(None))
        other = self.connect(f"memory://{self.name}")
        protocol = await other.consuming.when_connected()
        channel = await protocol.open_channel()
        await channel.queue_delete(queue="q")
        await back.addTimeout(60, reactor)
        await self.connections.publisher.publish("events", "k.a", b"again", {}, mandatory=True)
        await inbox.when(1)

    async def test_missing_after_a_loss_is_said(self) -> None:
        """Whoever asked for it is told if the queue did not outlive the loss."""
        consumer = self.connections.consume(QUEUE, lambda message: None, 1)
        await consumer.ready
        missing: Deferred[None] = Deferred()
        consumer.on_missing = lambda: missing.callback(None)
        back: Deferred[None] = Deferred()
        consumer.on_ready.append(lambda: back.callback(None))
        self.broker.vhosts["/"].queues.clear()
        self.cut()
        await missing.addTimeout(60, reactor)
        await back.addTimeout(60, reactor)

    async def test_mismatch(self) -> None:
        """If a queue exists with other properties, ``ready`` fails with the difference, and nothing is tried again."""
        await self.connections.consume(QUEUE, lambda message: None, 1).ready
        other = self.connections.consume(Queue("q", durable=False), lambda message: None, 1)
        error = await self.assertFailure(other.ready, DeclarationMismatch)
        self.assertIn("'durable'", str(error))
        self.assertFalse(other.consuming)

    async def test_cancelled_can_still_ack(self) -> None:
        """After ``cancel`` nothing comes, and earlier messages can be acked; ``close`` gives the rest back."""
        inbox = Inbox(ack=False)
        consumer = self.connections.consume(QUEUE, inbox.receive, 10)
        await consumer.ready
        for body in (b"a", b"b"):
            await self.connections.publisher.publish("events", "k.a", body, {})
        await inbox.when(2)
        await consumer.cancel()
        await self.connections.publisher.publish("events", "k.a", b"c", {})
        inbox.messages[0].ack()
        self.assertEqual(consumer.unsettled, 1)
        await consumer.close()
        rest = Inbox()
        await self.connections.consume(QUEUE, rest.receive, 10).ready
        self.assertEqual([(m.body, m.redelivered) for m in await rest.when(2)], [(b"b", True), (b"c", False)])

    async def test_prefetch(self) -> None:
        """No more unacked messages come than asked for."""
        inbox = Inbox(ack=False)
        await self.connections.consume(QUEUE, inbox.receive, 2).ready
        for _ in range(5):
            await self.connections.publisher.publish("events", "k.a", b"", {})
        await inbox.when(2)
        await self.connections.publisher.publish("events", "k.a", b"", {})
        self.assertEqual(len(inbox.messages), 2)
        inbox.messages[0].ack()
        await inbox.when(3)


class AddressTests(ConnectionsTestCase):
    """TCP, TLS, several brokers, and brokers that refuse."""

    async def listen(self) -> int:
        listening: Any = await self.broker.listen("127.0.0.1", 0)
        port: int = listening.getHost().port
        return port

    async def works(self, connections: Connections) -> None:
        inbox = Inbox()
        await connections.consume(Queue("q2"), inbox.receive, 1).ready
        await connections.publisher.publish("", "q2", b"x" * 300_000, {})
        ((message,),) = [await inbox.when(1)]
        self.assertEqual(len(message.body), 300_000)

    async def test_next_address_is_tried(self) -> None:
        """Of several brokers, the first that answers is used."""
        port = await self.listen()
        await self.works(self.connect(f"amqp://127.0.0.1:1/;amqp://guest:guest@127.0.0.1:{port}/"))

    async def test_refused_credentials(self) -> None:
        """A wrong password is the user's mistake, said without the password."""
        port = await self.listen()
        for uri in [f"amqp://guest:s3cret@127.0.0.1:{port}/", f"amqp://guest:guest@127.0.0.1:{port}/nowhere"]:
            connections = self.connect(uri)
            error = await self.assertFailure(connections.publisher.declare(EVENTS), BrokerRefused)
            self.assertNotIn("s3cret", str(error))
            consumer = self.connect(uri).consume(QUEUE, lambda message: None, 1)
            await self.assertFailure(consumer.ready, BrokerRefused)

    async def test_tls(self) -> None:
        """amqps:// works with a certificate that the given authority has signed, and with no other."""
        authority = trustme.CA()
        issued = authority.issue_cert("localhost")
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        key = issued.private_key_pem.bytes()
        certificate = ssl.PrivateCertificate.loadPEM(key + chain)
        endpoint = SSL4ServerEndpoint(reactor, 0, certificate.options(), interface="127.0.0.1")
        listener = await endpoint.listen(Sessions(self.broker))
        self.addCleanup(listener.stopListening)
        trusted, stranger = self.mktemp(), self.mktemp()
        authority.cert_pem.write_to_path(trusted)
        trustme.CA().cert_pem.write_to_path(stranger)
        uri = f"amqps://localhost:{listener.getHost().port}/"
        await self.works(self.connect(uri, AMQP_SSL={"ca_certs": trusted}))
        refused = self.connect(uri, AMQP_SSL={"ca_certs": stranger})
        await self.assertFailure(refused.publisher.publish("", "q2", b"", {}, timeout=1), PublishTimeout)
        self.assertFalse(refused.connected)

    async def test_tls_mistakes(self) -> None:
        """An unknown option of AMQP_SSL, or a missing file, is a mistake that is named."""
        for options in ({"verify": False}, {"ca_certs": "/no/such/file"}):
            config = {"AMQP_URI": "amqps://localhost/", "AMQP_SSL": options}
            self.assertRaises(ConfigurationError, Connections.from_config, config)
