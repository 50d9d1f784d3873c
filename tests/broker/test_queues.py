"""Queues of the embedded broker: whose turn it is, acks and rejects, and limits."""

from __future__ import annotations

from tests.broker.queue_case import QueueTestCase
from txservices.broker.deliveries import UNACKED_MAX, Deliveries, Entry, requeue
from txservices.broker.messages import Message


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
