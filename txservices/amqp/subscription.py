"""A queue kept consumed: declared and consumed again after a reconnect, a closed channel, or a deleted queue.

Each subscription has a channel of its own, so that an error of one leaves the others alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from shlex import quote
from typing import Any
from uuid import uuid4

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from txservices.amqp.channel import Channel
from txservices.amqp.connection import Connection
from txservices.amqp.deadletters import DeadLetters
from txservices.amqp.entities import Message, Queue
from txservices.amqp.protocol import Protocol
from txservices.amqp.refusals import explained, named, passes, pause, unwritable
from txservices.amqp.topology import ANSWER_TIMEOUT, declare_on, gone, queue_exists
from txservices.constants import QUEUE_TYPE_ARGUMENT, SINGLE_ACTIVE_ARGUMENT
from txservices.exceptions import (
    AmqpError,
    BrokerRefused,
    BrokerUnreachable,
    ChannelClosedByBroker,
    DeclarationMismatch,
    NotAnswered,
)
from txservices.observers import observers
from txservices.utils.waiting import Waiters
from txservices.wire.spec import ReplyCode

log = Logger()

CONSUME_RETRY = 0.5  # seconds before a queue is consumed again on a connection that is still open
CONSUME_RETRY_GROWTH = 1.6  # factor by which that grows each time, until the queue is consumed for CONSUMED_LONG
CONSUME_RETRY_MAX = 2.0  # seconds
CONSUMED_LONG = 5.0  # seconds
PATIENCE_MAX = 60.0  # seconds for each answer, after several attempts that were not answered in time

NOT_ANSWERED = "the broker has not answered yet"


class Subscription:
    """Has the messages of one queue delivered to ``receive``, until it is cancelled or closed.

    Attributes:
        ready: fires with None when the queue is consumed for the first time; fails with ``DeclarationMismatch``,
            ``BrokerRefused`` or ``BrokerUnreachable``, and then nothing is tried again.
        on_ready: called each time the queue is consumed, the first time too.
        on_missing: if set, the queue is looked for before it is declared again, and this is called if it is gone.
        queue_name: the queue's name on the broker, which chooses one for a queue without a name when it is declared.
        dead_letters: if set, it says with which of two sets of arguments the queue is declared.
        active: whether the broker delivers from the queue.
        more: how many further consumers of the queue there are on the channel: see ``widen``.
    """

    def __init__(
        self,
        connection: Connection,
        queue: Queue,
        receive: Callable[[Message], None],
        prefetch_count: int,
        dead_letters: DeadLetters | None = None,
    ) -> None:
        self.connection = connection
        self.queue = queue
        self.dead_letters = dead_letters
        self.queue_name = queue.name
        self.receive = receive
        self.prefetch_count = prefetch_count
        self.ready: Deferred[None] = Deferred()
        self.on_ready: list[Callable[[], None]] = []
        self.on_missing: Callable[[], None] | None = None
        self.tag = f"{connection.process}, {uuid4().hex[:8]}"  # short, for each delivery brings it along
        self.more = 0
        self.active = False
        self.channel: Channel | None = None
        self.single_active = bool(queue.arguments.get(SINGLE_ACTIVE_ARGUMENT))
        # RabbitMQ closes the connection (540) for a reject of a stream's message.
        self.rejects = queue.arguments.get(QUEUE_TYPE_ARGUMENT) != "stream"
        self.consuming = True  # until cancel() or close()
        self.attaching: Deferred[None] | None = None
        self.cause = NOT_ANSWERED  # why it was not consumed, or lost, the last time
        self.failed = 0  # attempts in a row that failed, or whose queue was lost soon
        self.consumed_at: float | None = None  # when the latest that did not fail ended
        self.retry: Any = None
        self.draining: Waiters[None] = Waiters()
        self.patience = ANSWER_TIMEOUT  # seconds for each answer of the next attempt
        connection.on_connected.append(self.attach)
        if connection.protocol is not None:
            self.attach(connection.protocol)
        else:
            connection.when_connected().addCallbacks(lambda _: None, self.refused)

    @property
    def unsettled(self) -> int:
        """How many messages have been delivered on the open channel and are neither acked nor rejected."""
        return self.channel.unsettled if self.channel is not None else 0

    @property
    def trouble(self) -> str | None:
        """Why the broker delivers no messages of the queue now. None if it does, or if nobody wants them any more."""
        if not self.consuming:
            return None
        if not self.connection.is_open:
            return "there is no connection to the broker"
        if self.channel is not None and self.tag in self.channel.consumers and self.attaching is None:
            return None
        return self.cause

    # Consuming, again and again

    def attach(self, protocol: Protocol) -> None:
        """Consume on that connection; called for each new one."""
        if self.consuming and self.attaching is None:
            if self.connection.prefetched is not None:
                self.connection.prefetched.ask()
            self.attaching = Deferred.fromCoroutine(self.open_channel(protocol))
            self.attaching.addBoth(self.attached, protocol)

    async def open_channel(self, protocol: Protocol) -> None:
        missing = self.on_missing if self.ready.called else None
        if missing is not None and not await queue_exists(protocol, self.queue_name, self.patience):
            missing()
        if self.dead_letters is not None:
            self.queue = await self.dead_letters.declare(protocol, self.patience)
        channel = await protocol.open_channel(self.patience)
        if not self.consuming:  # cancelled meanwhile: nobody would take what is delivered
            protocol.close_channel(channel).addErrback(gone)
            return
        self.channel = channel
        self.more = 0
        channel.rejects = self.rejects
        channel.prefetched = self.connection.prefetched
        channel.on_closed = self.channel_closed
        channel.on_cancelled = self.cancel_received
        await self.consume(channel)

    async def consume(self, channel: Channel) -> None:
        self.queue_name = channel.queue = await declare_on(channel, self.queue)
        what = named("queue", self.queue_name)
        try:
            await channel.basic_qos(prefetch_count=self.prefetch_count)
            if self.consuming:  # not cancelled meanwhile
                await channel.consume(self.queue_name, self.tag, self.receive, self.queue.consumer_arguments)
        except ValueError as error:
            raise unwritable(f"a consumer of {what}", error) from error
        except ChannelClosedByBroker as error:
            known = explained(what, error)
            if known is None:
                raise
            raise known from error
        channel.patience = None
        self.patience = ANSWER_TIMEOUT

    def widen(self, more: int) -> None:
        """Have so many further consumers of the queue, each with the same prefetch: the prefetch is so many times more.

        It can't be changed otherwise: RabbitMQ gives each consumer the prefetch that was set when it began. Nobody
        waits for the broker's answer. A new channel begins without them.
        """
        channel = self.channel
        if channel is None or channel.closing or self.tag not in channel.consumers:
            return
        arguments = self.queue.consumer_arguments
        while self.more < more:
            self.more += 1
            channel.consume(self.queue_name, f"{self.tag}+{self.more}", self.receive, arguments).addErrback(gone)
        while self.more > more:  # what it has brought is still handled
            channel.basic_cancel(consumer_tag=f"{self.tag}+{self.more}").addErrback(gone)
            self.more -= 1

    def attached(self, result: Any, protocol: Protocol) -> None:
        self.attaching = None
        if self.connection.prefetched is not None:
            self.connection.prefetched.answered()
        error = getattr(result, "value", None)
        if error is None:
            if self.consuming:
                self.consumed()
        elif isinstance(error, DeclarationMismatch) and not self.ready.called:
            self.close()
            self.ready.errback(error)
        elif not isinstance(error, (AmqpError, DeclarationMismatch)):
            log.failure("while beginning to consume {queue}", failure=result, queue=self.queue_name)
            self.again(self.delay())
        elif self.consuming and not protocol.closed:
            self.cause = str(error) + self.cure(error)
            delay = self.delay()
            refused = isinstance(error, DeclarationMismatch) or passes(error)
            if isinstance(error, NotAnswered):
                self.not_answered(protocol)
                delay = CONSUME_RETRY  # instead, the time that an answer may take grows
            elif refused:
                delay = pause(self.failed)
            if refused or self.tells:
                log.warn(
                    "queue {queue} can't be consumed, attempt {failed}: {error}. Trying again in {delay:.1f} s",
                    queue=self.queue_name,
                    failed=self.failed,
                    error=self.cause,
                    delay=delay,
                )
            self.again(delay)

    def cure(self, error: Exception) -> str:
        """What to do about a quorum queue that can be declared and not consumed, in words: see ``fresh``."""
        quorum = self.queue.arguments.get(QUEUE_TYPE_ARGUMENT) == "quorum"
        if not quorum or not isinstance(error, NotAnswered) or error.method != "basic.consume":
            return ""
        vhost = self.connection.address.vhost
        return (
            f" Or was the broker killed just when it had made queue {self.queue_name!r}? Then it never takes messages:"
            f" delete it, with rabbitmqctl delete_queue {quote(self.queue_name)} -p {quote(vhost)}"
        )

    def not_answered(self, protocol: Protocol) -> None:
        """Leave the channel to the broker. Each attempt waits twice as long as the one before.

        So few channels hang at once, a slow broker has the time that it needs, and a queue whose node comes back is
        consumed at once: an attempt is under way then, and RabbitMQ answers it.
        """
        channel, self.channel = self.channel, None
        if channel is not None:
            channel.on_closed = None
            protocol.close_channel(channel).addErrback(gone)
        self.patience = min(self.patience * 2, PATIENCE_MAX)

    def delay(self) -> float:
        """Seconds until the next attempt. One more has failed, or its queue was lost."""
        now = self.connection.clock.seconds()
        if self.consumed_at is not None and now - self.consumed_at >= CONSUMED_LONG:
            self.failed = 0
        self.consumed_at = None
        self.failed += 1
        return min(CONSUME_RETRY * CONSUME_RETRY_GROWTH ** min(self.failed - 1, 20), CONSUME_RETRY_MAX)

    @property
    def tells(self) -> bool:
        """Whether the log is to tell of this failure: of the first, and then at doubling numbers."""
        return self.failed & (self.failed - 1) == 0

    def consumed(self) -> None:
        self.consumed_at = self.connection.clock.seconds()
        self.active = True
        observers.tell(observers.consumer_started, self.queue_name)
        self.cause = NOT_ANSWERED
        for call in self.on_ready:
            call()
        if not self.ready.called:
            self.ready.callback(None)

    def refused(self, failure: Any) -> None:
        if not failure.check(BrokerRefused, BrokerUnreachable):
            return  # the connection was closed while this waited
        self.detach()
        if not self.ready.called:
            self.ready.errback(failure)

    def again(self, delay: float) -> None:
        if self.retry is None and self.consuming:
            self.retry = self.connection.clock.callLater(delay, self.retry_now)

    def retry_now(self) -> None:
        self.retry = None
        protocol = self.connection.protocol
        if protocol is not None and not protocol.closed and (self.channel is None or self.channel.closed):
            self.attach(protocol)

    # Losing it

    def ended(self) -> None:
        """The broker no longer delivers from the queue, or we take no more."""
        if self.active:
            self.active = False
            observers.tell(observers.consumer_ended, self.queue_name)

    def channel_closed(self, error: AmqpError) -> None:
        self.channel = None
        self.ended()
        self.draining.fire(None)
        if error.code == ReplyCode.NOT_IMPLEMENTED and "stream" in error.text and f"'{self.queue_name}'" in error.text:
            self.rejects = False  # a queue that somebody else has declared as a stream
        # if the broker closes the channel for what attach() asked of it, attached() is called first and deals with it
        if (
            self.consuming
            and self.attaching is None
            and self.retry is None
            and isinstance(error, ChannelClosedByBroker)
        ):
            self.cause = f"its channel was closed: {error}"
            delay = self.delay()
            if self.tells:
                log.warn("the channel that consumes {queue} is closed: {error}", queue=self.queue_name, error=error)
            self.again(delay)

    def cancel_received(self, tag: str) -> None:
        """The queue was deleted, or its node is gone: declare it again and consume on a new channel."""
        channel, protocol = self.channel, self.connection.protocol
        if channel is None or protocol is None or not self.consuming:
            return
        self.ended()
        self.cause = "it was deleted on the broker"
        delay = self.delay()
        if self.tells:
            log.warn("queue {queue} was deleted on the broker: declaring it again", queue=self.queue_name)
        self.channel = None
        self.draining.fire(None)
        channel.on_closed = channel.on_cancelled = None  # each of several consumers is cancelled
        protocol.close_channel(channel).addErrback(gone)
        if self.failed == 1:
            self.attach(protocol)
        else:
            self.again(delay)

    # The end

    def cancel(self) -> Deferred[Any]:
        """Take no more deliveries; those that have come can still be settled. Fires when the broker agrees.

        While the connection is not read, nothing is waited for: the broker's answer comes after everything that it has
        sent, all of which goes back to the queue.
        """
        self.detach()
        channel = self.channel
        if channel is None or channel.closed or self.tag not in channel.consumers:
            return succeed(None)
        if self.single_active:
            # The broker would have the next one begin, while we still handle our last message. It is told by close().
            del channel.consumers[self.tag]  # what comes until then goes back
            return succeed(None)
        self.widen(0)
        prefetched = channel.prefetched
        cancelling: Deferred[Any] = channel.basic_cancel(consumer_tag=self.tag)
        if prefetched is None:
            return cancelling.addErrback(gone)
        if prefetched.paused:
            channel.consumers.update(dict.fromkeys(channel.consumers, give_back))
            cancelling.addErrback(gone)
            return succeed(None)
        prefetched.ask()
        cancelling.addErrback(gone)
        return cancelling.addCallback(lambda _: prefetched.answered())

    def drain(self) -> Deferred[None]:
        """Fires with None when every delivery is settled, or can't be any more because the channel is gone."""
        if self.channel is None or not self.channel.unsettled:
            return succeed(None)
        self.channel.on_drained = partial(self.draining.fire, None)
        return self.draining.wait()

    def close(self) -> Deferred[Any]:
        """Close the channel. Unsettled deliveries go back to the queue. Fires when the broker agrees."""
        self.detach()
        channel, self.channel = self.channel, None
        if channel is None or channel.closed:
            return succeed(None)
        channel.on_closed = None
        self.draining.fire(None)
        closing: Deferred[Any] = channel.client.close_channel(channel).addErrback(gone)
        # a broker that left the last request unanswered does not answer the close; there is nothing to go back
        return closing if self.attaching is None else succeed(None)

    def detach(self) -> None:
        """Consume no more, on this connection or another."""
        self.consuming = False
        self.ended()
        if self.attach in self.connection.on_connected:
            self.connection.on_connected.remove(self.attach)
        if self.retry is not None:
            self.retry.cancel()
            self.retry = None


def give_back(message: Message) -> None:
    """Have a message delivered to somebody else."""
    message.reject(requeue=True)
