"""Messages that are kept for too long: RabbitMQ closes the channel of who has not acked for half an hour.

Nothing is noted of a message for it. Delivery tags count up, so a look now and then at how far they are tells later
which of those that are still unacked were there at that time.
"""

from __future__ import annotations

from collections import deque
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from txservices.amqp.channel import Channel
from txservices.amqp.subscription import Subscription

log = Logger()

LOOKS = 10  # per timeout
WARN_AFTER = 8  # of these


class Unacked:
    """Looks at consumers, and warns of messages that the broker is about to take back.

    Args:
        timeout: seconds that the broker waits for an ack; 0 for no end.
    """

    def __init__(self, timeout: float, clock: Any) -> None:
        self.timeout = timeout
        self.consumers: WeakSet[Subscription] = WeakSet()
        self.marks: WeakKeyDictionary[Channel, deque[int]] = WeakKeyDictionary()  # the last tag at each look
        self.told: WeakKeyDictionary[Channel, int] = WeakKeyDictionary()
        self.looking = LoopingCall(self.look)
        self.looking.clock = clock

    def watch(self, consumer: Subscription) -> None:
        self.consumers.add(consumer)
        if self.timeout and not self.looking.running:
            self.looking.start(self.timeout / LOOKS, now=False)

    def stop(self) -> None:
        if self.looking.running:
            self.looking.stop()

    def look(self) -> None:
        for consumer in self.consumers:
            if consumer.channel is not None:
                self.look_at(consumer.channel, consumer.queue_name)

    def look_at(self, channel: Channel, queue: str) -> None:
        marks = self.marks.setdefault(channel, deque(maxlen=WARN_AFTER))
        oldest = oldest_unsettled(channel)
        old = len(marks) == WARN_AFTER and oldest <= marks[0]
        marks.append(channel.settled_to + len(channel.settled_above) + channel.unsettled)
        if old and self.told.get(channel) != oldest:
            self.told[channel] = oldest
            log.warn(
                "a message of queue {queue} has not been acknowledged for {seconds:.1f} s. RabbitMQ waits {timeout:.1f}"
                " s, closes the channel then, and gives the message out again: work in smaller pieces, take fewer"
                " messages at once (prefetch_count), or raise consumer_timeout there and CONSUMER_TIMEOUT here",
                queue=queue,
                seconds=self.timeout / LOOKS * WARN_AFTER,
                timeout=self.timeout,
            )


def oldest_unsettled(channel: Channel) -> int:
    """The tag of the first delivery that is neither acked nor rejected; if all are, that of the next to come."""
    tag = channel.settled_to + 1
    while tag in channel.settled_above:
        tag += 1
    return tag
