"""How many messages and consumers queues have.

``Depths`` asks by passive declares, for queues that are named: AMQP has no list of them. ``Listing`` is given all by
RabbitMQ's management.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.logger import Logger

from txservices import constants
from txservices.amqp.connections import Connections
from txservices.amqp.topology import DECLARE_TIMEOUT, gone
from txservices.events import BROADCAST, HANDLER_TYPES
from txservices.exceptions import AmqpError, ChannelClosedByBroker, CommandError
from txservices.monitoring.answers import Method
from txservices.retry.parked import parking_name
from txservices.wire.spec import ReplyCode

NAME_MAX = 255  # bytes of a queue's name: AMQP's limit
QUEUES_MAX = 1_000  # queues that are asked for
ABSENT_AGAIN = 5.0  # seconds after which a queue is asked for again that was not there
ABSENT_MAX = 20  # queues in one look that may be found not to be there: the broker closes a channel for each

LISTED_AGAIN = 5.0  # seconds after which the management is asked again; it counts every five seconds itself

log = Logger()

Lists = Callable[[Connections], Awaitable[list[dict[str, Any]]]]


@frozen
class Depth:
    """What the broker says of a queue: messages that wait in it, and consumers."""

    messages: int
    consumers: int


class Depths:
    """The queues of the services, as far as they are there.

    Attributes:
        found: their depths, by name.
        absent: when others were looked for last.
        problem: why they are not known; empty here.
    """

    problem = ""

    def __init__(self, connections: Connections) -> None:
        self.connections = connections
        self.clock = connections.clock
        self.found: dict[str, Depth] = {}
        self.absent: dict[str, float] = {}
        self.looking: Deferred[None] | None = None

    def begin_look(self, names: Iterable[str]) -> None:
        """Look at these queues and at their parking queues, unless a look is under way. ``found`` has them then."""
        if self.looking is None:
            self.looking = looking = Deferred.fromCoroutine(self.look(with_parking(names)))
            looking.addErrback(self.failed).addBoth(self.looked)

    def failed(self, failure: Any) -> None:
        if not failure.check(AmqpError, CancelledError):
            log.failure("the page could not look at queues", failure)

    def looked(self, _: Any) -> None:
        self.looking = None

    async def look(self, names: list[str]) -> None:
        due = self.clock.seconds() - ABSENT_AGAIN
        self.found = {name: self.found[name] for name in names if name in self.found}
        self.absent = {name: self.absent[name] for name in names if name in self.absent}
        # those that were there come first: the broker says of all after one that is not there only that it is not
        others = [name for name in names if name not in self.found and self.absent.get(name, due) <= due]
        left = [*self.found, *sorted(others, key=lambda name: self.absent.get(name, 0.0))]
        for _ in range(ABSENT_MAX):
            if not left:
                break
            left = left[await self.look_along(left) :]

    async def look_along(self, names: list[str]) -> int:
        """Ask for these queues up to the first that is not there, and give how many that were, it included."""
        protocol = self.connections.consuming.protocol
        if protocol is None:
            return len(names)
        channel = await protocol.open_channel(DECLARE_TIMEOUT)
        try:
            asked = [channel.queue_declare(queue=name, passive=True) for name in names]
            together: Deferred[list[tuple[bool, Any]]] = DeferredList(asked, consumeErrors=True)
            for index, (ok, answer) in enumerate(await together):
                name = names[index]
                if not ok:
                    if not answer.check(ChannelClosedByBroker):
                        answer.raiseException()
                    self.found.pop(name, None)
                    # one that is another connection's own counts as absent: nobody may see it
                    self.absent[name] = self.clock.seconds()
                    if answer.value.code not in (ReplyCode.NOT_FOUND, ReplyCode.RESOURCE_LOCKED):
                        log.warn("queue {name} can't be looked at: {error}", name=name, error=answer.value)
                    return index + 1
                self.found[name] = Depth(answer.message_count, answer.consumer_count)
                self.absent.pop(name, None)
        finally:
            protocol.close_channel(channel).addErrback(gone)
        return len(names)

    async def look_once(self, names: Iterable[str]) -> dict[str, Depth]:
        """Look at these queues and at their parking queues, at each once; gives the depths of those that are there."""
        both = with_parking(names)
        for _ in range(0, len(both), ABSENT_MAX):
            await self.look(both)
        return self.found

    def cancel(self) -> None:
        """Look no more."""
        if self.looking is not None:
            self.looking.cancel()


class Listing:
    """All queues, as RabbitMQ's management lists them.

    Args:
        lists: gives them, as objects of its JSON.
    """

    def __init__(self, lists: Lists, connections: Connections) -> None:
        self.lists = lists
        self.connections = connections
        self.clock = connections.clock
        self.found: dict[str, Depth] = {}
        self.problem = ""
        self.listed = 0.0
        self.looking: Deferred[None] | None = None

    def begin_look(self, _: Iterable[str]) -> None:
        """Ask for the list, unless that is under way or was just done."""
        if self.looking is None and self.clock.seconds() - self.listed >= LISTED_AGAIN:
            self.looking = looking = Deferred.fromCoroutine(self.look())
            looking.addErrback(self.failed).addBoth(self.looked)

    async def look(self) -> None:
        """Ask for the list. ``CommandError`` if the broker gives no list."""
        queues = await self.lists(self.connections)
        # a queue that is new has no numbers yet
        self.found = {each["name"]: Depth(each.get("messages", 0), each.get("consumers", 0)) for each in queues}
        self.problem = ""
        self.listed = self.clock.seconds()

    def failed(self, failure: Any) -> None:
        if failure.trap(CommandError, CancelledError) is CommandError:
            self.problem = str(failure.value)
            self.listed = self.clock.seconds()

    def looked(self, _: Any) -> None:
        self.looking = None

    def cancel(self) -> None:
        """Look no more."""
        if self.looking is not None:
            self.looking.cancel()


def with_parking(names: Iterable[str]) -> list[str]:
    """Those queues that may be there by their names, and their parking queues."""
    consumed = [name for name in names if len(name.encode()) <= NAME_MAX]
    return list(dict.fromkeys([*consumed, *map(parking_name, consumed)]))[:QUEUES_MAX]


def queues_of(entrypoints: Iterable[tuple[str, Method]]) -> dict[str, str]:
    """The names of the queues of entrypoints, each with its service.

    A process of an older version does not tell them. Then they are those that they may have: of an event handler only
    its service knows which of several it has, and the others are not there.
    """
    found: dict[str, str] = {}
    for service, method in entrypoints:
        for queue in names_of(service, method):
            found.setdefault(queue, service)
    return found


def names_of(service: str, method: Method) -> Iterator[str]:
    kind, on, queue = method["entrypoint"], method["on"], method.get("queue")
    if queue is not None:
        yield from filter(None, [queue])
    elif kind == "Rpc":
        yield constants.RPC_QUEUE_TEMPLATE.format(service)
    elif kind == "EventHandler":
        source, _, event = on.partition(".")
        names = {"source": source, "type": event, "service": service, "method": method["method"]}
        for handler_type, each in HANDLER_TYPES.items():
            if handler_type != BROADCAST:  # each instance has one of its own, which nobody else may see
                yield each.queue_name.format(**names)
    elif kind == "Consumer" and on:
        yield on
