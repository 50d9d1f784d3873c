"""A queue: its ready messages, its deliveries, the turn of its consumers, and its limits. Pure.

    put(message) -> Entry, ready -> deliver() -> Consumer.send -> acked, or requeued at its old place

A message goes to a consumer as soon as one has room: neither its own prefetch nor its channel's is used up, and its
channel flows. A consumer without room leaves the turn, and ``Deliveries`` brings it back when it has room again: a
hundred full consumers do not slow a message down. The clock is a function, and nothing here makes a delayed call: a
queue with a ``deadline`` asks to be looked at (``watch``). This is the classic kind; the others are in ``kinds``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from heapq import heappop, heappush
from math import inf
from typing import Any, Literal, Protocol

from txservices.broker.bindings import Binding
from txservices.broker.deliveries import Consumer, Entry
from txservices.broker.messages import Message
from txservices.broker.turns import ByPriority, SingleActive
from txservices.exceptions import AmqpError
from txservices.wire.spec import ReplyCode


class Line(Protocol):
    """Entries in the order in which they are given out: a deque, or what a kind of queue has in its place."""

    def append(self, entry: Entry, /) -> None: ...

    def popleft(self) -> Entry: ...

    def clear(self) -> None: ...

    def __getitem__(self, index: Literal[0], /) -> Entry: ...

    def __iter__(self) -> Iterator[Entry]: ...

    def __len__(self) -> int: ...


class Queue:
    """A classic queue. Its vhost sets what it can't do by itself: ``dead_letter``, ``watch`` and ``unused``.

    Attributes:
        owner: the only connection that may use it, or None if it is not exclusive.
        turn: the consumers that may have room, the next one first.
        single: chooses the only consumer that gets messages, or None if all of them do.
    """

    takes_over = False  # whether a single active consumer gives way to one of higher priority

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
        self.fresh: Line = deque()
        self.next_position = 0
        self.ready_bytes = 0
        self.has_timed = False  # since it was last empty, something with a deadline came in
        self.consumers: dict[Consumer, None] = {}
        self.turn: deque[Consumer] = deque()
        self.single = SingleActive(self.takes_over) if arguments.get("x-single-active-consumer") else None
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
        self.returns_max = inf  # how often a message may come back
        self.prepare()

    def prepare(self) -> None:
        """Set what another kind of queue has otherwise."""

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
        """Take entries back."""
        if self.deleted:
            return
        for entry in entries:
            entry.returned += 1
            if entry.returned > self.returns_max:
                self.dead_letter(entry, "delivery_limit")
                continue
            self.ready_bytes += len(entry.message.body)
            self.has_timed |= entry.deadline < inf
            self.put_back(entry)
        self.deliver()
        if self.limited:
            self.trim()
        if self.has_timed and len(self):
            self.watch(self)

    def put_back(self, entry: Entry) -> None:
        """Put an entry back at its old place."""
        heappush(self.requeued, (entry.position, entry))

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

    def header(self, entry: Entry) -> bytes:
        """The flags and values of a message's properties, as they go out."""
        return entry.message.header

    def join(self, consumer: Consumer) -> None:
        """Put a consumer that may have room at the end of the turn."""
        if consumer not in self.consumers:
            return
        if self.single is not None:
            chosen = self.single.choose(self.consumers)
            if self.turn and self.turn[0] is not chosen:
                self.leave(self.turn[0])
            if chosen is None:
                if consumer is self.single.active:  # it is asked again when it has settled more
                    consumer.deliveries.without_room[consumer] = None
                return
            chosen.deliveries.without_room.pop(chosen, None)
            consumer = chosen
        if not consumer.in_turn:
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
        if consumer.priority and type(self.turn) is deque:
            self.turn = ByPriority(self.turn)
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
        if self.consumers:
            if self.single is not None:
                self.join(next(iter(self.consumers)))  # the next one may have its turn
        elif not self.deleted:
            if self.auto_delete:
                self.unused(self)
            else:
                self.used()

    @property
    def consumer_count(self) -> int:
        return len(self.consumers)

    # What is refused. ``called`` is the queue's name for the client.

    def check_consume(self, called: str, exclusive: bool, channel_limited: bool) -> None:
        """Refuse a consumer. ``channel_limited``: its channel has a prefetch for all its consumers together."""
        has_exclusive = any(consumer.exclusive for consumer in self.consumers)
        if has_exclusive or (exclusive and (self.consumers or self.single is not None)):
            raise AmqpError(ReplyCode.ACCESS_REFUSED, f"{called} in exclusive use")

    def check_get(self, called: str) -> None:
        """Refuse a ``basic.get``: not here."""

    def check_delete(self, called: str, if_unused: bool, if_empty: bool) -> None:
        if if_unused and self.consumers:
            raise AmqpError(ReplyCode.PRECONDITION_FAILED, f"{called} in use")
        if if_empty and len(self):
            raise AmqpError(ReplyCode.PRECONDITION_FAILED, f"{called} not empty")

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
