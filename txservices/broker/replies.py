"""Direct Reply-to: replies come to the channel that has asked, and nobody declares a queue. Pure.

    basic.consume of amq.rabbitmq.reply-to -> open() -> a queue of one consumer, with a name that cannot be guessed
    basic.publish with that reply-to -> it leaves with the queue's name in its place
    basic.publish to the name, by the default exchange -> deliver(message) -> the consumer

As in RabbitMQ, a reply is delivered once or not at all: it is dropped if its consumer has gone. A mandatory reply is
returned in either case, since no queue that clients see takes it. While the consumer's client does not read, its
replies wait, and count for the watermark.
"""

from __future__ import annotations

from collections.abc import Callable
from secrets import token_urlsafe

from txservices.broker.messages import DIRECT_REPLY_TO, Message
from txservices.broker.queues import Queue
from txservices.exceptions import AmqpError
from txservices.wire.spec import ReplyCode

PREFIX = f"{DIRECT_REPLY_TO}."


class Replies:
    """The consumers of replies in a virtual host.

    Args:
        seconds: the clock.
        count: has the watermark count a message in so many queues.
    """

    def __init__(self, seconds: Callable[[], float], count: Callable[[Message, int], None]) -> None:
        self.seconds = seconds
        self.count = count
        self.queues: dict[str, Queue] = {}

    def open(self) -> Queue:
        """A queue for the replies to one consumer. It goes with that consumer."""
        queue = Queue(PREFIX + token_urlsafe(16), auto_delete=True, seconds=self.seconds)
        queue.unused = self.close
        self.queues[queue.name] = queue
        return queue

    def close(self, queue: Queue) -> None:
        del self.queues[queue.name]
        queue.purge()  # at once, and not when Python finds the circle of a queue and its entries

    def is_there(self, name: str) -> bool:
        """Whether replies to that name would find a consumer. A client asks it with ``queue.declare``."""
        return name == DIRECT_REPLY_TO or name in self.queues

    def deliver(self, message: Message) -> bool:
        """Deliver a message to the consumers of replies that its keys name. Gives whether any is named, gone or not."""
        named = [key for key in (message.routing_key, *message.others) if key.startswith(PREFIX)]
        for key in dict.fromkeys(named):
            queue = self.queues.get(key)
            if queue is not None:
                self.count(message, 1)
                queue.put(message)
        return bool(named)


def refuse_second(already: bool, no_ack: bool) -> None:
    """``PRECONDITION_FAILED`` for a channel's second consumer of replies, and for one that would have to ack."""
    if already:
        raise AmqpError(ReplyCode.PRECONDITION_FAILED, "reply consumer already set")
    if not no_ack:
        raise AmqpError(ReplyCode.PRECONDITION_FAILED, "reply consumer cannot acknowledge")
