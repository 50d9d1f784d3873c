"""The log's lines about messages that are kept, in the test's own time."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.amqp.peer import Peer
from txservices.amqp.entities import Message
from txservices.amqp.unacked import Unacked


class UnackedTests(SynchronousTestCase):
    """One consumer, whose broker waits 100 s for an ack."""

    def setUp(self) -> None:
        self.peer = Peer()
        self.peer.connect()
        self.consumer: Any = Mock(channel=None, queue_name="q")
        self.messages: list[Message] = []
        self.unacked = Unacked(100, self.peer.clock)
        self.unacked.watch(self.consumer)
        self.said: list[str] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)
        self.open()

    def observe(self, event: dict[str, Any]) -> None:
        if "has not been acknowledged" in (text := formatEvent(event)):
            self.said.append(text)

    def open(self) -> None:
        channel = self.consumer.channel = self.peer.open_channel()
        channel.consumers["t"] = self.messages.append
        self.tag = 0

    def deliver(self) -> None:
        self.tag += 1
        number = self.consumer.channel.id
        self.peer.content(number, "basic.deliver", {}, b"", consumer_tag="t", delivery_tag=self.tag)

    def passes(self, seconds: int) -> None:
        self.peer.clock.pump([1] * seconds)

    def test_kept_for_too_long(self) -> None:
        """It is said once, after eight to nine tenths of the time, with the queue's name; again for another one."""
        self.deliver()
        self.passes(79)
        self.assertEqual(self.said, [])
        self.deliver()
        self.passes(11)
        self.assertEqual(len(self.said), 1)
        self.assertIn("a message of queue q has not been acknowledged for 80.0 s. RabbitMQ waits 100.0 s", self.said[0])
        self.passes(30)
        self.messages[0].ack()
        self.passes(60)
        self.assertEqual(len(self.said), 2)

    def test_acked_in_time(self) -> None:
        """Nothing is said of those that come and go, in whatever order, nor of an idle consumer."""
        for _ in range(100):
            self.deliver()
            self.deliver()
            self.passes(3)
            if len(self.messages) > 20:
                self.messages.pop(1).ack()
                self.messages.pop(0).reject()
        self.passes(40)
        for message in self.messages:
            message.ack()
        self.passes(300)
        self.assertEqual(self.said, [])

    def test_new_channel(self) -> None:
        """Tags begin anew on a new channel: what was on the old one counts no more."""
        for _ in range(50):
            self.deliver()
        self.passes(75)
        self.open()
        self.deliver()
        self.passes(75)
        self.assertEqual(self.said, [])

    def test_stopped(self) -> None:
        """After its end nothing is left of it; with no timeout there is nothing to begin with."""
        self.peer.clock.advance(0)
        self.unacked.cancel()
        Unacked(0, self.peer.clock).watch(self.consumer)
        self.assertEqual(self.peer.clock.getDelayedCalls(), [])
