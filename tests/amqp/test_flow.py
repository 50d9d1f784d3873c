"""Messages published while the broker takes nothing, or the transport is full: they wait here, within limits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.amqp.test_publisher import PublisherCase
from txservices.amqp import publisher as publisher_module
from txservices.amqp.connections import Connections
from txservices.amqp.entities import Queue
from txservices.amqp.options import Sending
from txservices.amqp.outbox import Flow
from txservices.amqp.publish import send
from txservices.broker import memory
from txservices.broker.server import ALARM_INTERVAL, Broker
from txservices.exceptions import ConnectionLost, PublishBufferFull, PublishTimeout


class FlowTests(SynchronousTestCase):
    """When messages must wait."""

    def test_both_reasons(self) -> None:
        """They wait while there is any reason, and are told once when the last one is over."""
        flow = Flow()
        resumed: list[bool] = []
        flow.on_resumed = lambda: resumed.append(flow.paused)
        steps = (
            (flow.pauseProducing, True, 0),
            (lambda: flow.block(True), True, 0),
            (flow.resumeProducing, True, 0),
            (lambda: flow.block(False), False, 1),
            (lambda: flow.block(False), False, 1),
            (flow.resumeProducing, False, 1),
            (lambda: flow.block(True), True, 1),
            (flow.stopProducing, True, 1),
        )
        for number, (step, paused, count) in enumerate(steps):
            step()
            self.assertEqual((flow.paused, resumed), (paused, [False] * count), number)


class PausedCase(PublisherCase):
    """A publisher whose connection takes no messages for now, because the broker says so."""

    def pause(self) -> None:
        self.peer.method(0, "connection.blocked", reason="low on memory")

    def resume(self) -> None:
        self.peer.method(0, "connection.unblocked")

    def wait(self, *bodies: bytes, timeout: float | None = 30) -> list[Any]:
        """Publish what must not be sent now."""
        outcomes = [
            self.publisher.publish("", "q", body, {"message_id": body.decode()}, timeout=timeout) for body in bodies
        ]
        self.assertEqual(self.published(), [])
        return outcomes


class BlockedTests(PausedCase):
    """Which messages wait, and which do not."""

    def test_aborted(self) -> None:
        """Messages that wait when the publisher is aborted fail, and are not sent later."""
        self.pause()
        outcomes = self.wait(b"1", b"2")
        self.publisher.abort()
        for outcome in outcomes:
            self.failureResultOf(outcome, ConnectionLost)
        self.nothing_is_kept()
        self.resume()
        self.assertEqual(self.published(), [])

    def test_messages_wait(self) -> None:
        """They are sent in order when it goes on; what was sent before is confirmed meanwhile."""
        (first,) = self.publish(b"1")
        self.pause()
        outcomes = self.wait(b"2", b"3")
        self.peer.method(self.channel, "basic.ack", delivery_tag=1)
        self.successResultOf(first)
        self.assertEqual(self.published(), [])
        self.resume()
        self.assertEqual(self.published(), [b"2", b"3"])
        self.peer.method(self.channel, "basic.ack", delivery_tag=3, multiple=True)
        for each in outcomes:
            self.successResultOf(each)
        self.nothing_is_kept()

    def test_everything_else_goes_on(self) -> None:
        """Declarations, acks and heartbeats are sent all the same."""
        other = self.peer.open_channel()
        self.pause()
        self.wait(b"1", timeout=None)[0].addErrback(lambda _: None)
        other.queue_declare(queue="q")
        self.assertEqual([name for _, name, _ in self.peer.sent()], ["queue.declare"])
        self.peer.method(other.id, "queue.declare-ok", queue="q", message_count=0, consumer_count=0)
        consuming = other.consume("q", "tag", lambda message: message.ack())
        self.peer.sent()
        self.peer.method(other.id, "basic.consume-ok", consumer_tag="tag")
        self.successResultOf(consuming)
        self.peer.content(
            other.id, "basic.deliver", {}, b"", consumer_tag="tag", delivery_tag=1, exchange="", routing_key="q"
        )
        self.assertEqual([name for _, name, _ in self.peer.sent()], ["basic.ack"])
        self.peer.protocol.heartbeat_due()
        self.peer.sent()
        self.assertEqual(self.peer.heartbeats, 1)

    def test_expired_is_never_sent(self) -> None:
        """A message that failed at its deadline while it waited is not delivered later, and takes no room."""
        self.pause()
        (late,) = self.wait(b"late", timeout=1)
        (waits,) = self.wait(b"waits")
        self.peer.clock.pump([0.5] * 3)
        self.failureResultOf(late, PublishTimeout)
        self.assertEqual(len(self.publisher.unsent), 1)
        self.resume()
        self.assertEqual(self.published(), [b"waits"])
        self.peer.method(self.channel, "basic.ack", delivery_tag=1)
        self.successResultOf(waits)
        self.nothing_is_kept()

    def test_another_connection(self) -> None:
        """A new connection takes messages, whatever the lost one had said, and is told nothing by that one."""
        self.pause()
        (waits,) = self.wait(b"1")
        lost = self.peer
        self.lose_connection()
        self.reconnected()
        self.assertEqual(self.published(), [b"1"])
        lost.protocol.flow.pauseProducing()
        self.peer.method(self.channel, "basic.ack", delivery_tag=1)
        self.successResultOf(waits)
        (other,) = self.publish(b"2")
        other.addErrback(lambda _: None)

    def test_suspects_wait_too(self) -> None:
        """Those that are sent one at a time, since one of them closed a channel, wait and go on one at a time."""
        outcomes = self.publish(b"1", b"2")
        self.peer.method(
            self.channel, "channel.close", reply_code=404, reply_text="NOT_FOUND", class_id=60, method_id=40
        )
        self.pause()
        self.opened()
        self.assertEqual(self.published(), [])
        self.resume()
        self.assertEqual(self.published(), [b"1"])
        for outcome in outcomes:
            outcome.addErrback(lambda _: None)


class FullTests(BlockedTests):
    """The same while the transport is full, as it is when the broker does not read."""

    def pause(self) -> None:
        self.peer.transport.producer.pauseProducing()

    def resume(self) -> None:
        self.peer.transport.producer.resumeProducing()

    def test_only_what_the_transport_takes(self) -> None:
        """Messages that have waited are sent in pieces, until the transport is full again."""
        body = b"x" * 60_000
        self.pause()
        for _ in range(12):
            self.publisher.publish("", "q", body, {"message_id": "1"}).addErrback(lambda _: None)
        sizes = []
        write = self.peer.transport.write

        def written(data: bytes) -> None:
            write(data)
            sizes.append(len(data))
            self.pause()

        with patch.object(self.peer.transport, "write", written):
            while self.publisher.unsent:
                self.resume()
        self.assertEqual(len(sizes), 4)
        self.assertLess(max(sizes), publisher_module.PIECE + 61_000)

    def test_a_large_message_is_sent_at_once(self) -> None:
        """The transport sees it before the next one is published, and can say that it is full."""
        body = b"x" * 200_000
        sizes = []

        def written(data: bytes) -> None:
            sizes.append(len(data))
            self.pause()

        with patch.object(self.peer.transport, "write", written):
            for _ in range(5):
                self.publisher.publish("", "q", body, {"message_id": "1"}).addErrback(lambda _: None)
        self.assertEqual((len(sizes), len(self.publisher.unsent)), (1, 4))


class BoundTests(PublisherCase):
    """How much is kept of a message, and what counts."""

    def test_expired_after_it_was_sent(self) -> None:
        """Its channel keeps its tag and nothing else, and the confirms of the others are theirs."""
        (late,) = self.publish(b"late", timeout=1)
        (waits,) = self.publish(b"waits")
        self.peer.clock.pump([0.5] * 3)
        self.failureResultOf(late, PublishTimeout)
        channel: Any = self.publisher.channel
        self.assertEqual([each.body for each in channel.unconfirmed.values()], [b"", b"waits"])
        self.assertEqual(channel.unconfirmed[1].header, b"")
        self.peer.method(self.channel, "basic.ack", delivery_tag=1)
        self.assertNoResult(waits)
        self.peer.method(self.channel, "basic.ack", delivery_tag=2)
        self.successResultOf(waits)
        self.nothing_is_kept()

    def test_expired_message_of_a_closed_channel(self) -> None:
        """If the broker closes the channel or the connection later, what has expired is not sent again."""
        (late,) = self.publish(b"late", timeout=1)
        (waits,) = self.publish(b"waits")
        self.peer.clock.pump([0.5] * 3)
        self.failureResultOf(late, PublishTimeout)
        self.lose_connection()
        self.reconnected()
        self.assertEqual(self.published(), [b"waits"])
        self.peer.method(self.channel, "basic.ack", delivery_tag=1)
        self.successResultOf(waits)

    def test_expired_message_comes_back(self) -> None:
        """Its return is its own: the same message, published again, is not taken for undeliverable because of it."""
        sent = [
            self.publisher.publish("x", "k", b"body", {"message_id": "1"}, mandatory=True, timeout=timeout)
            for timeout in (1, 30)
        ]
        self.peer.clock.pump([0.5] * 3)
        self.failureResultOf(sent[0], PublishTimeout)
        returned = {"reply_code": 312, "reply_text": "NO_ROUTE", "exchange": "x", "routing_key": "k"}
        self.peer.content(self.channel, "basic.return", {"message_id": "1"}, b"body", **returned)
        self.peer.method(self.channel, "basic.ack", delivery_tag=2, multiple=True)
        self.successResultOf(sent[1])

    def test_broker_that_confirms_nothing(self) -> None:
        """The tags of late messages have a bound, too: the others wait until the broker has answered for some."""
        self.patch(publisher_module, "UNCONFIRMED_MAX", 3)
        late = self.publish(b"1", b"2", b"3", timeout=1)
        self.peer.clock.pump([0.5] * 3)
        for each in late:
            self.failureResultOf(each, PublishTimeout)
        waits = self.publisher.publish("", "q", b"4", {"message_id": "4"})
        self.assertEqual(self.published(), [])
        self.peer.method(self.channel, "basic.ack", delivery_tag=1)
        self.assertEqual(self.published(), [b"4"])
        (other,) = self.publish(b"5")
        self.peer.method(self.channel, "basic.ack", delivery_tag=5, multiple=True)
        self.successResultOf(waits)
        self.successResultOf(other)
        self.nothing_is_kept()

    def test_crowded_by_what_is_answered_later(self) -> None:
        """When all are answered for while nothing waits, the next message is sent at once."""
        self.patch(publisher_module, "UNCONFIRMED_MAX", 1)
        (late,) = self.publish(b"1", timeout=1)
        self.peer.clock.pump([0.5] * 3)
        self.failureResultOf(late, PublishTimeout)
        self.peer.method(self.channel, "basic.ack", delivery_tag=1)
        (sent,) = self.publish(b"2")
        self.peer.method(self.channel, "basic.ack", delivery_tag=2)
        self.successResultOf(sent)

    def test_what_waits_for_a_declaration_counts(self) -> None:
        """A message whose queue must be declared first takes room until it is published, or has failed.

        One without a body takes some, too: their number is bounded as that of other messages.
        """
        connections: Any = SimpleNamespace(publisher=self.publisher)
        sending = Sending(timeout=2.0, declare=(Queue("new"),))

        def tell(body: bytes = b"x" * 10_000) -> Any:
            owner: Any = SimpleNamespace(unconfirmed=None)
            return send(connections, sending, "", "new", {}, body, owner, True)

        self.patch(publisher_module, "UNCONFIRMED_BYTES_MAX", 30_000)
        self.patch(publisher_module, "UNCONFIRMED_MAX", 100)
        first, second, third = tell(), tell(), tell()
        error = self.failureResultOf(third, PublishBufferFull).value
        self.assertIn(f"0 messages ({self.publisher.unconfirmed_bytes} bytes)", str(error))
        self.peer.clock.pump([0.5] * 5)
        for each in (first, second):
            self.failureResultOf(each, PublishTimeout)
        self.nothing_is_kept()
        small = [tell(b"") for _ in range(101)]
        self.failureResultOf(small.pop(), PublishBufferFull)
        self.peer.clock.pump([0.5] * 5)
        for each in small:
            each.addErrback(lambda failure: None)
        self.nothing_is_kept()

    def test_everything_counts(self) -> None:
        """The limit is for bodies, headers and names together."""
        cases: tuple[tuple[bytes, dict[str, Any], str, str], ...] = (
            (b"x" * 100, {}, "q", "k"),
            (b"", {"headers": {"h": "x" * 100}}, "q", "k"),
            (b"", {"correlation_id": "x" * 100}, "q", "k"),
            (b"", {}, "x" * 100, "k"),
            (b"", {}, "q", "x" * 100),
        )
        for body, properties, exchange, routing_key in cases:
            with self.subTest(properties=properties):
                properties = {**properties, "message_id": "m"}
                outcome = self.publisher.publish(exchange, routing_key, body, properties)
                taken = self.publisher.unconfirmed_bytes
                self.assertGreater(taken, 100)
                with patch.object(publisher_module, "UNCONFIRMED_BYTES_MAX", 2 * taken - 1):
                    refused = self.publisher.publish(exchange, routing_key, body, dict(properties))
                    self.failureResultOf(refused, PublishBufferFull)
                self.peer.method(self.channel, "basic.ack", delivery_tag=0, multiple=True)
                self.successResultOf(outcome)
                self.nothing_is_kept()


class EmbeddedTests(SynchronousTestCase):
    """On the embedded broker, which stops publishers while its messages take too much memory."""

    def test_watermark(self) -> None:
        """Over its mark nothing is written, and what has expired by then is not delivered when it goes on."""
        clock = Clock()
        broker = Broker("paused", clock=clock, memory_max=100_000)
        self.patch(memory, "brokers", {"paused": broker})
        connections = Connections.from_config({"AMQP_URI": "memory://paused", "HEARTBEAT": 0}, clock)
        connections.startService()
        publisher = connections.publisher

        def turns(seconds: float = 0.0) -> None:
            clock.pump([seconds] + [0] * 20)

        turns()
        declared = publisher.declare(Queue("q"))
        turns()
        self.successResultOf(declared)
        first = [publisher.publish("", "q", b"x" * 60_000, {}) for _ in range(2)]
        turns()
        protocol: Any = publisher.connection.protocol
        self.assertEqual(protocol.blocked, "low on memory")
        for each in first:
            self.successResultOf(each)
        late = [publisher.publish("", "q", b"late" * 10_000, {}, timeout=1) for _ in range(100)]
        waiting = publisher.publish("", "q", b"waited", {})
        turns()
        self.assertEqual(protocol.transport.waiting, 0)
        for _ in range(15):
            turns(0.1)
        for each in late:
            self.failureResultOf(each, PublishTimeout)
        self.assertLess(publisher.unconfirmed_bytes, 200)
        queue = broker.vhosts["/"].queues["q"]
        queue.purge()
        turns(ALARM_INTERVAL)
        turns()
        self.successResultOf(waiting)
        self.assertEqual(len(queue), 1)
        stopped = connections.stopService()
        for _ in range(10):
            turns()
        self.successResultOf(stopped)
        self.assertEqual(broker.watermark.alarmed, False)
