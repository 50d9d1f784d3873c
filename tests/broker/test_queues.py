"""Whose turn it is, what room there is, what comes back, and what time does."""

from __future__ import annotations

import itertools
from typing import Any

from tests.broker.queue_case import QueueTestCase
from txservices.broker.deliveries import UNACKED_MAX, Deliveries, Entry, requeue
from txservices.broker.messages import Message
from txservices.broker.queues import Queue


class TurnTests(QueueTestCase):
    """Consumers in turn."""

    def test_in_turn(self) -> None:
        """Messages go to the consumers one after the other, whether they came before or after."""
        self.put(b"1", b"2")
        self.consumer("a")
        self.consumer("b")
        self.put(b"3", b"4", b"5")
        self.assertEqual(self.got, [("a", b"1"), ("a", b"2"), ("a", b"3"), ("b", b"4"), ("a", b"5")])

    def test_full_one_is_passed_over(self) -> None:
        """A consumer whose prefetch is used up gets nothing until it acks; the other goes on."""
        full = self.consumer("a", prefetch=1)
        self.consumer("b")
        self.put(b"1", b"2", b"3", b"4")
        self.assertEqual(self.got, [("a", b"1"), ("b", b"2"), ("b", b"3"), ("b", b"4")])
        self.ack(full, 1)
        self.put(b"5", b"6")
        self.assertEqual(self.got[4:], [("b", b"5"), ("a", b"6")])

    def test_ack_brings_the_next(self) -> None:
        """What waited for room is given out by the ack that makes it."""
        consumer = self.consumer("a", prefetch=2)
        self.put(b"1", b"2", b"3", b"4", b"5")
        self.assertEqual(len(self.got), 2)
        self.ack(consumer, 2, multiple=True)
        self.assertEqual([body for _, body in self.got], [b"1", b"2", b"3", b"4"])

    def test_channels_prefetch(self) -> None:
        """The prefetch of a channel is shared by its consumers, on different queues too."""
        deliveries = Deliveries()
        deliveries.prefetch = 2
        other = self.make()
        first = self.consumer("a", deliveries=deliveries)
        self.consumer("b", deliveries=deliveries, queue=other)
        self.put(b"1", b"2", b"3")
        self.put(b"x", queue=other)
        self.assertEqual(self.got, [("a", b"1"), ("a", b"2")])
        self.ack(first, 1)
        self.assertFalse(deliveries.was_full)  # the others need not be asked a second time
        self.ack(first, 2)
        self.assertEqual(sorted(self.got[2:]), [("a", b"3"), ("b", b"x")])

    def test_no_ack_has_no_prefetch(self) -> None:
        """A consumer that does not ack has room always."""
        self.consumer("a", prefetch=1, no_ack=True)
        self.put(b"1", b"2", b"3")
        self.assertEqual(len(self.got), 3)

    def test_unlimited_is_limited(self) -> None:
        """Without a prefetch a channel gets the largest one that there is, and no more."""
        consumer = self.consumer("a")
        consumer.deliveries.counted = UNACKED_MAX
        self.put(b"1")
        self.assertEqual(self.got, [])

    def test_not_flowing(self) -> None:
        """A channel that does not flow gets nothing, and all when it does again."""
        consumer = self.consumer("a")
        consumer.deliveries.flowing = False
        self.put(b"1", b"2")
        self.assertEqual(self.got, [])
        consumer.deliveries.flowing = True
        consumer.deliveries.wake()
        self.assertEqual(self.got, [("a", b"1"), ("a", b"2")])

    def test_removed_while_waiting(self) -> None:
        """A consumer that is gone gets nothing, neither from its turn nor from an ack."""
        consumer = self.consumer("a", prefetch=1)
        self.put(b"1", b"2")
        self.queue.remove(consumer)
        self.queue.remove(consumer)
        self.ack(consumer, 1)
        self.assertEqual((self.got, self.ready()), ([("a", b"1")], [b"2"]))

    def test_gone_without_room(self) -> None:
        """A full consumer that was cancelled is forgotten by its channel, and gets nothing when it has room."""
        deliveries = Deliveries()
        consumer = self.consumer("a", prefetch=1, deliveries=deliveries)
        self.put(b"1", b"2")
        self.assertEqual(list(deliveries.without_room), [consumer])
        self.queue.remove(consumer)
        self.assertEqual(list(deliveries.without_room), [])
        self.ack(consumer, 1)
        self.assertEqual((self.got, len(self.queue)), ([("a", b"1")], 1))

    def test_gone_in_turn(self) -> None:
        """A consumer that was cancelled in its turn, and joins again late, gets nothing."""
        consumer = self.consumer("a")
        self.queue.remove(consumer)
        self.assertFalse(consumer.in_turn)
        self.queue.join(consumer)
        self.put(b"1")
        self.assertEqual((self.got, len(self.queue.turn)), ([], 0))

    def test_joins_once(self) -> None:
        """A consumer has one place in the turn, however often it joins."""
        consumer = self.consumer("a")
        self.queue.join(consumer)
        self.assertEqual(list(self.queue.turn), [consumer])

    def test_woken_once(self) -> None:
        """A consumer that is back in the turn waits for room no longer."""
        consumer = self.consumer("a", prefetch=1)
        self.put(b"1", b"2")
        self.queue.purge()
        self.ack(consumer, 1)
        self.assertEqual((list(consumer.deliveries.without_room), list(self.queue.turn)), ([], [consumer]))
        self.assertEqual((consumer.deliveries.freed, consumer.deliveries.was_full), ({}, False))

    def test_skipped_tags(self) -> None:
        """Delivery tags count each delivery by one, also those that need no ack."""
        deliveries = Deliveries()
        entry = Entry(Message("", "q", b"", b"\0\0", b"", None), self.queue, 0)
        self.assertEqual([deliveries.skip(), deliveries.add(entry, None), deliveries.skip()], [1, 2, 3])


