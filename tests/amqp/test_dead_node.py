"""A node with classic queues is down, on a connection to another whose broker the test plays, in virtual time.

RabbitMQ 4 answers for such a queue after 64 seconds, and closes the channel then; or once the node is back.
"""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.amqp.peer import Peer
from tests.amqp.test_publisher import PublisherCase
from tests.amqp.test_subscription import ANSWERS, STEPS
from txservices.amqp.connection import Connection
from txservices.amqp.entities import Queue
from txservices.amqp.options import Sending
from txservices.amqp.publish import send
from txservices.amqp.publisher import NACKED_RETRY_MAX
from txservices.amqp.subscription import CONSUME_RETRY, PATIENCE_MAX, Subscription
from txservices.amqp.topology import ANSWER_TIMEOUT, DECLARE_TIMEOUT
from txservices.exceptions import NotAnswered, PublishNacked, PublishTimeout


class SubscriptionTests(SynchronousTestCase):
    """A consumer goes on, or takes another queue."""

    ANSWERED_AFTER = 64.0

    def setUp(self) -> None:
        self.peer = Peer()
        self.peer.connect()
        self.peer.sent()
        self.clock = self.peer.clock
        self.connection = Connection((self.peer.protocol.address,), "tests", self.clock)
        self.connection.protocol = self.peer.protocol
        self.dead: set[str] = set()
        self.asked: list[tuple[float, str, Any]] = []  # when, what, and for which queue
        self.hanging: dict[int, float] = {}  # since when, by channel
        self.closing: set[int] = set()  # those among them that we have closed
        self.unanswered = ""  # a method
        self.held: list[tuple[int, str, dict[str, Any]]] | None = None  # what is not answered yet, besides new channels
        self.addCleanup(self.end)

    def end(self) -> None:
        self.peer.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def subscribe(self, **arguments: str) -> Subscription:
        subscription = Subscription(self.connection, Queue("old", arguments=arguments), self.fail, 10)
        self.play()
        self.successResultOf(subscription.ready)
        self.asked.clear()
        return subscription

    def play(self, seconds: float = 0, step: float = 0.1) -> None:
        """Be the broker for so long."""
        end = self.clock.seconds() + seconds
        while True:
            while sent := self.peer.sent():
                for channel, name, args in sent:
                    self.answer(channel, name, args)
                self.clock.advance(0)
            for channel, since in list(self.hanging.items()):
                if self.clock.seconds() - since >= self.ANSWERED_AFTER:
                    del self.hanging[channel]
                    why = {"reply_code": 404, "reply_text": "NOT_FOUND", "class_id": 50, "method_id": 10}
                    self.peer.method(channel, "channel.close", **why)
                    if channel in self.closing:
                        self.closing.remove(channel)
                        self.peer.method(channel, "channel.close-ok")
            if self.clock.seconds() >= end:
                return
            self.clock.advance(step)

    def answer(self, channel: int, name: str, args: dict[str, Any]) -> None:
        if self.held is not None and name != "channel.open":
            self.held.append((channel, name, args))
            return
        self.asked.append((self.clock.seconds(), name, args.get("queue")))
        if channel in self.hanging and name == "channel.close":
            self.closing.add(channel)
        if channel in self.hanging or name == "channel.close-ok":
            return
        if args.get("queue") in self.dead or name == self.unanswered:
            self.hanging[channel] = self.clock.seconds()
            return
        answers = {"queue.declare": {"queue": args.get("queue"), "message_count": 0, "consumer_count": 0}}
        answers["basic.consume"] = {"consumer_tag": args.get("consumer_tag")}
        self.peer.method(channel, f"{name}-ok", **answers.get(name, {}))

    def revive(self, queue: str) -> None:
        """The node is back: RabbitMQ answers what was asked meanwhile."""
        self.dead.remove(queue)
        for channel in list(self.hanging):
            del self.hanging[channel]
            self.peer.method(channel, "queue.declare-ok", queue=queue, message_count=0, consumer_count=0)
            if channel in self.closing:
                self.closing.remove(channel)
                self.peer.method(channel, "channel.close-ok")

    def cancelled_by_broker(self, subscription: Subscription) -> None:
        """As happens with every queue that was on the dead node."""
        assert subscription.channel is not None
        self.dead.add(subscription.queue_name)
        self.peer.method(subscription.channel.id, "basic.cancel", consumer_tag=subscription.tag)

    def test_another_queue_takes_over(self) -> None:
        """A queue that may be replaced is taken for missing after a second or two, and the next is consumed then."""
        subscription = self.subscribe()

        def missing() -> None:
            subscription.queue = Queue("new")

        subscription.on_missing = missing
        self.cancelled_by_broker(subscription)
        self.play(ANSWER_TIMEOUT + 0.3)
        consumed = [at for at, name, queue in self.asked if (name, queue) == ("basic.consume", "new")]
        self.assertEqual(len(consumed), 1)
        self.assertLess(consumed[0], 2)
        self.play(self.ANSWERED_AFTER)  # and the late answer harms nothing
        self.assertFalse(self.peer.protocol.closed)
        self.assertEqual([name for _, name, _ in self.asked].count("basic.consume"), 1)

    def test_stuck_queue(self) -> None:
        """A quorum queue that is there and can't be consumed may be what a crash has left: it is told how to get on."""
        cure = r"is a node of its cluster down\? Or was .*: delete it, with rabbitmqctl delete_queue old -p vh$"
        for arguments, unanswered, told in (
            ({"x-queue-type": "quorum"}, "basic.consume", cure),
            ({"x-queue-type": "quorum"}, "queue.declare", r"is a node of its cluster down\?$"),
            ({}, "basic.consume", r"is a node of its cluster down\?$"),
        ):
            self.unanswered = ""
            subscription = self.subscribe(**arguments)
            assert subscription.channel is not None
            self.unanswered = unanswered
            self.peer.method(subscription.channel.id, "basic.cancel", consumer_tag=subscription.tag)
            with capturedLogs() as events:
                self.play(ANSWER_TIMEOUT + 0.3)
            self.assertRegex(str(subscription.trouble), told)
            (line,) = [event["error"] for event in events if "can't be consumed" in event["log_format"]]
            self.assertRegex(line, told)
            subscription.close()
            self.play(CONSUME_RETRY)

    def test_slow_broker(self) -> None:
        """A queue that may be replaced is not, if the broker answers nothing else in that time either."""
        subscription = self.subscribe()
        subscription.on_missing = lambda: self.fail("it is taken for missing")
        assert subscription.channel is not None
        self.held = []
        self.peer.method(subscription.channel.id, "basic.cancel", consumer_tag=subscription.tag)
        self.play(ANSWER_TIMEOUT * 2)
        held, self.held = self.held, None
        for each in held:
            self.answer(*each)
        self.play(ANSWER_TIMEOUT)
        self.assertEqual(self.asked[-1][1:], ("basic.consume", "old"))
        self.assertIsNone(subscription.trouble)

    def test_attempts_grow_apart(self) -> None:
        """Another queue is asked for again and again, each time with twice the patience, and few channels hang."""
        subscription = self.subscribe()
        self.cancelled_by_broker(subscription)
        most = 0
        for _ in range(600):
            self.play(1, step=0.5)
            most = max(most, len(self.hanging))
        attempts = [at for at, name, _ in self.asked if name == "queue.declare"]
        waits = [after - before for before, after in pairwise(attempts)]
        self.assertEqual(waits[:3], [ANSWER_TIMEOUT * factor + CONSUME_RETRY for factor in (1, 2, 4)])
        self.assertEqual(max(waits), PATIENCE_MAX + CONSUME_RETRY)
        self.assertLess(most, 8)
        self.assertLess(len(self.peer.protocol.channels), 10)
        self.revive("old")
        self.play()
        self.assertEqual(self.asked[-1][1:], ("basic.consume", "old"))
        self.assertEqual(subscription.patience, ANSWER_TIMEOUT)

    def test_others_are_consumed(self) -> None:
        """A queue for which no answer comes does not disturb the others of its connection."""
        stuck, other = self.subscribe(), self.subscribe()
        self.cancelled_by_broker(stuck)
        self.play(10)
        assert other.channel is not None
        self.assertIn(other.tag, other.channel.consumers)

    def test_the_end_does_not_wait(self) -> None:
        """A consumer for whose queue no answer comes is cancelled and closed at once."""
        for seconds in (0.1, ANSWER_TIMEOUT + 0.1, ANSWER_TIMEOUT + CONSUME_RETRY + 0.2):
            subscription = self.subscribe()
            self.cancelled_by_broker(subscription)
            self.play(seconds)
            self.successResultOf(subscription.cancel())
            self.successResultOf(subscription.close())
            self.play(self.ANSWERED_AFTER + 10)
            self.dead.clear()

    def test_slow_link(self) -> None:
        """On a link that takes two seconds for each answer, every answer may take so much longer."""
        subscription = Subscription(self.connection, Queue("q"), self.fail, 10)
        for name in STEPS:
            sent = self.peer.sent()
            self.assertEqual([each[1] for each in sent], [name])
            self.clock.advance(2.0)
            self.peer.method(sent[0][0], f"{name}-ok", **ANSWERS.get(name, {}))
        self.successResultOf(subscription.ready)


