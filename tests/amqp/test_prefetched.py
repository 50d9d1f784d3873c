"""When a service's connection is not read: the count alone, and on a connection whose broker the test plays."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.amqp.peer import Peer
from txservices.amqp.connection import Connection
from txservices.amqp.entities import Message, Queue
from txservices.amqp.prefetched import LOW_PART, Prefetched
from txservices.amqp.subscription import Subscription

MOST = 1000


class Counted:
    """A count whose connection notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.waiting = 0
        self.count = Prefetched(
            MOST, lambda: bool(self.waiting), lambda: self.told.append("pause"), lambda: self.told.append("resume")
        )


class PrefetchedTests(SynchronousTestCase):
    """The count alone."""

    def test_marks(self) -> None:
        """Nothing is read over the limit, until half of it is settled; but only while something waits."""
        for bytes_taken, waiting, paused, then in [
            (0, 1, False, False),
            (MOST, 1, False, False),
            (MOST + 1, 0, False, False),
            (MOST + 1, 1, False, True),
            (10 * MOST, 0, False, False),
            (int(MOST * LOW_PART) + 1, 1, True, True),
            (int(MOST * LOW_PART), 1, True, False),
            (10 * MOST, 1, True, True),
            (10 * MOST, 0, True, False),
        ]:
            counted = Counted()
            counted.count.bytes, counted.waiting, counted.count.paused = bytes_taken, waiting, paused
            counted.count.look()
            self.assertEqual(counted.count.paused, then, (bytes_taken, waiting, paused))
            self.assertEqual(counted.told, [] if then is paused else ["pause" if then else "resume"])

    def test_always_read(self) -> None:
        """While an answer is waited for, and when the connection is being closed, everything is read."""
        counted = Counted()
        counted.count.bytes, counted.waiting, counted.count.awaited = 2 * MOST, 1, 1
        counted.count.look()
        self.assertFalse(counted.count.paused)
        counted.count.answered()
        self.assertTrue(counted.count.paused)
        counted.count.close()
        counted.count.look()
        self.assertEqual((counted.count.paused, counted.told), (False, ["pause", "resume"]))

    @settings(deadline=None)
    @given(st.lists(st.tuples(st.sampled_from(["take", "begin", "end", "lost"]), st.integers(0, 400)), max_size=60))
    def test_never_stuck(self, steps: list[tuple[str, int]]) -> None:
        """Whatever comes in whatever order: where nothing waits, the connection is read.

        Over the limit nothing more is taken, but one message of each new connection.
        """
        counted = Counted()
        count = counted.count
        lost = 0
        waiting: list[int] = []
        running: list[int] = []
        for step, size in steps:
            if step == "take" and not count.paused:
                count.bytes += size
                waiting.append(size)
                counted.waiting = len(waiting)
                if count.bytes > MOST:
                    count.look()
            elif step == "begin" and waiting:
                running.append(waiting.pop(0))
                counted.waiting = len(waiting)
                if not waiting:
                    count.look()
            elif step == "end" and running:
                count.bytes -= running.pop(0)
                if count.paused:
                    count.look()
            elif step == "lost":
                lost += 1
                count.connection_changed()
            self.assertEqual(count.bytes, sum(waiting) + sum(running))
            if not waiting:
                self.assertFalse(count.paused)
            self.assertLessEqual(sum(waiting) - (waiting[-1] if waiting else 0), MOST + 400 * lost)


