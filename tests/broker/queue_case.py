"""What the tests of queues share."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txservices.broker.deliveries import Consumer, Deliveries, Entry
from txservices.broker.messages import Message
from txservices.broker.queues import Queue


class QueueTestCase(SynchronousTestCase):
    """A queue on a clock, and what its consumers got as (tag, body)."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.got: list[tuple[str, bytes]] = []
        self.dead: list[tuple[bytes, str]] = []
        self.ended: list[Queue] = []
        self.queue = self.make()

    def make(self, **arguments: Any) -> Queue:
        queue = Queue("q", arguments=arguments, seconds=self.clock.seconds)
        queue.dead_letter = lambda entry, reason: self.dead.append((entry.message.body, reason))
        queue.unused = self.ended.append
        return queue

    def put(self, *bodies: bytes, expiration: int | None = None, queue: Queue | None = None) -> list[bool]:
        target = self.queue if queue is None else queue
        return [target.put(Message("", "q", b"", b"\0\0", body, expiration)) for body in bodies]

    def consumer(
        self,
        tag: str,
        prefetch: int = 0,
        deliveries: Deliveries | None = None,
        queue: Queue | None = None,
        no_ack: bool = False,
        exclusive: bool = False,
        priority: int = 0,
    ) -> Consumer:
        deliveries = deliveries or Deliveries()

        def send(consumer: Consumer, entry: Entry) -> None:
            if not consumer.no_ack:
                deliveries.add(entry, consumer)
            self.got.append((tag, entry.message.body))

        target = self.queue if queue is None else queue
        consumer = Consumer(tag, target, deliveries, send, lambda consumer: None, prefetch, no_ack, exclusive, priority)
        target.add(consumer)
        return consumer

    def ack(self, consumer: Consumer, tag: int, multiple: bool = False) -> list[Entry]:
        entries = consumer.deliveries.settle(tag, multiple)
        consumer.deliveries.make_room()
        return entries

    def ready(self, queue: Queue | None = None) -> list[bytes]:
        """What is ready, taken out, in order."""
        target = self.queue if queue is None else queue
        return [target.take().message.body for _ in range(len(target))]
