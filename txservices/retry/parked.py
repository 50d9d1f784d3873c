"""What is done with parked messages: they are looked at, replayed and discarded.

A parking queue is walked from its oldest message on, up to as many messages as it had at the start: what is parked
meanwhile, also of those replayed, is left for another time. A message stays unacked while the walk goes on. Those that
nothing is done with go back when its channel closes, to the places that they had.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred, DeferredList, DeferredSemaphore
from twisted.internet.task import deferLater
from twisted.logger import Logger

from txservices import configuration
from txservices.amqp.channel import Channel
from txservices.amqp.connections import Connections
from txservices.amqp.entities import Message
from txservices.amqp.topology import DECLARE_TIMEOUT, gone
from txservices.exceptions import (
    ChannelClosedByBroker,
    ConfigurationError,
    FrameError,
    PublishError,
    UndeliverableMessage,
)
from txservices.retry import marks
from txservices.retry.failures import DELIVERY_COUNT, PARKED, parking_queue
from txservices.retry.jsonlines import Written
from txservices.wire.spec import ReplyCode

log = Logger()

__all__ = ["NoParkingQueue", "Parked", "Selection", "Summary", "Tally", "parking_name"]

HELD_MAX = 50_000  # messages of a parking queue that one walk keeps from others
GETS_MAX = 50  # messages that are asked for at once
GETS_BYTES_MAX = 16_777_216  # bytes, 16 MiB, of messages asked for at once, if they are like those before them
REPLAYED_MAX = 100  # messages replayed at once and not yet confirmed
# RabbitMQ 4 drops a message that a quorum queue has delivered 20 times, and each walk is a delivery.
DELIVERIES_MAX = 10  # of a message, after which a copy takes its place


class NoParkingQueue(ConfigurationError):
    """There is no such queue: nothing was parked there yet."""


@frozen
class Selection:
    """A choice of messages in a parking queue: those with one of the ids and one of the reasons. Empty means any."""

    ids: frozenset[str] = frozenset()
    reasons: frozenset[str] = frozenset()

    def has(self, message: Message) -> bool:
        if self.ids and message.properties.get("message_id") not in self.ids:
            return False
        return not self.reasons or marks.Why.of(message).reason in self.reasons


@define
class Tally:
    """How far a walk has come. It is kept up to date, and true also if the walk ends with an error.

    Attributes:
        there: messages in the queue at the start.
        read: those that were read.
        unreadable: those among them that can't be read.
        selected: those that were chosen.
        ids: the ids of these.
        done: those of these for which the work is done.
        stayed: how many of these are parked still, by the reason.
        on_read: called after every few messages.
    """

    there: int = 0
    read: int = 0
    unreadable: int = 0
    selected: int = 0
    ids: set[str] = field(factory=set)
    done: int = 0
    stayed: Counter[str] = field(factory=Counter)
    on_read: Callable[[], object] = lambda: None

    def select(self, message: Message, selection: Selection) -> bool:
        """Whether a message is meant. It is counted then."""
        if not selection.has(message):
            return False
        self.selected += 1
        if selection.ids:
            self.ids.add(message.properties["message_id"])
        return True


@define
class Summary:
    """A parking queue in a line.

    Attributes:
        queue: its name.
        count: its messages.
        read: so many of them were looked at, from the oldest on.
        since: when the first of these was parked, as ISO 8601 in UTC; empty if nothing tells.
        reasons: how many have each reason.
    """

    queue: str
    count: int = 0
    read: int = 0
    since: str = ""
    reasons: Counter[str] = field(factory=Counter)


def parking_name(queue: str) -> str:
    """The name of the parking queue of a queue; that of a parking queue is its own."""
    return queue if queue.endswith(PARKED) else parking_queue(queue).name


class Parked:
    """The parking queues of a broker. Operations may be made one after the other.

    Errors of all of them: ``NoParkingQueue``, ``ChannelClosedByBroker`` and ``ConnectionLost``; ``BrokerRefused`` and
    ``BrokerUnreachable`` at the first. Nothing is lost with any.

    Args:
        connections: started, and stopped by whoever made them.
        config: that of the services.
    """

    def __init__(self, connections: Connections, config: Any) -> None:
        self.connections = connections
        self.clock = connections.clock
        self.rpc_exchange = configuration.RPC_EXCHANGE.of(config)
        self.publish_timeout = configuration.PUBLISH_TIMEOUT.of(config)
        self.queue_type = configuration.QUEUE_TYPE.of(config)
        self.cancelled = False
        self.pause: Deferred[None] | None = None

    def cancel(self) -> None:
        """Take no further message. The operation under way ends when what it has begun is done."""
        self.cancelled = True
        if self.pause is not None:
            self.pause.cancel()

    async def summary(self, queue: str, tally: Tally) -> Summary:
        """How many messages are in a parking queue, since when, and why."""
        summary = Summary(queue)

        async def count(message: Message) -> bool:
            why = marks.Why.of(message)
            summary.reasons[why.reason] += 1
            if why.at and (not summary.since or why.at < summary.since):
                summary.since = why.at
            return False

        await self.walk(queue, count, tally)
        summary.count, summary.read = tally.there, tally.read
        if tally.unreadable:
            summary.reasons["can't be read here"] = tally.unreadable
        return summary

    async def look(self, queue: str, selection: Selection, see: Callable[[Message], object], tally: Tally) -> None:
        """Call ``see`` with each message that is meant. All stay where they are."""

        async def take(message: Message) -> bool:
            if tally.select(message, selection):
                see(message)
                tally.done += 1
            return False

        await self.walk(queue, take, tally)

    async def discard(self, queue: str, selection: Selection, tally: Tally) -> None:
        """Delete the messages that are meant."""

        async def take(message: Message) -> bool:
            if tally.select(message, selection):
                message.ack()
                tally.done += 1
            return message.settled

        await self.walk(queue, take, tally)

    async def replay(self, queue: str, selection: Selection, tally: Tally, rate: float | None = None) -> None:
        """Have the messages that are meant handled again: each goes to the one queue that it came from.

        Its attempts are counted from the first again. It is acked here once the broker has confirmed it there. If this
        process ends between the two it is in both queues, with the same id.

        Args:
            rate: messages in a second; None for as fast as it goes.
        """
        under_way = DeferredSemaphore(REPLAYED_MAX)
        gone_queues: set[str] = set()
        due = self.clock.seconds()

        def published(message: Message, back: marks.Back, error: Exception | None) -> None:
            if error is None:
                message.ack()
                tally.done += 1
            elif is_gone(error):
                gone_queues.add(back.queue)
                tally.stayed[no_queue(back.queue)] += 1
            else:
                tally.stayed[str(error)] += 1
            under_way.release()  # last: the channel may be closed at once

        async def take(message: Message) -> bool:
            nonlocal due
            if not tally.select(message, selection):
                return False
            back = marks.way_back(message, self.rpc_exchange)
            if back is None:
                tally.stayed["nothing in it tells where it came from"] += 1
                return False
            if back.queue in gone_queues:
                tally.stayed[no_queue(back.queue)] += 1
                return False
            if rate is not None:
                await self.wait_until(due)
                due = max(due, self.clock.seconds()) + 1 / rate
            await under_way.acquire()
            if self.cancelled:  # meanwhile
                under_way.release()
                return False
            done = partial(published, message, back)
            properties = marks.anew(message, back)
            publish = self.connections.publisher.publish_then
            try:
                publish(back.exchange, back.routing_key, message.body, properties, True, done, self.publish_timeout)
            except ValueError as error:  # what a stranger has sent, and AMQP can't carry
                done(error)
            return True

        async def settled() -> None:
            for _ in range(REPLAYED_MAX):
                await under_way.acquire()

        await self.walk(queue, take, tally, settled)

    async def add(self, messages: Iterable[Written], tally: Tally) -> None:
        """Put messages into their parking queues, which are declared if need be."""
        under_way = DeferredSemaphore(REPLAYED_MAX)

        def published(error: Exception | None) -> None:
            if error is None:
                tally.done += 1
            else:
                tally.stayed[str(error)] += 1
            under_way.release()

        publish = self.connections.on_demand.publish_then
        try:
            for name, body, properties in messages:
                await under_way.acquire()
                if self.cancelled:
                    under_way.release()
                    break
                tally.read += 1
                tally.selected += 1
                queue = parking_queue(name.removesuffix(PARKED), self.queue_type)
                try:
                    publish(queue, body, properties, published, self.publish_timeout)
                except (TypeError, ValueError) as error:  # it has what AMQP can't carry
                    published(error)
                if not tally.read % GETS_MAX:
                    tally.on_read()
        finally:
            for _ in range(REPLAYED_MAX):
                await under_way.acquire()

    # The walk

    async def walk(
        self,
        queue: str,
        take: Callable[[Message], Awaitable[bool]],
        tally: Tally,
        settled: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Call ``take`` with each message, from the oldest on. Then wait for ``settled``, and give the others back.

        ``take`` tells whether it settles the message.
        """
        protocol = await self.connections.consuming.when_connected()
        channel = await protocol.open_channel(DECLARE_TIMEOUT)
        in_order = False
        try:
            tally.there = await messages_in(channel, queue)
            largest = GETS_BYTES_MAX  # until one was seen
            while tally.read < tally.there and not self.cancelled:
                room = HELD_MAX - channel.unsettled - tally.unreadable
                most = min(GETS_MAX, GETS_BYTES_MAX // max(largest, 1), tally.there - tally.read, room)
                if room <= 0:
                    break
                got = await got_of(channel, queue, max(most, 1))
                if None in got:  # others have taken some
                    tally.there = tally.read + got.index(None)
                largest = 0
                for message in got[: tally.there - tally.read]:
                    if self.cancelled:
                        break
                    if isinstance(message, Message):
                        largest = max(largest, message.size)
                        if not await take(message):
                            if self.cancelled:  # meanwhile
                                break
                            await self.renew(queue, message)
                    else:
                        tally.unreadable += 1
                    tally.read += 1
                tally.on_read()
            if settled is not None:
                await settled()
            tally.on_read()
            in_order = True
        finally:
            closing: Deferred[Any] = protocol.close_channel(channel).addErrback(gone)
            # The others are back in their places then, in a quorum queue a moment later. A broker that does not answer
            # never tells.
            if in_order:
                await closing

    async def renew(self, queue: str, message: Message) -> None:
        """Put a copy in the place of a message that the broker would drop after some more deliveries."""
        deliveries = message.headers.get(DELIVERY_COUNT)
        if not isinstance(deliveries, int) or deliveries < DELIVERIES_MAX:
            return
        headers = {name: value for name, value in message.headers.items() if name != DELIVERY_COUNT}
        properties = {name: value for name, value in message.properties.items() if name != "user_id"}
        properties["headers"] = headers
        try:
            await self.connections.publisher.publish("", queue, message.body, properties, True, self.publish_timeout)
        except (PublishError, ChannelClosedByBroker, ValueError) as error:
            log.error("no copy of {delivery} could be put in its place: {error}", delivery=message, error=error)
        else:
            message.ack()

    async def wait_until(self, time: float) -> None:
        delay = time - self.clock.seconds()
        if delay > 0 and not self.cancelled:
            self.pause = deferLater(self.clock, delay)
            try:
                await self.pause
            except CancelledError:
                pass
            self.pause = None


async def messages_in(channel: Channel, queue: str) -> int:
    """How many messages of a queue wait, and are not with somebody. ``NoParkingQueue`` if there is no such queue."""
    try:
        declared = await channel.queue_declare(queue=queue, passive=True)
    except ChannelClosedByBroker as error:
        if error.code != ReplyCode.NOT_FOUND:
            raise
        raise NoParkingQueue(
            f"no queue {queue!r}: nothing was parked from {queue.removesuffix(PARKED)!r}, or its name is another one"
        ) from None
    count: int = declared.message_count
    return count


async def got_of(channel: Channel, queue: str, count: int) -> list[Message | FrameError | None]:
    """So many messages of a queue: None for one that is not there, and its error for one that can't be read."""
    answers: list[Message | FrameError | None] = []
    asked = [channel.get(queue) for _ in range(count)]
    together: Deferred[list[tuple[bool, Any]]] = DeferredList(asked, consumeErrors=True)
    for ok, got in await together:
        if not ok and not got.check(FrameError):
            got.raiseException()
        answers.append(got if ok else got.value)
    return answers


def is_gone(error: Exception) -> bool:
    """Whether a publish failed because its queue, or the exchange that leads there, is not there any more."""
    if isinstance(error, ChannelClosedByBroker):
        return error.code == ReplyCode.NOT_FOUND
    return isinstance(error, UndeliverableMessage)


def no_queue(name: str) -> str:
    return f"there is no queue {name!r} any more: start the service that has it"
