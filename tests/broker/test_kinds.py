"""Quorum queues, priorities, and single active consumers: the same conversations with RabbitMQ and the embedded broker.

Where RabbitMQ 3 and 4 differ, the embedded broker is as 4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tests.broker.conversing import (
    QUORUM,
    Arguments,
    Case,
    Connect,
    ConversationsCase,
    consume,
    declare,
    drain,
    names,
    publish,
    seen,
    told,
    until_ready,
)
from tests.broker.wire import Wire

SINGLE = {"x-single-active-consumer": True}

# Declarations

D = {"durable": True}
TYPES: list[Any] = ["classic", "quorum", "foo", "", 5, True, None, {}, ["quorum"]]
SINGLES: list[Any] = [True, False, "a", 1, None]
PRIORITIES: list[Any] = [0, 1, 255, 256, -1, "5", True, 1.0, None]
OF_QUORUM_QUEUES: list[Arguments] = [
    {"x-max-priority": 5}, {"x-queue-mode": "lazy"}, {"x-queue-mode": "default"}, {"x-queue-version": 2},
    {"x-overflow": "drop-head"}, {"x-overflow": "reject-publish"}, {"x-overflow": "reject-publish-dlx"},
    {"x-message-ttl": 1000}, {"x-expires": 100_000}, {"x-expires": 0}, {"x-max-length": 3, "x-max-length-bytes": 9},
    {"x-delivery-limit": 0}, {"x-delivery-limit": 3}, {"x-delivery-limit": -1}, SINGLE, {"x-foo": 1},
    {"x-quorum-initial-group-size": 3}, {"x-quorum-initial-group-size": 0}, {"x-quorum-initial-group-size": "a"},
    {"x-dead-letter-strategy": "at-least-once"}, {"x-dead-letter-strategy": "foo"},
    {"x-max-in-memory-length": 3}, {"x-max-age": "1D"},
]  # fmt: skip
OF_QUEUES: list[Arguments] = [
    *({"x-queue-type": kind} for kind in TYPES),
    *({**QUORUM, **more} for more in OF_QUORUM_QUEUES),
    *({"x-single-active-consumer": value} for value in SINGLES),
    *({"x-max-priority": value} for value in PRIORITIES),
    {"x-max-priority": 5, "x-queue-mode": "lazy"}, {"x-max-priority": 5, **SINGLE},
    {"x-delivery-limit": 3}, {"x-delivery-limit": "a"}, {"x-quorum-initial-group-size": 3},
    {"x-dead-letter-strategy": "at-most-once"}, {"x-max-in-memory-length": 3}, {"x-max-in-memory-bytes": 3},
    {"x-max-age": "1D"}, {"x-stream-max-segment-size-bytes": 10}, {"x-initial-cluster-size": 1},
]  # fmt: skip
DECLARATIONS: list[tuple[Arguments, dict[str, bool]]] = [
    *((arguments, D) for arguments in OF_QUEUES),
    *((QUORUM, options) for options in ({"durable": False}, {**D, "exclusive": True}, {**D, "auto_delete": True})),
    *((SINGLE, options) for options in ({"durable": False}, {**D, "exclusive": True}, {**D, "auto_delete": True})),
    ({"x-queue-type": "stream"}, {"durable": False}),
]

TWICE: list[tuple[Arguments, Arguments]] = [
    *((one, other) for one in (QUORUM, {}) for other in (QUORUM, {}, {"x-queue-type": "classic"})),
    *((QUORUM, {"x-queue-type": kind}) for kind in ("stream", "foo", 5)),
    *(
        ({**kind, **one}, {**kind, **other})
        for kind, limits in (
            (QUORUM, ({}, {"x-delivery-limit": 3}, {"x-delivery-limit": 4})),
            ({}, ({}, SINGLE, {"x-single-active-consumer": False})),
            ({}, ({}, {"x-max-priority": 5}, {"x-max-priority": 6})),
        )
        for one in limits
        for other in limits
    ),
]


def declared(arguments: Arguments, options: Mapping[str, bool]) -> Case:
    def talk(connect: Connect) -> Any:
        return told([connect().call(1, "queue.declare", queue=next(names), arguments=arguments, **options)])

    return talk


def declared_twice(one: Arguments, other: Arguments) -> Case:
    def talk(connect: Connect) -> Any:
        wire = connect()
        return told([wire.call(1, "queue.declare", queue=declare(wire, one), durable=True, arguments=other)])

    return talk


def unnamed(connect: Connect) -> Any:
    return told([connect().call(1, "queue.declare", queue="", durable=True, arguments=QUORUM)])


# Quorum queues

WAYS_BACK: dict[str, Callable[[Wire], Any]] = {
    "reject": lambda wire: wire.method(1, "basic.reject", delivery_tag=1, requeue=True),
    "nack": lambda wire: wire.method(1, "basic.nack", delivery_tag=1, requeue=True),
    "nack of all": lambda wire: wire.method(1, "basic.nack", delivery_tag=0, multiple=True, requeue=True),
    "recover": lambda wire: wire.call(1, "basic.recover", requeue=True),
    "closed channel": lambda wire: wire.call(1, "channel.close"),
    "closed connection": lambda wire: wire.call(0, "connection.close"),
    "lost connection": lambda wire: wire.close(),
}


def comes_back(way: Callable[[Wire], Any], arguments: Arguments) -> Case:
    """A message comes back twice that way; the second one never left."""

    def talk(connect: Connect) -> Any:
        wire = connect()
        queue = declare(wire, arguments)
        publish(wire, queue, "a")
        found = []
        for _ in range(2):
            getter = connect()
            found.append(seen(getter.call(1, "basic.get", queue=queue)))
            way(getter)
            until_ready(wire, queue)
        publish(wire, queue, "b")
        return found + drain(wire, queue)

    return talk


def in_order(arguments: Arguments) -> Case:
    """The order of messages that come back one by one, and together."""

    def talk(connect: Connect) -> Any:
        wire = connect()
        queue = declare(wire, arguments)
        found = []
        for tags in ((3, 1, 2), (0,)):
            publish(wire, queue, "12345")
            taker = connect()
            for _ in range(3):
                taker.call(1, "basic.get", queue=queue)
            for tag in tags:
                taker.method(1, "basic.nack", delivery_tag=tag, requeue=True, multiple=tag == 0)
            until_ready(wire, queue, 5)
            found.append(drain(wire, queue))
        return found

    return talk


def limited(arguments: Arguments) -> Case:
    """How often a message is delivered before it is a dead letter, and what it says then."""

    def talk(connect: Connect) -> Any:
        wire = connect()
        dead = declare(wire)
        dying = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
        queue = declare(wire, {**QUORUM, **dying, **arguments})
        publish(wire, queue, "m")
        found: list[Any] = []
        while len(found) < 25:
            heard = wire.call(1, "basic.get", queue=queue)
            if heard[1] == "basic.get-empty" and not came_back(wire, queue, dead):
                break
            if heard[1] == "basic.get-ok":
                found.append(seen(heard))
                wire.method(1, "basic.reject", delivery_tag=heard[2]["delivery_tag"], requeue=True)
        letter = wire.call(1, "basic.get", queue=dead, no_ack=True)
        if letter[1] == "basic.get-ok":
            headers = letter[2]["properties"]["headers"]
            deaths = [(death["reason"], death["count"]) for death in headers["x-death"]]
            found.append((deaths, headers["x-first-death-reason"], "x-delivery-count" in headers))
        return found

    return talk


def came_back(wire: Wire, queue: str, dead: str) -> bool:
    """Whether the message is in its queue again, and not in the dead letters."""
    for _ in range(1000):
        for name in (queue, dead):
            if wire.call(1, "queue.declare", queue=name, passive=True)[2]["message_count"]:
                return name == queue
    return False


def global_qos(before: int, after: int | None = None, no_ack: bool = False) -> Case:
    """A prefetch for the whole channel, before a consumer of a quorum queue, and after it."""

    def talk(connect: Connect) -> Any:
        wire = connect()
        queue = declare(wire, QUORUM)
        found = [wire.call(1, "basic.qos", prefetch_count=before, **{"global": True})]
        found.append(wire.call(1, "basic.get", queue=queue))
        found.append(wire.call(1, "basic.consume", queue=queue, no_ack=no_ack))
        if after is not None:
            found.append(wire.call(1, "basic.qos", prefetch_count=after, **{"global": True}))
        return told(found)

    return talk


def deleted(arguments: Arguments, **conditions: bool) -> Case:
    def talk(connect: Connect) -> Any:
        wire = connect()
        queue = declare(wire, arguments)
        return told([wire.call(1, "queue.delete", queue=queue, **conditions)])

    return talk


def exclusively(arguments: Arguments) -> Case:
    """Exclusive consumers of a queue that has none, and one; and others besides."""

    def talk(connect: Connect) -> Any:
        found = []
        for first, second in ((True, False), (False, True)):
            wire = connect()
            queue = declare(wire, arguments)
            for exclusive in (first, second):
                found.append(wire.call(1, "basic.consume", queue=queue, exclusive=exclusive))
        return told(found)

    return talk


def by_two_levels(connect: Connect) -> Any:
    """High and low priorities, whichever were first; and those that came back."""
    wire = connect()
    queue = declare(wire, QUORUM)
    found = []
    for priorities in ([0, 4, 5, 9, None] * 2, [0] * 6 + [7] * 6, [7] * 6 + [0] * 6, [7] * 4 + [0] * 2 + [7] * 3):
        publish(wire, queue, "abcdefghijkl"[: len(priorities)], priorities)
        found.append(drain(wire, queue))
    publish(wire, queue, "abcd", [7, 0, 7, 0])
    wire.call(1, "basic.get", queue=queue)
    wire.call(1, "basic.get", queue=queue)
    wire.method(1, "basic.nack", delivery_tag=0, multiple=True, requeue=True)
    until_ready(wire, queue, 4)
    return [*found, drain(wire, queue)]


def own_count(connect: Connect) -> Any:
    """A client's own x-delivery-count."""
    wire = connect()
    queue = declare(wire, QUORUM)
    publish(wire, queue, "a", headers={"x-delivery-count": 7, "h": 1})
    found = [wire.call(1, "basic.get", queue=queue)]
    wire.method(1, "basic.nack", requeue=True, multiple=True)
    until_ready(wire, queue)
    found.append(wire.call(1, "basic.get", queue=queue))
    return [each[2]["properties"]["headers"] for each in found]


