"""Headers of a message that is tried again or parked: they say where it came from, how often it failed, and why.

They begin with ``txservices-``. They are no part of the context, which would hand them on to other services.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from traceback import format_exception
from typing import Any

from attrs import frozen

from txservices import constants, deadlines
from txservices.amqp.delays import DELAY_QUEUE
from txservices.amqp.entities import Message
from txservices.safe import safe_for_serialization, shown
from txservices.utils.printable import in_one_line, printable, shortened
from txservices.utils.secrets import hide

__all__ = ["PREFIX", "Back", "Origin", "Why", "anew", "copied", "reasons", "restore", "way_back", "without_marks"]

PREFIX = "txservices-"
ATTEMPT = constants.ATTEMPT_HEADER  # the number of the attempt that a delivery is, from 2
FIRST_FAILED = constants.FIRST_FAILED_HEADER
LAST_FAILED = "txservices-last-failed"
EXCHANGE = "txservices-exchange"
ROUTING_KEY = "txservices-routing-key"
QUEUE = "txservices-queue"
BACK_EXCHANGE = "txservices-back-exchange"  # by which it gets back to that queue, and nowhere else
BACK_ROUTING_KEY = "txservices-back-routing-key"
USER_ID = "txservices-user-id"
EXPIRATION = "txservices-expiration"
REASON = "txservices-reason"
ERROR_CLASS = "txservices-error-class"
ERROR = "txservices-error"
TRACEBACK = "txservices-traceback"

ERROR_TEXT_MAX = 1_000  # characters of a parked message's error
TRACEBACK_MAX = 8_000  # characters of its traceback, its beginning and its end
ATTEMPTS_COUNTED = 1_000_000  # a header with a greater number is a stranger's

# Headers for one delivery alone, which the broker or an earlier sender has written. It would read them again in a copy.
NOT_COPIED = ("CC", "BCC", "x-delivery-count")


@frozen
class Origin:
    """Where a message came from and how often it has been tried, as far as its headers say.

    Attributes:
        attempt: the number of the attempt that this delivery is, from 1.
        first_failed: when the first attempt failed, as ISO 8601 in UTC; None at the first.
    """

    exchange: str
    routing_key: str
    attempt: int = 1
    first_failed: str | None = None

    @classmethod
    def of(cls, message: Message) -> Origin:
        headers = message.headers
        attempt = headers.get(ATTEMPT)
        if not isinstance(attempt, int) or isinstance(attempt, bool) or not 1 <= attempt <= ATTEMPTS_COUNTED:
            return cls(message.exchange, message.routing_key)
        exchange, key, first = (headers.get(name) for name in (EXCHANGE, ROUTING_KEY, FIRST_FAILED))
        if not isinstance(exchange, str) or not isinstance(key, str):
            exchange, key = message.exchange, message.routing_key
        return cls(exchange, key, attempt, first if isinstance(first, str) else None)


def restore(message: Message) -> None:
    """Give a message that comes again the exchange and the routing key that it came with at first."""
    origin = Origin.of(message)
    message.exchange, message.routing_key = origin.exchange, origin.routing_key


def copied(message: Message, **marks: Any) -> dict[str, Any]:
    """The properties of a copy of a message: its own, with further headers that say where it came from.

    It keeps its id, so that a duplicate can be recognised. It has no ``expiration``, for which the broker would deliver
    it sooner, and no ``user_id``, which RabbitMQ takes only from that user: both are in headers.
    """
    properties = dict(message.properties)
    headers = without_marks(message.headers)
    origin = Origin.of(message)
    headers[EXCHANGE], headers[ROUTING_KEY] = origin.exchange, origin.routing_key
    for name, header in (("expiration", EXPIRATION), ("user_id", USER_ID)):
        value = properties.pop(name, None)
        if value is None:
            value = message.headers.get(header)
        if isinstance(value, str):
            headers[header] = value
    headers.update({PREFIX + name.replace("_", "-"): value for name, value in marks.items() if value is not None})
    properties["headers"] = headers
    return properties


def without_marks(headers: Mapping[str, Any], parked_from: str = "") -> dict[str, Any]:
    """A message's headers without ours, and without those that the broker has written for one delivery.

    With ``parked_from`` they don't tell either that the broker has taken the message out of the queue of that name.
    """
    kept = {name: value for name, value in headers.items() if not name.startswith(PREFIX) and name not in NOT_COPIED}
    deaths = kept.get("x-death")
    if isinstance(deaths, list):  # those in delay queues say nothing to anybody, and there may be many
        others = [each for each in deaths if not is_of_delay(each) and not (parked_from and is_of(each, parked_from))]
        if others:
            kept["x-death"] = others
        else:
            kept = {name: value for name, value in kept.items() if not is_of_death(name)}
    return kept


def is_of_delay(death: Any) -> bool:
    """Whether an entry of ``x-death`` says that a message has left a delay queue. A stranger's may be anything."""
    return isinstance(death, Mapping) and str(death.get("queue", "")).startswith(DELAY_QUEUE)