class SettleTests(QueueTestCase):
    """Acks, and what comes back."""

    def test_which_are_settled(self) -> None:
        """An ack is for one, with multiple for all up to it, with multiple and 0 for all."""
        consumer = self.consumer("a")
        self.put(b"1", b"2", b"3", b"4", b"5")
        bodies = [
            [entry.message.body for entry in self.ack(consumer, tag, multiple)]
            for tag, multiple in ((2, False), (3, True), (0, True), (0, True))
        ]
        self.assertEqual(bodies, [[b"2"], [b"1", b"3"], [b"4", b"5"], []])
        self.assertEqual((consumer.unacked, consumer.deliveries.counted), (0, 0))

    def test_unknown_tags(self) -> None:
        """A tag that is not out is a KeyError and settles nothing."""
        consumer = self.consumer("a")
        self.put(b"1", b"2")
        self.ack(consumer, 1)
        for tag, multiple in ((1, False), (3, False), (0, False), (1, True), (3, True)):
            self.assertRaises(KeyError, consumer.deliveries.settle, tag, multiple)
        self.assertEqual(list(consumer.deliveries.unacked), [2])

    def test_requeued_at_its_old_place(self) -> None:
        """What comes back stands where it stood, before what was never given out, and is marked."""
        consumer = self.consumer("a", prefetch=3)
        self.put(b"1", b"2", b"3", b"4", b"5")
        entries = consumer.deliveries.settle(0, multiple=True)
        self.queue.remove(consumer)
        self.queue.requeue([entries[2]])
        self.queue.requeue([entries[1], entries[0]])
        taken = [self.queue.take() for _ in range(5)]
        self.assertEqual([entry.message.body for entry in taken], [b"1", b"2", b"3", b"4", b"5"])
        self.assertEqual([entry.returned for entry in taken], [1, 1, 1, 0, 0])

    def test_requeued_together_in_their_old_order(self) -> None:
        """What comes back in one go is given out in its old order, however it was handed back, before what is newer."""
        first = self.consumer("a", prefetch=4)
        self.put(b"1", b"2", b"3", b"4", b"5")
        entries = first.deliveries.settle(0, multiple=True)
        self.queue.remove(first)
        self.got.clear()
        self.consumer("b")
        self.assertEqual(self.got, [("b", b"5")])
        self.queue.requeue([entries[place] for place in (2, 0, 3, 1)])
        self.assertEqual(self.got[1:], [("b", body) for body in (b"1", b"2", b"3", b"4")])

    def test_requeued_to_several_queues(self) -> None:
        """The entries of a channel go back each to its own queue, those of one queue together and in order."""
        deliveries, other = Deliveries(), self.make()
        one = self.consumer("a", deliveries=deliveries)
        two = self.consumer("b", deliveries=deliveries, queue=other)
        for body in (b"1", b"2", b"3"):
            self.put(body)
            self.put(b"x" + body, queue=other)
        self.queue.remove(one)
        other.remove(two)
        self.got.clear()
        self.consumer("c")
        self.consumer("d", queue=other)
        requeue(deliveries.settle(0, multiple=True)[::-1])
        self.assertEqual([body for tag, body in self.got if tag == "c"], [b"1", b"2", b"3"])
        self.assertEqual([body for tag, body in self.got if tag == "d"], [b"x1", b"x2", b"x3"])

    def test_requeued_goes_to_who_has_room(self) -> None:
        """A message given back goes to another consumer if there is one, and to the same one once it has room."""
        first = self.consumer("a", prefetch=1)
        self.put(b"1", b"2")
        entries = first.deliveries.settle(1, multiple=False)
        self.assertIsNone(entries[0].consumer)  # which may be gone before the message is
        self.queue.requeue(entries)
        first.deliveries.make_room()
        self.assertEqual(self.got, [("a", b"1"), ("a", b"1")])

    def test_rejected_is_dead(self) -> None:
        """What a consumer rejects is a dead letter."""
        consumer = self.consumer("a")
        self.put(b"1")
        self.queue.reject(self.ack(consumer, 1)[0])
        self.assertEqual(self.dead, [(b"1", "rejected")])

    def test_nothing_comes_back_to_a_deleted_queue(self) -> None:
        """An entry of a queue that is gone goes with it."""
        consumer = self.consumer("a")
        self.put(b"1")
        self.queue.deleted = True
        self.queue.requeue(consumer.deliveries.settle(1, multiple=False))
        self.assertEqual(len(self.queue), 0)


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
        """What comes back with a deadline is looked at in time, also in a queue that had nothing timed since."""
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


