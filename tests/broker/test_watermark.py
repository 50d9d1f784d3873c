"""Everything that the broker holds has a bound: messages, answers that nobody reads, connections, queues."""

from __future__ import annotations

import gc
from functools import partial
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.broker.peer import Client, publish
from tests.peer import Transport, method
from txservices.broker import server, session, vhost, watermark
from txservices.broker.server import Broker, Sessions
from txservices.broker.watermark import Watermark
from txservices.wire import codec, frames
from txservices.wire.spec import FRAME_BODY, FRAME_HEADER, FRAME_METHOD

PEER = IPv4Address("TCP", "127.0.0.1", 1)


class CountTests(SynchronousTestCase):
    """Which bytes count, and until when."""

    def setUp(self) -> None:
        gc.freeze()  # else each collection walks all that the tests before have left: 0.1 s of the processor
        self.addCleanup(gc.unfreeze)
        self.client = Client().open()
        self.watermark = self.client.broker.watermark

    def settled(self, ready: int = 0) -> None:
        """Nothing counts but what is ready in q."""
        gc.collect()
        self.assertEqual(len(self.client.broker.vhosts["/"].queues.get("q", ())), ready)
        if not ready:
            self.assertEqual(self.watermark.held, 0)

    def test_each_way_a_message_ends(self) -> None:
        """After its ack, reject, expiry, purge, delete, drop or delivery without ack a message counts no more."""
        for arguments, ends in (
            ({}, lambda c: c.method(1, "basic.get", queue="q", no_ack=True)),
            ({}, lambda c: [c.method(1, "basic.get", queue="q"), c.method(1, "basic.ack", multiple=True)]),
            ({}, lambda c: [c.method(1, "basic.get", queue="q"), c.method(1, "basic.nack", multiple=True)]),
            ({}, lambda c: c.method(1, "queue.purge", queue="q")),
            ({}, lambda c: c.method(1, "queue.delete", queue="q")),
            ({}, lambda c: c.consume("q", no_ack=True)),
            ({"x-message-ttl": 5}, lambda c: c.clock.advance(1)),
            ({"x-max-length": 0}, lambda c: None),
            ({"x-max-length": 0, "x-overflow": "reject-publish"}, lambda c: None),
        ):
            client = self.client
            client.declare("q", arguments=arguments)
            client.publish("q", b"x" * 1000, headers={"h": "y" * 1000})
            if "x-max-length" not in arguments:
                self.assertGreater(self.watermark.held, 2000)
            ends(client)
            client.sent()
            self.settled()
            client.method(1, "queue.delete", queue="q")

    def test_one_message_in_many_queues(self) -> None:
        """A body counts once for all queues that it is in, and a copy costs only its place."""
        for number in range(10):
            self.client.declare(f"q{number}")
            self.client.method(1, "queue.bind", queue=f"q{number}", exchange="amq.fanout")
        self.client.publish("", b"x" * 1000, "amq.fanout")
        self.assertEqual(self.watermark.held, 1000 + 2 + watermark.MESSAGE_COST + 10 * watermark.ENTRY_COST)

    def test_lost_client(self) -> None:
        """Messages that a lost client had not settled count on, since they go back; its half a message does not."""
        client = self.client
        client.declare("q")
        client.publish("q", b"x" * 1000)
        client.method(1, "basic.get", queue="q")
        held = self.watermark.held
        half_a_body(client)
        self.assertEqual(self.watermark.held, held + 5000)
        client.lose()
        self.assertEqual(self.watermark.held, held)

    def test_whole_body_in_parts(self) -> None:
        """A body in several frames counts once, as the message that it becomes."""
        client = self.client
        client.declare("q")
        half_a_body(client)
        client.write(frames.frame(FRAME_BODY, 1, b"x" * 5000))
        client.method(1, "queue.purge", queue="q")
        self.settled()

    def test_no_alarm_of_its_own(self) -> None:
        """A count without anybody to tell only counts."""
        mark = Watermark(10)
        mark.take(11)
        self.assertTrue(mark.alarmed)


def half_a_body(client: Client) -> None:
    client.write(frames.frame(FRAME_METHOD, 1, codec.encode_method("basic.publish", routing_key="q")))
    client.write(frames.frame(FRAME_HEADER, 1, frames.HEADER.pack(60, 0, 10_000) + b"\0\0"))
    client.write(frames.frame(FRAME_BODY, 1, b"x" * 5000))


