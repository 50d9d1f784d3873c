"""Finds out what has become of a late request, which the broker has and nobody has answered, by a look at its queue."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from txservices.amqp.protocol import Protocol
from txservices.amqp.topology import gone
from txservices.exceptions import ChannelClosedByBroker
from txservices.utils.waiting import Waiters
from txservices.wire.spec import ReplyCode

LOOK_TIMEOUT = 1.0  # seconds that an error waits for the broker's answer
LOOKS_MAX = 8  # queues looked at at once


class Whereabouts:
    """Looks at queues, at each once however many ask at the same time.

    Attributes:
        looks: the looks under way, by queue. While the broker does not answer, it is not asked again for the same one.
    """

    def __init__(self, clock: Any) -> None:
        self.clock = clock
        self.looks: dict[str, Waiters[str]] = {}

    def of_requests(self, queue: str, protocol: Protocol | None) -> Deferred[str]:
        """Fires within ``LOOK_TIMEOUT`` with words about the requests in a queue, and never fails."""
        unknown = unknown_of(queue)
        waiters = self.looks.get(queue)
        if waiters is None:
            if protocol is None or protocol.closed or len(self.looks) >= LOOKS_MAX:
                return succeed(unknown)
            waiters = self.looks[queue] = Waiters()
            Deferred.fromCoroutine(look(queue, protocol)).addBoth(self.looked, queue)
        told = waiters.wait()
        return told.addTimeout(LOOK_TIMEOUT, self.clock).addErrback(lambda _: unknown)

    def looked(self, result: Any, queue: str) -> None:
        self.looks.pop(queue).fire(unknown_of(queue) if isinstance(result, Failure) else result)


async def look(queue: str, protocol: Protocol) -> str:
    channel = await protocol.open_channel()
    try:
        declared = await channel.queue_declare(queue=queue, passive=True)
    except ChannelClosedByBroker as error:
        if error.code != ReplyCode.NOT_FOUND:
            raise
        return f"the broker had the request, and its queue {queue} is gone: somebody has deleted it"
    finally:
        protocol.close_channel(channel).addErrback(gone)
    return words_of(queue, declared.message_count, declared.consumer_count)


def words_of(queue: str, waiting: int, consumers: int) -> str:
    """What the numbers of a queue say of a request that was sent to it: by now it has expired there, or was taken."""
    if not consumers:
        return f"it was sent, and nobody consumes queue {queue}: start the service"
    many = f"{consumers} consumer{'s' if consumers > 1 else ''}"
    if waiting:
        return f"it was sent, and {waiting} wait in queue {queue} for {many}: the service is slower than its callers"
    return (
        f"it was sent, and queue {queue} has {many}: its method still runs, or it has waited for a worker (the"
        " service's log names the methods that take them)"
    )


def unknown_of(queue: str) -> str:
    return (
        f"the broker has the request, so it waits in queue {queue} (see whether the service runs, and has workers"
        " free), or its method still runs"
    )
