"""A message in the broker, and the few of its properties that the broker reads. Pure.

Header and body go out as the bytes in which they came: to decode and encode the properties again costs as much as all
the rest. The expiration is read in place. The header is decoded only if there is a user-id, or CC may be in it, and for
a dead letter, which gets an ``x-death``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from struct import Struct
from struct import error as StructError
from typing import Any

from txservices.broker.watermark import Watermark
from txservices.exceptions import AmqpError
from txservices.wire.codec import decode_properties, encode_properties
from txservices.wire.frames import FRAME_MAX, HEADER
from txservices.wire.spec import FRAME_OVERHEAD, PROPERTIES, ReplyCode
from txservices.wire.tables import encode_shortstr, octets

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
UNUSUAL = HEADERS | USER_ID | NO_PROPERTY
SELECTED_BY_SENDER = (b"\x02CC", b"\x03BCC")
EXPIRATION_MAX = 0xFFFFFFFF  # milliseconds, 49 days: RabbitMQ's own limit

HEADER_MAX = FRAME_MAX - FRAME_OVERHEAD - HEADER.size  # bytes of flags and values in one frame

X_DEATH = "x-death"


class Message:
    """A message as it came. It may stand in several queues."""

    __slots__ = ("address", "body", "exchange", "expiration", "header", "routing_key", "size", "watermark")

    def __init__(
        self, exchange: str, routing_key: str, address: bytes, header: bytes, body: bytes, expiration: int | None = None
    ) -> None:
        self.exchange = exchange
        self.routing_key = routing_key
        self.address = address  # both of them as short strings: how a method that carries the message ends
        self.header = header  # flags and values of the properties
        self.body = body
        self.expiration = expiration  # milliseconds, its own; a queue may have less
        self.size = 0  # bytes that the watermark counts for it, until it is gone
        self.watermark: Watermark

    def __del__(self) -> None:
        if self.size:
            self.watermark.held -= self.size


def read_flags(header: bytes) -> int:
    flags: int = SHORT.unpack_from(header)[0]
    return flags


def read_expiration(header: bytes, flags: int) -> int | None:
    """The milliseconds after which the message expires, or None. Nothing else is decoded.

    Anything but digits is ``PRECONDITION_FAILED``, as RabbitMQ has it.
    """
    if not flags & EXPIRATION:
        return None
    offset = 2
    try:
        if flags & CONTENT_TYPE:
            offset += 1 + header[offset]
        if flags & CONTENT_ENCODING:
            offset += 1 + header[offset]
        if flags & HEADERS:
            offset += 4 + LONG.unpack_from(header, offset)[0]
        if flags & DELIVERY_MODE:
            offset += 1
        if flags & PRIORITY:
            offset += 1
        if flags & CORRELATION_ID:
            offset += 1 + header[offset]
        if flags & REPLY_TO:
            offset += 1 + header[offset]
        text = header[offset + 1 : offset + 1 + header[offset]]
    except (IndexError, StructError):
        raise AmqpError(ReplyCode.SYNTAX_ERROR, "the properties end before the expiration", "basic.publish") from None
    if not text.isdigit() or len(text) > 10 or int(text) > EXPIRATION_MAX:
        raise AmqpError(
            ReplyCode.PRECONDITION_FAILED,
            f"invalid expiration {text.decode(errors='replace')!r}: milliseconds in digits, up to {EXPIRATION_MAX}",
            "basic.publish",
        )
    return int(text)


def check_unusual(header: bytes, flags: int, user: str) -> None:
    """Refuse a user id that is not the sender's, and more routing keys in the headers (CC, BCC).

    Both are rare, so that it does not matter that they are decoded.
    """
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
    if any(name in header for name in SELECTED_BY_SENDER):
        headers = decode_properties(header).get("headers") or {}
        if "CC" in headers or "BCC" in headers:
            raise AmqpError(ReplyCode.NOT_IMPLEMENTED, "routing keys in headers CC and BCC", "basic.publish")


def dead_letter(message: Message, reason: str, queue: str, exchange: str, key: str | None, now: float) -> Message:
    """The message as a dead letter: with ``x-death``, and without an expiration of its own.

    ``FrameError`` if its properties can't be read, ``ValueError`` if they outgrow a frame: a header can't be split.
    """
    properties = decode_properties(message.header)
    headers = dict(properties.get("headers") or {})
    deaths = [death for death in read_deaths(headers) if (death.get("queue"), death.get("reason")) != (queue, reason)]
    count = next((d["count"] for d in read_deaths(headers) if (d.get("queue"), d.get("reason")) == (queue, reason)), 0)
    death: dict[str, Any] = {
        "count": count + 1,
        "reason": reason,
        "queue": queue,
        "time": datetime.fromtimestamp(now, timezone.utc),
        "exchange": message.exchange,
        "routing-keys": [field_of(message.routing_key)],
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
    key = message.routing_key if key is None else key
    return Message(exchange, key, encode_shortstr(exchange) + encode_shortstr(octets(key)), header, message.body)


def field_of(name: str) -> str | bytes:
    """A name as a field of a table: bytes if it is not UTF-8, as the codec reads one."""
    data = octets(name)
    return name if data.decode(errors="ignore") == name else data


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
