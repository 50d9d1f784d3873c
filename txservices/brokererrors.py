"""Errors between us and the broker: of the connection to it, and of messages that it does not take.

They are imported from ``exceptions``, which has all errors, and draws the tree of them.
"""

from __future__ import annotations


class AmqpError(Exception):
    """Something went wrong between us and the broker.

    Attributes:
        code: AMQP's reply code, or 0.
        text: what went wrong, in the words of the side that noticed it.
        method: the AMQP method that caused it, as ``basic.publish``, or None.
    """

    def __init__(self, code: int, text: str, method: str | None = None) -> None:
        super().__init__(code, text, method)
        self.code = code
        self.text = text
        self.method = method

    def __str__(self) -> str:
        about = f", about {self.method}" if self.method else ""
        return f"{self.text} (code {int(self.code)}{about})" if self.code else self.text


class ChannelClosedByBroker(AmqpError):
    """The broker closed a channel. The connection is still open."""


class RefusedForNow(ChannelClosedByBroker):
    """The broker refuses what it may grant later. The text says what is waited for, and what would help."""

    def __str__(self) -> str:
        return self.text


class ConnectionClosedByBroker(AmqpError):
    """The broker closed the connection, and said why."""


class ConnectionLost(AmqpError):
    """The connection broke without a close from the broker, or was given up here."""

    def __init__(self, text: str) -> None:
        super().__init__(0, text)


class NotAnswered(AmqpError):
    """The broker has not answered a request in time. The connection is still open.

    Most often the request names a classic queue whose node is down: RabbitMQ 4 answers that after a minute.
    """


class FrameError(AmqpError):
    """Bytes that are not AMQP 0-9-1. The code is AMQP's for this mistake."""


class HandshakeFailed(AmqpError):
    """Another protocol answers at the broker's address, or TLS fails. The text says what to write."""


class PublishError(Exception):
    """A message did not reach the broker, or the broker did not accept it."""


class PublishFailed(PublishError):
    """One message was not published. What these errors have in common.

    Attributes:
        exchange, routing_key: of the message.
    """

    def __init__(self, exchange: str, routing_key: str, *more: object) -> None:
        super().__init__(exchange, routing_key, *more)
        self.exchange = exchange
        self.routing_key = routing_key


class UndeliverableMessage(PublishFailed):
    """No queue takes a mandatory message."""

    def __init__(self, exchange: str, routing_key: str, code: int, text: str) -> None:
        super().__init__(exchange, routing_key, code, text)
        self.code = code
        self.text = text

    def __str__(self) -> str:
        return (
            f"no queue takes messages to exchange {self.exchange!r} with routing key {self.routing_key!r}"
            f" ({self.text}): is the consumer running, and bound to that key?"
        )


class PublishNacked(PublishFailed):
    """The broker received the message and could not keep it."""

    def __str__(self) -> str:
        return (
            f"the broker refused a message to exchange {self.exchange!r} with routing key"
            f" {self.routing_key!r}: a queue is full, or its node has a fault (the broker's log says which)"
        )


class PublishTimeout(PublishFailed):
    """The broker did not confirm in time: it is away, or takes no messages for now. It may have the message."""

    def __str__(self) -> str:
        return (
            f"no confirm for a message to exchange {self.exchange!r} with routing key {self.routing_key!r}:"
            " is the broker there, and free of memory and disk alarms?"
        )


class PublishBufferFull(PublishError):
    """Too many messages wait for the broker's confirm already.

    Attributes:
        messages: how many wait.
        size: their size in bytes.
    """

    def __init__(self, messages: int, size: int) -> None:
        super().__init__(messages, size)
        self.messages = messages
        self.size = size

    def __str__(self) -> str:
        return f"{self.messages} messages ({self.size} bytes) wait for a confirm: publish more slowly"


class HeadersTooLarge(PublishFailed, ValueError):
    """The properties of a message, headers included, are more than a frame may have. AMQP can't split them.

    Attributes:
        size: bytes of the properties.
        limit: bytes that they may have, as agreed on with the broker.
    """

    def __init__(self, exchange: str, routing_key: str, size: int, limit: int) -> None:
        super().__init__(exchange, routing_key, size, limit)
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return (
            f"a message to exchange {self.exchange!r} with routing key {self.routing_key!r} has {self.size} bytes of"
            f" headers and other properties, a frame takes {self.limit}: send them in the body"
        )
