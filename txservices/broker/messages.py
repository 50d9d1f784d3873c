"""A message in the broker, and the few of its properties that the broker reads. Pure.

Header and body go out as the bytes in which they came: to decode and encode the properties again costs as much as all
the rest. The expiration is read in place. The header is decoded only if there is a user-id, and for a dead letter,
which gets an ``x-death``; its table of headers also if CC may be in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from struct import Struct
from struct import error as StructError
from typing import Any

from txservices.broker.watermark import Watermark
from txservices.exceptions import AmqpError, FrameError
from txservices.wire.codec import decode_properties, encode_properties
from txservices.wire.frames import FRAME_MAX, header_max
from txservices.wire.spec import PROPERTIES, ReplyCode
from txservices.wire.tables import decode_table, encode_shortstr, encode_table, octets, writable

SHORT = Struct(">H")
LONG = Struct(">I")

FLAGS = {name: 0x8000 >> index for index, (name, _) in enumerate(PROPERTIES)}
CONTENT_TYPE = FLAGS["content_type"]
CONTENT_ENCODING = FLAGS["content_encoding"]
HEADERS = FLAGS["headers"]
DELIVERY_MODE = FLAGS["delivery_mode"]
PRIORITY = FLAGS["priority"]
CORRELATION_ID = FLAGS["correlation_id"]
REPLY_TO = FLAGS["reply_to"]
EXPIRATION = FLAGS["expiration"]
USER_ID = FLAGS["user_id"]
NO_PROPERTY = 0x0003  # basic has 14; the lowest two bits of the flags are no property of it
UNUSUAL = HEADERS | REPLY_TO | USER_ID | NO_PROPERTY
COPIES = ("CC", "BCC")  # headers with further routing keys
CC, BCC = b"\x02CC", b"\x03BCC"  # their names as a table has them
DIRECT_REPLY_TO = "amq.rabbitmq.reply-to"
DIRECT = DIRECT_REPLY_TO.encode()
TTL_MAX = 315_360_000_000  # milliseconds that a message or a queue may live, ten years: RabbitMQ's own limit
SIGNED = re.compile(rb"[+-]\d+")

HEADER_MAX = header_max(FRAME_MAX)  # bytes of flags and values in one frame

X_DEATH = "x-death"


class Message:
    """A message as it came. It may stand in several queues."""

    __slots__ = ("address", "body", "exchange", "expiration", "header", "others", "routing_key", "size", "watermark")

    def __init__(
        self,
        exchange: str,
        routing_key: str,
        address: bytes,
        header: bytes,
        body: bytes,
        expiration: int | None = None,
        others: tuple[str, ...] = (),
    ) -> None:
        self.exchange = exchange
        self.routing_key = routing_key
        self.address = address  # both of them as short strings: the end of a method that carries the message
        self.header = header  # flags and values of the properties
        self.body = body
        self.expiration = expiration  # milliseconds, its own; a queue may have less
        self.others = others  # further routing keys: those of CC and BCC
        self.size = 0  # bytes that the watermark counts for it, until it is gone
        self.watermark: Watermark

    def __del__(self) -> None:
        if self.size:
            self.watermark.held -= self.size


def read_flags(header: bytes) -> int:
    flags: int = SHORT.unpack_from(header)[0]
    return flags


def headers_at(header: bytes, flags: int) -> int:
    """Where the table of headers begins, or would begin. ``IndexError`` if the bytes end before it."""
    offset = 2
    if flags & CONTENT_TYPE:
        offset += 1 + header[offset]
    if flags & CONTENT_ENCODING:
        offset += 1 + header[offset]
    return offset


def reply_to_at(header: bytes, flags: int) -> int:
    """Where the reply-to begins, or would begin. ``IndexError`` or ``StructError`` if the bytes end before it."""
    offset = headers_at(header, flags)
    if flags & HEADERS:
        offset += 4 + LONG.unpack_from(header, offset)[0]
    if flags & DELIVERY_MODE:
        offset += 1
    if flags & PRIORITY:
        offset += 1
    if flags & CORRELATION_ID:
        offset += 1 + header[offset]
    return offset


def read_expiration(header: bytes, flags: int) -> int | None:
    """The milliseconds after which the message expires, or None. Nothing else is decoded.

    Anything but a number up to ``TTL_MAX`` is ``PRECONDITION_FAILED``, as RabbitMQ has it.
    """
    if not flags & EXPIRATION:
        return None
    try:
        offset = reply_to_at(header, flags)
        if flags & REPLY_TO:
            offset += 1 + header[offset]
        text = header[offset + 1 : offset + 1 + header[offset]]
    except (IndexError, StructError):
        raise AmqpError(ReplyCode.SYNTAX_ERROR, "the properties end before the expiration", "basic.publish") from None
    number = int(text) if text.isdigit() or SIGNED.fullmatch(text) else -1
    if not 0 <= number <= TTL_MAX:
        raise AmqpError(
            ReplyCode.PRECONDITION_FAILED,
            f"invalid expiration {text.decode(errors='replace')!r}: milliseconds in digits, up to {TTL_MAX}",
            "basic.publish",
        )
    return number


def read_priority(header: bytes) -> int:
    """The priority that a message has, 0 if it has none. Few queues ask for it, so the properties are decoded."""
    if not read_flags(header) & PRIORITY:
        return 0
    try:
        priority: int = decode_properties(header)["priority"]
    except FrameError:
        return 0
    return priority


def with_header(header: bytes, name: str, value: Any) -> bytes:
    """The properties with one header more. As they are, if they can't be read or would outgrow a frame."""
    try:
        properties = decode_properties(header)
        headers = writable(properties.get("headers") or {})
        changed = encode_properties({**properties, "headers": {**headers, name: value}})
    except (FrameError, ValueError, TypeError):
        return header
    return changed if len(changed) <= HEADER_MAX else header


