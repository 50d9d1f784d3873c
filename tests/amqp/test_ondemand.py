"""Queues that are declared on demand: when, how often, and until when; the publisher and the broker are the test's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txservices.amqp import fresh, ondemand
from txservices.amqp.delays import DECLARED_AGAIN, UNUSED
from txservices.amqp.entities import Queue
from txservices.amqp.fresh import LASTS_AFTER, TakesNothing
from txservices.amqp.ondemand import ATTEMPTS_MAX, OnDemand, delay_queue
from txservices.amqp.outbox import Flow
from txservices.amqp.publisher import Publisher
from txservices.amqp.publishing import Publishing
from txservices.exceptions import (
    ChannelClosedByBroker,
    ConnectionLost,
    HeadersTooLarge,
    NotAnswered,
    PublishBufferFull,
    PublishNacked,
    PublishTimeout,
    UndeliverableMessage,
)
from txservices.wire.codec import encode_properties

RETURNED = UndeliverableMessage("", "q", 312, "NO_ROUTE")
LOST = ConnectionLost("it was killed")
NO_ANSWER = NotAnswered(0, "no answer", "basic.qos")
QUORUM = Queue("txservices.delay.1s.q", arguments={"x-queue-type": "quorum"})


class FreshChannel:
    """A channel on which a queue was declared."""

    patience = on_confirmed = on_closed = None

    def __init__(self, test: OnDemandTests) -> None:
        self.test = test
        self.client = test.protocol
        self.published = 0
        self.unconfirmed: dict[int, Publishing] = {}
        self.closed_here = False

    def queue_declare(self, queue: str, **arguments: Any) -> Deferred[Any]:
        self.test.declared.append(queue)
        declared: Deferred[Any] = Deferred()
        self.test.declaration.addCallback(lambda _: declared.callback(SimpleNamespace(queue=queue)))
        return declared

    def confirm_select(self) -> Deferred[None]:
        return succeed(None)

    def basic_qos(self) -> Deferred[None]:
        return self.test.answers.pop(0) if self.test.answers else succeed(None)

    def publish(self, publishing: Publishing) -> None:
        self.published += 1
        self.unconfirmed[self.published] = publishing
        self.test.sent.append((publishing.routing_key, publishing.mandatory))

    def confirm(self, error: Exception | None = None) -> None:
        """Answer for the message that came first."""
        publishing = self.unconfirmed.pop(min(self.unconfirmed))
        assert self.on_confirmed is not None
        self.on_confirmed(publishing, error)

    def close(self, error: Exception) -> None:
        if self.on_closed is not None:
            self.on_closed(error)


class OnDemandTests(SynchronousTestCase):
    """Messages for queues, mostly for the classic queue ``q``."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.declared: list[str] = []
        self.declaration: Deferred[None] = succeed(None)
        self.answers: list[Deferred[None]] = []  # of what comes after the first messages; further ones are at once
        self.channels: list[FreshChannel] = []
        self.sent: list[tuple[str, bool]] = []  # on channels of fresh queues
        self.later: list[tuple[Any, ...]] = []  # on the publisher's own channel
        self.told: list[Exception | None] = []
        self.protocol: Any = SimpleNamespace(
            open_channel=self.open_channel, close_channel=self.close_channel, flow=Flow(), flush=lambda: None
        )
        self.connecting: Deferred[Any] = succeed(None)
        self.on_connected: list[Any] = []
        connection: Any = SimpleNamespace(when_connected=self.when_connected, on_connected=self.on_connected)
        self.publisher = Publisher(connection, self.clock)
        self.patch(self.publisher, "publish_then", self.publish_then)
        self.on_demand = OnDemand(self.publisher)

    def when_connected(self) -> Deferred[Any]:
        connected: Deferred[Any] = Deferred()
        self.connecting.addCallback(lambda _: connected.callback(self.protocol))
        return connected

    def open_channel(self, patience: float) -> Deferred[FreshChannel]:
        self.channels.append(FreshChannel(self))
        return succeed(self.channels[-1])

    def close_channel(self, channel: FreshChannel) -> Deferred[None]:
        channel.closed_here = True
        return succeed(None)

    def publish_then(
        self, exchange: str, key: str, body: bytes, properties: Any, mandatory: bool, confirmed: Any, left: float | None
    ) -> None:
        self.later.append((exchange, key, mandatory, left))
        self.confirmed = confirmed

    def publish(self, timeout: float | None = None, queue: Queue = Queue("q"), **properties: Any) -> None:  # noqa: B008
        self.on_demand.publish_then(queue, b"", properties, self.told.append, timeout)

    def lasts(self, queue: Queue = QUORUM) -> None:
        """Have a queue that is known to last."""
        self.publish(queue=queue)
        self.channels[-1].confirm()
        self.clock.advance(LASTS_AFTER)

    def test_at_once(self) -> None:
        """What is to come at once goes to its exchange, through no queue of delays."""
        self.on_demand.publish_later("x", "key", b"", {}, 0, self.told.append, 3)
        self.assertEqual((self.later, self.declared), ([("x", "key", False, 3)], []))
        self.on_demand.publish_later("x", "key", b"", {}, ondemand.AT_ONCE, self.told.append, 3)
        self.assertEqual(self.declared, ["txservices.delay.0.001s.x.key"])

    def test_returned(self) -> None:
        """A message that comes back is published three times, each after a declaration; then the error is told."""
        self.publish()
        for _ in range(ATTEMPTS_MAX):
            self.assertEqual(self.told, [])
            self.clock.advance(0)
            self.channels[-1].confirm(RETURNED)
        self.assertEqual((len(self.sent), len(self.declared), self.told), (ATTEMPTS_MAX, ATTEMPTS_MAX, [RETURNED]))

    def test_declared_again(self) -> None:
        """A queue is declared before the first message, and anew before one that comes a minute later or more."""
        for passed, count in ((0, 1), (1, 1), (DECLARED_AGAIN - 1, 2), (DECLARED_AGAIN - 0.1, 2), (0.1, 3)):
            self.clock.advance(passed)
            self.publish(3)
            self.clock.advance(0)
            self.assertEqual((len(self.declared), passed), (count, passed))
        self.assertEqual(self.sent, [("q", True)] * 3)
        self.assertEqual(self.later, [("", "q", True, 3)] * 2)

    def test_new_connection(self) -> None:
        """On a new connection a queue is declared before the first message, and need not last longer than before."""
        self.lasts()
        self.publish(queue=QUORUM)
        self.assertEqual(len(self.declared), 1)
        for restore in self.on_connected:
            if restore != self.publisher.restore:
                restore(self.protocol)
        self.told.clear()
        self.publish(queue=QUORUM)
        self.channels[-1].confirm()
        self.assertEqual((len(self.declared), self.told), (2, []))

    def test_lasts(self) -> None:
        """The confirm of a message for a fresh quorum queue is told when the queue is old enough; then it is as others.

        Its channel is closed when it is answered for.
        """
        self.publish(0.5, QUORUM)
        self.publish(5, QUORUM)
        self.channels[0].confirm()
        self.clock.advance(LASTS_AFTER - 0.1)
        self.assertEqual((self.told, len(self.sent)), ([], 2))
        self.clock.advance(0.1)
        self.assertEqual((self.told, self.channels[0].closed_here), ([None], False))
        self.publish(queue=QUORUM)
        self.assertEqual((len(self.later), len(self.channels)), (1, 1))
        self.channels[0].confirm()
        self.assertEqual((self.told, self.channels[0].closed_here), ([None, None], True))
        self.assertEqual((self.publisher.unconfirmed, self.publisher.unconfirmed_bytes), ({}, 0))

    def test_known(self) -> None:
        """A confirm is told at once where the queue can't be new: a classic one, and one that was used lately."""
        self.publish()
        self.clock.advance(0)
        self.channels[-1].confirm()
        self.assertEqual(self.told, [None])
        for unused, told in ((UNUSED - 1, 1), (UNUSED, 0)):
            self.lasts()
            self.told.clear()
            self.clock.advance(unused)
            self.publish(queue=QUORUM)
            self.clock.advance(0)
            self.channels[-1].confirm()
            self.assertEqual((unused, len(self.told)), (unused, told))
            self.clock.advance(LASTS_AFTER)
            self.on_demand.declared.clear()

    def test_connection_lost(self) -> None:
        """What is lost with its connection before the queue is known to last is published again, confirmed or not."""
        self.publish(queue=QUORUM)
        self.publish(queue=QUORUM)
        self.channels[0].confirm()
        self.connecting = Deferred()
        self.channels[0].close(LOST)
        self.assertEqual((self.told, len(self.publisher.unconfirmed)), ([], 2))
        self.connecting.callback(None)
        self.assertEqual((len(self.declared), len(self.sent)), (2, 4))
        self.channels[1].confirm()
        self.channels[1].confirm()
        self.clock.advance(LASTS_AFTER)
        self.assertEqual(self.told, [None, None])

    def test_end(self) -> None:
        """At the end of the publisher each message fails, and one that comes later does at once."""
        self.publish(queue=QUORUM)
        self.publisher.abort()
        self.channels[0].close(LOST)
        self.publish(queue=QUORUM)
        self.publish(queue=Queue("other"))
        self.assertEqual([type(each) for each in self.told], [ConnectionLost] * 3)
        self.clock.advance(10)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_takes_nothing(self) -> None:
        """Another delay queue is used in place of one whose channel hangs, and a third in place of that one."""
        hangs = [Deferred[None](), Deferred[None]()]
        self.answers = list(hangs)
        self.publish(queue=QUORUM)
        self.publish(queue=QUORUM)
        for hang in hangs:
            hang.errback(NO_ANSWER)
        names = [QUORUM.name, f"{QUORUM.name}.2", f"{QUORUM.name}.3"]
        self.assertEqual(self.declared, names)
        self.assertEqual([name for name, _ in self.sent], [name for name in names for _ in "12"])
        self.assertEqual([each.closed_here for each in self.channels], [True, True, False])
        self.channels[2].confirm()
        self.channels[2].confirm()
        self.clock.advance(LASTS_AFTER)
        self.publish(queue=QUORUM)
        self.assertEqual((self.told, self.later), ([None, None], [("", names[2], True, None)]))

    def test_parking_queue_takes_nothing(self) -> None:
        """No other queue is used in place of one that people know by its name."""
        self.answers = [fail(NO_ANSWER)]
        self.publish(queue=Queue("q.parked", arguments=QUORUM.arguments))
        (error,) = self.told
        assert isinstance(error, TakesNothing)
        self.assertIn("rabbitmqctl delete_queue q.parked", str(error))

    def test_blocked(self) -> None:
        """While the broker reads no messages for want of memory, a queue is not taken for one that takes nothing."""
        hang, answer = Deferred[None](), Deferred[None]()
        self.answers = [hang, answer]
        self.publish(queue=QUORUM)
        self.protocol.flow.block(True)
        hang.errback(NO_ANSWER)
        answer.callback(None)
        self.channels[0].confirm()
        self.clock.advance(LASTS_AFTER)
        self.assertEqual((self.told, self.declared), ([None], [QUORUM.name]))

    def test_elsewhere(self) -> None:
        """A nacked message, and those of a channel that the broker closes, are the publisher's to publish again."""
        self.publish(5)
        self.clock.advance(1)
        self.channels[0].confirm(PublishNacked("", "q"))
        self.assertEqual((self.told, self.later), ([], [("", "q", True, 4)]))
        self.publish(queue=QUORUM)
        self.publish(queue=QUORUM)
        self.channels[-1].confirm()
        self.channels[-1].close(ChannelClosedByBroker(406, "PRECONDITION_FAILED", "basic.publish"))
        self.assertEqual((self.told, [key for _, key, *_ in self.later[1:]]), ([], [QUORUM.name] * 2))
        self.confirmed(RETURNED)
        self.assertEqual(self.declared[-1], QUORUM.name)

    def test_late(self) -> None:
        """The time is for all together: messages that are late when the queue is declared are not published."""
        self.declaration = Deferred()
        self.publish(3, QUORUM)
        self.clock.pump([0.1] * 31)
        self.assertEqual([type(each) for each in self.told], [PublishTimeout])
        self.declaration.callback(None)
        self.assertEqual((self.sent, self.on_demand.fresh, self.on_demand.declared), ([], {}, {}))

    def test_no_time_left(self) -> None:
        """A message that comes back when its time is over is not published again, but told as late, at once."""
        self.publish(3)
        self.clock.rightNow += 3
        self.channels[0].confirm(RETURNED)
        (late,) = self.told
        assert isinstance(late, PublishTimeout)
        self.assertEqual((late.exchange, late.routing_key, len(self.sent)), ("", "q", 1))

    def test_headers(self) -> None:
        """Properties may be as long as a frame may have; one byte more is refused at once, and nothing declared."""
        properties = {"headers": {"a": "x" * 100}, "message_id": "1"}
        self.publisher.header_max = len(encode_properties(properties))
        self.publish(**properties)
        self.publisher.header_max -= 1
        with self.assertRaises(HeadersTooLarge):
            self.publish(queue=Queue("other"), **properties)
        self.assertEqual(self.declared, ["q"])

    def test_refused_later(self) -> None:
        """What the publisher refuses after the declaration is told, for nobody is there to whom it could be raised."""
        refused = ValueError("why")

        def refuse(*arguments: Any) -> None:
            raise refused

        self.publish()
        self.patch(self.publisher, "publish_then", refuse)
        self.channels[0].confirm(PublishNacked("", "q"))
        self.assertEqual(self.told, [refused])

    def test_full(self) -> None:
        """Messages that wait for a declaration count among those that the publisher keeps."""
        self.connecting = Deferred()
        self.patch(fresh, "UNCONFIRMED_MAX", 2)
        for _ in range(3):
            self.publish(queue=QUORUM)
        self.assertEqual([type(each) for each in self.told], [PublishBufferFull])

    def test_bound(self) -> None:
        """Of queues that are known to be there, those declared longest ago are forgotten."""
        self.patch(ondemand, "DECLARED_MAX", 2)
        for queue in ("a", "b", "c"):
            self.publish(queue=Queue(queue))
            self.clock.advance(0)
        self.assertEqual([each.name for each in self.on_demand.declared], ["b", "c"])

    def test_bound_of_replaced(self) -> None:
        """Of queues that take nothing, those found out longest ago are forgotten."""
        self.patch(ondemand, "INSTEAD_MAX", 1)
        for key in "ab":
            self.answers = [fail(NO_ANSWER)]
            self.publish(queue=delay_queue("", key, 1000))
        self.assertEqual([each.name for each in self.on_demand.instead], ["txservices.delay.1s.b"])