class AlarmTests(SynchronousTestCase):
    """Publishers wait while the messages take too much."""

    def setUp(self) -> None:
        self.broker = Broker(clock=Clock(), memory_max=100_000)
        self.publisher = self.open()
        self.consumer = self.open()
        self.publisher.declare("q")
        self.publisher.sent()

    def open(self, **capabilities: bool) -> Client:
        return Client(self.broker).open(**(capabilities or {"connection.blocked": True}))

    def fill(self) -> None:
        self.publisher.write(publish("q", b"x" * 60_000) * 2)

    def empty(self) -> None:
        self.consumer.method(1, "queue.purge", queue="q")
        self.broker.clock.advance(server.ALARM_INTERVAL)

    def test_publisher_is_stopped(self) -> None:
        """The publish over the mark is taken and nothing after it, until it is low again."""
        self.publisher.write(publish("q", b"x" * 60_000) * 5 + method(1, "basic.qos"))
        self.assertEqual(self.publisher.sent(), [(0, "connection.blocked", {"reason": "low on memory"})])
        self.assertEqual(len(self.broker.vhosts["/"].queues["q"]), 2)
        self.assertEqual(self.publisher.transport.producerState, "paused")
        self.empty()
        self.assertEqual(self.publisher.names(), ["connection.unblocked", "connection.blocked"])
        self.empty()
        self.assertEqual(self.publisher.names(), ["connection.unblocked", "basic.qos-ok"])
        self.assertEqual(self.publisher.transport.producerState, "producing")

    def test_consumers_go_on(self) -> None:
        """A client that does not publish is not stopped, and hears nothing of it; once it publishes, it is stopped."""
        self.fill()
        self.assertEqual(self.consumer.sent(), [])
        self.assertEqual(self.consumer.call(1, "queue.declare", queue="other")[0], "queue.declare-ok")
        self.consumer.publish("other")
        self.assertEqual(self.consumer.names(), ["connection.blocked"])

    def test_client_that_does_not_know_of_it(self) -> None:
        """A client without the capability is stopped without a word."""
        client = self.open(other=True)
        self.fill()
        client.publish("q")
        self.assertEqual(client.sent(), [])
        self.assertEqual(client.transport.producerState, "paused")
        self.empty()
        self.assertEqual((client.sent(), client.transport.producerState), ([], "producing"))

    def test_half_messages(self) -> None:
        """Bodies that never become whole fill the memory as well, and their sender is stopped."""
        self.publisher.broker.watermark.most = 4000
        half_a_body(self.publisher)
        self.assertEqual(self.publisher.names(), ["connection.blocked"])
        self.publisher.lose()
        self.broker.clock.advance(server.ALARM_INTERVAL)
        self.assertFalse(self.broker.watermark.alarmed)

    def test_confirms_come_before(self) -> None:
        """Messages that were taken are confirmed, though nothing more is read."""
        self.publisher.method(1, "confirm.select")
        self.publisher.sent()
        self.fill()
        self.assertEqual(self.publisher.names(), ["connection.blocked", "basic.ack"])

    def test_heartbeats(self) -> None:
        """A stopped client is not taken for dead, since nothing is read of it; heartbeats to it go on."""
        self.publisher = Client(self.broker).open(heartbeat=10)
        self.fill()
        for _ in range(50):
            self.broker.clock.advance(1)
        self.publisher.sent()
        self.assertGreater(self.publisher.heartbeats, 5)
        self.assertFalse(self.publisher.transport.aborted)
        self.empty()
        for _ in range(50):
            self.broker.clock.advance(1)
        self.assertTrue(self.publisher.transport.aborted)

    def test_stop(self) -> None:
        """A broker that stops reads a stopped client's answer, and leaves no delayed call."""
        self.fill()
        stopping = self.broker.close()
        self.assertEqual(self.publisher.transport.producerState, "producing")
        for client in (self.publisher, self.consumer):
            client.method(0, "connection.close-ok")
            client.lose()
        self.successResultOf(stopping)
        self.assertEqual(self.broker.clock.getDelayedCalls(), [])

    def test_alarm_without_clients(self) -> None:
        """While nobody is there nothing is looked at; whoever comes next is stopped if it is still too much."""
        self.fill()
        self.publisher.lose()
        self.consumer.lose()
        self.assertEqual(self.broker.clock.getDelayedCalls(), [])
        self.publisher = self.open()
        self.consumer = self.open()
        self.publisher.publish("q")
        self.assertEqual(self.publisher.names(), ["connection.blocked"])
        self.empty()
        self.assertEqual(self.publisher.names(), ["connection.unblocked"])


