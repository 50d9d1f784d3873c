"""Publishing that loses nothing: every message is kept until the broker has confirmed it.

- A connection is lost: everything unconfirmed is published again on the next one, in order and with the same message
  ids, so a consumer may see a duplicate and can recognise it.
- There is no connection: messages wait for one, within limits of number, bytes and time.
- The broker takes nothing for now (``Flow``): messages wait here, within the same limits, and not with the transport,
  where an expired one could not be taken back.
- The broker nacks messages: they are published again on a new channel, which takes over from the old one. The old one
  retires: it stays open until the broker has answered for everything published on it.
- The broker closes the channel or the connection because of one message: those that were under way are suspects,
  published again one at a time on the next one, until the culprit is found, and only that one fails.

The page is long because all of these work on the same few tables of messages.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from txservices import configuration
from txservices.amqp.channel import Channel
from txservices.amqp.connection import Connection
from txservices.amqp.entities import Exchange, Queue
from txservices.amqp.outbox import Flow
from txservices.amqp.protocol import Protocol
from txservices.amqp.publishing import Publishing, destinations, forgotten
from txservices.amqp.topology import Topology
from txservices.deadlines import FOREVER
from txservices.exceptions import (
    AmqpError,
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    ConnectionLost,
    HeadersTooLarge,
    PublishBufferFull,
    PublishNacked,
    PublishTimeout,
)
from txservices.observers import observers
from txservices.utils.ids import new_id
from txservices.utils.sweeping import Sweeper
from txservices.utils.waiting import Waiters
from txservices.wire.codec import encode_properties
from txservices.wire.frames import FRAME_MAX, header_max
from txservices.wire.spec import REQUEST_ERRORS

log = Logger()

UNCONFIRMED_MAX = 200_000  # messages published and not yet confirmed
UNCONFIRMED_BYTES_MAX = 268_435_456  # bytes of their bodies, headers and names, 256 MiB
PIECE = 131_072  # bytes of messages given to the transport at once; then it says whether it takes more
NACKED_RETRY = 0.2  # seconds until nacked messages are published again
NACKED_RETRY_GROWTH = 1.6  # factor by which that grows each time, for as long as some of them are not confirmed
NACKED_RETRY_MAX = 2.0  # seconds
RETIRING_MAX = 8  # channels that wait for their last confirms; of more, the oldest is closed and its messages resent


class Publisher:
    """Publishes on one connection, over as many channels as that takes."""

    def __init__(self, connection: Connection, clock: Any) -> None:
        self.connection = connection
        self.clock = clock
        self.channel: Channel | None = None  # the one that takes new messages
        self.flow = Flow()  # of its connection
        self.retiring: dict[Channel, None] = {}  # open for their last confirms only, the oldest first
        self.sequence = 0
        self.unconfirmed: dict[int, Publishing] = {}  # by key, in the order of publishing
        self.unconfirmed_bytes = 0
        self.unsent: OrderedDict[int, None] = OrderedDict()  # keys that wait for a channel, or for their turn
        self.suspects: set[int] = set()  # one of them made the broker close a channel or the connection
        self.header_max = header_max(FRAME_MAX)  # bytes of properties: of the latest connection, or what we ask for
        self.nacked: dict[int, PublishNacked] = {}  # the last nack of each message that has one and is unconfirmed
        self.to_republish: set[int] = set()  # those among them that wait for a new channel
        self.republishing: Deferred[None] | None = None
        self.republished = 0  # how often, since all was well
        self.topology = Topology(connection)
        self.declare = self.topology.declare
        self.declare_when_granted = self.topology.declare_when_granted
        self.draining: dict[int, Waiters[None]] = {}  # by the last key that they wait for, in order
        self.cancelled = False
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
        """Publish a message. The Deferred fires with None when the broker has confirmed it.

        It fails with ``UndeliverableMessage`` (the message is mandatory and no queue takes it), ``PublishTimeout``
        (no confirm within ``timeout`` seconds; None waits for ever), ``PublishNacked`` (likewise, and the broker has
        rejected it until then), ``PublishBufferFull``, ``ChannelClosedByBroker`` (the broker refuses this message, for
        example because there is no such exchange), ``ConnectionClosedByBroker`` (it closes connections for this
        message), and ``ConnectionLost`` when the publisher is stopped. Cancelling it forgets the outcome, not the
        message. ``ValueError`` is raised at once for names and properties that AMQP can't carry, ``HeadersTooLarge``
        among them; nothing is kept of such a message.
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
        always: bool = False,
        retry_nacked: bool = True,
    ) -> Publishing:
        """``publish`` without a Deferred, for the hot path: ``done`` is called once, with None or the error.

        Gives what is kept of the message until then.

        With ``always`` the message is taken where there is no room as well: the caller sees to a bound. Without
        ``retry_nacked`` the first ``PublishNacked`` is the error, and the message is not published again.
        """
        if properties.get("message_id") is None:
            properties["message_id"] = new_id()
        observed = observers.message_confirmed
        now = 0.0 if timeout is None and not observed else self.clock.seconds()
        publishing = Publishing(
            exchange,
            routing_key,
            mandatory,
            encode_properties(properties),
            body,
            done,
            FOREVER if timeout is None else now + timeout,
            retry_nacked,
        )
        if len(publishing.header) > self.header_max:
            raise HeadersTooLarge(exchange, routing_key, len(publishing.header), self.header_max)
        if observers.message_published:
            observers.tell(observers.message_published, exchange, routing_key, publishing.size)
        if observed:
            publishing.began = now
        if self.cancelled:
            self.refuse(publishing, ConnectionLost("nothing can be published any more: the service has stopped"))
            return publishing
        unconfirmed = self.unconfirmed
        size = publishing.size
        total = self.unconfirmed_bytes + size
        if (total > UNCONFIRMED_BYTES_MAX or len(unconfirmed) >= UNCONFIRMED_MAX) and not always:
            self.refuse(publishing, PublishBufferFull(len(unconfirmed), self.unconfirmed_bytes))
            return publishing
        self.sequence = publishing.key = key = self.sequence + 1
        unconfirmed[key] = publishing
        self.unconfirmed_bytes = total
        if timeout is not None and self.sweeper.call is None:
            self.sweeper.watch()
        if self.channel is None or self.unsent or self.suspects or self.flow.paused:
            self.unsent[key] = None
            if self.flow.crowded:
                self.send()
        else:
            self.channel.publish(publishing)
            if size > PIECE:
                self.channel.client.flush()
        return publishing

    def refuse(self, publishing: Publishing, error: Exception) -> None:
        """A message is not taken: tell the observers, and whoever has published it."""
        if publishing.began is not None:
            self.tell_confirmed(publishing, publishing.began, error)
        publishing.done(error)

    def tell_confirmed(self, publishing: Publishing, began: float, error: Exception | None) -> None:
        seconds = self.clock.seconds() - began
        exchange, routing_key = publishing.exchange, publishing.routing_key
        observers.tell(observers.message_confirmed, exchange, routing_key, seconds, error)

    def declare_for(self, size: int, *entities: Exchange | Queue) -> Deferred[None]:
        """``declare``, for a message of that many bytes, which waits for it and counts until then.

        Fails with ``PublishBufferFull`` as well.
        """
        size += UNCONFIRMED_BYTES_MAX // UNCONFIRMED_MAX  # for their number
        if self.unconfirmed_bytes + size > UNCONFIRMED_BYTES_MAX:
            return fail(PublishBufferFull(len(self.unconfirmed), self.unconfirmed_bytes))
        self.unconfirmed_bytes += size

        def ended(result: Any) -> Any:
            self.unconfirmed_bytes -= size
            return result

        return self.declare(*entities).addBoth(ended)

    def confirmed(self, publishing: Publishing, error: Exception | None) -> None:
        """The broker has answered for a message; ``error`` is None if it has it."""
        key = publishing.key
        if self.suspects:
            self.suspects.discard(key)
        if type(error) is PublishNacked and publishing.retry_nacked:
            self.nack(key, error)
        elif self.unconfirmed.pop(key, None) is not None:  # else it had expired
            if self.nacked:
                self.forget_nack(key)
            self.finish(publishing, error)
        if self.retiring:
            self.close_retired()
        if self.unsent:
            self.send()

    def expire(self, key: int, publishing: Publishing) -> None:
        nack = self.forget_nack(key)
        self.unsent.pop(key, None)
        self.suspects.discard(key)
        self.finish(publishing, nack or PublishTimeout(publishing.exchange, publishing.routing_key))
        if self.is_crowded():
            self.flow.crowd(True)

    def is_crowded(self) -> bool:
        """Whether the channel has too many tags without an answer, those of messages that have expired among them."""
        return self.channel is not None and len(self.channel.unconfirmed) >= UNCONFIRMED_MAX

    def finish(self, publishing: Publishing, error: Exception | None) -> None:
        self.unconfirmed_bytes -= publishing.size
        done = publishing.done
        # It is kept for as long as the channel keeps its tag: without what takes memory, and without ``done``, else the
        # Deferred of a call is gone, and its error told, only when garbage is collected.
        publishing.header = publishing.body = b""
        publishing.done = forgotten
        if publishing.began is not None:
            self.tell_confirmed(publishing, publishing.began, error)
        try:
            done(error)
        except Exception:
            log.failure(
                "after the publish of {key} to {exchange}",
                key=publishing.routing_key,
                exchange=publishing.exchange,
            )
        if self.draining:
            self.tell_drained()

    def send(self) -> None:
        """Send what is unsent: as much as the transport takes, or while there are suspects one at a time."""
        if self.flow.crowded:
            self.flow.crowd(self.is_crowded())
        unsent = self.unsent
        size = 0
        while unsent and self.channel is not None and not self.flow.paused:
            if self.suspects and self.channel.unconfirmed:
                return
            key, _ = unsent.popitem(last=False)
            publishing = self.unconfirmed[key]
            if len(publishing.header) > self.header_max:  # the broker of before took larger frames
                self.suspects.discard(key)
                del self.unconfirmed[key]
                error = HeadersTooLarge(
                    publishing.exchange, publishing.routing_key, len(publishing.header), self.header_max
                )
                self.finish(publishing, error)
                continue
            self.channel.publish(publishing)
            size += publishing.size
            if size > PIECE:
                self.channel.client.flush()
                size = 0

    # Nacked messages

    def nack(self, key: int, error: PublishNacked) -> None:
        """The broker did not take a message: publish it again, a little later."""
        # RabbitMQ nacks what a quorum queue without a leader can't take, and what a full queue rejects. A channel that
        # first published to a queue without a leader goes on asking the dead one, and nacks when there is another
        # (seen with 3.10.8): so the message needs a new channel.
        if key not in self.unconfirmed:
            return  # it had expired
        self.nacked[key] = error
        self.to_republish.add(key)
        if self.republishing is None:
            if not self.republished:
                log.warn("{error}. Published again from now on, until it is confirmed or its time is up", error=error)
            self.republishing = Deferred.fromCoroutine(self.republish())
            self.republishing.addErrback(self.republish_failed)

    def forget_nack(self, key: int) -> PublishNacked | None:
        """The message is confirmed, or has failed. Gives its last nack."""
        nack = self.nacked.pop(key, None)
        self.to_republish.discard(key)
        if not self.nacked:
            self.republished = 0
        return nack

    async def republish(self) -> None:
        """Publish nacked messages again on a new channel, after a while."""
        try:
            while self.to_republish:
                delay = min(NACKED_RETRY * NACKED_RETRY_GROWTH**self.republished, NACKED_RETRY_MAX)
                self.republished += 1
                await deferLater(self.clock, delay)
                if self.channel is None:
                    return  # whoever opens the next channel sends them
                if self.to_republish and not self.suspects:
                    with suppress(AmqpError):  # no channel to be had: later, or on the next connection
                        await self.open(self.channel.client)
        finally:
            self.republishing = None

    def republish_failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):  # by abort()
            log.failure("while publishing nacked messages again", failure)

    # Channels

    async def restore(self, protocol: Protocol) -> None:
        """Declare on a new connection what was declared, and send what is unconfirmed."""
        self.flow = protocol.flow
        self.flow.on_resumed = self.send
        self.header_max = header_max(protocol.frame_max)
        self.unsent = OrderedDict((key, None) for key, each in self.unconfirmed.items() if type(each) is Publishing)
        await self.topology.restore(protocol)
        await self.open(protocol)

    async def open(self, protocol: Protocol) -> None:
        """Open a channel that takes over: what waits is sent there. The one before retires."""
        channel = await protocol.open_channel()
        await channel.confirm_select()
        channel.on_closed = partial(self.channel_closed, channel)
        channel.on_confirmed = self.confirmed
        before, self.channel = self.channel, channel
        if before is not None:
            self.retire(before)
        self.unsent.update(dict.fromkeys(sorted(self.to_republish)))
        self.to_republish.clear()
        self.send()

    def retire(self, channel: Channel) -> None:
        """Publish nothing more on that channel, and close it when it is answered for."""
        self.retiring[channel] = None
        if len(self.retiring) > RETIRING_MAX:
            oldest = next(iter(self.retiring))
            self.unsent.update((each.key, None) for each in oldest.unconfirmed.values() if each.key in self.unconfirmed)
            oldest.unconfirmed.clear()
        self.close_retired()

    def close_retired(self) -> None:
        """Close the retired channels that wait for no confirm any more."""
        for channel in [each for each in self.retiring if not each.unconfirmed]:
            del self.retiring[channel]
            channel.on_closed = None
            channel.client.close_channel(channel)

    def channel_closed(self, channel: Channel, error: AmqpError) -> None:
        """A channel is gone, by the broker's will or with its connection."""
        its_own = isinstance(error, ChannelClosedByBroker)
        self.retiring.pop(channel, None)
        if channel is self.channel or not its_own:
            self.channel = None
        sent = list(channel.unconfirmed.values())
        channel.unconfirmed.clear()  # else they live on with it until Python looks for cycles
        channel.returns.clear()
        if its_own and self.channel is None:
            reopening = Deferred.fromCoroutine(self.open(channel.client))
            reopening.addErrback(self.reopen_failed, channel.client)
        if its_own or is_for_a_publish(error):
            # For the connection's end, a message that was alone by chance may not be the cause: it is sent once more.
            if len(sent) == 1 and (its_own or sent[0].key in self.suspects):
                self.confirmed(sent[0], error)
            else:
                keys = [each.key for each in sent if each.key in self.unconfirmed]
                self.suspects.update(keys)
                self.unsent = OrderedDict.fromkeys([*keys, *self.unsent])
                self.send()

    def reopen_failed(self, failure: Failure, protocol: Protocol) -> None:
        """Without a channel for publishing a connection is of no use: end it, so that another is made."""
        if not failure.check(ConnectionLost, ConnectionClosedByBroker):
            log.failure("no new channel for publishing", failure)
        if not protocol.closed:
            protocol.abort()

    # The end

    def cancel(self) -> None:
        """Take no more messages: a publish fails with ``ConnectionLost``."""
        self.cancelled = self.topology.cancelled = True

    def drain(self) -> Deferred[None]:
        """Fires with None when the broker has answered for every message published until now."""
        drained = self.draining.setdefault(self.sequence, Waiters()).wait()
        self.tell_drained()
        return drained

    def tell_drained(self) -> None:
        oldest = next(iter(self.unconfirmed), FOREVER)
        while self.draining and (last := next(iter(self.draining))) < oldest:
            self.draining.pop(last).fire(None)

    def abort(self) -> None:
        """End now: each unconfirmed message fails with ``ConnectionLost``, and the log says how many and to whom."""
        self.cancel()
        self.sweeper.stop()
        if self.republishing is not None:
            self.republishing.cancel()
        self.unsent.clear()
        self.suspects.clear()
        self.nacked.clear()
        self.to_republish.clear()
        left = list(self.unconfirmed.values())
        self.unconfirmed.clear()
        draining, self.draining = self.draining, {}  # told when all of them have failed
        if left:
            log.error(
                "the broker did not confirm {count} messages before the stop, they may be lost: {what}",
                count=len(left),
                what=destinations(left),
            )
        for publishing in left:
            self.finish(publishing, ConnectionLost("the service stopped before the broker confirmed the message"))
        for waiters in draining.values():
            waiters.fire(None)


def is_for_a_publish(error: AmqpError) -> bool:
    """Whether the broker may have closed the connection for a message; often it does not tell the method."""
    by_broker = isinstance(error, ConnectionClosedByBroker)
    return by_broker and error.code in REQUEST_ERRORS and error.method in (None, "basic.publish")