# Priorities of messages

ANY = (None, 0, 1, 2, 3, 5, 9, 255, None, 2)


def ranked(most: int) -> Case:
    def talk(connect: Connect) -> Any:
        wire = connect()
        queue = declare(wire, {"x-max-priority": most})
        publish(wire, queue, "0123456789", ANY)
        return drain(wire, queue)

    return talk


def ranked_again(connect: Connect) -> Any:
    """Messages that come back stand before the others of their priority, in their old order."""
    wire = connect()
    queue = declare(wire, {"x-max-priority": 3})
    publish(wire, queue, "abcd", (1, 1, 2, 2))
    for _ in range(4):
        wire.call(1, "basic.get", queue=queue)
    publish(wire, queue, "ef", (1, 2))
    wire.method(1, "basic.nack", delivery_tag=4, requeue=True)
    wire.method(1, "basic.nack", delivery_tag=0, multiple=True, requeue=True)
    until_ready(wire, queue, 6)
    return drain(wire, queue)


def ranked_and_full(overflow: str) -> Case:
    """What a queue with priorities drops."""

    def talk(connect: Connect) -> Any:
        wire = connect()
        queue = declare(wire, {"x-max-priority": 3, "x-max-length": 3, "x-overflow": overflow})
        wire.call(1, "confirm.select")
        outcomes = []
        for body, priority in zip("abcde", (1, 2, 3, 0, 2), strict=True):
            wire.publish(queue, body.encode(), priority=priority)
            outcomes.append(wire.wait("basic.ack", "basic.nack")[1])
        return outcomes, drain(wire, queue)

    return talk