class BacklogTests(SynchronousTestCase):
    """A client that asks and never reads."""

    def test_many_gets_in_one_write(self) -> None:
        """Answers to a client that does not read stay under the limit and one message, however much it asks."""
        client = Client().open()
        client.declare("q")
        body = b"x" * 100_000
        client.publish("q", body)
        client.sent()
        client.transport.write = lambda data: write(client.transport, data)
        again = b"".join(
            method(1, "basic.get", queue="q") + method(1, "basic.reject", delivery_tag=tag, requeue=True)
            for tag in range(1, 900)
        )
        client.write(again)
        answers = []
        while client.transport.value():
            self.assertLess(len(client.transport.value()), session.BACKLOG_MAX + 3 * len(body))
            self.assertIn(client.transport.producerState, ("paused", "producing"))
            answers.append(len(client.bodies()))
            client.transport.producer.resumeProducing()
        self.assertEqual(sum(answers), 899)
        self.assertGreater(len(answers), 50)
        self.assertEqual(client.transport.producerState, "producing")

    def test_many_that_do_not_read(self) -> None:
        """The answers that wait for all clients together have a bound, too; with the clients they are gone."""
        broker = Broker(clock=Clock(), memory_max=8_000_000)
        body = b"x" * 100_000
        Client(broker).open().write(method(1, "queue.declare", queue="q") + publish("q", body) * 40)
        clients = [Client(broker).open() for _ in range(40)]
        again = b"".join(
            method(1, "basic.get", queue="q") + method(1, "basic.reject", delivery_tag=tag, requeue=True)
            for tag in range(1, 9)
        )
        for client in clients:
            client.transport.write = partial(write, client.transport)
            client.write(again)
        waiting = sum(len(client.transport.value()) for client in clients)
        self.assertGreater(waiting, 4_000_000)  # the messages take the other half
        self.assertLess(waiting, 4_000_000 + len(clients) * 2.1 * len(body))
        self.assertTrue(broker.watermark.alarmed)
        for client in clients[:20]:
            while client.transport.value():
                client.bodies()
                client.transport.producer.resumeProducing()
        for client in clients[20:]:
            client.lose()
        self.assertLess(broker.watermark.held, 41 * len(body))
        broker.clock.advance(server.ALARM_INTERVAL)
        self.assertFalse(broker.watermark.alarmed)


def write(transport: Transport, data: bytes) -> None:
    """Write as a socket whose other end does not read: the producer is paused when much waits."""
    before = len(transport.value())
    Transport.write(transport, data)
    if before <= 65_536 < len(transport.value()):
        transport.producer.pauseProducing()


class NumberTests(SynchronousTestCase):
    """Limits of how many there may be."""

    def test_connections(self) -> None:
        """A connection over the limit is closed, with one line in the log; after another has gone it is taken."""
        self.patch(server, "CONNECTIONS_MAX", 2)
        broker = Broker(clock=Clock())
        sessions = Sessions(broker)
        first, _ = Client(broker), Client(broker)
        self.assertIs(sessions.buildProtocol(PEER), None)
        self.assertIs(sessions.buildProtocol(PEER), None)
        first.lose()
        self.assertIsNot(sessions.buildProtocol(PEER), None)

    def test_queues(self) -> None:
        """A queue over the limit is 406; those that there are can be declared again."""
        self.patch(vhost, "QUEUES_MAX", 2)
        client = Client().open()
        client.declare("a")
        client.declare("b")
        self.assertEqual(client.call(1, "queue.declare", queue="a")[0], "queue.declare-ok")
        name, code, text = client.refusal(1, "queue.declare", queue="c")
        self.assertEqual((name, code), ("channel.close", 406))
        self.assertIn("queue limit in vhost '/' (2) is reached", text)

    def test_exchanges(self) -> None:
        """The same for exchanges."""
        self.patch(vhost, "EXCHANGES_MAX", len(vhost.PREDEFINED) + 1)
        client = Client().open()
        self.assertEqual(client.call(1, "exchange.declare", exchange="a", type="topic")[0], "exchange.declare-ok")
        self.assertEqual(client.call(1, "exchange.declare", exchange="a", type="topic")[0], "exchange.declare-ok")
        name, code, text = client.refusal(1, "exchange.declare", exchange="b", type="topic")
        self.assertEqual((name, code), ("channel.close", 406))
        self.assertIn("exchange limit in vhost '/' (7) is reached", text)

    def test_bindings(self) -> None:
        """The same for bindings, however they end: undone, or with their queue or either exchange."""
        self.patch(vhost, "BINDINGS_MAX", 2)
        for end, arguments in (
            ("queue.unbind", {"queue": "q", "exchange": "x", "routing_key": "a"}),
            ("queue.delete", {"queue": "q"}),
            ("exchange.delete", {"exchange": "x"}),
            ("exchange.unbind", {"source": "x", "destination": "y", "routing_key": "a"}),
            ("exchange.delete", {"exchange": "y"}),
        ):
            client = Client().open()
            client.declare("q")
            for name in ("x", "y"):
                client.call(1, "exchange.declare", exchange=name, type="topic")
            to_queue: dict[str, Any] = {"queue": "q", "exchange": "x", "routing_key": "a"}
            for _ in range(2):
                self.assertEqual(client.call(1, "queue.bind", **to_queue)[0], "queue.bind-ok")
            to_exchange = {"destination": "y", "source": "x", "routing_key": "a"}
            self.assertEqual(client.call(1, "exchange.bind", **to_exchange)[0], "exchange.bind-ok")
            name, code, text = client.refusal(1, "queue.bind", **{**to_queue, "routing_key": "b"})
            self.assertEqual((name, code), ("channel.close", 406))
            self.assertIn("binding limit in vhost '/' (2) is reached", text)
            client.method(1, "channel.close-ok")
            client.method(1, "channel.open")
            self.assertEqual(client.call(1, end, **arguments)[0], f"{end}-ok")
            client.declare("q")
            another = {"queue": "q", "exchange": "amq.topic", "routing_key": "b"}
            self.assertEqual(client.call(1, "queue.bind", **another)[0], "queue.bind-ok", end)
