"""The unsettled deliveries of a channel, and its consumers, which have room for more or not. Pure.

    Queue -> Consumer.send(entry) -> Deliveries.add -> settle -> make_room -> Queue.join(consumer)

A consumer without room leaves its queue's turn, and ``Deliveries`` brings it back when it has room again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import Any, Protocol

from txservices.broker.messages import Message
from txservices.wire.tables import encode_shortstr

# Deliveries that a channel may leave unsettled if it asked for no lower limit: the largest prefetch there is. Beyond
# it the channel gets no more until it settles some, so that a client that never acks can't take a whole backlog.
UNACKED_MAX = 65_535


class Source(Protocol):
    """A queue, as its entries and consumers know it."""

    name: str
    arguments: Mapping[str, Any]

    def join(self, consumer: Consumer) -> None: ...

    def remove(self, consumer: Consumer) -> None: ...

    def requeue(self, entries: Iterable[Entry]) -> None: ...

    def reject(self, entry: Entry) -> None: ...

    def header(self, entry: Entry) -> bytes: ...


class Entry:
    """A message in one queue, ready or delivered."""

    __slots__ = ("consumer", "deadline", "message", "position", "queue", "returned")

    def __init__(self, message: Message, queue: Source, position: int) -> None:
        self.message = message
        self.queue = queue
        self.position = position
        self.returned = 0  # how often it has come back to its queue
        self.deadline = inf  # seconds of the clock
        self.consumer: Consumer | None = None


class Consumer:
    """A consumer of one queue on one channel, with the count of its unsettled deliveries.

    ``send`` is called with each entry that it is given, ``cancelled`` when its queue is deleted.
    """

    __slots__ = (
        "cancelled",
        "deliveries",
        "exclusive",
        "in_turn",
        "no_ack",
        "prefetch",
        "priority",
        "queue",
        "send",
        "short_tag",
        "tag",
        "unacked",
    )

    def __init__(
        self,
        tag: str,
        queue: Source,
        deliveries: Deliveries,
        send: Callable[[Consumer, Entry], None],
        cancelled: Callable[[Consumer], None],
        prefetch: int,
        no_ack: bool,
        exclusive: bool,
        priority: int,
    ) -> None:
        self.tag = tag
        self.short_tag = encode_shortstr(tag)
        self.queue = queue
        self.deliveries = deliveries
        self.send = send
        self.cancelled = cancelled
        self.prefetch = prefetch or UNACKED_MAX
        self.no_ack = no_ack
        self.exclusive = exclusive
        self.priority = priority
        self.unacked = 0
        self.in_turn = False

    def has_room(self) -> bool:
        deliveries = self.deliveries
        return deliveries.flowing and (
            self.no_ack or (self.unacked < self.prefetch and deliveries.counted < deliveries.prefetch)
        )


class Deliveries:
    """The unsettled deliveries of one channel by delivery tag, and how much of its prefetch they use."""

    __slots__ = ("counted", "flowing", "freed", "last_tag", "prefetch", "unacked", "was_full", "without_room")

    def __init__(self) -> None:
        self.unacked: dict[int, Entry] = {}
        self.last_tag = 0
        self.prefetch = UNACKED_MAX  # for all consumers of the channel together
        self.counted = 0  # unacked deliveries to consumers; those of basic.get don't count for the prefetch
        self.flowing = True
        self.without_room: dict[Consumer, None] = {}  # consumers that have left their queue's turn
        self.freed: dict[Consumer, None] = {}  # consumers with deliveries settled since, which may have room
        self.was_full = False

    def add(self, entry: Entry, consumer: Consumer | None) -> int:
        """Note an entry that has to be settled, and return its delivery tag."""
        self.last_tag += 1
        self.unacked[self.last_tag] = entry
        entry.consumer = consumer
        if consumer is not None:
            consumer.unacked += 1
            self.counted += 1
        return self.last_tag

    def skip(self) -> int:
        """The delivery tag of an entry that need not be settled."""
        self.last_tag += 1
        return self.last_tag

    def settle(self, tag: int, multiple: bool) -> list[Entry]:
        """Settle the delivery of that tag. With ``multiple``, settle all up to it, or all of them if the tag is 0.

        Returns their entries. ``KeyError`` for a tag that is not unsettled on this channel. Call ``make_room`` next. If
        entries are requeued, do that first.
        """
        entries = self.pop(tag, multiple)
        self.was_full |= self.counted >= self.prefetch
        for entry in entries:
            consumer = entry.consumer
            if consumer is not None:
                entry.consumer = None
                consumer.unacked -= 1
                self.counted -= 1
                if not consumer.in_turn:
                    self.freed[consumer] = None
        return entries

    def pop(self, tag: int, multiple: bool) -> list[Entry]:
        unacked = self.unacked
        if not multiple:
            return [unacked.pop(tag)]
        if tag == 0:
            entries = list(unacked.values())
            unacked.clear()
            return entries
        unacked[tag]  # KeyError, before anything is popped
        tags = []
        for each in unacked:  # in the order of delivery
            if each > tag:
                break
            tags.append(each)
        return [unacked.pop(each) for each in tags]

    def make_room(self) -> None:
        """Give the consumers that waited for room their next messages, after ``settle``."""
        if self.was_full or self.freed:
            consumers = self.without_room if self.was_full else self.freed
            self.was_full = False
            self.freed = {}
            self.wake(consumers)

    def wake(self, consumers: Iterable[Consumer] | None = None) -> None:
        """Bring those consumers, or all, back into the turn if they have room now."""
        for consumer in list(self.without_room if consumers is None else consumers):
            if consumer in self.without_room and consumer.has_room():
                del self.without_room[consumer]
                consumer.queue.join(consumer)


def requeue(entries: list[Entry]) -> None:
    """Requeue entries, those of one queue together."""
    by_queue: dict[Source, list[Entry]] = {}
    for entry in entries:
        by_queue.setdefault(entry.queue, []).append(entry)
    for queue, its in by_queue.items():
        queue.requeue(its)
