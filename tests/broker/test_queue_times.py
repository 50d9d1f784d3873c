"""Times of queues and messages: expiry, TTL, and queues that nobody uses."""

from __future__ import annotations

import itertools
from typing import Any

from tests.broker.queue_case import QueueTestCase
from txservices.broker.queues import Queue


class TimeTests(QueueTestCase):
    """TTL, of the queue and of messages; x-expires."""

    def test_time_to_live(self) -> None:
        """The queue's TTL and the message's: the shorter one counts, and both end in dead letters."""
        queue = self.make(**{"x-message-ttl": 1000})
        self.put(b"short", expiration=500, queue=queue)
        self.put(b"long", expiration=5000, queue=queue)
        for seconds, expected in ((0.25, []), (0.25, [b"short"]), (0.25, [b"short"]), (0.25, [b"short", b"long"])):
            self.clock.advance(seconds)
            queue.look()
            self.assertEqual([body for body, _ in self.dead], expected)
        self.assertEqual({reason for _, reason in self.dead}, {"expired"})

    def test_expired_is_not_delivered(self) -> None:
        """A consumer that comes too late gets what is still alive."""
        self.put(b"dead", expiration=100)
        self.put(b"alive")
        self.clock.advance(0.2)
        self.consumer("a")
        self.assertEqual((self.got, self.dead), ([("a", b"alive")], [(b"dead", "expired")]))
        self.put(b"x", expiration=100)
        self.assertIsNone(self.make().get())

    def test_zero_is_now_or_never(self) -> None:
        """With a TTL of 0 a message goes to a consumer with room, or nowhere."""
        self.consumer("a", prefetch=1)
        self.put(b"1", b"2", expiration=0)
        self.assertEqual((self.got, self.dead, len(self.queue)), ([("a", b"1")], [(b"2", "expired")], 0))

    def test_zero_while_time_goes_on(self) -> None:
        """A TTL of 0 is over when the clock is read next, and the message goes to a consumer with room all the same."""
        queue = Queue("q", seconds=itertools.count().__next__)
        queue.dead_letter = self.queue.dead_letter
        self.consumer("a", prefetch=1, queue=queue)
        self.put(b"1", b"2", expiration=0, queue=queue)
        self.assertEqual((self.got, self.dead, len(queue)), ([("a", b"1")], [(b"2", "expired")], 0))

    def test_sixty_days(self) -> None:
        """A long time is kept to the second, by each of the three limits."""
        days = 60 * 24 * 3600
        for arguments, expiration in (({"x-message-ttl": days * 1000}, None), ({}, days * 1000)):
            queue = self.make(**arguments)
            self.put(b"1", expiration=expiration, queue=queue)
            self.clock.advance(days - 1)
            queue.look()
            self.assertEqual(len(queue), 1)
            self.clock.advance(1)
            queue.look()
            self.assertEqual(len(queue), 0)
        queue = self.make(**{"x-expires": days * 1000})
        queue.used()
        self.clock.advance(days - 1)
        queue.look()
        self.assertEqual(self.ended, [])
        self.clock.advance(1)
        queue.look()
        self.assertEqual(self.ended, [queue])

    def test_requeued_keeps_its_deadline(self) -> None:
        """Time goes on while a consumer has the message. It has expired at its deadline, not after it."""
        consumer = self.consumer("a")
        self.put(b"1", b"2", expiration=1000)
        self.clock.advance(1)
        self.queue.requeue(consumer.deliveries.settle(1, multiple=False))  # it would be delivered again
        self.queue.remove(consumer)
        self.queue.requeue(consumer.deliveries.settle(2, multiple=False))
        self.queue.look()
        self.assertEqual(self.dead, [(b"1", "expired"), (b"2", "expired")])
        self.assertEqual(len(self.got), 2)

    def test_expires_when_unused(self) -> None:
        """x-expires counts from the last use: a declaration, a get, the last consumer's end."""
        queue = self.make(**{"x-expires": 1000})
        queue.used()
        self.clock.advance(0.75)
        queue.get()
        self.clock.advance(0.75)
        consumer = self.consumer("a", queue=queue)
        self.clock.advance(5)
        queue.look()
        self.assertEqual(self.ended, [])
        queue.remove(consumer)
        self.clock.advance(0.75)
        queue.look()
        self.assertEqual(self.ended, [])
        self.clock.advance(0.25)
        queue.look()
        self.assertEqual(self.ended, [queue])

    def test_requeued_is_watched(self) -> None:
        """A message that comes back still expires in time, also in a queue whose other messages have no deadline."""
        consumer = self.consumer("a")
        self.put(b"1", expiration=1000)
        self.put(b"2")
        self.queue.remove(consumer)
        watched: list[Queue] = []
        self.queue.watch = watched.append
        entries = consumer.deliveries.settle(2, multiple=True)
        self.queue.requeue(entries[1:])
        self.assertEqual((watched, self.queue.has_timed), ([], False))
        self.queue.requeue(entries[:1])
        self.assertEqual((watched, self.queue.deadline), ([self.queue], 1))

    def test_get_of_what_expired(self) -> None:
        """A get gives no expired message, also if nobody has looked at the queue in time."""
        self.put(b"1", expiration=1000)
        self.put(b"2")
        self.clock.advance(1)
        entry = self.queue.get()
        assert entry is not None
        self.assertEqual((entry.message.body, self.dead), (b"2", [(b"1", "expired")]))

    def test_uses_are_watched(self) -> None:
        """Each use of a queue with x-expires moves its end to that many milliseconds later, and has it watched."""
        queue = self.make(**{"x-expires": 100_000})
        watched: list[Any] = []
        queue.watch = watched.append
        self.clock.advance(1)
        queue.get()
        self.assertEqual((queue.deadline, watched), (101, [queue]))
        queue.look()  # too early
        self.assertEqual((self.ended, watched), ([], [queue, queue]))
        self.clock.advance(100)
        queue.look()
        self.assertEqual((self.ended, watched), ([queue], [queue, queue]))

    def test_nothing_to_watch(self) -> None:
        """A queue that waits for nothing any more is not looked at again."""
        self.put(b"1", expiration=1000)
        watched: list[Queue] = []
        self.queue.watch = watched.append
        self.clock.advance(1)
        self.queue.look()
        self.assertEqual((watched, self.queue.has_timed), ([], False))

    def test_deadline(self) -> None:
        """A queue asks to be looked at when its head or itself expires, and lets go when there is nothing."""
        watched: list[Queue] = []
        self.queue.watch = watched.append
        self.assertEqual(self.queue.deadline, float("-inf"))
        self.put(b"1")
        self.assertEqual(watched, [])
        self.put(b"2", expiration=3000)
        self.assertEqual(watched, [self.queue])
        self.assertEqual(self.queue.deadline, float("inf"))  # the head lives on, with the other behind it
        self.queue.take()
        self.assertEqual(self.queue.deadline, 3)
        self.queue.purge()
        self.assertEqual(self.queue.deadline, float("-inf"))

    def test_auto_delete(self) -> None:
        """An auto-delete queue ends with its last consumer, and not before it had one."""
        self.queue.auto_delete = True
        first, second = self.consumer("a"), self.consumer("b")
        self.queue.remove(first)
        self.assertEqual(self.ended, [])
        self.queue.remove(second)
        self.assertEqual(self.ended, [self.queue])
