"""A warning about messages that nobody acks: after half an hour RabbitMQ closes the channel that they came on.

Nothing is stored for each message. Delivery tags count up: the last tag is noted now and then, and an unacked message
whose tag is not above an old note has been there since then.
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

LOOKS = 10  # looks at the channels within the timeout
WARN_AFTER = 8  # looks that a message is unacked for before the log tells


class Unacked:
    """Looks at subscriptions, and warns in the log of messages that the broker is about to take back.

    Args:
        timeout: seconds that the broker waits for an ack; 0 if it waits for ever.
    """

    def __init__(self, timeout: float, clock: Any) -> None:
        self.timeout = timeout
        self.subscriptions: WeakSet[Subscription] = WeakSet()
        self.marks: WeakKeyDictionary[Channel, deque[int]] = WeakKeyDictionary()  # the last tag at each look
        self.told: WeakKeyDictionary[Channel, int] = WeakKeyDictionary()
        self.looking = LoopingCall(self.look)
        self.looking.clock = clock

    def watch(self, subscription: Subscription) -> None:
        self.subscriptions.add(subscription)
        if self.timeout and not self.looking.running:
            self.looking.start(self.timeout / LOOKS, now=False)

    def cancel(self) -> None:
        """Warn of nothing more."""
        if self.looking.running:
            self.looking.stop()

    def look(self) -> None:
        for subscription in self.subscriptions:
            if subscription.channel is not None:
                self.look_at(subscription.channel, subscription.queue_name)

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
    """The tag of the first delivery that is neither acked nor rejected; if there is none, that of the next delivery."""
    tag = channel.settled_to + 1
    while tag in channel.settled_above:
        tag += 1
    return tag