class LimitTests(QueueTestCase):
    """x-max-length and x-max-length-bytes."""

    def test_drop_head(self) -> None:
        """The oldest ready message makes place for the new one; what is out with a consumer does not count."""
        queue = self.make(**{"x-max-length": 2})
        self.consumer("a", prefetch=1, queue=queue)
        self.put(b"1", b"2", b"3", b"4", queue=queue)
        self.assertEqual((self.dead, self.ready(queue)), ([(b"2", "maxlen")], [b"3", b"4"]))

    def test_bytes(self) -> None:
        """The bytes of the ready bodies have a limit too."""
        queue = self.make(**{"x-max-length-bytes": 5})
        self.put(b"12", b"34", b"56", queue=queue)
        self.assertEqual(self.ready(queue), [b"34", b"56"])
        self.assertEqual(queue.ready_bytes, 0)

    def test_bytes_that_came_back(self) -> None:
        """What comes back counts again, and what is purged or taken no more."""
        queue = self.make(**{"x-max-length-bytes": 5})
        consumer = self.consumer("a", prefetch=1, queue=queue)
        self.put(b"123", b"45", queue=queue)
        queue.remove(consumer)
        queue.requeue(consumer.deliveries.settle(1, multiple=False))
        self.assertEqual((queue.ready_bytes, self.dead), (5, []))
        self.assertEqual((queue.purge(), len(queue), queue.ready_bytes), (2, 0, 0))
        self.put(b"12345", queue=queue)
        self.assertEqual((self.ready(queue), self.dead), ([b"12345"], []))

    def test_refuses_to_the_byte(self) -> None:
        """A queue that refuses takes as many messages and bytes as it may have, and no more."""
        refusing = {"x-overflow": "reject-publish"}
        by_bytes, by_count = (
            self.make(**{"x-max-length-bytes": 4}, **refusing),
            self.make(**{"x-max-length": 2}, **refusing),
        )
        self.assertEqual(self.put(b"12", b"345", b"34", b"5", queue=by_bytes), [True, False, True, False])
        self.assertEqual(self.put(b"1", b"2", b"3", queue=by_count), [True, True, False])

    def test_reject_publish(self) -> None:
        """A queue that refuses says so, and keeps what it has."""
        queue = self.make(**{"x-max-length": 1, "x-overflow": "reject-publish"})
        self.assertEqual(self.put(b"1", b"2", queue=queue), [True, False])
        self.assertEqual((self.ready(queue), self.dead), ([b"1"], []))

    def test_reject_publish_to_the_dead(self) -> None:
        """What it refuses may be a dead letter."""
        queue = self.make(**{"x-max-length": 0, "x-overflow": "reject-publish-dlx"})
        self.assertEqual((self.put(b"1", queue=queue), self.dead), ([False], [(b"1", "maxlen")]))

    def test_requeue_over_the_limit(self) -> None:
        """What comes back to a queue that is full meanwhile is its head, and goes."""
        queue = self.make(**{"x-max-length": 1})
        consumer = self.consumer("a", prefetch=1, queue=queue)
        self.put(b"1", b"2", queue=queue)
        queue.remove(consumer)
        queue.requeue(consumer.deliveries.settle(1, multiple=False))
        self.assertEqual((self.dead, self.ready(queue)), ([(b"1", "maxlen")], [b"2"]))
