"""Consumers with priorities, and one active consumer at a time: the same with RabbitMQ and with the embedded broker."""

from __future__ import annotations

from typing import Any

from tests.broker.conversing import (
    QUORUM,
    Arguments,
    Case,
    Connect,
    ConversationsCase,
    bodies,
    consume,
    declare,
    publish,
    rests,
    seen,
    told,
)
from tests.broker.wire import Wire

# Priorities


def priority(value: Any, arguments: Arguments) -> Case:
    def talk(connect: Connect) -> Any:
        wire = connect()
        queue = declare(wire, arguments)
        return told([wire.call(1, "basic.consume", queue=queue, arguments={"x-priority": value})])

    return talk


def in_turn(arguments: Arguments) -> Case:
    """Those of higher priority first, as long as they have room; those of one priority in turn."""

    def talk(connect: Connect) -> Any:
        wire = connect()
        queue = declare(wire, arguments)
        consumers = [
            consume(connect, queue, priority, prefetch)
            for priority, prefetch in ((-1, 0), (None, 2), (0, 2), (3, 3), (3, 1))
        ]
        publish(wire, queue, "abcdefghijkl")
        found = [[*map(bodies, rests(consumers))]]
        for each in (consumers[4], consumers[1]):
            each.method(1, "basic.ack", delivery_tag=1)
            each.call(1, "basic.qos")
        publish(wire, queue, "mnop")
        return [*found, [*map(bodies, rests(consumers))]]

    return talk


# One consumer at a time


class Single:
    """A queue with a single active consumer, its consumers, and what each has got since the last look."""

    def __init__(self, connect: Connect, arguments: Arguments, *priorities: int | None, prefetch: int = 0) -> None:
        self.connect = connect
        self.wire = connect()
        self.prefetch = prefetch
        self.queue = declare(self.wire, {"x-single-active-consumer": True, **arguments})
        self.consumers: list[Wire] = []
        for each in priorities:
            self.add(each)

    def add(self, priority: int | None = None) -> None:
        self.consumers.append(consume(self.connect, self.queue, priority, self.prefetch))

    def publish(self, each: str) -> list[list[Any]]:
        publish(self.wire, self.queue, each)
        return self.got()

    def got(self) -> list[list[Any]]:
        return [[seen(each) for each in heard] for heard in rests(self.consumers)]

    def cancel(self, index: int) -> None:
        self.consumers[index].call(1, "basic.cancel", consumer_tag="t")

    def settle(self, index: int, method: str = "basic.ack", **arguments: Any) -> None:
        self.consumers[index].method(1, method, **arguments)

    def count(self) -> Any:
        return self.wire.call(1, "queue.declare", queue=self.queue, passive=True)[2]["consumer_count"]


def handed_on(arguments: Arguments) -> Case:
    """Nobody else gets a message while one consumer is there; after it the next one does, and what it gave back."""

    def talk(connect: Connect) -> Any:
        single = Single(connect, arguments, None, None, None)
        found: list[Any] = [single.publish("12"), single.count()]
        single.cancel(0)
        found.append(single.publish("34"))
        single.consumers[0].call(1, "channel.close")
        found += [single.got(), single.count()]
        single.consumers.pop(1).close()
        return [*found, single.got(), single.count()]

    return talk


def full(arguments: Arguments) -> Case:
    """An active consumer without room does not let others have a turn."""

    def talk(connect: Connect) -> Any:
        single = Single(connect, arguments, None, None, prefetch=1)
        found = [single.publish("12")]
        single.settle(0, delivery_tag=1)
        return [*found, single.got()]

    return talk


def next_full(connect: Connect, arguments: Arguments) -> Any:
    """The one that comes next gets at once what waited. RabbitMQ 3 gives it nothing before the next event."""
    single = Single(connect, arguments, None, None, prefetch=1)
    found = [single.publish("12")]
    single.cancel(0)
    return [*found, single.got()]


def next_by_priority(connect: Connect, arguments: Arguments) -> Any:
    """The next one is that of the highest priority, and of those the one that came first."""
    single = Single(connect, arguments, 5, 1, 3, 3, -1)
    single.cancel(0)
    return single.publish("12")


