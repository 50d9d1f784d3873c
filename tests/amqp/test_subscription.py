"""A consumer given up before it consumes, on a connection whose broker the test plays."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.error import ConnectionDone
from twisted.logger import globalLogPublisher
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
    """Given up at each step of its beginning. If it went on, it would take messages that nobody handles."""

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
        """Give up the subscription while that step is under way, and give what it asks of the broker after that."""
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


class AgainTests(SynchronousTestCase):
    """A queue that can't be consumed, or is lost again and again, on a connection that lives."""

    def setUp(self) -> None:
        self.peer = Peer()
        self.peer.connect()
        self.peer.sent()
        connection = Connection((self.peer.protocol.address,), "tests", self.peer.clock)
        connection.protocol = self.peer.protocol
        self.subscription = Subscription(connection, Queue("q"), lambda message: None, 10)
        self.addCleanup(self.peer.clock.advance, 0)
        self.addCleanup(self.subscription.close)
        self.lines: list[str] = []
        observe = lambda event: self.lines.append(event.get("log_format") or "")  # noqa: E731
        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        self.asked: list[float] = []

    def play(self, seconds: int, refuse: bool) -> None:
        """Answer for so long, and refuse each declaration; or take each, and say at once that the queue is deleted."""
        for _ in range(seconds * 20):
            for number, name, args in self.peer.sent():
                if name == "channel.close-ok":
                    continue
                if name == "queue.declare":
                    self.asked.append(self.peer.clock.seconds())
                    if refuse:
                        self.peer.method(number, "channel.close", reply_code=404, class_id=50, method_id=10)
                        continue
                self.peer.method(number, f"{name}-ok", **ANSWERS.get(name, {}))
                if name == "basic.consume" and not refuse:
                    self.peer.method(number, "basic.cancel", consumer_tag=args["consumer_tag"], nowait=True)
            self.peer.clock.advance(0.05)

    def paced(self) -> None:
        """Few attempts in any ten seconds but the first, and fewer lines."""
        later = [each for each in self.asked if each > 10]
        self.assertLess(len(self.asked) - len(later), 14)
        self.assertTrue(20 <= len(later) <= 50, later)
        told = [line for line in self.lines if "consumed" in line or "deleted" in line]
        self.assertLess(len(told), 8)

    def test_refused_again_and_again(self) -> None:
        """The wait grows to its limit, and the log tells at doubling numbers."""
        self.play(60, refuse=True)
        self.paced()

    def test_deleted_again_and_again(self) -> None:
        """A queue that is deleted once is declared again at once; one that is deleted each time is waited for."""
        self.play(60, refuse=False)
        self.assertLess(self.asked[1], 1)
        self.paced()
