"""The kinds of queue besides the classic one: those with priorities, and quorum queues. Pure.

A kind differs in the line of its messages (``fresh``), in the place of a message that comes back, and in what it
refuses. A quorum queue is as the one of RabbitMQ 4, except that it is in one place only and lost with the broker.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from heapq import heappop, heappush
from math import inf
from typing import Any

from txservices.broker import messages
from txservices.broker.deliveries import Entry
from txservices.broker.queues import Queue
from txservices.exceptions import AmqpError
from txservices.wire.spec import ReplyCode

DELIVERY_LIMIT = 20  # times that a message may come back to a quorum queue; RabbitMQ 4's own default
HIGH_PRIORITY = 5  # the lowest priority that a quorum queue prefers
HIGH_IN_A_ROW = 2  # messages of high priority, before one that has waited longer has its turn

DELIVERY_COUNT = "x-delivery-count"  # the header that says how often a message has come back


class Ranked:
    """A line in which messages of higher priority come first; those of one priority in their old order."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.heap: list[tuple[int, int, Entry]] = []

    def append(self, entry: Entry) -> None:
        rank = -min(messages.read_priority(entry.message.header), self.most)
        heappush(self.heap, (rank, entry.position, entry))

    def popleft(self) -> Entry:
        return heappop(self.heap)[2]

    def clear(self) -> None:
        self.heap.clear()

    def __getitem__(self, index: int) -> Entry:
        return self.heap[index][2]

    def __iter__(self) -> Iterator[Entry]:
        return (entry for _, _, entry in self.heap)

    def __len__(self) -> int:
        return len(self.heap)


class PriorityQueue(Queue):
    """A classic queue with ``x-max-priority``. A message that comes back takes its old place in its priority."""

    def prepare(self) -> None:
        self.fresh = Ranked(max(1, self.arguments["x-max-priority"]))  # RabbitMQ 4 takes 0 for 1

    def put_back(self, entry: Entry) -> None:
        self.fresh.append(entry)


class TwoLevels:
    """A line in which messages of high priority come first, and others are not kept waiting for ever."""

    def __init__(self) -> None:
        self.high: deque[Entry] = deque()
        self.low: deque[Entry] = deque()
        self.taken = 0

    def append(self, entry: Entry) -> None:
        is_high = messages.read_priority(entry.message.header) >= HIGH_PRIORITY
        (self.high if is_high else self.low).append(entry)

    def next(self) -> deque[Entry]:
        high, low = self.high, self.low
        if self.taken == HIGH_IN_A_ROW and high and low and low[0].position < high[0].position:
            return low
        return high or low

    def popleft(self) -> Entry:
        entry = self.next().popleft()
        self.taken = 0 if self.taken == HIGH_IN_A_ROW else self.taken + 1
        return entry

    def clear(self) -> None:
        self.high.clear()
        self.low.clear()

    def __getitem__(self, index: int) -> Entry:
        return self.next()[index]

    def __iter__(self) -> Iterator[Entry]:
        yield from self.high
        yield from self.low

    def __len__(self) -> int:
        return len(self.high) + len(self.low)


class QuorumQueue(Queue):
    """A queue that counts how often each message has come back, and gives up a message that does so too often.

    Messages that come back are given out before all others, in the order in which they came back.
    """

    takes_over = True

    def prepare(self) -> None:
        self.fresh = TwoLevels()
        limit = self.arguments.get("x-delivery-limit", DELIVERY_LIMIT)
        self.returns_max = limit if limit >= 0 else inf
        if self.overflow == "reject-publish-dlx":  # RabbitMQ takes it, and does this
            self.overflow = "drop-head"

    def put_back(self, entry: Entry) -> None:
        entry.position = self.next_position
        self.next_position += 1
        super().put_back(entry)

    def header(self, entry: Entry) -> bytes:
        return messages.with_header(entry.message.header, DELIVERY_COUNT, entry.returned)

    @property
    def consumer_count(self) -> int:
        """How many consumers there are; those that wait until they are the single active one don't count."""
        count = len(self.consumers)
        return count if self.single is None else min(1, count)

    def check_consume(self, called: str, exclusive: bool, channel_limited: bool) -> None:
        """Refuse a prefetch for a whole channel. An exclusive consumer has nothing to itself here."""
        if channel_limited:
            raise AmqpError(ReplyCode.NOT_IMPLEMENTED, f"{called} does not support global qos")

    def check_get(self, called: str) -> None:
        """Refuse a ``basic.get`` besides a single active consumer."""
        if self.single is not None:
            raise AmqpError(
                ReplyCode.RESOURCE_LOCKED,
                f"cannot obtain access to locked {called}. basic.get operations are not supported by quorum queues"
                " with single active consumer",
            )

    def check_delete(self, called: str, if_unused: bool, if_empty: bool) -> None:
        """Refuse both conditions."""
        for asked, name in ((if_unused, "if-unused"), (if_empty, "if-empty")):
            if asked:
                raise AmqpError(
                    ReplyCode.NOT_IMPLEMENTED,
                    f"cannot delete {called}. queue.delete operations with {name} flag set are not supported by quorum"
                    " queues",
                )


def kind_of(arguments: Mapping[str, Any]) -> type[Queue]:
    """The class of a queue with these arguments."""
    if arguments.get("x-queue-type") == "quorum":
        return QuorumQueue
    return PriorityQueue if "x-max-priority" in arguments else Queue
