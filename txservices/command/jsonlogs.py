"""A line of the log as a JSON object, for programs that collect logs: LOG_FORMAT: json.

    {"time": "2026-01-31T10:20:30.123Z", "level": "info", "logger": "app.stock", "message": "sold 3",
     "service": "stock", "call_id": "stock.sold.…", "origin": "web.buy.…", "fields": {"count": 3}}

It is ASCII, so no program and no file sees an end of a line in it. Values that do not fit are left out or shown as
text, and the line is written all the same.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from string import Formatter
from typing import Any

from twisted.logger import LogEvent, LogLevel, formatEvent

from txservices.safe import SAFE_CUT, SAFE_FAILED, brief, fits
from txservices.utils.printable import TEXT_MAX, printable
from txservices.utils.secrets import hide

FIELD_MAX = 1_000  # characters of a field that JSON has no form for, and that is shown as text
IDS = ("call_id", "origin", "trace_id", "span_id")
# what each record of the standard library has; all else is `extra` of whoever logs
USUAL = {*vars(logging.LogRecord("", 0, "", 0, "", None, None)), *IDS, "message", "asctime", "taskName"}


def one_object(event: LogEvent) -> str:
    """The object of an event, with the end of its line. The event is one that ``Cleans`` has seen."""
    message = text_of(event)
    found = {
        "time": clock(event.get("log_time")),
        "level": event.get("log_level", LogLevel.info).name,
        "logger": str(carried(event.get("log_namespace", "-"))),
        "message": message,
        "service": event.get("log_service"),
        **{name: carried(event[name]) for name in IDS if name in event},
        "fields": {name: value for name, value in fields(event) if value != message},  # one may be all of the message
        "exception": exception(event),
    }
    return json.dumps({name: value for name, value in found.items() if value not in (None, {})}) + "\n"


def text_of(event: LogEvent) -> str:
    """What the event says, without its traceback, which the text of a standard record's event has."""
    record: logging.LogRecord | None = event.get("log_record")
    try:
        return formatEvent(event) if record is None else flush_left(record.getMessage())
    except BaseException:  # an argument's `__str__` may raise anything
        return formatEvent(event)


def clock(seconds: Any) -> str:
    """A time as ISO 8601 has it, in UTC; now if it is no time."""
    try:
        moment = datetime.fromtimestamp(seconds, timezone.utc)
    except (TypeError, ValueError, OverflowError, OSError):
        moment = datetime.fromtimestamp(time.time(), timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def fields(event: LogEvent) -> Iterator[tuple[str, Any]]:
    """The fields of the event's format, by the names that they have there, or what a standard record has as `extra`."""
    record = event.get("log_record")
    if record is not None:
        for attribute, value in vars(record).items():
            if attribute not in USUAL:
                yield as_text(attribute), carried(value)
        return
    template = event.get("log_original", event.get("log_format"))
    try:
        names = [part[1] for part in Formatter().parse(template or "")]
    except (ValueError, TypeError):  # the message says that it can't be formatted
        return
    for name in names:
        if name and not name.startswith("log_"):
            yield name, of_name(name, event)


def of_name(name: str, event: LogEvent) -> Any:
    """A field: `count`, `order.total`, `order[total]`; `total()` is what a call gives, as text."""
    if name.endswith("()"):
        return printed(formatEvent({**event, "log_format": f"{{{name}}}"}))
    try:
        return carried(Formatter().get_field(name, (), event)[0])
    except BaseException:  # an attribute may raise anything, and the line must be written
        return SAFE_FAILED


def carried(value: Any) -> Any:
    """A value in JSON's types, with its secrets hidden. As text if it has no such type, and cut if it is too long."""
    if type(value) in (dict, list, tuple):
        plain = tree(value) if fits(value) else None
        return as_text(value) if plain is None or len(json.dumps(plain)) > TEXT_MAX else plain
    return leaf(value)


def tree(value: Any) -> Any:
    """The same of a value within the limits; None for a mapping whose keys are no texts."""
    kind = type(value)
    if kind is dict:
        if any(type(key) is not str for key in value):
            return None
        return {printed(key): tree(each) for key, each in value.items()}
    return [tree(each) for each in value] if kind in (list, tuple) else leaf(value)


def leaf(value: Any) -> Any:
    kind = type(value)
    if value is None or kind is bool:
        return value
    if kind is str:
        return printed(value)
    if (kind is int and value.bit_length() < 64) or (kind is float and abs(value) < float("inf")):
        return value if hide(repr(value)) == repr(value) else hide(repr(value))  # a secret may have digits only
    return as_text(value)


def as_text(value: Any) -> str:
    """A value as a text that has an end, whatever it is like."""
    try:
        text = printed(str.__str__(str(value) if fits(value) else brief(value)))
    except BaseException:  # a `__str__` may raise anything
        return SAFE_FAILED
    return text if len(text) <= FIELD_MAX else text[:FIELD_MAX] + SAFE_CUT


def printed(text: str) -> str:
    return hide(printable(text))


def exception(event: Mapping[str, Any]) -> str | None:
    """The traceback of an event, if it has one, as text."""
    record, failure = event.get("log_record"), event.get("log_failure")
    try:
        if record is not None:
            parts = (record.exc_text, record.stack_info and printed(record.stack_info))
            return "\n".join(flush_left(part) for part in parts if part) or None
        return None if failure is None else str(failure.getTraceback()).rstrip()
    except BaseException:  # the text of an error may raise anything
        return SAFE_FAILED


def flush_left(text: str) -> str:
    """A text of a record without the tabs that keep its lines from looking like others."""
    return text.replace("\n\t", "\n")
