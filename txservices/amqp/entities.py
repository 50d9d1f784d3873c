"""The values that AMQP talks of: ``Exchange`` and ``Queue`` to declare, and the ``Message`` that a consumer gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import field, frozen

NOTHING: Mapping[str, Any] = {}


@frozen
class Exchange:
    """An exchange as it is declared. Declaring one that exists with other values is ``DeclarationMismatch``.

    Attributes:
        name: empty for the default exchange, which is never declared.
        type: ``direct``, ``fanout``, ``topic`` or ``headers``, or a type that a plug-in of the broker brings.
        passive: only check that it exists.
    """

    name: str = ""
    type: str = "direct"
    durable: bool = True
    auto_delete: bool = False
    internal: bool = False
    arguments: Mapping[str, Any] = field(default=NOTHING, hash=False)
    passive: bool = False


@frozen
class Queue:
    """A queue as it is declared, bound to ``exchange`` with ``routing_key`` if there is one.

    Attributes:
        name: empty to let the broker name it; the declared name is what ``Consumer.queue_name`` says.
        passive: only check that it exists; it is not bound then either.
    """

    name: str = ""
    exchange: Exchange | None = None
    routing_key: str = ""
    durable: bool = True
    exclusive: bool = False
    auto_delete: bool = False
    arguments: Mapping[str, Any] = field(default=NOTHING, hash=False)
    passive: bool = False


class Message:
    """One delivery. ``ack`` or ``reject`` settles it, once; on a channel that is gone both do nothing.

    RabbitMQ takes an acknowledgement on the delivering channel alone, and gives what wasn't settled there to a
    consumer again, with ``redelivered`` set.
    """

    __slots__ = (
        "body",
        "consumer_tag",
        "delivery_tag",
        "exchange",
        "properties",
        "redelivered",
        "routing_key",
        "settle",
        "settled",
    )

    def __init__(
        self,
        body: bytes,
        properties: dict[str, Any],
        exchange: str,
        routing_key: str,
        redelivered: bool,
        delivery_tag: int,
        consumer_tag: str,
        settle: Callable[[Message, bool, bool], None],
    ) -> None:
        self.body = body
        self.properties = properties
        self.exchange = exchange
        self.routing_key = routing_key
        self.redelivered = redelivered
        self.delivery_tag = delivery_tag
        self.consumer_tag = consumer_tag
        self.settle = settle
        self.settled = False

    @property
    def headers(self) -> dict[str, Any]:
        """The headers property; empty where the message has none."""
        headers: dict[str, Any] = self.properties.get("headers") or {}
        return headers

    def ack(self) -> None:
        """Tell the broker that the work is done: it may forget the message."""
        if not self.settled:
            self.settled = True
            self.settle(self, True, False)

    def reject(self, requeue: bool = False) -> None:
        """Give the message back: to its queue with ``requeue``, else to the dead letters, if the queue has them."""
        if not self.settled:
            self.settled = True
            self.settle(self, False, requeue)

    def __repr__(self) -> str:
        return f"<Message {self.delivery_tag} of {self.exchange!r} {self.routing_key!r}, {len(self.body)} bytes>"