def is_of(death: Any, queue: str) -> bool:
    """Whether an entry of ``x-death`` says that a message has left that queue."""
    return isinstance(death, Mapping) and death.get("queue") == queue


def is_of_death(header: str) -> bool:
    return header.startswith(("x-death", "x-first-death-", "x-last-death-"))


def reasons(reason: str, error: BaseException | None) -> dict[str, str]:
    """The marks that say why a message is parked. Secrets are hidden, and long texts are cut."""
    marks = {"reason": reason}
    if error is not None:
        kind = type(error)
        marks["error_class"] = f"{kind.__module__}.{kind.__name__}"
        marks["error"] = hide(in_one_line(str(safe_for_serialization(error))[:ERROR_TEXT_MAX]))
        lines = hide("".join(format_exception(shown(error))))
        marks["traceback"] = printable(shortened(lines, TRACEBACK_MAX))
    return marks


# Parked messages ------------------------------------------------------------------------------------------------------


@frozen
class Why:
    """Why a message is parked.

    Attributes:
        reason: ours (``failed``, ``rejected``, ``deadline``, ``unreadable``) or, of a message that the broker has
            dead-lettered, the broker's (``rejected``, ``expired``, ``maxlen``, ``delivery_limit``).
        at: when it was parked, as ISO 8601 in UTC; empty if nothing tells.
        attempts: how often it was tried.
        error: class and text of its last error, or the queue that the broker took it out of; empty if nothing tells.
    """

    reason: str
    at: str
    attempts: int
    error: str

    @classmethod
    def of(cls, message: Message) -> Why:
        headers = message.headers
        reason = headers.get(REASON)
        if isinstance(reason, str):
            at, kind, error = (headers.get(name) for name in (LAST_FAILED, ERROR_CLASS, ERROR))
            told = ": ".join(each for each in (kind, error) if isinstance(each, str) and each)
            return cls(reason, at if isinstance(at, str) else "", Origin.of(message).attempt, told)
        death = latest_death(message)
        time = death.get("time")
        at = time.isoformat(timespec="milliseconds") if isinstance(time, datetime) else ""
        queue, count = death.get("queue"), death.get("count")
        taken = f"the broker took it out of {queue}" if isinstance(queue, str) else ""
        if taken and isinstance(count, int) and count > 1:
            taken += f", {count} times by now"
        return cls(str(death.get("reason", "unknown")), at, Origin.of(message).attempt, taken)


@frozen
class Back:
    """How a parked message gets back to the one queue that it came from.

    Attributes:
        queue: the queue's name.
        exchange: by this exchange,
        routing_key: with this routing key.
        origin: the exchange and the routing key that it came with at first.
    """

    queue: str
    exchange: str
    routing_key: str
    origin: tuple[str, str]


def way_back(message: Message, rpc_exchange: str) -> Back | None:
    """How a parked message gets back to its queue; None if it does not say which that was."""
    headers = message.headers
    queue, exchange, key = (headers.get(name) for name in (QUEUE, BACK_EXCHANGE, BACK_ROUTING_KEY))
    if isinstance(exchange, str) and isinstance(key, str):
        origin = Origin.of(message)
        return Back(queue if isinstance(queue, str) else key, exchange, key, (origin.exchange, origin.routing_key))
    death = latest_death(message)
    queue = death.get("queue")
    if not isinstance(queue, str):
        return None
    exchange, keys = death.get("exchange"), death.get("routing-keys")
    key = keys[0] if isinstance(keys, list) and keys else None
    if not isinstance(exchange, str) or not isinstance(key, str):
        exchange, key = "", queue
    service = key.partition(".")[0]
    if exchange == rpc_exchange and queue == constants.RPC_QUEUE_TEMPLATE.format(service):
        return Back(queue, exchange, key, (exchange, key))  # only its routing key names the method
    origin, here = Origin.of(message), (message.exchange, message.routing_key)
    first = origin.exchange, origin.routing_key  # of one that had failed before
    return Back(queue, "", queue, (exchange, key) if first == here else first)


def latest_death(message: Message) -> Mapping[str, Any]:
    """The entry of ``x-death`` for the last time that the broker dead-lettered a message, delays left out; or empty."""
    deaths = message.headers.get("x-death")
    for death in deaths if isinstance(deaths, list) else ():
        if isinstance(death, Mapping) and not is_of_delay(death):
            return death
    return {}


def anew(message: Message, back: Back) -> dict[str, Any]:
    """The properties of a parked message that goes back to its queue: the next attempt is its first.

    It keeps its id, and its handler is shown the exchange and the routing key that it came with at first. It has no
    deadline any more, nor an ``expiration``: with them it would not be handled.
    """
    properties = dict(message.properties)
    headers = without_marks(message.headers, back.queue)
    for name in (deadlines.DEADLINE, deadlines.TIME_LEFT):
        headers.pop(name, None)
    headers[ATTEMPT] = 1
    headers[EXCHANGE], headers[ROUTING_KEY] = back.origin
    for name in ("expiration", "user_id"):
        properties.pop(name, None)
    properties["headers"] = headers
    return properties


def now() -> str:
    """The time of day, for people: nothing is reckoned with it."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
