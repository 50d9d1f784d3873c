"""Nacked messages, published again until they are confirmed or their time is up.

RabbitMQ nacks what a quorum queue without a leader can't take, and what a full queue rejects. A channel that first
published to a queue without a leader goes on asking the dead one, and nacks when there is another (seen with 3.10.8):
so each attempt has a channel of its own. The publishes of others go their way meanwhile.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from txservices.amqp.channel import Channel, Publishing
from txservices.amqp.protocol import Protocol
from txservices.exceptions import AmqpError, ChannelClosedByBroker, PublishNacked

if TYPE_CHECKING:
    from txservices.amqp.publisher import Publisher

log = Logger()

NACKED_RETRY = 0.2  # seconds until nacked messages are published again
NACKED_RETRY_GROWTH = 1.6  # by which that grows with each attempt of which some were nacked again
NACKED_RETRY_MAX = 2.0  # seconds


class Nacked:
    """What a ``Publisher`` has to publish again, and one attempt after the other at it.

    Attributes:
        errors: by key, the last nack of each message that waits or is under way again.
    """

    def __init__(self, publisher: Publisher) -> None:
        self.publisher = publisher
        self.errors: dict[int, PublishNacked] = {}
        self.waiting: dict[int, None] = {}
        self.attempts = 0
        self.attempting = False
        self.channel: Channel | None = None
        self.under_way = 0  # of this attempt, not answered yet
        self.timer: Any = None

    def add(self, publishing: Publishing, error: PublishNacked) -> None:
        """A message was nacked, for the first time or again."""
        self.errors[publishing.key] = error
        self.waiting[publishing.key] = None
        self.soon()

    def soon(self) -> None:
        if self.attempting or self.timer is not None or not self.waiting:
            return
        delay = min(NACKED_RETRY * NACKED_RETRY_GROWTH**self.attempts, NACKED_RETRY_MAX)
        if not self.attempts:
            error = self.errors[next(iter(self.waiting))]
            log.warn("{error}. Published again from now on, until it is confirmed or its time is up", error=error)
        self.attempts += 1
        self.timer = self.publisher.clock.callLater(delay, self.go)

    def go(self) -> None:
        self.timer = None
        protocol = self.publisher.connection.protocol
        if not self.waiting.keys() & self.publisher.unconfirmed.keys():  # their time was up
            self.waiting.clear()
            self.attempts = 0
        elif protocol is None or protocol.closed:
            self.soon()
        else:
            self.attempting = True
            Deferred.fromCoroutine(self.attempt(protocol)).addErrback(self.failed)

    async def attempt(self, protocol: Protocol) -> None:
        channel = await protocol.open_channel()
        await channel.confirm_select()
        waiting, self.waiting = self.waiting, {}
        unconfirmed = self.publisher.unconfirmed
        again = [unconfirmed[key] for key in waiting if key in unconfirmed]  # others' time was up
        for publishing in again:
            publishing.returned = None
            channel.publish(publishing)
        self.watch(channel, len(again))

    def watch(self, channel: Channel, under_way: int) -> None:
        """Take the answers to what is under way on a channel."""
        self.channel = channel
        self.under_way = under_way
        channel.on_closed = partial(self.closed, channel)
        channel.on_confirmed = partial(self.answered, channel)
        self.end_if_answered(channel)

    def failed(self, failure: Any) -> None:
        """There was no channel for it."""
        if not failure.check(AmqpError):
            log.failure("while publishing nacked messages again", failure)
        self.attempting = False
        self.soon()

    def answered(self, channel: Channel, publishing: Publishing, error: Exception | None) -> None:
        self.under_way -= 1
        self.publisher.confirmed(publishing, error)  # which adds it here again for a nack
        self.end_if_answered(channel)

    def end_if_answered(self, channel: Channel) -> None:
        if self.under_way or channel is not self.channel:
            return
        if self.attempts and not self.waiting:
            self.attempts = 0
            if self.change_places(channel):
                return
        self.channel = None
        self.attempting = False
        channel.on_closed = None
        channel.client.close_channel(channel)
        self.soon()

    def change_places(self, channel: Channel) -> bool:
        """A channel that confirms what the publisher's own does not is the publisher's from now on; the old one stays
        until it has answered for all that went out on it."""
        old = self.publisher.change_channel(channel)
        if old is None:
            return False
        self.watch(old, len(old.unconfirmed))
        return True

    def closed(self, channel: Channel, error: AmqpError) -> None:
        """What is under way goes on waiting, if the connection is lost. What the broker may have closed the channel
        for goes to the publisher, which finds out which message it was."""
        if channel is not self.channel:
            return
        self.channel = None
        self.attempting = False
        left = [each for each in channel.unconfirmed.values() if each.key in self.publisher.unconfirmed]
        channel.unconfirmed.clear()
        channel.mandatory.clear()
        if not isinstance(error, ChannelClosedByBroker):
            # what was not nacked the publisher sends again itself
            self.waiting = {**{each.key: None for each in left if each.key in self.errors}, **self.waiting}
        elif len(left) == 1:
            self.publisher.confirmed(left[0], error)
        else:
            self.publisher.take_back([each.key for each in left])
        self.soon()

    def stop(self) -> None:
        self.errors.clear()
        self.waiting.clear()
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
