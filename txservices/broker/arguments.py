"""The arguments of a declaration: which are honoured or refused, and how those of two declarations differ. Pure.

Unknown arguments are kept and compared, as in RabbitMQ. An argument that RabbitMQ knows and this broker doesn't is
refused, since a queue that quietly lacks a feature is worse than an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from txservices.broker.bindings import TYPES
from txservices.broker.messages import TTL_MAX
from txservices.exceptions import AmqpError
from txservices.wire.spec import ReplyCode

SHORTSTR_MAX = 255  # bytes
PRIORITY_MAX = 255  # of a message in a queue with x-max-priority

QUEUE_TYPES = ("classic", "quorum", "stream")  # of which this broker has the first two

Check = Callable[[Any], bool]


def number_from(least: float, most: float = float("inf")) -> Check:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def one_of(*values: str) -> Check:
    return lambda value: value in list(values)  # it may be a table


def is_short(value: Any) -> bool:
    return isinstance(value, str) and len(value.encode()) <= SHORTSTR_MAX


# argument -> (whether the value can be honoured, what it should be)
QUEUE_ARGUMENTS: dict[str, tuple[Check, str]] = {
    "x-message-ttl": (number_from(0, TTL_MAX), "milliseconds from 0"),
    "x-expires": (number_from(1, TTL_MAX), "milliseconds from 1"),
    "x-max-length": (number_from(0), "a number from 0"),
    "x-max-length-bytes": (number_from(0), "a number from 0"),
    "x-overflow": (
        one_of("drop-head", "reject-publish", "reject-publish-dlx"),
        "drop-head, reject-publish or reject-publish-dlx",
    ),
    "x-dead-letter-exchange": (is_short, "an exchange's name"),
    "x-dead-letter-routing-key": (is_short, "a routing key"),
    "x-queue-mode": (one_of("default", "lazy"), "default or lazy"),
    "x-queue-type": (one_of(*QUEUE_TYPES), "classic or quorum"),
    "x-max-priority": (number_from(0, PRIORITY_MAX), f"a number from 0 to {PRIORITY_MAX}"),
    "x-single-active-consumer": (lambda value: isinstance(value, bool), "true or false"),
    "x-delivery-limit": (number_from(float("-inf")), "a number"),
    "x-quorum-initial-group-size": (number_from(1), "a number from 1"),
    "x-dead-letter-strategy": (one_of("at-most-once", "at-least-once"), "at-most-once or at-least-once"),
}
# argument -> the only type of queue that has it
OF_ONE_TYPE = {
    "x-queue-mode": "classic",
    "x-queue-version": "classic",
    "x-max-priority": "classic",
    "x-delivery-limit": "quorum",
    "x-quorum-initial-group-size": "quorum",
    "x-dead-letter-strategy": "quorum",
    "x-max-in-memory-length": "quorum",
    "x-max-in-memory-bytes": "quorum",
    "x-max-age": "stream",
    "x-stream-max-segment-size-bytes": "stream",
    "x-initial-cluster-size": "stream",
}
CONSUMER_ARGUMENTS: dict[str, tuple[Check, str]] = {"x-priority": (number_from(float("-inf")), "a number")}
# argument that a second declaration of a queue must repeat -> the value that it has where it is left out
COMPARED: dict[str, Any] = {
    **dict.fromkeys(QUEUE_ARGUMENTS),
    "x-queue-type": "classic",
}


def check(called: str, arguments: Mapping[str, Any], table: Mapping[str, tuple[Check, str]]) -> None:
    """``PRECONDITION_FAILED`` for a value that the table does not allow."""
    for name, value in arguments.items():
        if name in table:
            is_right, wanted = table[name]
            if not is_right(value):
                raise AmqpError(
                    ReplyCode.PRECONDITION_FAILED, f"invalid arg '{name}' for {called}: {value!r} is not {wanted}"
                )


def check_queue(called: str, arguments: Mapping[str, Any]) -> None:
    """``PRECONDITION_FAILED`` for a wrong value, and for an argument that queues of this type don't have."""
    check(called, arguments, QUEUE_ARGUMENTS)
    if "x-dead-letter-routing-key" in arguments and "x-dead-letter-exchange" not in arguments:
        raise AmqpError(
            ReplyCode.PRECONDITION_FAILED,
            f"invalid arg 'x-dead-letter-routing-key' for {called}: there is no 'x-dead-letter-exchange'",
        )
    queue_type = type_of(arguments)
    for name in arguments:
        if OF_ONE_TYPE.get(name, queue_type) != queue_type:
            raise AmqpError(
                ReplyCode.PRECONDITION_FAILED,
                f"invalid arg '{name}' for {called} of queue type rabbit_{queue_type}_queue",
            )


def check_lasting(
    called: str, name: str, durable: bool, exclusive: bool, auto_delete: bool, arguments: Mapping[str, Any]
) -> None:
    """``PRECONDITION_FAILED`` for a quorum queue that would not last, ``NOT_IMPLEMENTED`` for a stream."""
    queue_type = type_of(arguments)
    if queue_type == "classic":
        return
    if not name:
        raise AmqpError(
            ReplyCode.PRECONDITION_FAILED, f"Cannot declare a server-named queue for type rabbit_{queue_type}_queue"
        )
    for wrong, what in ((not durable, "non-durable"), (exclusive, "exclusive-owner"), (auto_delete, "auto-delete")):
        if wrong:
            raise AmqpError(ReplyCode.PRECONDITION_FAILED, f"invalid property '{what}' for {called}")
    if queue_type == "stream":
        raise AmqpError(
            ReplyCode.NOT_IMPLEMENTED, f"x-queue-type='stream' for {called}: the embedded broker has no such queues"
        )


def type_of(arguments: Mapping[str, Any]) -> Any:
    return arguments.get("x-queue-type", "classic")


def check_consumer(called: str, arguments: Mapping[str, Any]) -> None:
    """``PRECONDITION_FAILED`` for a priority that is no number."""
    check(called, arguments, CONSUMER_ARGUMENTS)


def check_exchange(called: str, type: str, arguments: Mapping[str, Any]) -> None:
    """``PRECONDITION_FAILED`` for a type that does not exist, as in RabbitMQ 4, and for a bad alternate."""
    if type not in TYPES:
        raise AmqpError(
            ReplyCode.PRECONDITION_FAILED, f"unknown exchange type '{type}' for {called}: one of {', '.join(TYPES)}"
        )
    if not is_short(arguments.get("alternate-exchange", "")):
        raise AmqpError(ReplyCode.PRECONDITION_FAILED, f"invalid arg 'alternate-exchange' for {called}: not a name")


def require_same(called: str, field: str, asked: Any, has: Any) -> None:
    """``PRECONDITION_FAILED`` if two values differ, with both of them in RabbitMQ's words, since clients read them."""
    if asked != has or isinstance(asked, bool) != isinstance(has, bool):
        show = shown if asked is None or has is None else lambda value: f"'{text(value)}'"
        raise AmqpError(
            ReplyCode.PRECONDITION_FAILED,
            f"inequivalent arg '{field}' for {called}: received {show(asked)} but current is {show(has)}",
        )


def shown(value: Any) -> str:
    """A value as RabbitMQ shows it when the other one is left out."""
    if value is None:
        return "none"
    kind = {bool: "bool", int: "signedint", str: "longstr"}.get(type(value), type(value).__name__)
    return f"the value '{text(value)}' of type '{kind}'"


def text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
