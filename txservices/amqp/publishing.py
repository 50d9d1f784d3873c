"""Messages on their way to the broker: what is kept of one, and which return is whose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import lru_cache

from txservices.exceptions import FrameError
from txservices.wire.codec import decode_properties, encode_method
from txservices.wire.frames import Content

PUBLISH_PAYLOADS_MAX = 4096  # encoded publish methods kept, one for each exchange and routing key in use
REPORTED_MAX = 10  # destinations named in the report of what a stop could not publish


@lru_cache(maxsize=PUBLISH_PAYLOADS_MAX)
def publish_payload(exchange: str, routing_key: str, mandatory: bool) -> bytes:
    """An encoded ``basic.publish``. ``ValueError`` for names that AMQP can't carry."""
    return encode_method("basic.publish", exchange=exchange, routing_key=routing_key, mandatory=mandatory)


class Publishing:
    """One message on its way to the broker, kept until its confirm so that it can be sent again on a new channel.

    Making one encodes its method: what can't be written is a ``ValueError`` before anything knows of the message.
    ``done`` is called once: with None when the broker has the message, otherwise with the error.

    Attributes:
        began: the clock's time when it was published, if an observer wants to know what becomes of it.
        size: bytes of the names, the header and the body.
    """

    __slots__ = (
        "began",
        "body",
        "deadline",
        "done",
        "exchange",
        "header",
        "key",
        "mandatory",
        "payload",
        "retry_nacked",
        "routing_key",
        "size",
    )

    def __init__(
        self,
        exchange: str,
        routing_key: str,
        mandatory: bool,
        header: bytes,
        body: bytes,
        done: Callable[[Exception | None], None],
        deadline: float,
        retry_nacked: bool = True,
    ) -> None:
        self.payload = publish_payload(exchange, routing_key, mandatory)  # of the method's frame
        self.key = 0  # place in the order of publishing, given by the publisher
        self.exchange = exchange
        self.routing_key = routing_key
        self.mandatory = mandatory
        self.header = header  # encoded properties
        self.body = body
        self.size = len(self.payload) + len(header) + len(body)
        self.done = done
        self.deadline = deadline  # seconds of the connection's clock
        self.retry_nacked = retry_nacked
        self.began: float | None = None


class OnItsOwn(Publishing):
    """A message that the publisher keeps and does not send: whoever has made it sends it, on a channel of its own."""

    __slots__ = ()


def forgotten(error: Exception | None) -> None:
    """``done`` of a message whose outcome is told."""


def may_be_return_of(content: Content, publishing: Publishing) -> bool:
    """Whether a return with a message's exchange and routing key is of that message, as far as it can be read.

    A return names no delivery tag, and a message id may be used for several messages.
    """
    if content.error is not None:  # too large to be taken
        return True
    if publishing.done is forgotten:  # all that is known still of a late message
        return len(content.header) + len(content.body) == publishing.size - len(publishing.payload)
    if content.body != publishing.body:
        return False
    if content.header == publishing.header:
        return True
    try:  # RabbitMQ 4 sorts the tables in it
        return content.properties == decode_properties(publishing.header)
    except FrameError:
        return True


def destinations(publishings: list[Publishing]) -> str:
    """How many messages go where, in words for a log line."""
    counts = Counter((each.exchange, each.routing_key) for each in publishings)
    named = [f"{count} to {exchange!r} as {key!r}" for (exchange, key), count in counts.most_common(REPORTED_MAX)]
    return ", ".join(named) + (", …" if len(counts) > REPORTED_MAX else "")
