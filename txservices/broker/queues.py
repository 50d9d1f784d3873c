"""A queue: its ready messages, its deliveries, the turn of its consumers, and its limits. Pure.

    put(message) -> Entry, ready -> deliver() -> Consumer.send -> acked, or requeued at its old place

A message goes to a consumer as soon as one has room: neither its own prefetch nor its channel's is used up, and its
channel flows. A consumer without room leaves the turn, and ``Deliveries`` brings it back when it has room again: a
hundred full consumers do not slow a message down. The clock is a function, and nothing here makes a delayed call: a
queue with a ``deadline`` asks to be looked at (``watch``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from heapq import heappop, heappush
from math import inf
from typing import Any

from txservices.broker.bindings import Binding
from txservices.broker.messages import Message
from txservices.wire.tables import encode_shortstr

# Deliveries that a channel may leave unsettled if it asked for no lower limit: the largest prefetch there is. Past it,
# the channel gets no more until it settles some, so that a client that never acks can't take a whole backlog.
UNACKED_MAX = 65_535


class Entry:
    """A message in one queue, ready or delivered."""

    __slots__ = ("consumer", "deadline", "message", "position", "queue", "redelivered")

    def __init__(self, message: Message, queue: Queue, position: int) -> None:
        self.message = message
        self.queue = queue
        self.position = position
        self.redelivered = False
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
        "queue",
        "send",
        "short_tag",
        "tag",
        "unacked",
    )

    def __init__(
        self,
        tag: str,
        queue: Queue,
        deliveries: Deliveries,
        send: Callable[[Consumer, Entry], None],
        cancelled: Callable[[Consumer], None],
        prefetch: int = 0,
        no_ack: bool = False,
        exclusive: bool = False,
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

    def settle(self, tag: int, multiple: bool = False) -> list[Entry]:
        """Settle the delivery of that tag, with ``multiple`` all up to it, or all there are if the tag is 0.

        Returns their entries. ``KeyError`` for a tag that is not unsettled on this channel. Call ``make_room`` next,
        after the entries that are requeued.
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


