"""Nacked messages, on a connection whose broker the test plays and in its own time."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.amqp.peer import Peer
from txservices.amqp.connection import Connection
from txservices.amqp.nacked import NACKED_RETRY, NACKED_RETRY_MAX
from txservices.amqp.publisher import Publisher
from txservices.exceptions import ChannelClosedByBroker, PublishNacked, PublishTimeout


class NackedTests(SynchronousTestCase):
    """A publisher on its first channel; attempts are made on others."""

    def setUp(self) -> None:
        self.peer = Peer()
        self.peer.connect()
        self.connection = Connection((self.peer.protocol.address,), "tests", self.peer.clock)
        self.publisher = Publisher(self.connection, self.peer.clock)
        self.addCleanup(self.end)
        self.connected()

    def connected(self) -> None:
        """As ``Connection`` does with a new protocol."""
        restored = Deferred.fromCoroutine(self.publisher.restore(self.peer.protocol))
        self.channel = self.opened()
        self.successResultOf(restored)
        self.connection.protocol = self.peer.protocol

    def end(self) -> None:
        self.publisher.give_up()
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
        """Publish them; what becomes of each."""
        outcomes = [
            self.publisher.publish("", "q", body, {"message_id": body.decode()}, timeout=timeout) for body in bodies
        ]
        self.assertEqual(self.published(), list(bodies))
        return outcomes

    def published(self) -> list[bytes]:
        """The messages that were sent since the last look, each under its own id."""
        names = [name for _, name, _ in self.peer.sent()]
        contents = [content for _, content in self.peer.contents]
        self.assertNotIn("channel.close", names)
        for content in contents:
            self.assertEqual(content.properties["message_id"], content.body.decode())
        return [content.body for content in contents]

    def nack(self, channel: int, tag: int = 0) -> None:
        """Of one, or of all."""
        self.peer.method(channel, "basic.nack", delivery_tag=tag, multiple=not tag)

    def attempt(self) -> int:
        """The channel of the next attempt."""
        self.peer.clock.advance(NACKED_RETRY_MAX)
        return self.opened()

    def ended(self, channel: int) -> None:
        """The attempt's channel was closed, as by who has no more use for it."""
        self.assertEqual([(number, name) for number, name, _ in self.peer.sent()], [(channel, "channel.close")])
        self.peer.method(channel, "channel.close-ok")

    def test_published_again_until_it_is_confirmed(self) -> None:
        """A nacked message goes out again on a new channel, with the same id; others are not held up by it."""
        (outcome,) = self.publish(b"1")
        self.nack(self.channel)
        (other,) = self.publish(b"2")
        self.peer.method(self.channel, "basic.ack", delivery_tag=2)
        self.successResultOf(other)
        self.peer.clock.advance(NACKED_RETRY)
        second = self.opened()
        self.assertNotEqual(second, self.channel)
        self.assertEqual(self.published(), [b"1"])
        self.assertNoResult(outcome)
        self.nack(second)
        self.ended(second)
        third = self.attempt()
        self.assertEqual(self.published(), [b"1"])
        self.peer.method(third, "basic.ack", delivery_tag=1)
        self.successResultOf(outcome)
        self.ended(self.channel)
        self.assertEqual((self.publisher.unconfirmed, self.publisher.nacked.errors), ({}, {}))

    def test_the_channel_that_confirms_is_kept(self) -> None:
        """All goes out on it afterwards; the one that nacked stays until it has answered for what it had."""
        nacked, silent = self.publish(b"1", b"2", timeout=None)
        self.nack(self.channel, 1)
        second = self.attempt()
        self.assertEqual(self.published(), [b"1"])
        self.peer.method(second, "basic.ack", delivery_tag=1)
        self.successResultOf(nacked)
        self.publish(b"3")[0].addErrback(lambda failure: None)
        self.assertEqual(self.peer.contents[-1][0], second)
        self.peer.method(self.channel, "basic.ack", delivery_tag=2)
        self.successResultOf(silent)
        self.ended(self.channel)

    def test_fails_as_nacked_at_its_deadline(self) -> None:
        """Nacked for as long as it may take: PublishNacked; one that was never answered for is a PublishTimeout."""
        nacked, silent = self.publish(b"1", b"2", timeout=1)
        self.nack(self.channel, 1)
        self.peer.clock.pump([0.1] * 12)
        self.failureResultOf(nacked, PublishNacked)
        self.failureResultOf(silent, PublishTimeout)
        self.assertEqual((self.publisher.unconfirmed, self.publisher.nacked.errors), ({}, {}))

    def test_many_at_once_in_their_order(self) -> None:
        """All that were nacked meanwhile go in one attempt, in the order of publishing; some are confirmed of it."""
        outcomes = self.publish(b"1", b"2", b"3", b"4", b"5")
        self.peer.method(self.channel, "basic.ack", delivery_tag=3)
        self.nack(self.channel)
        second = self.attempt()
        self.assertEqual(self.published(), [b"1", b"2", b"4", b"5"])
        self.peer.method(second, "basic.ack", delivery_tag=2, multiple=True)
        self.assertEqual(self.peer.sent(), [])  # two are not answered for
        self.nack(second, 3)
        self.peer.method(second, "basic.ack", delivery_tag=4)
        self.ended(second)
        third = self.attempt()
        self.assertEqual(self.published(), [b"4"])
        self.peer.method(third, "basic.ack", delivery_tag=1)
        for outcome in outcomes:
            self.successResultOf(outcome)
        self.ended(self.channel)

    def test_connection_lost(self) -> None:
        """What waits or is under way when the connection goes is published again on the next one, once."""
        for outcome in self.publish(b"1", b"2", timeout=None):
            outcome.addErrback(lambda failure: None)
        self.nack(self.channel, 1)
        self.attempt()
        self.assertEqual(self.published(), [b"1"])
        self.peer.protocol.connectionLost(Failure(ConnectionDone()))
        self.connection.protocol = None
        self.peer.clock.advance(NACKED_RETRY_MAX)
        clock, self.peer = self.peer.clock, Peer()
        self.peer.clock = self.peer.protocol.clock = clock
        self.peer.connect()
        self.connected()
        self.assertEqual(self.published(), [b"2"])
        self.attempt()
        self.assertEqual(self.published(), [b"1"])

    def test_refused_again(self) -> None:
        """A message whose channel the broker closes fails alone; with others around it they are told apart."""
        bad, good = self.publish(b"bad", b"good")
        self.nack(self.channel)
        second = self.attempt()
        self.assertEqual(self.published(), [b"bad", b"good"])
        not_found = {"reply_code": 404, "reply_text": "NOT_FOUND", "class_id": 60, "method_id": 40}
        self.peer.method(second, "channel.close", **not_found)
        self.assertEqual(self.published_but("channel.close-ok"), [b"bad", b"good"])  # on the first
        self.peer.method(self.channel, "channel.close", **not_found)
        names = [name for _, name, _ in self.peer.sent()]
        self.assertEqual(names, ["channel.close-ok", "channel.open"])
        number = self.peer.contents[-1][0]
        self.peer.method(number, "channel.open-ok")
        self.peer.sent()
        self.peer.method(number, "confirm.select-ok")
        self.assertEqual(self.published(), [b"bad"])
        self.peer.method(number, "channel.close", **not_found)
        self.failureResultOf(bad, ChannelClosedByBroker)
        self.opened()
        self.assertEqual(self.published(), [b"good"])
        self.assertNoResult(good)
        good.addErrback(lambda failure: None)

    def published_but(self, first: str) -> list[bytes]:
        """What was published after a method of that name."""
        names = [name for _, name, _ in self.peer.sent()]
        self.assertEqual(names[0], first)
        return [content.body for _, content in self.peer.contents[1:]]
