"""Calls that their callers have cancelled: the workers that run for them are cancelled, if they agreed to that.

A caller can't know which instance of the service has its request. So it tells all of them, through the exchange of
calls, with a routing key that no request has. Each instance with an entrypoint that agrees (``cancel_at_deadline``) has
a queue of its own for that, which goes with its connection.
"""

from __future__ import annotations

import uuid
from collections import OrderedDict

from twisted.logger import Logger

from txservices import constants
from txservices.amqp.entities import Exchange, Message, Queue
from txservices.callids import on_behalf_of
from txservices.consumers import QueueConsumer
from txservices.exceptions import CallerGone
from txservices.extensions import Turns, WorkerContext

__all__ = ["Cancelling"]

log = Logger()

CANCELLED_MAX = 1_000  # calls that were cancelled before they began


class Cancelling:
    """Knows the requests of a service that can be cancelled.

    Attributes:
        workers: those that run, by correlation id.
        cancelled: correlation ids of calls that were cancelled and had no worker here. They are not begun.
    """

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.workers: dict[str, WorkerContext] = {}
        self.cancelled: OrderedDict[str, None] = OrderedDict()

    def listen(self, consumer: QueueConsumer, service: str, exchange: Exchange) -> None:
        """Begin to hear of cancelled calls. Nobody waits for it: until then workers run to their end."""
        key = constants.RPC_CANCEL_TEMPLATE.format(service)
        name = f"{key}-{uuid.uuid4()}"
        consumer.consume(Queue(name, exchange, key, durable=False, exclusive=True, auto_delete=True), self.hear)

    def hear(self, message: Message) -> None:
        """Cancel the worker of a call, or note that it is not to begin."""
        message.ack()
        correlation_id = message.properties.get("correlation_id", "")
        worker = self.workers.get(correlation_id)
        if worker is None:
            self.cancelled[correlation_id] = None
            if len(self.cancelled) > CANCELLED_MAX:
                self.cancelled.popitem(last=False)
        elif self.turns.abort_worker(worker, CallerGone("its caller has cancelled the call")):
            on_behalf_of(worker, log.info, "{worker} is cancelled: its caller has cancelled the call", worker=worker)

    def forget(self, message: Message) -> bool:
        """A request is done, or is to begin. Gives whether its call has been cancelled before it had a worker."""
        correlation_id = message.properties.get("correlation_id", "")
        self.workers.pop(correlation_id, None)
        if correlation_id in self.cancelled:
            del self.cancelled[correlation_id]
            return True
        return False
