"""AMQP 0-9-1 by hand on a blocking socket, as little of it as the ceiling and the stopwatch need.

Everything that is sent often is made once; frames that arrive are looked at and not decoded. Standard library only.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit
from uuid import uuid4

FRAME = struct.Struct(">BHI")
METHOD = struct.Struct(">HH")
TAG = struct.Struct(">QB")
METHOD_FRAME, HEADER_FRAME, BODY_FRAME = 1, 2, 3

START, TUNE, OPEN_OK = (10, 10), (10, 30), (10, 41)
DELIVER, RETURN, ACK = b"\x00\x3c\x00\x3c", b"\x00\x3c\x00\x32", b"\x00\x3c\x00\x50"
NO_ARGUMENTS = b"\x00\x00\x00\x00"
DURABLE = b"\x02"

EXCHANGE = "nameko-rpc"  # as nameko and txservices have it: this may call services of either
REPLY_QUEUE_KEPT = 300_000  # milliseconds, as nameko's


def shortstr(text: str) -> bytes:
    data = text.encode()
    return bytes([len(data)]) + data


def longstr(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    return FRAME.pack(kind, channel, len(payload)) + payload + b"\xce"


def method(channel: int, ids: tuple[int, int], arguments: bytes = b"") -> bytes:
    return frame(METHOD_FRAME, channel, METHOD.pack(*ids) + arguments)


def ack(tag: int, multiple: int) -> bytes:
    return method(1, (60, 80), TAG.pack(tag, multiple))


def stack_header(entries: int) -> bytes:
    """The header that each nameko request carries: an array of `entries` ids of calls."""
    items = b"".join(b"S" + longstr(f"benchmark.echo.{uuid4()}".encode()) for _ in range(entries))
    return shortstr("nameko.call_id_stack") + b"A" + longstr(items)


def message(
    routing_key: str,
    body: bytes,
    reply_to: str = "",
    headers: bytes = b"",
    correlation_id: str = "",
    exchange: str = EXCHANGE,
    transient: bool = False,
) -> bytes:
    """A publish, ready to be sent: persistent unless it is ``transient``, and mandatory if it wants a reply."""
    publish = b"\x00\x00" + shortstr(exchange) + shortstr(routing_key) + (b"\x01" if reply_to else b"\x00")
    # content type, encoding, headers, delivery mode, priority, correlation id, [reply to,] message id
    flags = 0x8000 | 0x4000 | 0x2000 | 0x1000 | 0x0800 | 0x0400 | (0x0200 if reply_to else 0) | 0x0080
    properties = shortstr("application/json") + shortstr("utf-8") + longstr(headers)
    properties += b"\x01\x00" if transient else b"\x02\x00"
    properties += shortstr(correlation_id or str(uuid4())) + (shortstr(reply_to) if reply_to else b"")
    properties += shortstr(str(uuid4()))
    header = struct.pack(">HHQH", 60, 0, len(body), flags) + properties
    return method(1, (60, 40), publish) + frame(HEADER_FRAME, 1, header) + frame(BODY_FRAME, 1, body)


class Wire:
    """A connection with one channel, number 1, confirming what is published on it."""

    def __init__(self, uri: str) -> None:
        address = urlsplit(uri)
        self.socket = socket.create_connection((address.hostname, address.port or 5672))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.rest = b""
        login = f"\x00{unquote(address.username or 'guest')}\x00{unquote(address.password or 'guest')}".encode()
        vhost = unquote(address.path[1:]) or "/"
        self.ask(b"AMQP\x00\x00\x09\x01")
        tune = self.ask(method(0, (10, 11), NO_ARGUMENTS + shortstr("PLAIN") + longstr(login) + shortstr("en_US")))
        heartbeat_off = tune[4:10] + b"\x00\x00"  # nothing here lives long enough
        self.ask(method(0, (10, 31), heartbeat_off) + method(0, (10, 40), shortstr(vhost) + b"\x00\x00"))
        self.ask(method(1, (20, 10), b"\x00"))
        self.ask(method(1, (85, 10), b"\x00"))
        self.declare(EXCHANGE)

    def declare(self, exchange: str) -> None:
        self.ask(method(1, (40, 10), b"\x00\x00" + shortstr(exchange) + shortstr("topic") + DURABLE + NO_ARGUMENTS))

    def ask(self, data: bytes) -> bytes:
        """Send it, and give the payload of the next frame."""
        self.socket.sendall(data)
        payload: bytes = next(frame for frame in self.frames())[1]
        return payload

    def frames(self) -> list[tuple[int, bytes]]:
        """The whole frames that the next reads bring. Blocks until there is one."""
        while True:
            found = list(self.parse(self.rest + self.receive()))
            if found:
                return found

    def receive(self) -> bytes:
        data = self.socket.recv(262_144)
        if not data:
            raise ConnectionError("the broker has closed the connection")
        return data

    def parse(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        position, length = 0, len(data)
        while length - position >= 8:
            kind, _, size = FRAME.unpack_from(data, position)
            end = position + 8 + size
            if end > length:
                break
            yield kind, data[position + 7 : end - 1]
            position = end
        self.rest = data[position:]

    def consume(self, queue: str, binding: str, prefetch: int, keep: int = 0, exchange: str = EXCHANGE) -> None:
        """Declare a durable queue, bind it, consume; `keep`: milliseconds without a consumer."""
        arguments = longstr(shortstr("x-expires") + b"I" + struct.pack(">i", keep)) if keep else NO_ARGUMENTS
        self.ask(method(1, (50, 10), b"\x00\x00" + shortstr(queue) + DURABLE + arguments))
        names = shortstr(queue) + shortstr(exchange) + shortstr(binding)
        self.ask(method(1, (50, 20), b"\x00\x00" + names + b"\x00" + NO_ARGUMENTS))
        self.ask(method(1, (60, 10), struct.pack(">IHB", 0, prefetch, 0)))
        self.ask(method(1, (60, 20), b"\x00\x00" + shortstr(queue) + shortstr("c") + b"\x00" + NO_ARGUMENTS))

    def listen_for_replies(self) -> str:
        """Consume a reply queue as nameko has it. Gives the routing key for replies."""
        reply_to = str(uuid4())
        self.consume(f"rpc.reply-benchmark-{reply_to}", reply_to, 0, REPLY_QUEUE_KEPT)
        return reply_to


def tag_of_ack(payload: bytes) -> int:
    """The tag of a basic.ack, here a confirm. The octet after it says whether all up to that tag are confirmed."""
    return int.from_bytes(payload[4:12], "big")


def delivery_tag(payload: bytes) -> int:
    """The tag of a basic.deliver."""
    start = 5 + payload[4]
    return int.from_bytes(payload[start : start + 8], "big")