class Queue:
    """A queue. Its vhost sets what it can't do by itself: ``dead_letter``, ``watch`` and ``unused``.

    Attributes:
        owner: the only connection that may use it, or None if it is not exclusive.
        turn: the consumers that may have room, the next one first.
    """

    def __init__(
        self,
        name: str,
        durable: bool = True,
        owner: Any = None,
        auto_delete: bool = False,
        arguments: Mapping[str, Any] | None = None,
        seconds: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.name = name
        self.durable = durable
        self.owner = owner
        self.auto_delete = auto_delete
        self.arguments = arguments = arguments or {}
        self.seconds = seconds
        self.incoming: dict[Binding, None] = {}
        self.deleted = False
        # requeued messages come before fresh ones, since they were delivered from the head
        self.requeued: list[tuple[int, Entry]] = []  # a heap, by old place
        self.fresh: deque[Entry] = deque()
        self.next_position = 0
        self.ready_bytes = 0
        self.has_timed = False  # since it was last empty, something with a deadline came in
        self.consumers: dict[Consumer, None] = {}
        self.turn: deque[Consumer] = deque()
        self.ttl: int | None = arguments.get("x-message-ttl")
        self.expires: int | None = arguments.get("x-expires")
        self.max_length: float = arguments.get("x-max-length", inf)
        self.max_bytes: float = arguments.get("x-max-length-bytes", inf)
        self.overflow: str = arguments.get("x-overflow", "drop-head")
        self.limited = self.max_length < inf or self.max_bytes < inf
        self.dead_letter: Callable[[Entry, str], None] = lambda entry, reason: None
        self.watch: Callable[[Queue], None] = lambda queue: None
        self.unused: Callable[[Queue], None] = lambda queue: None
        self.expires_at = inf

    def __len__(self) -> int:
        """How many messages are ready."""
        return len(self.fresh) + len(self.requeued)

    # In

    def put(self, message: Message) -> bool:
        """Take a message, and deliver it if a consumer has room. False if the queue is full and refuses it."""
        entry = Entry(message, self, self.next_position)
        if self.limited and self.overflow != "drop-head" and self.overflows(1, len(message.body)):
            if self.overflow == "reject-publish-dlx":
                self.dead_letter(entry, "maxlen")
            return False
        self.next_position += 1
        if self.ttl is not None or message.expiration is not None:
            entry.deadline = self.seconds() + self.time_to_live(message) / 1000
        self.fresh.append(entry)
        self.ready_bytes += len(message.body)
        if self.turn:
            self.deliver(entry)
        if self.fresh:
            self.keep(entry)
        return True

    def time_to_live(self, message: Message) -> float:
        """Milliseconds that a message may wait: the queue's limit or its own, whichever is less."""
        ttl, expiration = self.ttl, message.expiration
        if ttl is None or expiration is None:
            return inf if ttl is expiration else ttl or expiration or 0
        return min(ttl, expiration)

    def keep(self, entry: Entry) -> None:
        """Apply the queue's limits to a message for which no consumer has room."""
        if self.limited:
            self.trim()
        if entry.deadline < inf:
            self.has_timed = True
            self.drop_expired()
            self.watch(self)

    def requeue(self, entries: Iterable[Entry]) -> None:
        """Put entries back at their old places, marked as redelivered."""
        if self.deleted:
            return
        for entry in entries:
            entry.redelivered = True
            heappush(self.requeued, (entry.position, entry))
            self.ready_bytes += len(entry.message.body)
            self.has_timed |= entry.deadline < inf
        self.deliver()
        if self.limited:
            self.trim()
        if self.has_timed and len(self):
            self.watch(self)

    # Out

    def take(self) -> Entry:
        """Remove the first ready entry and return it; ``IndexError`` if the queue is empty."""
        entry = heappop(self.requeued)[1] if self.requeued else self.fresh.popleft()
        self.ready_bytes -= len(entry.message.body)
        return entry

    def head(self) -> Entry:
        return self.requeued[0][1] if self.requeued else self.fresh[0]

    def get(self) -> Entry | None:
        """The first entry for a ``basic.get``, which counts as a use of the queue; None if it is empty."""
        self.used()
        self.drop_expired()
        return self.take() if len(self) else None

    def deliver(self, arriving: Entry | None = None) -> None:
        """Deliver ready messages, to the consumers with room in turn. One that arrives goes even with a TTL of 0."""
        turn = self.turn
        while turn and (self.fresh or self.requeued):
            consumer = turn[0]
            if not consumer.has_room():
                self.leave(consumer)
                continue
            entry = self.take()
            if entry.deadline < inf and entry is not arriving and entry.deadline <= self.seconds():
                self.dead_letter(entry, "expired")
                continue
            turn.rotate(-1)
            consumer.send(consumer, entry)

    def join(self, consumer: Consumer) -> None:
        """Put a consumer that may have room at the end of the turn."""
        if not consumer.in_turn and consumer in self.consumers:
            consumer.in_turn = True
            self.turn.append(consumer)
            self.deliver()

    def leave(self, consumer: Consumer) -> None:
        """Take the next consumer, which has no room, out of the turn; its channel brings it back."""
        self.turn.popleft()
        consumer.in_turn = False
        consumer.deliveries.without_room[consumer] = None

    def reject(self, entry: Entry) -> None:
        """Drop an entry that a consumer rejected without requeue, into the dead letters if there are any."""
        if not self.deleted:
            self.dead_letter(entry, "rejected")

    def purge(self) -> int:
        """Drop the ready messages, and return how many they were."""
        count = len(self)
        self.fresh.clear()
        self.requeued.clear()
        self.ready_bytes = 0
        return count

    # Consumers

    def add(self, consumer: Consumer) -> None:
        self.consumers[consumer] = None
        self.used()
        self.join(consumer)

    def remove(self, consumer: Consumer) -> None:
        """Take a consumer away. After the last one an auto-delete queue is deleted, and x-expires begins to count."""
        if consumer not in self.consumers:
            return
        del self.consumers[consumer]
        consumer.deliveries.without_room.pop(consumer, None)
        if consumer.in_turn:
            consumer.in_turn = False
            self.turn.remove(consumer)
        if not self.consumers and not self.deleted:
            if self.auto_delete:
                self.unused(self)
            else:
                self.used()

    def has_exclusive_consumer(self) -> bool:
        return any(consumer.exclusive for consumer in self.consumers)

    # Limits and time

    def overflows(self, messages: int = 0, body: int = 0) -> bool:
        return len(self) + messages > self.max_length or self.ready_bytes + body > self.max_bytes

    def trim(self) -> None:
        while len(self) and self.overflows():
            self.dead_letter(self.take(), "maxlen")

    def drop_expired(self) -> None:
        """Drop expired messages at the head. One behind a message that lives longer waits until it gets there."""
        if self.has_timed:
            now = self.seconds()
            while len(self) and self.head().deadline <= now:
                self.dead_letter(self.take(), "expired")
            self.has_timed = len(self) > 0

    def used(self) -> None:
        """Note a use of the queue: x-expires counts from now, or not at all while there are consumers."""
        if self.expires is not None:
            self.expires_at = inf if self.consumers else self.seconds() + self.expires / 1000
            self.watch(self)

    @property
    def deadline(self) -> float:
        """The time at which to look at the queue next, or minus infinity if it waits for nothing."""
        if self.has_timed and len(self):
            return min(self.expires_at, self.head().deadline)
        return self.expires_at if self.expires_at < inf else -inf

    def look(self) -> None:
        """Drop expired messages, or delete the queue if it has expired itself: the deadline has come."""
        self.drop_expired()
        if self.expires_at <= self.seconds():
            self.unused(self)
        elif self.deadline > -inf:
            self.watch(self)


def requeue(entries: list[Entry]) -> None:
    """Requeue entries, those of one queue together."""
    by_queue: dict[Queue, list[Entry]] = {}
    for entry in entries:
        by_queue.setdefault(entry.queue, []).append(entry)
    for queue, its in by_queue.items():
        queue.requeue(its)
