"""AMQP's own things: ``Exchange`` and ``Queue`` to declare, and the ``Message`` that a consumer gets.

A service's author may give kombu's objects in place of ours, as nameko's services do: ``exchange_of`` and ``queue_of``
read them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from attrs import evolve, field, frozen

from txservices import configuration, constants, kinds
from txservices.exceptions import ConfigurationError

__all__ = ["Exchange", "Message", "Queue", "entity_of", "exchange_of", "queue_of", "with_queue_type"]

NOTHING: Mapping[str, Any] = {}


@frozen
class Exchange:
    """An exchange as it is declared. Declaring one that exists with other values is ``DeclarationMismatch``.

    Attributes:
        name: empty for the default exchange, which is never declared.
        type: ``direct``, ``fanout``, ``topic``, ``headers``, or a type that a plug-in of the broker adds.
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
        name: empty to let the broker name it; the declared name is what ``Subscription.queue_name`` says.
        passive: only check that it exists; it is not bound then either.
        consumer_arguments: of the consumer of this queue, such as ``x-priority``.
    """

    name: str = ""
    exchange: Exchange | None = None
    routing_key: str = ""
    durable: bool = True
    exclusive: bool = False
    auto_delete: bool = False
    arguments: Mapping[str, Any] = field(default=NOTHING, hash=False)
    passive: bool = False
    consumer_arguments: Mapping[str, Any] = field(default=NOTHING, eq=False)


class Message:
    """One delivery. ``ack`` or ``reject`` settles it, once; if its channel is gone, both do nothing.

    RabbitMQ accepts an acknowledgement only on the channel that the message was delivered on. When that channel is
    gone, it delivers unsettled messages again, with ``redelivered`` set.
    """

    __slots__ = (
        "answered",
        "body",
        "consumer_tag",
        "delivery_tag",
        "exchange",
        "properties",
        "redelivered",
        "routing_key",
        "settle",
        "settled",
        "size",
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
        self.size = len(body)
        self.properties = properties
        self.exchange = exchange
        self.routing_key = routing_key
        self.redelivered = redelivered
        self.delivery_tag = delivery_tag
        self.consumer_tag = consumer_tag
        self.settle = settle
        self.settled = self.answered = False

    @property
    def headers(self) -> dict[str, Any]:
        """The ``headers`` property; an empty dict if the message has none."""
        headers: dict[str, Any] = self.properties.get("headers") or {}
        return headers

    def ack(self) -> None:
        """Tell the broker that the work is done and it may forget the message."""
        if not self.settled:
            self.settled = True
            self.settle(self, True, False)

    def reject(self, requeue: bool = False) -> None:
        """Give the message back: to its queue with ``requeue``, otherwise to its dead letters, if there are any."""
        if not self.settled:
            self.settled = True
            self.settle(self, False, requeue)

    def __repr__(self) -> str:
        return f"<Message {self.delivery_tag} of {self.exchange!r} {self.routing_key!r}, {len(self.body)} bytes>"


# What a service's author declares -------------------------------------------------------------------------------------

E = TypeVar("E", Exchange, Queue, Exchange | Queue)
# Attributes of a kombu queue that become arguments of the declaration, and from kombu's unit to the broker's.
QUEUE_ARGUMENTS: tuple[tuple[str, str, Callable[[Any], int]], ...] = (
    ("expires", "x-expires", lambda seconds: int(seconds * 1000)),
    ("message_ttl", "x-message-ttl", lambda seconds: int(seconds * 1000)),
    ("max_length", "x-max-length", int),
    ("max_length_bytes", "x-max-length-bytes", int),
    ("max_priority", "x-max-priority", int),
)


def exchange_of(thing: Any) -> Exchange:
    """An ``Exchange`` of ours, made from kombu's if need be. ``ConfigurationError`` for anything else."""
    if isinstance(thing, Exchange):
        return thing
    try:
        return Exchange(
            name=thing.name or "",
            type=thing.type or "direct",
            durable=bool(thing.durable),
            auto_delete=bool(thing.auto_delete),
            arguments=dict(thing.arguments or {}),
            passive=bool(getattr(thing, "passive", False) or getattr(thing, "no_declare", False)),
        )
    except AttributeError:
        raise ConfigurationError(
            f"{thing!r} is not an exchange: give an Exchange of txservices.amqp.entities, or kombu's"
        ) from None


def queue_of(thing: Any) -> Queue:
    """A ``Queue`` of ours, made from kombu's if need be. ``ConfigurationError`` for anything else."""
    if isinstance(thing, Queue):
        return thing
    try:
        if thing.binding_arguments or getattr(thing, "bindings", None):
            raise ConfigurationError(
                f"queue {thing.name!r}: only one binding without arguments is declared here; declare the others on the"
                " broker, or give one Queue for each"
            )
        arguments = dict(thing.queue_arguments or {})
        for attribute, argument, convert in QUEUE_ARGUMENTS:
            value = getattr(thing, attribute, None)
            if value is not None:
                arguments[argument] = convert(value)
        return Queue(
            name=thing.name or "",
            exchange=exchange_of(thing.exchange) if thing.exchange is not None and thing.exchange.name else None,
            routing_key=thing.routing_key or "",
            durable=bool(thing.durable),
            exclusive=bool(thing.exclusive),
            auto_delete=bool(thing.auto_delete),
            arguments=arguments,
            passive=bool(getattr(thing, "no_declare", False)),
            consumer_arguments=dict(getattr(thing, "consumer_arguments", None) or {}),
        )
    except AttributeError:
        raise ConfigurationError(
            f"{thing!r} is not a queue: give a Queue of txservices.amqp.entities, or kombu's"
        ) from None


def entity_of(thing: Any) -> Exchange | Queue:
    """An ``Exchange`` or a ``Queue`` of ours, made from kombu's if need be."""
    if isinstance(thing, Queue) or hasattr(thing, "queue_arguments"):
        return queue_of(thing)
    return exchange_of(thing)


def with_queue_type(entity: E, configured: str | None, wanted: str | None = None) -> E:
    """The queue with the type ``wanted`` for it, or else the one ``configured`` for all queues.

    A queue that has a type already keeps it. So does a queue that is deleted with its connection or its last consumer,
    because it can't be a quorum queue: it is a ``ConfigurationError`` to want that for one, and to want a type that
    does not exist. An exchange is given back as it is.
    """
    queue_type = wanted or configured
    if queue_type is None or not isinstance(entity, Queue):
        return entity
    if queue_type not in kinds.QUEUE_TYPES:
        raise ConfigurationError(
            f"{configuration.QUEUE_TYPE.name}: {queue_type!r} is not one of {', '.join(kinds.QUEUE_TYPES)}"
        )
    if entity.exclusive or entity.auto_delete or not entity.durable:
        if wanted == "quorum":
            raise ConfigurationError(
                f"queue {entity.name!r} can't be a quorum queue, for it does not last: give no queue_type, or a queue"
                " that is durable, not exclusive and not deleted by itself (reliable_delivery=True for events)"
            )
        return entity
    if entity.passive or constants.QUEUE_TYPE_ARGUMENT in entity.arguments:
        return entity
    return evolve(entity, arguments={**entity.arguments, constants.QUEUE_TYPE_ARGUMENT: queue_type})
