"""Queues that are declared when the first message for them is published, and again if the broker has lost them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from attrs import evolve
from twisted.logger import Logger

from txservices import configuration
from txservices.amqp.delays import DECLARED_AGAIN, DELAY_MAX, DELAY_QUEUE, UNUSED, name_of, step_of
from txservices.amqp.entities import Queue
from txservices.amqp.fresh import LASTS_AFTER, Elsewhere, Fresh, TakesNothing
from txservices.amqp.publisher import Publisher
from txservices.amqp.publishing import OnItsOwn
from txservices.constants import QUEUE_TYPE_ARGUMENT
from txservices.deadlines import FOREVER
from txservices.exceptions import ConnectionLost, HeadersTooLarge, PublishTimeout, UndeliverableMessage
from txservices.utils.ids import new_id
from txservices.wire.codec import encode_properties

__all__ = ["OnDemand", "delay_queue"]

log = Logger()

DECLARED_MAX = 10_000  # queues that are known to be there
DELAY_QUEUES_MAX = 4_096  # delay queues that are known by delay and destination
INSTEAD_MAX = 1_000  # delay queues that take no messages, and for which others are used
AT_ONCE = 0.0005  # seconds; a message that is due sooner waits in no delay queue
ATTEMPTS_MAX = 3  # publishes of one message to a queue that the broker does not have, although it was declared

Done = Callable[[Exception | None], None]


class OnDemand:
    """Publishes messages to such queues, each through the default exchange.

    A queue is declared before the first message for it on each connection, and when a message comes back because the
    broker has lost it.
    """

    def __init__(self, publisher: Publisher) -> None:
        self.publisher = publisher
        self.declared: OrderedDict[Queue, float] = OrderedDict()  # when, by the reactor's clock
        self.fresh: dict[Queue, Fresh] = {}  # those that are declared now
        self.instead: dict[Queue, Queue] = {}  # of delay queues that take no messages
        publisher.connection.on_connected.append(self.connected)

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
        publisher = self.publisher
        now = publisher.clock.seconds()
        if deadline is not None and deadline <= now:
            done(PublishTimeout("", queue.name))
            return
        used = self.instead.get(queue, queue)

        def published(error: Exception | None) -> None:
            lost = isinstance(error, ConnectionLost) and not publisher.cancelled
            replaced = isinstance(error, TakesNothing) and self.instead.get(queue, used) != used
            try:
                if isinstance(error, Elsewhere):
                    publish()
                elif isinstance(error, UndeliverableMessage) and attempts > 1:
                    self.declared.pop(used, None)
                    self.attempt(queue, body, properties, done, deadline, attempts - 1)
                elif lost or replaced:
                    self.attempt(queue, body, properties, done, deadline, attempts)
                else:
                    done(error)
            except ValueError as refused:  # nobody is there to whom it could be raised
                done(refused)

        def publish() -> None:
            left = None if deadline is None else max(deadline - publisher.clock.seconds(), 0)
            publisher.publish_then("", used.name, body, properties, True, published, left)

        declared = self.declared.get(used)
        if declared is not None and now < declared + DECLARED_AGAIN:
            publish()
            return
        if properties.get("message_id") is None:
            properties["message_id"] = new_id()
        header = encode_properties(properties)
        if len(header) > publisher.header_max:
            raise HeadersTooLarge("", used.name, len(header), publisher.header_max)
        until = FOREVER if deadline is None else deadline
        publishing = OnItsOwn("", used.name, True, header, body, published, until, retry_nacked=False)
        fresh = self.fresh.get(used)
        if fresh is not None:
            fresh.publish(publishing)
            return
        quorum = used.arguments.get(QUEUE_TYPE_ARGUMENT) == "quorum"
        known = declared is not None and now < declared + UNUSED
        ended = partial(self.ended, queue, used)
        self.fresh[used] = fresh = Fresh(publisher, used, LASTS_AFTER if quorum and not known else 0, ended)
        fresh.publish(publishing)
        fresh.start()

    def ended(self, queue: Queue, used: Queue, error: Exception | None) -> None:
        """A queue is known to last, or not to be had."""
        del self.fresh[used]
        if error is None:
            self.declared.pop(used, None)
            self.declared[used] = self.publisher.clock.seconds()
            if len(self.declared) > DECLARED_MAX:
                self.declared.popitem(last=False)
        elif isinstance(error, TakesNothing) and queue.name.startswith(DELAY_QUEUE):
            number = 2 if used == queue else int(used.name.rpartition(".")[2]) + 1
            self.instead[queue] = evolve(queue, name=f"{queue.name}.{number}")
            if len(self.instead) > INSTEAD_MAX:
                del self.instead[next(iter(self.instead))]
            log.error("{error}. {other} is used instead", error=error, other=f"{queue.name}.{number}")

    def connected(self, _: Any) -> None:
        """There is a new connection: the broker may have crashed, and lost what was declared."""
        self.declared.clear()


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
