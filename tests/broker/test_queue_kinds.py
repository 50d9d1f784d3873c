"""Quorum queues and queues with priorities, where no conversation gets."""

from __future__ import annotations

from typing import Any

from tests.broker.queue_case import QueueTestCase
from txservices.broker.deliveries import Entry, requeue
from txservices.broker.kinds import PriorityQueue, QuorumQueue, kind_of
from txservices.broker.messages import HEADER_MAX, Message
from txservices.broker.queues import Queue
from txservices.wire.codec import decode_properties, encode_properties


class KindTests(QueueTestCase):
    """Each kind by itself."""

    def message(self, header: bytes) -> Message:
        return Message("", "q", b"", header, b"x")

    def kind(self, **arguments: Any) -> Queue:
        queue = kind_of(arguments)("q", arguments=arguments, seconds=self.clock.seconds)
        queue.dead_letter = lambda entry, reason: self.dead.append((entry.message.body, reason))
        return queue

    def test_which(self) -> None:
        """The arguments say which kind it is."""
        for arguments, kind in (
            ({}, Queue),
            ({"x-queue-type": "classic"}, Queue),
            ({"x-queue-type": "quorum"}, QuorumQueue),
            ({"x-max-priority": 0}, PriorityQueue),
            ({"x-max-priority": 3, "x-queue-type": "classic"}, PriorityQueue),
        ):
            self.assertIs(kind_of(arguments), kind)

    def test_delivery_count(self) -> None:
        """The header is added to those that there are, or left out where it does not fit or they can't be read."""
        queue = self.kind(**{"x-queue-type": "quorum"})
        large = encode_properties({"headers": {"h": "x" * (HEADER_MAX - 30)}})
        for header, expected in (
            (encode_properties({}), {"headers": {"x-delivery-count": 1}}),
            (encode_properties({"headers": {"a": 1}}), {"headers": {"a": 1, "x-delivery-count": 1}}),
            (encode_properties({"priority": 2}), {"headers": {"x-delivery-count": 1}, "priority": 2}),
            (encode_properties({"headers": {"x-delivery-count": "a"}}), {"headers": {"x-delivery-count": 1}}),
        ):  # fmt: skip
            entry = Entry(self.message(header), queue, 0)
            queue.requeue([entry])
            self.assertEqual(decode_properties(queue.header(entry)), expected)
        for header in (large, b"\x20\x00\x00\x00\x00\x05\x01"):
            entry = Entry(self.message(header), queue, 0)
            queue.requeue([entry])
            self.assertEqual(queue.header(entry), header)

    def test_order_of_what_comes_back(self) -> None:
        """A message that comes back is delivered before all others: at its old place, or, from a quorum queue, in the
        order of return.

        Other queues' messages that come back with it go to theirs.
        """
        for arguments, expected in (
            ({}, b"12345"),
            ({"x-max-priority": 9}, b"12345"),
            ({"x-queue-type": "quorum"}, b"31245"),
        ):
            queue, other = self.kind(**arguments), self.kind(**arguments)
            self.put(b"1", b"2", b"3", b"4", b"5", queue=queue)
            self.put(b"a", b"b", queue=other)
            first, second, third = (queue.take() for _ in range(3))
            requeue([third])
            requeue([first, other.take(), second, other.take()])
            self.assertEqual((b"".join(self.ready(queue)), b"".join(self.ready(other))), (expected, b"ab"), arguments)

    def test_given_up(self) -> None:
        """What came back too often is dead, and counts no more; without a limit it comes back for ever."""
        for limit, times in ((0, 0), (2, 2), (-1, 1000), (None, 20)):
            self.dead.clear()
            queue = self.kind(**{"x-queue-type": "quorum", **({} if limit is None else {"x-delivery-limit": limit})})
            self.put(b"x", queue=queue)
            for _ in range(times):
                queue.requeue([queue.take()])
            self.assertEqual((self.dead, len(queue), queue.ready_bytes), ([], 1, 1))
            if limit != -1:
                queue.requeue([queue.take()])
                self.assertEqual((self.dead, len(queue), queue.ready_bytes), ([(b"x", "delivery_limit")], 0, 0))

    def test_priorities_of_consumers(self) -> None:
        """The highest that has room is next; those of one priority are so in turn."""
        low, none, high, same = ("low", 0, -1), ("none", 0, 0), ("high", 1, 2), ("same", 2, 2)
        for consumers, expected in (
            ((low, none, high, same), ["high", "same", "same", "none"]),
            ((none, high), ["high", "none", "none", "none"]),
            ((low, high), ["high", "low", "low", "low"]),
        ):
            self.got.clear()
            queue = self.kind()
            for tag, prefetch, priority in consumers:
                self.consumer(tag, prefetch, queue=queue, priority=priority)
            self.put(*[b"x"] * 4, queue=queue)
            self.assertEqual([tag for tag, _ in self.got], expected)

    def test_single(self) -> None:
        """One consumer gets everything, until it is gone; in a classic queue, one of higher priority waits as well."""
        queue = self.kind(**{"x-single-active-consumer": True})
        first = self.consumer("first", queue=queue)
        self.consumer("second", queue=queue, priority=5)
        self.put(b"1", b"2", queue=queue)
        queue.remove(first)
        self.put(b"3", queue=queue)
        self.assertEqual(self.got, [("first", b"1"), ("first", b"2"), ("second", b"3")])

    def test_single_takes_over(self) -> None:
        """In a quorum queue, one of higher priority is next, once all is settled that the active one has."""
        for unsettled in (0, 1, 2):
            self.got.clear()
            queue = self.kind(**{"x-queue-type": "quorum", "x-single-active-consumer": True})
            first = self.consumer("first", queue=queue)
            self.put(*[b"x"] * unsettled, queue=queue)
            self.consumer("second", queue=queue, priority=5)
            self.got.clear()
            for tag in range(1, unsettled + 1):
                self.put(b"y", queue=queue)
                self.assertEqual(self.got, [])
                self.ack(first, tag)
            self.put(b"z", queue=queue)
            self.assertEqual(self.got, [("second", b"y")] * unsettled + [("second", b"z")])

    def test_purge_and_iterate(self) -> None:
        """A purge leaves nothing, and a look at what there is takes nothing away."""
        for arguments in ({"x-queue-type": "quorum"}, {"x-max-priority": 9}):
            queue = self.kind(**arguments)
            for priority in (9, 0, 5):
                queue.put(self.message(encode_properties({"priority": priority})))
            self.assertEqual((len(list(queue.fresh)), len(queue)), (3, 3))
            self.assertEqual((queue.purge(), len(queue), queue.ready_bytes), (3, 0, 0))

    def test_unreadable_priority(self) -> None:
        """A message whose properties can't be read has no priority."""
        queue = self.kind(**{"x-max-priority": 9})
        for header in (b"\x08\x00", b"\x28\x00\x00\x00\x00\x09", encode_properties({"priority": 1})):
            queue.put(self.message(header))
        self.assertEqual([len(queue.take().message.header) for _ in range(3)], [3, 2, 6])

    def test_expires_by_priority(self) -> None:
        """A queue asks to be looked at when its head expires, whichever came first."""
        queue = self.kind(**{"x-max-priority": 9})
        for priority, expiration in ((0, 1000), (9, 3000)):
            header = encode_properties({"priority": priority})
            queue.put(Message("", "q", b"", header, b"%d" % priority, expiration))
        self.assertEqual(queue.deadline, 3)
        self.clock.advance(3)
        queue.look()
        self.assertEqual(self.dead, [(b"9", "expired"), (b"0", "expired")])
        self.assertEqual(queue.deadline, float("-inf"))
