"""A queue kept consumed: declared and consumed again after a reconnect, a closed channel, or a deleted queue.

Each consumer has a channel of its own, so that a channel error stays small.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from txservices.amqp.channel import Channel
from txservices.amqp.entities import Message, Queue
from txservices.amqp.protocol import Protocol
from txservices.amqp.topology import declare_on, queue_exists
from txservices.exceptions import (
    AmqpError,
    BrokerRefused,
    BrokerUnreachable,
    ChannelClosedByBroker,
    DeclarationMismatch,
)
from txservices.utils import new_id

if TYPE_CHECKING:
    from txservices.amqp.connection import Connection

log = Logger()

CONSUME_RETRY = 0.5  # seconds before a queue is consumed again on a connection that still lives
MISMATCH_RETRY = 10.0  # seconds, when the queue has come to exist with other properties meanwhile


def gone(failure: Failure) -> None:
    """Errback of a goodbye: that the channel or connection is gone is what it was to bring about."""
    failure.trap(AmqpError)


class Subscription:
    """One queue's messages, delivered to ``receive`` for as long as this is open.

    Attributes:
        ready: fires when the queue is consumed for the first time; fails with ``DeclarationMismatch`` or
            ``BrokerRefused`` or ``BrokerUnreachable``, after which the consumer is closed.
        on_ready: called each time it is consumed, the first time too.
        on_lost: called each time the channel is gone, before it is made again.
        on_missing: when set, the queue is looked for before it is declared again, and this called if it is gone.
        queue_name: as the broker knows the queue; for one without a name, only once it is declared.
    """

    def __init__(
        self,
        connection: Connection,
        queue: Queue,
        receive: Callable[[Message], None],
        prefetch_count: int,
        exclusive: bool = False,
    ) -> None:
        self.connection = connection
        self.queue = queue
        self.queue_name = queue.name
        self.receive = receive
        self.prefetch_count = prefetch_count
        self.exclusive = exclusive
        self.ready: Deferred[None] = Deferred()
        self.on_ready: list[Callable[[], None]] = []
        self.on_lost: list[Callable[[], None]] = []
        self.on_missing: Callable[[], None] | None = None
        self.tag = f"txservices-{new_id()}"
        self.channel: Channel | None = None
        self.open = True  # until cancel or close
        self.attaching: Deferred[None] | None = None
        self.retry: Any = None
        self.draining: list[Deferred[None]] = []
        connection.on_connected.append(self.attach)
        if connection.protocol is not None:
            self.attach(connection.protocol)
        else:
            self.waiting = connection.when_connected()
            self.waiting.addCallbacks(lambda _: None, self.refused)

    @property
    def unsettled(self) -> int:
        """Messages taken from the living channel and neither acked nor rejected yet."""
        return self.channel.unsettled if self.channel is not None else 0

    # Becoming a consumer, again and again

    def attach(self, protocol: Protocol) -> None:
        """Consume on that connection; called for each new one."""
        if self.open and self.attaching is None:
            self.attaching = Deferred.fromCoroutine(self.consume(protocol))
            self.attaching.addBoth(self.attached, protocol)

    async def consume(self, protocol: Protocol) -> None:
        if self.ready.called and self.on_missing is not None and not await queue_exists(protocol, self.queue_name):
            self.on_missing()
        channel = await protocol.open_channel()
        if not self.open:  # closed meanwhile: what would be delivered now nobody takes
            protocol.close_channel(channel).addErrback(gone)
            return
        self.channel = channel
        channel.on_closed = self.channel_closed
        channel.on_cancelled = self.cancelled_by_broker
        await self.consume_on(channel)

    async def consume_on(self, channel: Channel) -> None:
        self.queue_name = await declare_on(channel, self.queue)
        await channel.basic_qos(prefetch_count=self.prefetch_count)
        if self.open:  # not cancelled meanwhile
            await channel.consume(self.queue_name, self.tag, self.receive, self.exclusive)

    def attached(self, result: Any, protocol: Protocol) -> None:
        self.attaching = None
        error = getattr(result, "value", None)
        if error is None:
            if self.open:
                self.consumed()
        elif isinstance(error, DeclarationMismatch) and not self.ready.called:
            self.forget()
            self.ready.errback(error)
        elif not isinstance(error, (AmqpError, DeclarationMismatch)):
            log.failure("while beginning to consume {queue}", failure=result, queue=self.queue_name)
            self.again(CONSUME_RETRY)
        elif self.open and not protocol.closed:
            delay = MISMATCH_RETRY if isinstance(error, DeclarationMismatch) else CONSUME_RETRY
            log.warn(
                "queue {queue} can't be consumed: {error}. Trying again in {delay} s",
                queue=self.queue_name,
                error=error,
                delay=delay,
            )
            self.again(delay)

    def consumed(self) -> None:
        for call in self.on_ready:
            call()
        if not self.ready.called:
            self.ready.callback(None)

    def refused(self, failure: Any) -> None:
        if not failure.check(BrokerRefused, BrokerUnreachable):
            return  # stopped while it waited
        self.forget()
        if not self.ready.called:
            self.ready.errback(failure)

    def again(self, delay: float) -> None:
        if self.retry is None and self.open:
            self.retry = self.connection.clock.callLater(delay, self.retry_now)

    def retry_now(self) -> None:
        self.retry = None
        protocol = self.connection.protocol
        if protocol is not None and not protocol.closed and (self.channel is None or self.channel.closed):
            self.attach(protocol)

    # Losing it

    def channel_closed(self, error: AmqpError) -> None:
        self.channel = None
        self.drain()
        for call in self.on_lost:
            call()
        # a channel that is closed for what attach() asked of it is dealt with in attached(), which comes first
        if self.open and self.attaching is None and self.retry is None and isinstance(error, ChannelClosedByBroker):
            log.warn("the channel that consumes {queue} is closed: {error}", queue=self.queue_name, error=error)
            self.again(CONSUME_RETRY)

    def cancelled_by_broker(self, tag: str) -> None:
        """The queue was deleted, or its node is gone: declare it again and consume on a new channel."""
        log.warn("queue {queue} was deleted on the broker: declaring it again", queue=self.queue_name)
        channel, self.channel = self.channel, None
        protocol = self.connection.protocol
        if channel is None or protocol is None or not self.open:
            return
        channel.on_closed = None
        protocol.close_channel(channel).addErrback(gone)
        for call in self.on_lost:
            call()
        self.attach(protocol)

    # The end

    def cancel(self) -> Deferred[Any]:
        """No more deliveries; those taken can still be settled. Fires when the broker agrees."""
        self.forget()
        channel = self.channel
        if channel is None or channel.closed or self.tag not in channel.consumers:
            return succeed(None)
        cancelling: Deferred[Any] = channel.basic_cancel(consumer_tag=self.tag)
        return cancelling.addErrback(gone)

    def drained(self) -> Deferred[None]:
        """Fires when every message taken is settled, or can't be any more since the channel is gone."""
        drained: Deferred[None] = Deferred(lambda cancelled: self.draining.remove(cancelled))
        if self.unsettled and self.channel is not None:
            self.channel.on_drained = self.drain
            self.draining.append(drained)
        else:
            drained.callback(None)
        return drained

    def drain(self) -> None:
        draining, self.draining = self.draining, []
        for drained in draining:
            drained.callback(None)

    def close(self) -> Deferred[Any]:
        """Give the channel up. What wasn't settled goes back to the queue. Fires when the broker agrees."""
        self.forget()
        channel, self.channel = self.channel, None
        if channel is None or channel.closed:
            return succeed(None)
        channel.on_closed = None
        self.drain()
        closing: Deferred[Any] = channel.client.close_channel(channel)
        return closing.addErrback(gone)

    def forget(self) -> None:
        self.open = False
        if self.attach in self.connection.on_connected:
            self.connection.on_connected.remove(self.attach)
        if self.retry is not None:
            self.retry.cancel()
            self.retry = None
