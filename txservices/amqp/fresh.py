"""Queues that were declared just now. The messages for one go on a channel of its own until it is known to last.

When RabbitMQ makes a quorum queue, it notes that on its disk up to half a second later (seen with 3.10.8 and 4.0.5). If
it is killed before, the queue is there again afterwards, but its messages are gone, confirmed ones too. It never gets a
leader: it takes no message, and the channel of a publish to it does nothing else for a minute. So the confirm of a
message for such a queue counts only once the queue is old enough, and a queue that takes no messages holds up its own
channel alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from txservices.amqp.channel import Channel
from txservices.amqp.entities import Queue
from txservices.amqp.protocol import Protocol
from txservices.amqp.publisher import UNCONFIRMED_BYTES_MAX, UNCONFIRMED_MAX, Publisher
from txservices.amqp.publishing import OnItsOwn, Publishing
from txservices.amqp.topology import DECLARE_TIMEOUT, declare_on, gone
from txservices.deadlines import FOREVER
from txservices.exceptions import (
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    ConnectionLost,
    NotAnswered,
    PublishBufferFull,
    PublishError,
    PublishNacked,
)

__all__ = ["Elsewhere", "Fresh", "TakesNothing"]

log = Logger()

LASTS_AFTER = 1.0  # seconds after its declaration for which a crash of the broker may lose a quorum queue
STUCK_AFTER = 5.0  # seconds for the broker's answer to what comes on a channel after the first message for a queue


class TakesNothing(PublishError):
    """A queue takes no messages."""

    def __init__(self, queue: str) -> None:
        super().__init__(queue)
        self.queue = queue

    def __str__(self) -> str:
        return (
            f"queue {self.queue!r} takes no messages: was the broker killed while it made that queue? Delete it, with"
            f" rabbitmqctl delete_queue {self.queue}"
        )


class Elsewhere(Exception):
    """A message failed on the channel of a fresh queue, perhaps because of another: it is to be published as others."""


class Fresh:
    """The messages for a queue that is declared now.

    ``ended`` is called once: with None when the queue is known to last, or with the error of its declaration,
    ``TakesNothing``, or the error by which its channel has ended. The messages get the same error after that, or
    ``Elsewhere``.

    Args:
        lasts_after: seconds from the declaration on.
    """

    def __init__(
        self, publisher: Publisher, queue: Queue, lasts_after: float, ended: Callable[[Exception | None], None]
    ) -> None:
        self.publisher = publisher
        self.queue = queue
        self.lasts_after = lasts_after
        self.ended: Callable[[Exception | None], None] | None = ended
        self.waiting: list[Publishing] = []  # for the declaration
        self.confirmed: list[Publishing] = []  # and not told of it yet
        self.channel: Channel | None = None  # when it is declared
        self.timer: Any = None

    def start(self) -> None:
        declaring = Deferred.fromCoroutine(self.declare())
        declaring.addErrback(self.failed).addErrback(lambda failure: log.failure("after a declaration", failure))

    def publish(self, publishing: OnItsOwn) -> None:
        """Publish a message when the queue is declared. Its ``done`` is called once, perhaps at once."""
        publisher = self.publisher
        unconfirmed, size = publisher.unconfirmed, publisher.unconfirmed_bytes + publishing.size
        if publisher.cancelled:
            publishing.done(ConnectionLost("nothing can be published any more: the service has stopped"))
        elif len(unconfirmed) >= UNCONFIRMED_MAX or size > UNCONFIRMED_BYTES_MAX:
            publishing.done(PublishBufferFull(len(unconfirmed), publisher.unconfirmed_bytes))
        else:
            publisher.sequence = publishing.key = publisher.sequence + 1
            unconfirmed[publishing.key] = publishing
            publisher.unconfirmed_bytes = size
            publisher.sweeper.watch()
            if self.channel is None:
                self.waiting.append(publishing)
            else:
                self.channel.publish(publishing)

    async def declare(self) -> None:
        """Declare the queue, publish what waits for it, and see whether the channel of that does anything else."""
        protocol = await self.publisher.connection.when_connected()
        channel = await protocol.open_channel(DECLARE_TIMEOUT)
        try:
            await declare_on(channel, self.queue)
            await channel.confirm_select()
            self.use(channel)
            await self.answer(protocol, channel)
            if not channel.published:  # all of them were late: nothing shows that the queue takes messages
                raise Elsewhere
        except BaseException:
            protocol.close_channel(channel).addErrback(gone)
            raise
        self.timer = self.publisher.clock.callLater(self.lasts_after, self.lasts)

    def use(self, channel: Channel) -> None:
        channel.patience = STUCK_AFTER
        channel.on_confirmed = self.answered
        channel.on_closed = self.end
        self.channel = channel
        waiting, self.waiting = self.waiting, []
        for publishing in waiting:
            if publishing.key in self.publisher.unconfirmed:  # else it was late
                channel.publish(publishing)
        channel.client.flush()

    async def answer(self, protocol: Protocol, channel: Channel) -> None:
        """Ends when the broker has answered something else on the channel. Raises ``TakesNothing``."""
        while True:
            try:
                await channel.basic_qos()
                return
            except NotAnswered:
                if not protocol.flow.blocked:  # else it reads nothing for now
                    raise TakesNothing(self.queue.name) from None

    def answered(self, publishing: Publishing, error: Exception | None) -> None:
        """The broker has answered for a message."""
        if self.ended is not None and error is None:
            publishing.deadline = FOREVER
            self.confirmed.append(publishing)
        else:
            self.publisher.confirmed(publishing, Elsewhere() if isinstance(error, PublishNacked) else error)
            self.close_answered()

    def lasts(self) -> None:
        """The queue is old enough."""
        self.timer = None
        confirmed, self.confirmed = self.confirmed, []
        self.tell(None)
        for publishing in confirmed:
            self.publisher.confirmed(publishing, None)
        self.close_answered()

    def close_answered(self) -> None:
        """Close the channel if nothing more comes on it."""
        if self.ended is None and self.channel is not None and not self.channel.unconfirmed:
            self.channel.on_closed = None
            self.channel.client.close_channel(self.channel).addErrback(gone)

    def failed(self, failure: Failure) -> None:
        error = failure.value
        self.end(error if isinstance(error, Exception) else RuntimeError(repr(error)))

    def end(self, error: Exception) -> None:
        """The declaration has failed, or the channel has ended."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        waiting, self.waiting = self.waiting + self.confirmed, []
        self.confirmed = []
        if self.channel is not None:
            waiting += self.channel.unconfirmed.values()
            self.channel.on_closed = self.channel.on_confirmed = None
            self.channel.unconfirmed.clear()  # else they live on with it until Python looks for cycles
            if isinstance(error, (ChannelClosedByBroker, ConnectionClosedByBroker)):  # for one of the messages
                error = Elsewhere()
        self.tell(error)
        for publishing in waiting:
            self.publisher.confirmed(publishing, error)

    def tell(self, error: Exception | None) -> None:
        ended, self.ended = self.ended, None
        if ended is not None:
            ended(error)
