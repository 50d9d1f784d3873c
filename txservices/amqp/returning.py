"""Messages that go back to their queue after a pause, which grows with each time that the same message fails here.

The broker delivers a requeued message again at once. Without a pause, one message that always fails keeps a service as
busy as it can be, and fills its log.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from txservices.amqp.entities import Message
from txservices.exceptions import (
    ConnectionClosedByBroker,
    ConnectionLost,
    NotAnswered,
    PublishBufferFull,
    PublishNacked,
    PublishTimeout,
)
from txservices.wire.spec import REQUEST_ERRORS

log = Logger()

PAUSE_FIRST = 0.1  # seconds before a message goes back that has failed for the second time; the first time, no pause
PAUSE_GROWTH = 2.0  # factor by which that grows each time
PAUSE_MAX = 5.0  # seconds
FAILURES_MAX = 10_000  # messages whose failures are counted

# Why a publish failed that may succeed another time.
PASSING = (ConnectionLost, NotAnswered, PublishBufferFull, PublishNacked, PublishTimeout)


class Returning:
    """Gives messages back to their queues, each when its pause is over.

    Until then a message is unsettled, so it takes one of the places of its consumer's prefetch.

    Attributes:
        failures: how often each message has failed here; the one that failed last is the last.
        held: the messages whose pause is not over.
    """

    def __init__(self, clock: Any) -> None:
        self.clock = clock
        self.failures: OrderedDict[Hashable, int] = OrderedDict()
        self.held: dict[Message, IDelayedCall] = {}
        self.cancelled = False

    def give_back(self, message: Message) -> None:
        """Requeue a message that has failed, now or after a pause."""
        key = identity(message)
        count = self.failures.pop(key, 0) + 1
        self.failures[key] = count
        if len(self.failures) > FAILURES_MAX:
            self.failures.popitem(last=False)
        if self.cancelled or count == 1:
            message.reject(requeue=True)
            return
        pause = min(PAUSE_FIRST * PAUSE_GROWTH ** min(count - 2, 50), PAUSE_MAX)
        if not count & (count - 1):
            text = "{delivery} failed {count} times, and goes back in {pause:g} s"
            log.warn(text, delivery=message, count=count, pause=pause)
        self.held[message] = self.clock.callLater(pause, self.over, message)

    def over(self, message: Message) -> None:
        del self.held[message]
        message.reject(requeue=True)

    def forget(self, message: Message) -> None:
        """The message is done: if it comes again, its pauses begin anew."""
        if self.failures:
            self.failures.pop(identity(message), None)

    def cancel(self) -> None:
        """Pause no more: give back whatever is held, and from now on each message at once."""
        self.cancelled = True
        held, self.held = self.held, {}
        for message, call in held.items():
            call.cancel()
            message.reject(requeue=True)


def settle_lost(give_back: Callable[[Message], None], message: Message, error: Exception) -> None:
    """Settle a message whose handler published another one that failed, if nobody looked at that failure.

    It is given back, to be handled once more. If the broker will refuse the other again, it is rejected: it goes to the
    dead letters, if its queue has them.
    """
    by_broker = isinstance(error, ConnectionClosedByBroker) and error.code not in REQUEST_ERRORS  # when it stops
    if by_broker or isinstance(error, PASSING):
        log.warn("{delivery} goes back: what its handler published has failed: {error}", delivery=message, error=error)
        give_back(message)
    else:
        text = "{delivery} rejected: what its handler published was refused: {error}"
        log.error(text, delivery=message, error=error)
        message.reject()


def identity(message: Message) -> Hashable:
    """That by which a message is known when it comes again: its id, or else its destination and content."""
    message_id: str | None = message.properties.get("message_id")
    return message_id or (message.exchange, message.routing_key, hash(message.body))