def read_unusual(header: bytes, flags: int, user: str, reply_to: Callable[[], str]) -> tuple[bytes, tuple[str, ...]]:
    """Check what some of the ``UNUSUAL`` properties say; return the properties to go out, and further routing keys.

    Most messages have headers or a reply-to, with nothing of interest here: that must cost no more than a glance.

    Args:
        user: the user that sends the message.
        reply_to: gives the name by which replies reach its channel.
    """
    if flags & (USER_ID | NO_PROPERTY):
        check_user(header, flags, user)
    if flags & REPLY_TO and DIRECT in header:
        header = replace_reply_to(header, flags, reply_to)
    if flags & HEADERS and (CC in header or BCC in header):
        return take_copies(header, flags)
    return header, ()


def check_user(header: bytes, flags: int, user: str) -> None:
    """Refuse a user id that is not the sender's, and properties that AMQP does not have."""
    if flags & NO_PROPERTY:
        raise AmqpError(ReplyCode.SYNTAX_ERROR, f"property flags {flags:#06x}: basic has no such property")
    if flags & USER_ID:
        claimed = decode_properties(header)["user_id"]
        if claimed != user:
            raise AmqpError(
                ReplyCode.PRECONDITION_FAILED,
                f"user_id property set to '{claimed}' but authenticated user was '{user}'",
                "basic.publish",
            )


def take_copies(header: bytes, flags: int) -> tuple[bytes, tuple[str, ...]]:
    """The further routing keys in the headers CC and BCC, after the properties without BCC, which nobody may see."""
    try:
        start = headers_at(header, flags)
    except IndexError:
        raise AmqpError(ReplyCode.SYNTAX_ERROR, "the properties end before the headers", "basic.publish") from None
    headers, end = decode_table(header, start)
    others: list[str] = []
    for name in COPIES:
        keys = headers.get(name, [])
        if not isinstance(keys, list):
            raise AmqpError(
                ReplyCode.PRECONDITION_FAILED,
                f"invalid message: {name} in the headers is no array of routing keys",
                "basic.publish",
            )
        others += map(name_of, keys_of(keys))
    if "BCC" in headers:
        del headers["BCC"]
        header = header[:start] + encode_table(writable(headers)) + header[end:]
    return header, tuple(others)


