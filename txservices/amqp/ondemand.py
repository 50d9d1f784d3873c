"""Queues that are declared when the first message for them is published, and again if the broker has lost them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from txservices import configuration
from txservices.amqp.delays import DECLARED_AGAIN, DELAY_MAX, UNUSED, name_of, step_of
from txservices.amqp.entities import Queue
from txservices.amqp.publisher import Publisher
from txservices.amqp.topology import DECLARE_TIMEOUT, declare
from txservices.constants import QUEUE_TYPE_ARGUMENT
from txservices.exceptions import HeadersTooLarge, PublishTimeout, UndeliverableMessage
from txservices.wire.codec import encode_properties

__all__ = ["OnDemand", "delay_queue"]

log = Logger()

DECLARED_MAX = 10_000  # queues that are known to be there
DELAY_QUEUES_MAX = 4_096  # delay queues that are known by delay and destination
AT_ONCE = 0.0005  # seconds; a message that is due sooner waits in no delay queue
ATTEMPTS_MAX = 3  # publishes of one message to a queue that the broker does not have, although it was declared

Done = Callable[[Exception | None], None]


class OnDemand:
    """Publishes messages to such queues, each through the default exchange.

    The queue is not declared again on a new connection, as a service's own queues are: if the broker has lost it, the
    message is returned, and then it is declared.
    """

    def __init__(self, publisher: Publisher) -> None:
        self.publisher = publisher
        self.declared: OrderedDict[Queue, float] = OrderedDict()  # when, by the reactor's clock
        self.declaring: dict[Queue, list[Done]] = {}

    def publish_then(
        self,
        queue: Queue,
        body: bytes,
        properties: dict[str, Any],
        done: Done,
        timeout: float | None = configuration.PUBLISH_TIMEOUT.default,
    ) -> None:
        """Publish a message. ``done`` is called once: with None when the queue has it, or with the error.

        Errors are those of ``Publisher.publish`` and ``Topology.declare``. ``timeout`` is in seconds, for all of it.
        Raises ``ValueError`` at once for what AMQP can't carry.
        """
        deadline = None if timeout is None else self.publisher.clock.seconds() + timeout
        self.attempt(queue, body, properties, done, deadline, ATTEMPTS_MAX)

    def publish_later(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: dict[str, Any],
        seconds: float,
        done: Done,
        timeout: float | None = configuration.PUBLISH_TIMEOUT.default,
    ) -> None:
        """Have a message go to that exchange in so many seconds. ``done`` gets None when the broker holds it.

        The other arguments and errors are those of ``publish_then``. The message must not have an ``expiration``: if
        that is shorter, the message would go on when it is over.
        """
        if not 0 <= seconds <= DELAY_MAX:  # so NaN is refused as well
            raise ValueError(f"a delay of {seconds!r} s: give seconds from 0 to {DELAY_MAX:,.0f}")
        if seconds < AT_ONCE:
            self.publisher.publish_then(exchange, routing_key, body, properties, False, done, timeout)
            return
        self.publish_then(delay_queue(exchange, routing_key, step_of(seconds)), body, properties, done, timeout)

    def attempt(
        self,
        queue: Queue,
        body: bytes,
        properties: dict[str, Any],
        done: Done,
        deadline: float | None,
        attempts: int,
    ) -> None:
        """Publish, and declare the queue first if that was long ago. Makes up to ``attempts`` attempts."""

        def published(error: Exception | None) -> None:
            if isinstance(error, UndeliverableMessage) and attempts > 1:
                self.declared.pop(queue, None)
                self.attempt(queue, body, properties, done, deadline, attempts - 1)
            else:
                done(error)

        def publish(error: Exception | None = None) -> None:
            if error is not None:
                done(error)
                return
            left = None if deadline is None else deadline - self.publisher.clock.seconds()
            if left is not None and left <= 0:
                done(PublishTimeout("", queue.name))
                return
            self.publisher.publish_then("", queue.name, body, properties, True, published, left)

        declared = self.declared.get(queue)
        if declared is not None and self.publisher.clock.seconds() < declared + DECLARED_AGAIN:
            publish()
        else:
            header = len(encode_properties(properties))  # an error of what can't be written is raised now
            if header > self.publisher.header_max:
                raise HeadersTooLarge("", queue.name, header, self.publisher.header_max)
            self.declare_then(queue, partial(call_safely, publish, done), deadline)

    def declare_then(self, queue: Queue, call: Done, deadline: float | None) -> None:
        """Declare a queue, once for all that wait for it, and call that with None or the error."""
        waiting = self.declaring.get(queue)
        if waiting is not None:
            waiting.append(call)
            return
        self.declaring[queue] = [call]
        declaring = Deferred.fromCoroutine(self.declare(queue))
        if deadline is not None:
            left = max(deadline - self.publisher.clock.seconds(), 0.0)
            late = PublishTimeout("", queue.name)
            declaring.addTimeout(left, self.publisher.clock, lambda *_: Failure(late))
        declaring.addCallbacks(partial(self.has_declared, queue), partial(self.not_declared, queue))

    async def declare(self, queue: Queue) -> None:
        protocol = await self.publisher.connection.when_connected()
        await declare(protocol, queue, patience=DECLARE_TIMEOUT)

    def has_declared(self, queue: Queue, _: None) -> None:
        self.declared.pop(queue, None)
        self.declared[queue] = self.publisher.clock.seconds()
        if len(self.declared) > DECLARED_MAX:
            self.declared.popitem(last=False)
        self.tell(queue, None)

    def not_declared(self, queue: Queue, failure: Failure) -> None:
        error = failure.value
        self.tell(queue, error if isinstance(error, Exception) else RuntimeError(repr(error)))

    def tell(self, queue: Queue, error: Exception | None) -> None:
        for call in self.declaring.pop(queue):
            call(error)


def call_safely(publish: Done, done: Done, error: Exception | None) -> None:
    """Publish after a declaration. An error that ``publish_then`` would have raised at once goes to ``done``."""
    try:
        publish(error)
    except ValueError as refused:
        done(refused)


@lru_cache(maxsize=DELAY_QUEUES_MAX)
def delay_queue(exchange: str, routing_key: str, ms: int) -> Queue:
    """The queue whose messages go to that exchange, with that routing key, after so many milliseconds."""
    return Queue(
        name_of(exchange, routing_key, ms),
        arguments={
            QUEUE_TYPE_ARGUMENT: "quorum",
            "x-message-ttl": ms,
            "x-expires": ms + int((DECLARED_AGAIN + UNUSED) * 1000),
            "x-dead-letter-exchange": exchange,
            "x-dead-letter-routing-key": routing_key,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",  # the strategy needs it
        },
    )
