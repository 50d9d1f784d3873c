"""Publishing that loses nothing: every message is kept until the broker has confirmed it.

What was sent and not confirmed when a channel is lost is sent again on the next one, in order, with the same message id
(so duplicates are possible, and can be told). What is published while there is no connection waits, bounded in number,
in bytes and in time. A channel that the broker closes because of one message costs that message alone: the others are
then sent one at a time until the culprit is found.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from txservices import configuration
from txservices.amqp.channel import Channel, Publishing
from txservices.amqp.entities import Exchange, Queue
from txservices.amqp.nacked import Nacked
from txservices.amqp.protocol import Protocol
from txservices.amqp.topology import declare
from txservices.exceptions import (
    AmqpError,
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    ConnectionLost,
    DeclarationMismatch,
    PublishBufferFull,
    PublishNacked,
    PublishTimeout,
)
from txservices.utils import Sweeper, new_id
from txservices.wire.codec import encode_properties

if TYPE_CHECKING:
    from txservices.amqp.connection import Connection

log = Logger()

UNCONFIRMED_MAX = 200_000  # messages published and not yet confirmed
UNCONFIRMED_BYTES_MAX = 268_435_456  # bytes of their bodies, 256 MiB
REPORTED_MAX = 10  # destinations that are named of what a stop could not publish
FOREVER = float("inf")


class Publisher:
    """What publishes on one connection."""

    def __init__(self, connection: Connection, clock: Any) -> None:
        self.connection = connection
        self.clock = clock
        self.channel: Channel | None = None
        self.sequence = 0
        self.unconfirmed: dict[int, Publishing] = {}  # in the order of publishing
        self.unconfirmed_bytes = 0
        self.unsent: deque[int] = deque()  # keys that wait for a channel, or for their turn among suspects
        self.suspects = 0  # at the front of unsent: those one of which made the broker close a channel
        self.topology: dict[Exchange | Queue, None] = {}  # what was declared, in order
        self.settling: list[tuple[int, Deferred[None]]] = []
        self.stopped = False
        self.nacked = Nacked(self)
        self.sweeper = Sweeper(clock, self.unconfirmed, self.expire)
        connection.on_connected.append(self.restore)

    # Publishing

    def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: dict[str, Any],
        mandatory: bool = False,
        timeout: float | None = configuration.PUBLISH_TIMEOUT.default,
    ) -> Deferred[None]:
        """Publish a message; fires when the broker has confirmed it.

        Fails with ``UndeliverableMessage`` (mandatory, and no queue takes it), ``PublishNacked``, ``PublishTimeout``
        after ``timeout`` seconds (None: never), ``PublishBufferFull``, ``ChannelClosedByBroker`` (the broker refuses
        this message, e.g. since there is no such exchange), and ``ConnectionLost`` when this stops.
        Raises ``ValueError`` for properties that AMQP can't carry. Cancelling it forgets the outcome, not the message.
        """
        confirmed: Deferred[None] = Deferred()

        def done(error: Exception | None) -> None:
            if error is None:
                confirmed.callback(None)
            else:
                confirmed.errback(error)

        self.publish_then(exchange, routing_key, body, properties, mandatory, done, timeout)
        return confirmed

    def publish_then(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: dict[str, Any],
        mandatory: bool,
        done: Callable[[Exception | None], None],
        timeout: float | None = configuration.PUBLISH_TIMEOUT.default,
    ) -> None:
        """``publish`` without a Deferred, for the hot path: ``done`` is called once, with None or the error."""
        message_id = properties.get("message_id")
        if message_id is None:
            message_id = properties["message_id"] = new_id()
        publishing = Publishing(
            exchange,
            routing_key,
            mandatory,
            encode_properties(properties),
            body,
            message_id,
            done,
            FOREVER if timeout is None else self.clock.seconds() + timeout,
        )
        if self.stopped:
            done(ConnectionLost("nothing can be published any more: the service has stopped"))
            return
        unconfirmed = self.unconfirmed
        if len(unconfirmed) >= UNCONFIRMED_MAX or self.unconfirmed_bytes + len(body) > UNCONFIRMED_BYTES_MAX:
            done(PublishBufferFull(len(unconfirmed), self.unconfirmed_bytes))
            return
        self.sequence = key = self.sequence + 1
        publishing.key = key
        unconfirmed[key] = publishing
        self.unconfirmed_bytes += len(body)
        if timeout is not None:
            self.sweeper.watch()
        if self.channel is None or self.unsent:
            self.unsent.append(key)
        else:
            self.channel.publish(publishing)

    def confirmed(self, publishing: Publishing, error: Exception | None) -> None:
        """The broker has answered for a message."""
        key = publishing.key
        if type(error) is PublishNacked and key in self.unconfirmed:
            self.nacked.add(publishing, error)
            return
        if self.unconfirmed.pop(key, None) is None:
            return  # it had expired
        if self.nacked.errors:
            self.nacked.errors.pop(key, None)
        self.finish(publishing, error)
        if self.unsent:
            self.send()

    def expire(self, key: int, publishing: Publishing) -> None:
        nack = self.nacked.errors.pop(key, None)
        self.finish(publishing, nack or PublishTimeout(publishing.exchange, publishing.routing_key))

    def finish(self, publishing: Publishing, error: Exception | None) -> None:
        self.unconfirmed_bytes -= len(publishing.body)
        try:
            publishing.done(error)
        except Exception:
            log.failure(
                "after the publish of {key} to {exchange}",
                key=publishing.routing_key,
                exchange=publishing.exchange,
            )
        if self.settling:
            self.tell_settled()

    # Sending what waits

    def to_send(self) -> deque[int]:
        """What a new channel has to send: all that is unconfirmed, but for what is sent again on its own."""
        return deque(key for key in self.unconfirmed if key not in self.nacked.errors)

    def take_back(self, keys: list[int]) -> None:
        """Send again here what was nacked before: one of these made the broker close the channel for it."""
        for key in keys:
            self.nacked.errors.pop(key, None)
        self.unsent.extend(keys)
        self.send()

    def send(self) -> None:
        """Send what is unsent: all of it, or while there are suspects one at a time."""
        unsent = self.unsent
        while unsent and self.channel is not None:
            if self.suspects:
                if self.channel.unconfirmed:
                    return
                self.suspects -= 1
            publishing = self.unconfirmed.get(unsent.popleft())
            if publishing is not None:  # else it expired while it waited
                publishing.returned = None
                self.channel.publish(publishing)

    async def restore(self, protocol: Protocol) -> None:
        """A new connection: declare again what was declared, open a channel, send again what wasn't confirmed."""
        for entity in self.topology:
            try:
                await declare(protocol, entity)
            except (DeclarationMismatch, ChannelClosedByBroker) as error:
                log.error("{entity} could not be declared again: {error}", entity=entity, error=error)
        await self.open(protocol)

    async def open(self, protocol: Protocol) -> None:
        channel = await protocol.open_channel()
        await channel.confirm_select()
        channel.on_closed = self.channel_closed
        channel.on_confirmed = self.confirmed
        self.channel = channel
        self.unsent = self.to_send()
        self.send()

    def change_channel(self, channel: Channel) -> Channel | None:
        """Publish on that one from now on; gives the one before, or None where this is no time to change."""
        old = self.channel
        if old is not None and not self.suspects:
            channel.on_closed = self.channel_closed
            channel.on_confirmed = self.confirmed
            self.channel = channel
            return old
        return None

    def channel_closed(self, error: AmqpError) -> None:
        channel, self.channel = self.channel, None
        if channel is None:
            return
        self.unsent = self.to_send()
        sent = list(channel.unconfirmed.values())
        channel.unconfirmed.clear()  # else they live on with it until Python looks for cycles
        channel.mandatory.clear()
        if not isinstance(error, ChannelClosedByBroker):
            return  # the connection is gone: restore() is called with the next one
        if len(sent) == 1:
            self.confirmed(sent[0], error)
            self.unsent = self.to_send()
        else:
            self.suspects = len(sent)
        reopening = Deferred.fromCoroutine(self.open(channel.client))
        reopening.addErrback(self.reopen_failed, channel.client)

    def reopen_failed(self, failure: Any, protocol: Protocol) -> None:
        """Without a channel for publishing the connection is of no use: have it made anew."""
        if not failure.check(ConnectionLost, ConnectionClosedByBroker):
            log.failure("no new channel for publishing", failure)
        if not protocol.closed:
            protocol.abort()

    # Declaring

    def declare(self, *entities: Exchange | Queue) -> Deferred[None]:
        """Declare them in order, now and on every new connection. Fires when they are there.

        Fails with ``DeclarationMismatch`` (it exists with other properties), ``ChannelClosedByBroker`` (any other
        refusal), ``BrokerRefused``, ``BrokerUnreachable``, and ``ConnectionLost`` when this stops.
        """
        return Deferred.fromCoroutine(self.declare_all(entities))

    async def declare_all(self, entities: tuple[Exchange | Queue, ...]) -> None:
        new = [entity for entity in entities if entity not in self.topology]
        while new:
            protocol = await self.connection.when_connected()
            try:
                await declare(protocol, *new)
            except (ConnectionLost, ConnectionClosedByBroker):
                if self.stopped:
                    raise
                continue
            break
        self.topology.update(dict.fromkeys(new))

    # The end

    def settled(self) -> Deferred[None]:
        """Fires when the broker has answered for all that was published until now."""
        settled: Deferred[None] = Deferred()
        self.settling.append((self.sequence, settled))
        self.tell_settled()
        return settled

    def tell_settled(self) -> None:
        oldest = next(iter(self.unconfirmed), self.sequence + 1)
        while self.settling and self.settling[0][0] < oldest:
            _, settled = self.settling.pop(0)
            settled.callback(None)

    def flush(self) -> Deferred[None]:
        """No more publishes. Fires when the broker has answered for all that there were."""
        self.stopped = True
        return self.settled()

    def give_up(self) -> None:
        """What is not confirmed by now fails with ``ConnectionLost``, and is reported."""
        self.stopped = True
        self.sweeper.stop()
        self.nacked.stop()
        self.unsent.clear()
        left = list(self.unconfirmed.values())
        self.unconfirmed.clear()
        settling, self.settling = self.settling, []  # told when all of them have failed
        if left:
            log.error(
                "the broker did not confirm {count} messages before the stop, they may be lost: {what}",
                count=len(left),
                what=destinations(left),
            )
        for publishing in left:
            self.finish(publishing, ConnectionLost("the service stopped before the broker confirmed the message"))
        for _, settled in settling:
            settled.callback(None)


def destinations(publishings: list[Publishing]) -> str:
    """How many go where, for a person."""
    counts = Counter((each.exchange, each.routing_key) for each in publishings)
    named = [f"{count} to {exchange!r} as {key!r}" for (exchange, key), count in counts.most_common(REPORTED_MAX)]
    return ", ".join(named) + (", …" if len(counts) > REPORTED_MAX else "")