def takes_over(connect: Connect, arguments: Arguments) -> Any:
    """A consumer of higher priority, which comes while the active one has something to settle, and has not."""
    single = Single(connect, arguments, None)
    found = [single.publish("12")]
    single.add(1)
    found.append(single.publish("3"))
    single.settle(0, delivery_tag=1)
    found.append(single.got())
    single.settle(0, "basic.reject", delivery_tag=2, requeue=False)
    found += [single.got(), single.publish("4")]
    single.cancel(1)
    found.append(single.publish("5"))
    single.settle(0, delivery_tag=0, multiple=True)
    found.append(single.got())
    single.add(2)
    return [*found, single.publish("6")]


def gives_up(connect: Connect, arguments: Arguments) -> Any:
    """A consumer of higher priority goes before the active one has settled all, which goes on then."""
    single = Single(connect, arguments, None)
    found = [single.publish("1")]
    single.add(1)
    found.append(single.publish("2"))
    single.cancel(1)
    single.settle(0, delivery_tag=1)
    return [*found, single.got(), single.publish("3")]


def got(arguments: Arguments, consumers: int) -> Case:
    """A get from such a queue."""

    def talk(connect: Connect) -> Any:
        single = Single(connect, arguments, *[None] * consumers)
        single.publish("1")
        return seen(single.wire.call(1, "basic.get", queue=single.queue))

    return talk


def exclusively(arguments: Arguments, consumers: int) -> Case:
    """An exclusive consumer of such a queue."""

    def talk(connect: Connect) -> Any:
        single = Single(connect, arguments, *[None] * consumers)
        return told([single.wire.call(1, "basic.consume", queue=single.queue, exclusive=True)])

    return talk


def deleted(connect: Connect, arguments: Arguments) -> Any:
    """All consumers are told, the waiting ones too."""
    single = Single(connect, arguments, None, None)
    single.wire.call(1, "queue.delete", queue=single.queue)
    return single.got()


def of_one_client(connect: Connect, arguments: Arguments) -> Any:
    """What a lost client had goes to the other client."""
    single = Single(connect, arguments, None)
    two = connect(channels=2)
    single.consumers[:] = [two, *single.consumers]
    for channel, tag in ((1, "a"), (1, "b"), (2, "c")):
        two.call(channel, "basic.consume", queue=single.queue, consumer_tag=tag)
    single.consumers.pop().close()
    single.add()
    found = [single.publish("12")]
    single.consumers.pop(0).close()
    # RabbitMQ may count a delivery to one that is going, too
    return [*found, [[body for body, *_ in each] for each in single.got()]]


def for_each_kind(name: str, talk: Any) -> dict[str, Case]:
    def of(kind: Arguments) -> Case:
        return lambda connect: talk(connect, kind)

    return {f"{name} {kind}": of(kind) for kind in KINDS}


KINDS: list[Arguments] = [{}, QUORUM]
VALUES: list[Any] = [5, -5, 0, 2**31, 2**40, "5", True, 1.5, None, {}]

CASES: dict[str, Case] = {
    **{f"priority {value!r} {kind}": priority(value, kind) for value in VALUES for kind in KINDS},
    **{f"in turn {kind}": in_turn(kind) for kind in [*KINDS, {"x-max-priority": 3}]},
    **{f"handed on {kind}": handed_on(kind) for kind in [*KINDS, {"x-max-priority": 3}]},
    **{f"full {kind}": full(kind) for kind in KINDS},
    **{f"get beside {number} {kind}": got(kind, number) for number in (0, 1) for kind in KINDS},
    **{f"exclusive beside {number} {kind}": exclusively(kind, number) for number in (0, 1) for kind in KINDS},
    **for_each_kind("next full", next_full),
    **for_each_kind("next by priority", next_by_priority),
    **for_each_kind("takes over", takes_over),
    **for_each_kind("gives up", gives_up),
    **for_each_kind("deleted", deleted),
    **for_each_kind("of one client", of_one_client),
}
SINCE_4 = {f"next by priority {QUORUM}", f"takes over {QUORUM}", f"gives up {QUORUM}", "next full {}"}


class TurnsTests(ConversationsCase):
    """Who is next is as with RabbitMQ."""

    lanes = 8

    async def test_same(self) -> None:
        """Each conversation is the same on both."""
        await self.compare(CASES, since_4=SINCE_4)
