"""A consumer given up before it consumes, on a connection whose broker the test plays."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.amqp.peer import Peer
from txservices.amqp.connection import Connection
from txservices.amqp.entities import Message, Queue
from txservices.amqp.subscription import Subscription

STEPS = ("channel.open", "queue.declare", "basic.qos", "basic.consume")
ANSWERS = {
    "queue.declare": {"queue": "q", "message_count": 0, "consumer_count": 0},
    "basic.consume": {"consumer_tag": "t"},
}


class GivenUpTests(SynchronousTestCase):
    """At each step of its beginning. Else it would take messages that nobody works on, and send them in circles."""

    def begin(self, steps: int) -> None:
        """A consumer that has been answered that many of its steps, and is asking for the next."""
        self.peer = Peer()
        self.peer.connect()
        self.peer.sent()
        connection = Connection((self.peer.protocol.address,), "tests", self.peer.clock)
        connection.protocol = self.peer.protocol
        self.consumer = Subscription(connection, Queue("q"), self.fail, 10)
        self.asked: list[str] = []
        self.answer(steps)
        self.assertEqual(self.asked, list(STEPS[: steps + 1]))

    def answer(self, steps: int) -> None:
        """Answer so many questions; all of them are kept."""
        for each in range(steps + 1):
            self.asked += [name for _, name, _ in self.peer.sent()]
            if each < steps:
                self.peer.method(1, f"{self.asked[-1]}-ok", **ANSWERS.get(self.asked[-1], {}))

    def end(self) -> None:
        self.peer.clock.advance(0)
        self.peer.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.peer.clock.getDelayedCalls(), [])

    def given_up(self, steps: int, how: Callable[[Subscription], object]) -> list[str]:
        """What it asks for after it was given up while that step was under way."""
        self.begin(steps)
        self.asked.clear()
        how(self.consumer)
        self.answer(0)
        # the broker answers what it was asked before that
        self.peer.method(1, f"{STEPS[steps]}-ok", **ANSWERS.get(STEPS[steps], {}))
        self.answer(0)
        self.end()
        return self.asked

    def test_closed(self) -> None:
        """It closes its channel and asks for nothing more."""
        for steps in range(len(STEPS)):
            self.assertEqual(self.given_up(steps, Subscription.close), ["channel.close"], STEPS[steps])

    def test_what_was_taken(self) -> None:
        """Nothing is settled once the channel's close is out: RabbitMQ ends the whole connection for that."""
        taken: list[Message] = []
        self.begin(len(STEPS) - 1)
        self.peer.protocol.channels[1].consumers[self.consumer.tag] = taken.append
        self.answer(1)
        for tag in (1, 2, 3):
            self.peer.content(1, "basic.deliver", {}, b"", consumer_tag=self.consumer.tag, delivery_tag=tag)
        taken[0].ack()
        self.consumer.close()
        taken[1].ack()
        taken[2].reject()
        self.assertEqual([name for _, name, _ in self.peer.sent()], ["basic.ack", "channel.close"])
        self.end()

    def test_cancelled(self) -> None:
        """It does not begin to consume, or takes that back."""
        for steps in range(len(STEPS)):
            asked = self.given_up(steps, Subscription.cancel)
            self.assertNotIn("basic.consume", asked, STEPS[steps])
        self.assertEqual(asked, ["basic.cancel"])
