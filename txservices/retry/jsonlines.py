"""A parked message as a line of JSON, and back: to be read by programs, kept in a file, and put into a queue again.

Values that JSON lacks are an object with one key that begins with ``$``: ``{"$bytes": BASE64}``,
``{"$time": ISO8601}``, ``{"$decimal": TEXT}``. A body that is no text is ``body_base64`` in place of ``body``.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from txservices.amqp.entities import Message
from txservices.retry.failures import PARKED
from txservices.retry.marks import Why

__all__ = ["line_of", "message_in"]

SPECIAL = "$"
TABLE = "$table"  # a table of one key that looks as if it were one of ours

Written = tuple[str, bytes, dict[str, Any]]  # queue, body, properties


def line_of(message: Message, queue: str) -> str:
    """The line of a message in that parking queue, without its end."""
    why = Why.of(message)
    line: dict[str, Any] = {
        "queue": queue,
        "id": message.properties.get("message_id"),
        "reason": why.reason,
        "since": why.at,
        "attempts": why.attempts,
        "error": why.error,
        "properties": to_json(message.properties),
    }
    try:
        line["body"] = message.body.decode()
    except UnicodeDecodeError:
        line["body_base64"] = b64encode(message.body).decode()
    return json.dumps(line)


def message_in(line: str) -> Written:
    """The queue, the body and the properties of the message in a line. ``ValueError`` if it is no such line."""
    try:
        read = json.loads(line)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if not isinstance(read, dict):
        raise ValueError("it is no object")
    queue, properties, body, coded = (read.get(name) for name in ("queue", "properties", "body", "body_base64"))
    if not isinstance(queue, str) or not queue.endswith(PARKED):
        raise ValueError(f"'queue' is not the name of a parking queue, which ends with {PARKED}")
    if not isinstance(properties, dict):
        raise ValueError("'properties' is no object")
    if isinstance(body, str):
        return queue, body.encode(), from_json(properties)
    if not isinstance(coded, str):
        raise ValueError("there is neither a 'body' nor a 'body_base64' that is a text")
    return queue, b64decode(coded, validate=True), from_json(properties)


def to_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        table = {name: to_json(each) for name, each in value.items()}
        return {TABLE: table} if is_special(table) else table
    if isinstance(value, (list, tuple)):
        return [to_json(each) for each in value]
    if isinstance(value, bytes):
        return {"$bytes": b64encode(value).decode()}
    if isinstance(value, datetime):
        return {"$time": value.isoformat()}
    if isinstance(value, Decimal):
        return {"$decimal": str(value)}
    return value


READERS: Mapping[str, Callable[[Any], Any]] = {
    "$bytes": lambda text: b64decode(text, validate=True),
    "$time": datetime.fromisoformat,
    "$decimal": Decimal,
    TABLE: lambda table: {name: from_json(each) for name, each in table.items()},
}


def from_json(value: Any) -> Any:
    if isinstance(value, dict):
        if is_special(value):
            (name, inside), *_ = value.items()
            try:
                return READERS[name](inside)
            except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
                raise ValueError(f"{name} with {inside!r} is nothing that is known") from error
        return {name: from_json(each) for name, each in value.items()}
    if isinstance(value, list):
        return [from_json(each) for each in value]
    return value


def is_special(table: Mapping[str, Any]) -> bool:
    return len(table) == 1 and next(iter(table)).startswith(SPECIAL)