def replace_reply_to(header: bytes, flags: int, reply_to: Callable[[], str]) -> bytes:
    """The properties with another reply-to, if theirs asks for Direct Reply-to."""
    try:
        start = reply_to_at(header, flags)
        end = start + 1 + header[start]
    except (IndexError, StructError):
        raise AmqpError(ReplyCode.SYNTAX_ERROR, "the properties end before the reply-to", "basic.publish") from None
    if header[start + 1 : end] != DIRECT:
        return header
    return header[:start] + encode_shortstr(reply_to()) + header[end:]


def dead_letter(message: Message, reason: str, queue: str, exchange: str, key: str | None, now: float) -> Message:
    """The message as a dead letter: with ``x-death``, and without an expiration of its own.

    Headers that can be read and not written, such as one that is not a number, are left out of it.

    ``FrameError`` if its properties can't be read, ``ValueError`` if they outgrow a frame: a header can't be split.
    """
    properties = decode_properties(message.header)
    headers = writable(properties.get("headers") or {})
    deaths = [death for death in read_deaths(headers) if (death.get("queue"), death.get("reason")) != (queue, reason)]
    count = next((d["count"] for d in read_deaths(headers) if (d.get("queue"), d.get("reason")) == (queue, reason)), 0)
    death: dict[str, Any] = {
        "count": count + 1,
        "reason": reason,
        "queue": queue,
        "time": datetime.fromtimestamp(now, timezone.utc),
        "exchange": message.exchange,
        "routing-keys": [field_of(message.routing_key), *keys_of(headers.get("CC"))],
    }
    if "expiration" in properties:
        death["original-expiration"] = properties.pop("expiration")
    for name, value in (("reason", reason), ("queue", queue), ("exchange", message.exchange)):
        headers.setdefault(f"x-first-death-{name}", value)
        headers[f"x-last-death-{name}"] = value  # RabbitMQ has these since 3.13
    headers[X_DEATH] = [death, *deaths]
    properties["headers"] = headers
    header = encode_properties(properties)
    if len(header) > HEADER_MAX:
        raise ValueError(f"with x-death its properties are {len(header)} bytes, over the {HEADER_MAX} of a frame")
    others = message.others if key is None else ()
    key = message.routing_key if key is None else key
    address = encode_shortstr(exchange) + encode_shortstr(octets(key))
    return Message(exchange, key, address, header, message.body, None, others)


def field_of(name: str) -> str | bytes:
    """A name as a field of a table: bytes if it is not UTF-8, as the codec reads one."""
    data = octets(name)
    return name if data.decode(errors="ignore") == name else data


def keys_of(array: Any) -> list[str | bytes]:
    """The routing keys in a CC: other values in it are no keys."""
    return [key for key in array or () if isinstance(key, (str, bytes))]


def name_of(field: str | bytes) -> str:
    """The reverse of ``field_of``."""
    return field if isinstance(field, str) else field.decode(errors="surrogateescape")


def read_deaths(headers: dict[str, Any]) -> Sequence[dict[str, Any]]:
    """The entries of a message's ``x-death``, the latest first. Anything else that a client put there is left out."""
    deaths = headers.get(X_DEATH)
    if not isinstance(deaths, list):
        return []
    return [death for death in deaths if isinstance(death, dict) and isinstance(death.get("count"), int)]


def goes_in_circles(message: Message, queue: str) -> bool:
    """Whether a dead letter comes back to a queue and no consumer rejected it on the way: it would never end."""
    for death in read_deaths(decode_properties(message.header)["headers"]):
        if death.get("reason") == "rejected":
            return False
        if death.get("queue") == queue:
            return True
    return False
