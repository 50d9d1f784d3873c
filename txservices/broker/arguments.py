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

Check = Callable[[Any], bool]


def number_from(least: int, most: float = float("inf")) -> Check:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def is_short(value: Any) -> bool:
    return isinstance(value, str) and len(value.encode()) <= SHORTSTR_MAX


# argument -> (whether the value can be honoured, what it should be)
QUEUE_ARGUMENTS: dict[str, tuple[Check, str]] = {
    "x-message-ttl": (number_from(0, TTL_MAX), "milliseconds from 0"),
    "x-expires": (number_from(1, TTL_MAX), "milliseconds from 1"),
    "x-max-length": (number_from(0), "a number from 0"),
    "x-max-length-bytes": (number_from(0), "a number from 0"),
    "x-overflow": (
        lambda value: value in ("drop-head", "reject-publish", "reject-publish-dlx"),
        "drop-head, reject-publish or reject-publish-dlx",
    ),
    "x-dead-letter-exchange": (is_short, "an exchange's name"),
    "x-dead-letter-routing-key": (is_short, "a routing key"),
    "x-queue-mode": (lambda value: value in ("default", "lazy"), "default or lazy"),
}
# argument -> the one value that changes nothing here, besides None
QUEUE_ARGUMENTS_NOT_IMPLEMENTED: dict[str, Any] = {
    "x-queue-type": "classic",
    "x-max-priority": None,
    "x-single-active-consumer": False,
    "x-delivery-limit": None,
}
# argument that a second declaration of a queue must repeat -> the value that it has where it is left out
COMPARED: dict[str, Any] = {
    **dict.fromkeys([*QUEUE_ARGUMENTS, *QUEUE_ARGUMENTS_NOT_IMPLEMENTED]),
    "x-queue-type": "classic",
}


def check_queue(called: str, arguments: Mapping[str, Any]) -> None:
    """``PRECONDITION_FAILED`` for a wrong value, ``NOT_IMPLEMENTED`` for an argument that this broker does not have."""
    for name, value in arguments.items():
        if name in QUEUE_ARGUMENTS:
            check, wanted = QUEUE_ARGUMENTS[name]
            if not check(value):
                raise AmqpError(
                    ReplyCode.PRECONDITION_FAILED, f"invalid arg '{name}' for {called}: {value!r} is not {wanted}"
                )
        elif value is not None and value != QUEUE_ARGUMENTS_NOT_IMPLEMENTED.get(name, value):
            raise AmqpError(
                ReplyCode.NOT_IMPLEMENTED, f"{name}={value!r} for {called}: the embedded broker has no such queues"
            )
    if "x-dead-letter-routing-key" in arguments and "x-dead-letter-exchange" not in arguments:
        raise AmqpError(
            ReplyCode.PRECONDITION_FAILED,
            f"invalid arg 'x-dead-letter-routing-key' for {called}: there is no 'x-dead-letter-exchange'",
        )


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