class PublisherTests(PublisherCase):
    """Publishes and declarations wait for a second or two, or end with their deadline."""

    def declared(self, *names: str) -> None:
        """Declare queues of these names."""
        declaring = self.publisher.declare(*map(Queue, names))
        self.answer()
        self.successResultOf(declaring)

    def answer(self, *dead: str) -> list[str]:
        """Answer everything except requests about these queues. Gives the requests."""
        asked: list[str] = []
        while sent := self.peer.sent():
            for channel, name, args in sent:
                asked.append(name)
                if name == "queue.declare" and args["queue"] not in dead:
                    self.peer.method(
                        channel, "queue.declare-ok", queue=args["queue"], message_count=0, consumer_count=0
                    )
                elif name in ("channel.open", "confirm.select"):
                    self.peer.method(channel, f"{name}-ok")
            self.peer.clock.advance(0)
        return asked

    def test_messages_wait_once(self) -> None:
        """After a reconnect messages go out when a second or two are over, however many queues are not answered for."""
        names = [f"dead-{number}" for number in range(30)]
        self.declared("alive", *names)
        restored = Deferred.fromCoroutine(self.publisher.restore(self.peer.protocol))
        self.answer(*names)
        self.assertNoResult(restored)
        self.peer.clock.advance(ANSWER_TIMEOUT)
        self.answer(*names)
        self.successResultOf(restored)

    def test_declaration_ends(self) -> None:
        """A declaration fails when it is not answered in time, and names the queue."""
        declaring = self.publisher.declare(Queue("dead"))
        self.answer("dead")
        self.peer.clock.advance(DECLARE_TIMEOUT)
        error = self.failureResultOf(declaring, NotAnswered).value
        self.assertIn("queue.declare", str(error))
        self.answer()

    def test_publish_that_declares_ends(self) -> None:
        """A message whose queue is to be declared first fails at its own deadline."""
        connections: Any = SimpleNamespace(publisher=self.publisher)
        owner: Any = SimpleNamespace(unconfirmed=None)
        sending = Sending(timeout=2.0, declare=(Queue("dead"),))
        told = send(connections, sending, "", "dead", {}, b"", owner, declare_first=True)
        self.answer("dead")
        self.peer.clock.advance(2.0)
        self.failureResultOf(told, PublishTimeout)
        self.assertEqual(owner.unconfirmed.count, 0)
        self.answer()

    def test_nack_that_is_told(self) -> None:
        """A message that is not to be published again fails with its first nack, and nothing is kept of it."""
        outcomes: list[Any] = []
        self.publisher.publish_then("", "q", b"1", {"message_id": "1"}, False, outcomes.append, 30, retry_nacked=False)
        self.assertEqual(self.published(), [b"1"])
        self.peer.method(self.channel, "basic.nack", delivery_tag=1, multiple=False)
        self.assertEqual([type(outcome) for outcome in outcomes], [PublishNacked])
        self.assertEqual(self.publisher.unconfirmed, {})
        self.assertEqual(self.publisher.unconfirmed_bytes, 0)
        self.peer.clock.advance(NACKED_RETRY_MAX)
        self.assertEqual(self.peer.sent(), [])
