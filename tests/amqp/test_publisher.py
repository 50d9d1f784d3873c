"""A publisher and its channels, on a connection whose broker the test plays, in virtual time."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.amqp.peer import Peer
from txservices.amqp import publisher as publisher_module
from txservices.amqp import topology as topology_module
from txservices.amqp.connection import Connection
from txservices.amqp.entities import Queue
from txservices.amqp.publisher import NACKED_RETRY_MAX, Publisher
from txservices.exceptions import (
    AmqpError,
    ChannelClosedByBroker,
    ConnectionLost,
    PublishBufferFull,
    PublishTimeout,
)

NOT_FOUND = {"reply_code": 404, "reply_text": "NOT_FOUND", "class_id": 60, "method_id": 40}


class PublisherCase(SynchronousTestCase):
    """A publisher on its first channel."""

    def setUp(self) -> None:
        self.addCleanup(self.end)
        self.begin()

    def begin(self) -> None:
        self.peer = Peer()
        self.peer.connect()
        self.connection = Connection((self.peer.protocol.address,), "tests", self.peer.clock)
        self.publisher = Publisher(self.connection, self.peer.clock)
        self.connected()

    def connected(self) -> None:
        """Give the publisher a new protocol, as ``Connection`` does."""
        restored = Deferred.fromCoroutine(self.publisher.restore(self.peer.protocol))
        self.channel = self.opened()
        self.successResultOf(restored)
        self.connection.protocol = self.peer.protocol

    def end(self) -> None:
        self.publisher.abort()
        self.nothing_is_kept()
        self.peer.clock.advance(0)  # what is sent at the end of the turn
        self.peer.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.peer.clock.getDelayedCalls(), [])

    def opened(self) -> int:
        """The number of the channel that is asked for, opened for publishing."""
        number = self.peer.sent()[-1][0]
        self.peer.method(number, "channel.open-ok")
        self.peer.sent()
        self.peer.method(number, "confirm.select-ok")
        return number

    def publish(self, *bodies: bytes, timeout: float | None = 30) -> list[Any]:
        """Publish them, and give the outcomes."""
        outcomes = [
            self.publisher.publish("", "q", body, {"message_id": body.decode()}, timeout=timeout) for body in bodies
        ]
        self.assertEqual(self.published(), list(bodies))
        return outcomes

    def published(self) -> list[bytes]:
        """The messages that were sent since the last look, each under its own id."""
        names = [name for _, name, _ in self.peer.sent()]
        contents = [content for _, content in self.peer.found]
        self.assertNotIn("channel.close", names)
        for content in contents:
            self.assertEqual(content.properties["message_id"], content.body.decode())
        return [content.body for content in contents]

    def published_and_closed(self, channel: int) -> list[bytes]:
        """The messages sent since the last look, before which that channel was closed, having nothing to wait for."""
        to, name, _ = self.peer.sent()[0]
        self.assertEqual((to, name), (channel, "channel.close"))
        bodies = [content.body for _, content in self.peer.found[1:]]
        self.peer.method(channel, "channel.close-ok")
        return bodies

    def lose_connection(self) -> None:
        self.peer.protocol.connectionLost(Failure(ConnectionDone()))
        self.connection.protocol = None

    def reconnected(self) -> None:
        """Another connection is made."""
        clock, self.peer = self.peer.clock, Peer()
        self.peer.clock = self.peer.protocol.clock = clock
        self.peer.connect()
        self.connected()

    def nothing_is_kept(self) -> None:
        publisher = self.publisher
        self.assertEqual((publisher.unconfirmed, publisher.unconfirmed_bytes), ({}, 0))
        self.assertEqual((publisher.nacked, publisher.to_republish, publisher.unsent), ({}, set(), {}))
        self.assertEqual(publisher.suspects, set())

    def nack(self, channel: int, tag: int = 0) -> None:
        """Confirm one message, or all of them."""
        self.peer.method(channel, "basic.nack", delivery_tag=tag, multiple=not tag)

    def next_channel(self) -> int:
        """The channel that takes over after a nack."""
        self.peer.clock.advance(NACKED_RETRY_MAX)
        return self.opened()

    def retired(self, channel: int) -> None:
        """That channel was closed, and nothing else was sent."""
        self.assertEqual([(number, name) for number, name, _ in self.peer.sent()], [(channel, "channel.close")])
        self.peer.method(channel, "channel.close-ok")


class Declaring(PublisherCase):
    """Exchanges and queues that are to be declared again."""

    def declare(self, *queues: Queue) -> list[str]:
        """Declare queues; gives the methods that go out for that."""
        declaring = self.publisher.declare(*queues)
        names = []
        while True:
            sent = self.peer.sent()
            if not sent:
                break
            names += [name for _, name, _ in sent]
            number, name, args = sent[-1]
            if name == "queue.declare":
                self.peer.method(number, "queue.declare-ok", queue=args["queue"], message_count=0, consumer_count=0)
            else:
                self.peer.method(number, f"{name}-ok")
        self.successResultOf(declaring)
        return names

    def test_many_names(self) -> None:
        """However many are declared, few are kept; those of the start are, and a forgotten one is declared anew."""
        self.patch(topology_module, "TOPOLOGY_MAX", 10)
        own = [Queue(f"own-{number}") for number in range(4)]
        self.declare(*own)
        strangers = [Queue(f"stranger-{number}") for number in range(50)]
        for queue in strangers:
            self.assertIn("queue.declare", self.declare(queue))
            self.assertLessEqual(len(self.publisher.topology.entities), 10)
        self.assertEqual(list(self.publisher.topology.entities)[:4], own)
        self.assertEqual(self.declare(*own, strangers[-1]), [])
        self.assertIn("queue.declare", self.declare(strangers[20]))


class RefusedTests(PublisherCase):
    """The broker closes the channel because of one message."""

    def test_told_apart(self) -> None:
        """Messages that were under way go out one at a time, until the culprit is found; then all go at once again."""
        first, bad, last = self.publish(b"first", b"bad", b"last", timeout=None)
        self.peer.method(self.channel, "channel.close", **NOT_FOUND)
        second = self.opened()
        self.assertEqual(self.published(), [b"first"])
        self.peer.method(second, "basic.ack", delivery_tag=1)
        self.successResultOf(first)
        self.assertEqual(self.published(), [b"bad"])
        self.peer.method(second, "channel.close", **NOT_FOUND)
        self.failureResultOf(bad, ChannelClosedByBroker)
        third = self.opened()
        self.assertEqual(self.published(), [b"last"])
        later = [self.publisher.publish("", "q", body, {"message_id": body.decode()}) for body in (b"1", b"2")]
        self.assertEqual(self.published(), [])
        self.peer.method(third, "basic.ack", delivery_tag=1)
        self.assertEqual(self.published(), [b"1", b"2"])
        self.peer.method(third, "basic.ack", delivery_tag=3, multiple=True)
        for outcome in (last, *later):
            self.successResultOf(outcome)
        self.nothing_is_kept()

    def test_connection_lost_meanwhile(self) -> None:
        """On the next connection they go out one at a time as well."""
        for outcome in self.publish(b"1", b"2", b"3", timeout=None):
            outcome.addErrback(lambda failure: None)
        self.peer.method(self.channel, "channel.close", **NOT_FOUND)
        self.opened()
        self.assertEqual(self.published(), [b"1"])
        self.lose_connection()
        self.reconnected()
        for tag, body in enumerate((b"1", b"2", b"3"), 1):
            self.assertEqual(self.published(), [body])
            self.peer.method(self.channel, "basic.ack", delivery_tag=tag)
        self.nothing_is_kept()

    def test_no_channel_to_be_had(self) -> None:
        """A connection on which nothing can be published any more is aborted, so that another is made."""
        (outcome,) = self.publish(b"1")
        self.peer.protocol.channel_max = 0
        self.peer.method(self.channel, "channel.close", **NOT_FOUND)
        self.failureResultOf(outcome, ChannelClosedByBroker)
        self.assertEqual(len(self.flushLoggedErrors(AmqpError)), 1)
        self.assertTrue(self.peer.transport.aborted)

    def test_connection_lost_at_once(self) -> None:
        """If the connection is lost while a channel is opened, nothing is logged and nothing aborted."""
        self.publish(b"1")[0].addErrback(lambda failure: None)
        self.peer.method(self.channel, "channel.close", **NOT_FOUND)
        self.lose_connection()
        self.reconnected()
        self.assertFalse(self.peer.transport.aborted)


class LimitTests(PublisherCase):
    """A publish that is not confirmed in time, or is too much."""

    def test_number(self) -> None:
        """Beyond a number a publish fails at once, and says how many messages and bytes wait."""
        self.patch(publisher_module, "UNCONFIRMED_MAX", 2)
        outcomes = self.publish(b"1", b"22")
        error = self.failureResultOf(self.publisher.publish("", "q", b"3", {}), PublishBufferFull).value
        self.assertIn(f"2 messages ({self.publisher.unconfirmed_bytes} bytes)", str(error))
        self.peer.method(self.channel, "basic.ack", delivery_tag=1)
        outcomes += self.publish(b"3")
        for outcome in outcomes:
            outcome.addErrback(lambda failure: None)

    def test_time(self) -> None:
        """The error of a message that is late says where it was to go."""
        late = self.publisher.publish("an exchange", "a key", b"", {}, timeout=1)
        self.peer.clock.pump([0.5] * 3)
        error = self.failureResultOf(late, PublishTimeout).value
        self.assertEqual(str(error), str(PublishTimeout("an exchange", "a key")))

    def test_abort(self) -> None:
        """Everything unconfirmed fails, a retry is not waited for, and nothing can be published any more."""
        outcomes = self.publish(b"1", b"2")
        drained = self.publisher.drain()
        self.nack(self.channel, 1)
        self.publisher.abort()
        self.peer.clock.advance(0)  # what is sent at the end of the turn
        self.assertEqual(self.peer.clock.getDelayedCalls(), [])
        self.successResultOf(drained)
        for outcome in (*outcomes, self.publisher.publish("", "q", b"3", {})):
            self.failureResultOf(outcome, ConnectionLost)
        self.nothing_is_kept()


class WaitingTests(PublisherCase):
    """Messages that wait for a connection."""

    def test_what_expires_is_not_kept(self) -> None:
        """However long there is no connection, only messages that can still be sent are kept for the next one."""
        self.lose_connection()
        late = [self.publisher.publish("", "q", b"", {}, timeout=1) for _ in range(3)]
        self.peer.clock.pump([0.5] * 4)
        for each in late:
            self.failureResultOf(each, PublishTimeout)
        self.assertEqual((self.publisher.unsent, self.publisher.unconfirmed), ({}, {}))
        self.reconnected()
        self.assertEqual(self.published(), [])

    def test_bytes_are_given_back(self) -> None:
        """Messages count until the broker has answered for them, or their time is up; then there is room for others."""
        (outcome,) = self.publish(b"12345678")
        self.patch(publisher_module, "UNCONFIRMED_BYTES_MAX", self.publisher.unconfirmed_bytes)
        self.peer.method(self.channel, "basic.ack", delivery_tag=1)
        for number in range(2, 6):
            (outcome,) = self.publish(b"12345678")
            self.failureResultOf(self.publisher.publish("", "q", b"", {}), PublishBufferFull)
            self.peer.method(self.channel, "basic.ack", delivery_tag=number)
            self.successResultOf(outcome)
        for _ in range(3):
            (outcome,) = self.publish(b"12345678", timeout=1)
            self.failureResultOf(self.publisher.publish("", "q", b"", {}), PublishBufferFull)
            self.peer.clock.pump([0.5] * 3)
            self.failureResultOf(outcome, PublishTimeout)

    def test_drained(self) -> None:
        """It fires when everything published until then is answered for, whatever was published since."""
        drained = self.publisher.drain()
        self.successResultOf(drained)
        first, second = self.publish(b"1", b"2")
        drained = self.publisher.drain()
        (third,) = self.publish(b"3")
        self.peer.method(self.channel, "basic.ack", delivery_tag=1)
        self.assertNoResult(drained)
        self.peer.method(self.channel, "basic.ack", delivery_tag=2)
        self.successResultOf(drained)
        self.successResultOf(first)
        self.successResultOf(second)
        third.addErrback(lambda failure: None)
