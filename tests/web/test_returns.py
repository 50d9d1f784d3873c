"""What a method may return: the response to each kind of value, byte for byte."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from datetime import date, datetime, timezone
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from msgspec import Struct
from werkzeug.wrappers import Response

from tests.web.peer import WebTestCase, text
from txservices.web import returns
from txservices.web.handlers import http
from txservices.web.messages import head_of
from txservices.web.returns import plain_of, response_of


class Point(Struct):
    """A msgspec Struct."""

    x: int
    y: int


@dataclass
class Item:
    """A dataclass."""

    name: str
    price: Decimal


class Colour(Enum):
    """An Enum."""

    RED = "red"


def answer(status: str, content_type: str, body: bytes, *before: str) -> bytes:
    head = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", *before))
    return f"{head}Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\nDate: now\r\n\r\n".encode() + body


def as_json(body: str, status: str = "200 OK", *before: str) -> bytes:
    return answer(status, "application/json", body.encode(), *before)


NOTHING = b"HTTP/1.1 204 NO CONTENT\r\nDate: now\r\n\r\n"
RESULTS: list[tuple[Any, bytes]] = [
    ("text", text("200 OK", "text")),
    ("", text("200 OK", "")),
    ((201, "text"), text("201 CREATED", "text")),
    ((201, {"X-A": "1"}, "text"), text("201 CREATED", "text", "X-A: 1")),
    (None, NOTHING),
    ((204, None), NOTHING),
    ((201, None), b"HTTP/1.1 201 CREATED\r\nContent-Length: 0\r\nDate: now\r\n\r\n"),
    ((201, [("Content-Type", "a/b")], None), answer("201 CREATED", "a/b", b"")),
    (b"\x00\xff", answer("200 OK", "application/octet-stream", b"\x00\xff")),
    ((206, {"Content-Type": "image/png"}, b"PNG"), answer("206 PARTIAL CONTENT", "image/png", b"PNG")),
    ({}, as_json("{}")),
    ([], as_json("[]")),
    ({"a": [1, None, "ø"]}, as_json('{"a":[1,null,"ø"]}')),
    ([{"day": date(2026, 1, 2)}], as_json('[{"day":"2026-01-02"}]')),
    ([datetime(2026, 1, 2, tzinfo=timezone.utc), Colour.RED], as_json('["2026-01-02T00:00:00Z","red"]')),
    ([UUID(int=1), Decimal("1.50")], as_json('["00000000-0000-0000-0000-000000000001","1.50"]')),
    (OrderedDict(b=1, a=2), as_json('{"b":1,"a":2}')),
    (Point(1, 2), as_json('{"x":1,"y":2}')),
    ([Point(1, 2)], as_json('[{"x":1,"y":2}]')),
    (Item("tea", Decimal("2.5")), as_json('{"name":"tea","price":"2.5"}')),
    ((201, {"id": 1}), as_json('{"id":1}', "201 CREATED")),
    ((201, {"Location": "/1"}, {"id": 1}), as_json('{"id":1}', "201 CREATED", "Location: /1")),
    ((200, {"Content-Type": "application/hal+json"}, {}), answer("200 OK", "application/hal+json", b"{}")),
    (Response("as it is", 418), text("418 I'M A TEAPOT", "as it is")),
]


class Service:
    """Returns them."""

    name = "service"

    @http("GET", "/<int:which>")
    def method(self, request, which):
        return RESULTS[which][0]


class Closing(WebTestCase):
    """A method that has the connection closed."""

    async def test_each_kind(self) -> None:
        """Whatever is returned with it, with a body or without: it is the last response, and it is closed once."""
        closed: list[str] = []

        class Service:
            name = "service"

            @http("GET", "/<int:code>/<kind>")
            def get(self, request, code, kind):
                headers = {"Connection": "close"}
                if kind == "value":
                    return code, headers, ""
                response = Response("", code, headers)
                response.call_on_close(lambda: closed.append(request.path))
                return response

        await self.serve(Service)
        for code in (200, 204, 205, 304, 404):
            for kind in ("value", "response"):
                peer = self.peer()
                self.assertIn(b" %d " % code, peer.get(f"/{code}/{kind}"))
                self.assertFalse(peer.transport.connected, (code, kind))
        self.assertEqual(closed, [f"/{code}/response" for code in (200, 204, 205, 304, 404)])


class Returns(WebTestCase):
    """Each kind."""

    async def test_each(self) -> None:
        """Every kind of result has its response, and HEAD the same head without the body."""
        await self.serve(Service)
        for which, (result, expected) in enumerate(RESULTS):
            peer = self.peer()
            for _ in range(2):  # the second time by a head that is kept
                self.assertEqual(peer.get(f"/{which}"), expected, result)
            head = expected.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
            self.assertEqual(peer.get(f"/{which}", method="HEAD"), head, result)

    async def test_kept_heads(self) -> None:
        """Heads that are kept are those of their own status and headers, and no number of them grows."""
        kept = plain_of((200, {"X": "1"}, "a"))
        assert kept is not None
        self.assertIs(kept.head, getattr(plain_of((200, {"X": "1"}, "b")), "head", None))
        different: list[Any] = [
            (200, {"X": "2"}, "a"), (200, {"Y": "1"}, "a"), (201, {"X": "1"}, "a"), (200, {"X": "1"}, b"a"),
            (200, {"X": "1"}, []), (200, {"X": "1", "Connection": "close"}, "a"), ("200 Fine", {"X": "1"}, "a"), "a",
        ]  # fmt: skip
        for result in different:
            plain = plain_of(result)
            assert plain is not None
            self.assertNotEqual(plain[:3], kept[:3], result)
            self.assertEqual(plain[:3], (response_of(result).status_code, *head_of(response_of(result))), result)
        # equal keys, and another text, or none at all
        odd: list[Any] = [{"X": 1}, {"X": True}, {1: "1"}, [("X", "1")], {"X": ["1"]}, {"X": "☃"}]
        for headers in odd:
            self.assertIsNone(plain_of((200, headers, "a")))
        for status in (True, 200.0, None, 204, 304, 99, "Fancy"):
            self.assertIsNone(plain_of((status, "a")))
        for number in range(returns.HEADS_MAX + 10):
            plain_of((200, {"X-Number": str(number)}, "a"))
        self.assertLessEqual(len(returns.heads), returns.HEADS_MAX)
        number = len(returns.heads)
        self.assertIsNotNone(plain_of((200, {"X-Long": "x" * returns.HEAD_MAX}, "a")))
        self.assertEqual(len(returns.heads), number)
