"""The queue in which the replies to a client's calls come in: opened, lost and had anew, deleted."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred

from txservices import configuration, constants
from txservices.amqp.entities import Exchange, Message, Queue
from txservices.amqp.leaving import Leaving
from txservices.amqp.protocol import Protocol
from txservices.amqp.subscription import Subscription
from txservices.amqp.topology import gone

REPLY_PREFETCH = 300  # replies under way to us at once; RabbitMQ delivers no faster with more


def rpc_exchange(config: Mapping[str, Any]) -> Exchange:
    """The exchange of requests and replies; both sides must have the same."""
    return Exchange(configuration.RPC_EXCHANGE.of(config), type="topic")


class ReplyQueue:
    """A reply queue. It outlives us by five minutes, so that a call survives a lost connection.

    Args:
        name: the caller's, which is a part of the queue's.
        deliver: called with each reply.
        lost: called with the queue's name when there is a queue again in place of one that was lost, with its replies.

    Attributes:
        reply_to: the routing key of replies.
        consumer: takes the replies; None until ``listen``.
    """

    def __init__(
        self, name: str, config: Mapping[str, Any], deliver: Callable[[Message], None], lost: Callable[[str], None]
    ) -> None:
        self.name = name
        self.exchange = rpc_exchange(config)
        self.deliver = deliver
        self.lost = lost
        self.was_lost = False
        self.consumer: Subscription | None = None
        self.renew()

    def renew(self) -> None:
        self.reply_to = str(uuid.uuid4())
        self.queue = Queue(
            constants.RPC_REPLY_QUEUE_TEMPLATE.format(self.name, self.reply_to),
            self.exchange,
            self.reply_to,
            arguments={"x-expires": constants.RPC_REPLY_QUEUE_TTL},
        )

    def listen(self, consume: Callable[[Queue, Callable[[Message], None], int], Subscription]) -> Deferred[None]:
        """Begin to take replies; ``consume`` opens the consumer. Fires when replies can come."""
        consumer = self.consumer = consume(self.queue, self.deliver, REPLY_PREFETCH)
        consumer.on_missing = partial(self.missing, consumer)
        consumer.on_ready.append(self.ready)
        return consumer.ready

    @property
    def protocol(self) -> Protocol | None:
        """That of the connection by which replies come; None if there is no such connection now."""
        return None if self.consumer is None else self.consumer.connection.protocol

    def missing(self, consumer: Subscription) -> None:
        """The queue is gone. Have another, with another name.

        The broker kept it no longer while we were away, or somebody deleted it, or the cluster's node that had it is
        down. In that last case nobody can declare a queue of the same name until the node is back.
        """
        self.was_lost = True
        self.renew()
        consumer.queue = self.queue

    def ready(self) -> None:
        """There is a queue again: the replies in the lost one do not come any more.

        It is told only now, because a call that was made while there was no queue may have lost its reply, too.
        """
        if self.was_lost:
            self.was_lost = False
            self.lost(self.queue.name)

    async def delete(self, leaving: Leaving) -> None:
        """Take the queue away, if the broker is there. It would live on for minutes, and nobody needs it."""
        consumer = self.consumer
        if consumer is None or consumer.channel is None or consumer.channel.closing:
            return
        consumer.detach()
        deleting = consumer.channel.queue_delete(queue=consumer.queue_name)
        await leaving.answered(deleting.addErrback(gone))
