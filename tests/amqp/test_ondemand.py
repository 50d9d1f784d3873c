"""Queues that are declared on demand: when, how often, and until when; the publisher is the test's own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txservices.amqp import ondemand
from txservices.amqp.delays import DECLARED_AGAIN
from txservices.amqp.entities import Queue
from txservices.amqp.ondemand import ATTEMPTS_MAX, OnDemand
from txservices.exceptions import HeadersTooLarge, PublishTimeout, UndeliverableMessage
from txservices.wire.codec import encode_properties

RETURNED = UndeliverableMessage("", "q", 312, "NO_ROUTE")


class OnDemandTests(SynchronousTestCase):
    """The queue ``q``, and messages for it."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.declared: list[str] = []
        self.sent: list[tuple[Any, ...]] = []
        self.confirms: list[Any] = []
        self.told: list[Exception | None] = []
        self.declaration: Deferred[None] = succeed(None)
        self.patch(ondemand, "declare", self.declare)
        connection = SimpleNamespace(when_connected=lambda: succeed(None))
        publisher: Any = SimpleNamespace(
            clock=self.clock, header_max=1000, connection=connection, publish_then=self.publish_then
        )
        self.on_demand = OnDemand(publisher)

    async def declare(self, protocol: Any, queue: Queue, patience: float) -> None:
        self.declared.append(queue.name)
        await self.declaration

    def publish_then(
        self, exchange: str, key: str, body: bytes, properties: Any, mandatory: bool, confirmed: Any, left: float | None
    ) -> None:
        self.sent.append((exchange, key, mandatory, left))
        self.confirms.append(confirmed)

    def publish(self, timeout: float | None = None, queue: str = "q", **properties: Any) -> None:
        self.on_demand.publish_then(Queue(queue), b"", properties, self.told.append, timeout)

    def test_at_once(self) -> None:
        """What is to come at once goes to its exchange, through no queue of delays."""
        self.on_demand.publish_later("x", "key", b"", {}, 0, self.told.append, 3)
        self.assertEqual((self.sent, self.declared), ([("x", "key", False, 3)], []))
        self.on_demand.publish_later("x", "key", b"", {}, ondemand.AT_ONCE, self.told.append, 3)
        self.assertEqual(self.declared, ["txservices.delay.0.001s.x.key"])

    def test_returned(self) -> None:
        """A message that comes back is published three times, each after a declaration; then the error is told."""
        self.publish()
        for _ in range(ATTEMPTS_MAX):
            self.assertEqual(self.told, [])
            self.confirms[-1](RETURNED)
        self.assertEqual((len(self.sent), len(self.declared), self.told), (ATTEMPTS_MAX, ATTEMPTS_MAX, [RETURNED]))

    def test_declared_again(self) -> None:
        """A queue is declared before the first message, and anew before one that comes a minute later or more."""
        for passed, count in ((0, 1), (1, 1), (DECLARED_AGAIN - 1, 2), (DECLARED_AGAIN - 0.1, 2), (0.1, 3)):
            self.clock.advance(passed)
            self.publish()
            self.assertEqual((len(self.declared), passed), (count, passed))
        self.assertEqual(self.sent, [("", "q", True, None)] * 5)

    def test_time_left(self) -> None:
        """The time is for all together: what the declaration takes of it, the confirm has no longer."""
        self.declaration = Deferred()
        self.publish(3)
        self.clock.advance(2)
        self.declaration.callback(None)
        self.assertEqual(self.sent, [("", "q", True, 1)])

    def test_no_time_left(self) -> None:
        """A message that comes back when its time is over is not published again, but told as late, at once."""
        for declared in (True, False):
            self.told.clear()
            self.declaration = succeed(None)
            self.publish(3)
            self.clock.advance(3)
            if not declared:
                self.declaration = Deferred()
            before = len(self.sent)
            self.confirms[-1](RETURNED)
            self.clock.advance(0)
            (late,) = self.told
            assert isinstance(late, PublishTimeout)
            self.assertEqual((late.exchange, late.routing_key, len(self.sent)), ("", "q", before))

    def test_headers(self) -> None:
        """Properties may be as long as a frame may have; one byte more is refused at once, and nothing declared."""
        properties = {"headers": {"a": "x" * 100}}
        self.on_demand.publisher.header_max = len(encode_properties(properties))
        self.publish(**properties)
        self.on_demand.publisher.header_max -= 1
        with self.assertRaises(HeadersTooLarge):
            self.publish(queue="other", **properties)
        self.assertEqual(self.declared, ["q"])

    def test_refused_later(self) -> None:
        """What the publisher refuses after the declaration is told, for nobody is there to whom it could be raised."""
        refused = ValueError("why")

        def refuse(*arguments: Any) -> None:
            raise refused

        self.patch(self.on_demand.publisher, "publish_then", refuse)
        self.publish()
        self.assertEqual(self.told, [refused])

    def test_bound(self) -> None:
        """Of queues that are known to be there, those declared longest ago are forgotten."""
        self.patch(ondemand, "DECLARED_MAX", 2)
        for queue in ("a", "b", "c"):
            self.publish(queue=queue)
        self.assertEqual([each.name for each in self.on_demand.declared], ["b", "c"])