def ranked_and_consumed(connect: Connect) -> Any:
    """A consumer with room for one gets the highest that there is each time."""
    wire = connect()
    queue = declare(wire, {"x-max-priority": 3})
    consumer = consume(connect, queue, prefetch=1)
    publish(wire, queue, "abc", (1, 2, 3))
    found = []
    for tag in (1, 2, 3):
        found.append(seen(consumer.wait("basic.deliver")))
        consumer.method(1, "basic.ack", delivery_tag=tag)
    return found


def ranked_and_expired(connect: Connect) -> Any:
    """Of messages that expire only those at the head are gone; the others are when they get there."""
    wire = connect()
    queue = declare(wire, {"x-max-priority": 3})
    publish(wire, queue, "a", (1,), expiration="100")
    publish(wire, queue, "b", (2,))
    publish(wire, queue, "c", (3,), expiration="100")
    wire.rest()
    return told([wire.call(1, "queue.declare", queue=queue, passive=True)]), drain(wire, queue)


CASES: dict[str, Case] = {
    **{f"declare {arguments} {options}": declared(arguments, options) for arguments, options in DECLARATIONS},
    **{f"declare {one}, then {other}": declared_twice(one, other) for one, other in TWICE},
    "unnamed": unnamed,
    **{f"{name} {kind}": comes_back(way, kind) for kind in ({}, QUORUM) for name, way in WAYS_BACK.items()},
    **{f"order {kind}": in_order(kind) for kind in ({}, QUORUM)},
    **{f"limit {limit}": limited({"x-delivery-limit": limit}) for limit in (0, 1, 2, -1)},
    "limit by default": limited({}),
    **{f"global qos {numbers}": global_qos(*numbers) for numbers in ((5, None), (0, 5), (5, None, True))},
    **{
        f"delete {kind} {condition}": deleted(kind, **{condition: True})
        for kind in ({}, QUORUM)
        for condition in ("if_unused", "if_empty")
    },
    **{f"exclusively {kind}": exclusively(kind) for kind in ({}, QUORUM)},
    "two levels": by_two_levels,
    "own count": own_count,
    **{f"priorities to {most}": ranked(most) for most in (0, 1, 3, 10, 255)},
    "priorities again": ranked_again,
    **{f"priorities, {overflow}": ranked_and_full(overflow) for overflow in ("drop-head", "reject-publish")},
    "priorities consumed": ranked_and_consumed,
    "priorities expired": ranked_and_expired,
}
SINCE_4 = {f"order {QUORUM}", "limit -1", "limit by default", "two levels", "own count", "priorities to 0"}


class KindsTests(ConversationsCase):
    """The kinds of queue are RabbitMQ's."""

    async def test_same(self) -> None:
        """Each conversation is the same on both."""
        await self.compare(CASES, since_4=SINCE_4)
