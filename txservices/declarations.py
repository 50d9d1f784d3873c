"""Exchanges and queues as a service's author declares them: ours, or kombu's, which nameko's services have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from txservices.amqp.entities import Exchange, Queue
from txservices.exceptions import ConfigurationError

# What kombu makes arguments of: attribute, argument, from its unit to the broker's.
QUEUE_ARGUMENTS: tuple[tuple[str, str, Callable[[Any], int]], ...] = (
    ("expires", "x-expires", lambda seconds: int(seconds * 1000)),
    ("message_ttl", "x-message-ttl", lambda seconds: int(seconds * 1000)),
    ("max_length", "x-max-length", int),
    ("max_length_bytes", "x-max-length-bytes", int),
    ("max_priority", "x-max-priority", int),
)


def exchange_of(thing: Any) -> Exchange:
    """Ours as it is; kombu's by its attributes. ``ConfigurationError`` for what is neither."""
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
            f"{thing!r} is no exchange: give an Exchange of txservices.amqp.entities, or kombu's"
        ) from None


def queue_of(thing: Any) -> Queue:
    """Ours as it is; kombu's by its attributes. ``ConfigurationError`` for what is neither."""
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
        )
    except AttributeError:
        raise ConfigurationError(
            f"{thing!r} is no queue: give a Queue of txservices.amqp.entities, or kombu's"
        ) from None


def entity_of(thing: Any) -> Exchange | Queue:
    """An exchange or a queue, whichever it is."""
    if isinstance(thing, Queue) or hasattr(thing, "queue_arguments"):
        return queue_of(thing)
    return exchange_of(thing)