class ConnectionTests(SynchronousTestCase):
    """A subscription on a connection with a limit."""

    def setUp(self) -> None:
        self.peer = Peer()
        self.peer.connect()
        self.connection = Connection((self.peer.protocol.address,), "tests", self.peer.clock)
        self.connection.protocol = self.peer.protocol
        self.waiting: list[Message] = []
        self.count = self.connection.limit(MOST, lambda: bool(self.waiting))
        self.subscription = Subscription(self.connection, Queue("q"), self.waiting.append, 0)
        self.peer.method(1, "channel.open-ok")
        self.peer.method(1, "queue.declare-ok", queue="q", message_count=0, consumer_count=0)
        self.peer.method(1, "basic.qos-ok")
        self.peer.method(1, "basic.consume-ok", consumer_tag=self.subscription.tag)
        self.successResultOf(self.subscription.ready)
        self.peer.sent()
        self.tag = 0

    def tearDown(self) -> None:
        self.peer.protocol.connectionLost(Failure(ConnectionDone()))

    def deliver(self, size: int) -> None:
        self.tag += 1
        self.peer.content(
            1,
            "basic.deliver",
            {},
            b"x" * size,
            consumer_tag=self.subscription.tag,
            delivery_tag=self.tag,
            redelivered=False,
            exchange="",
            routing_key="q",
        )

    @property
    def reads(self) -> bool:
        return self.peer.transport.producerState == "producing"

    def test_paused(self) -> None:
        """Over the limit nothing is read, acks and heartbeats go out, and a silent broker is not given up."""
        for _ in range(3):
            self.deliver(400)
        self.assertFalse(self.reads)
        self.peer.protocol.heartbeat.start(10)
        self.peer.clock.pump([1] * 100)
        self.assertEqual(self.peer.sent(), [])
        self.assertGreater(self.peer.heartbeats, 10)
        self.assertFalse(self.peer.transport.aborted)
        self.waiting.pop(0).ack()
        self.assertFalse(self.reads)
        self.waiting.pop(0).ack()
        self.assertTrue(self.reads)
        self.assertEqual([name for _, name, _ in self.peer.sent()], ["basic.ack"])
        self.peer.clock.pump([1] * 19)
        self.assertFalse(self.peer.transport.aborted)
        self.peer.clock.pump([1] * 3)
        self.assertTrue(self.peer.transport.aborted)

    def test_lost_while_paused(self) -> None:
        """The next connection is read, however much of what came on the last one is not settled."""
        for _ in range(3):
            self.deliver(400)
        self.assertTrue(self.count.paused)
        self.connection.use(None, "lost")
        self.assertFalse(self.count.paused)

    def test_counted_once(self) -> None:
        """Each delivery counts until it is settled, however that is done, also when its channel is gone."""
        for settle in (Message.ack, Message.reject, lambda message: message.reject(requeue=True)):
            self.deliver(300)
            message = self.waiting.pop()
            self.assertEqual(self.count.bytes, 300)
            message.body = b"other"
            settle(message)
            settle(message)
            self.assertEqual(self.count.bytes, 0)
        self.deliver(300)
        self.peer.method(1, "channel.close", reply_code=406, reply_text="no", class_id=0, method_id=0)
        self.assertEqual(self.count.bytes, 300)
        self.waiting.pop().ack()
        self.assertEqual(self.count.bytes, 0)

    def test_cancelled_while_paused(self) -> None:
        """A cancel is not waited for, and what was on its way goes back at once."""
        for _ in range(3):
            self.deliver(400)
        self.successResultOf(self.subscription.cancel())
        self.assertEqual([name for _, name, _ in self.peer.sent()], ["basic.cancel"])
        self.deliver(5000)
        (rejected,) = self.peer.sent()
        self.assertEqual((rejected[1], rejected[2]["requeue"]), ("basic.reject", True))
        self.assertEqual((len(self.waiting), self.count.bytes), (3, 1200))

    def test_flooded_while_cancelling(self) -> None:
        """What comes after a cancel, and is more than may be held, goes back when the broker has answered."""
        self.deliver(400)
        cancelling = self.subscription.cancel()
        for _ in range(5):
            self.deliver(400)
        self.assertTrue(self.reads)
        self.assertEqual((len(self.waiting), self.count.bytes), (2, 800))
        self.assertEqual([name for _, name, _ in self.peer.sent()], ["basic.cancel"])
        self.peer.method(1, "basic.cancel-ok", consumer_tag=self.subscription.tag)
        self.successResultOf(cancelling)
        sent = [(name, args["delivery_tag"], args["requeue"]) for _, name, args in self.peer.sent()]
        self.assertEqual(sent, [("basic.reject", tag, True) for tag in (3, 4, 5, 6)])
        self.assertEqual((self.count.awaited, self.count.parked), (0, []))

    def test_flooded_while_another_begins(self) -> None:
        """While another queue is declared, everything is read; what was too much goes back then."""
        for _ in range(3):
            self.deliver(400)
        self.assertFalse(self.reads)
        other = Subscription(self.connection, Queue("other"), self.waiting.append, 0)
        self.assertTrue(self.reads)
        for _ in range(3):
            self.deliver(400)
        self.assertEqual((len(self.waiting), self.count.bytes), (3, 1200))
        self.peer.method(2, "channel.open-ok")
        self.peer.method(2, "queue.declare-ok", queue="other", message_count=0, consumer_count=0)
        self.peer.method(2, "basic.qos-ok")
        self.peer.sent()
        self.peer.method(2, "basic.consume-ok", consumer_tag=other.tag)
        self.successResultOf(other.ready)
        sent = [(channel, name, args["delivery_tag"]) for channel, name, args in self.peer.sent()]
        self.assertEqual(sent, [(1, "basic.reject", tag) for tag in (4, 5, 6)])
        self.assertFalse(self.reads)

    def test_parked_goes_back_before(self) -> None:
        """What is parked goes back when no message waits any more, however long the broker takes to answer."""
        self.deliver(400)
        self.connection.prefetched.ask()
        for _ in range(4):
            self.deliver(400)
        self.assertEqual(len(self.count.parked), 3)
        for message in list(self.waiting):
            self.waiting.remove(message)
            message.ack()
        self.count.look()
        self.assertEqual((self.count.parked, self.count.bytes), ([], 0))
