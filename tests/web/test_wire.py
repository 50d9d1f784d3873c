"""Answers over a socket, one after the other on a connection: where each ends, and that each has one Date."""

from __future__ import annotations

import os
from email.message import Message
from email.parser import BytesParser
from typing import Any

from twisted.trial.unittest import TestCase
from werkzeug.utils import send_file
from werkzeug.wrappers import Response

from tests.web.peer import converse
from txservices.runners import run_services
from txservices.web.handlers import http
from txservices.web.static import Static

LATER = "Wed, 01 Jan 2098 00:00:00 GMT"
RESULTS: list[Any] = [
    (205, ""),
    (205, None),
    (205, "dropped"),
    (205, {"X": "y"}, {"a": "dict that is dropped"}),
    Response(iter([b"dropped"]), 205),
    Response(status=205),
    (204, ""),
    None,
    (304, "dropped"),
    (200, {"Date": "Thu, 01 Jan 1970 00:00:00 GMT"}, "own date"),
    (200, {"date": "x", "Content-Length": "3"}, "own length"),
]
BODIES = {9: b"own date", 10: b"own length"}


class Service:
    name = "service"

    @http("GET", "/result/<int:which>")
    def result(self, request: Any, which: int) -> Any:
        return RESULTS[which]

    @http("GET", "/file")
    def file(self, request: Any) -> Response:
        return send_file(__file__, request.environ, conditional=True)

    @http("GET", "/never")
    def never(self, request: Any) -> str:
        return "the end"


def read(data: bytes, methods: list[str]) -> list[tuple[int, Message, bytes]]:
    """The answers in what a connection has sent, as RFC 9112, 6.3, tells where each ends."""
    found = []
    for method in methods:
        head, _, data = data.partition(b"\r\n\r\n")
        line, _, lines = head.partition(b"\r\n")
        status, headers = int(line.split()[1]), BytesParser().parsebytes(lines + b"\r\n\r\n")
        size = 0 if method == "HEAD" or status in (204, 304) else int(headers["Content-Length"])
        found.append((status, headers, data[:size]))
        data = data[size:]
    assert data == b"", data
    return found


class OverSockets(TestCase):
    """A connection that is kept."""

    async def ask(self, service: type, *requests: tuple[str, str, str]) -> list[tuple[int, Message, bytes]]:
        """The answers to requests that are sent at once: each is a method, a path and a header."""
        asked = [*requests, ("GET", "/never", "Connection: close")]
        lines = [f"{method} {path} HTTP/1.1\r\nHost: h\r\n{header or 'X: y'}\r\n\r\n" for method, path, header in asked]
        async with run_services({"WEB_SERVER_ADDRESS": "127.0.0.1:0"}, service) as runner:
            port = runner.containers[0].entrypoints[0].server.port
            answers = read(await converse(port, "".join(lines).encode()), [method for method, _, _ in asked])
        for status, headers, _ in answers:
            self.assertEqual(len(headers.get_all("Date") or ()), 1, status)
        self.assertEqual(answers[-1][2], b"the end")
        return answers[:-1]

    async def test_without_a_body(self) -> None:
        """205 has no body and says so, whatever the method gave; 204 and 304 say no length. The next one is read."""
        answers = await self.ask(Service, *(("GET", f"/result/{which}", "") for which in range(len(RESULTS))))
        statuses = [205] * 6 + [204, 204, 304, 200, 200]
        self.assertEqual([status for status, _, _ in answers], statuses)
        for which, (status, headers, body) in enumerate(answers):
            self.assertEqual(body, BODIES.get(which, b""))
            self.assertEqual(headers["Transfer-Encoding"], None)
            self.assertEqual(headers["Content-Length"], None if status in (204, 304) else str(len(body)))
            self.assertNotIn("1970", headers["Date"])

    async def test_files(self) -> None:
        """What werkzeug's ``send_file(conditional=True)`` and ``Static`` answer has one Date, whatever is asked for."""

        class Files(Service):
            assets = Static("/assets", os.path.dirname(__file__))

        path = f"/assets/{os.path.basename(__file__)}"
        with open(__file__, "rb") as file:
            whole = file.read()
        for url in ("/file", path):
            answers = await self.ask(
                Files,
                ("GET", url, ""),
                ("HEAD", url, ""),
                ("GET", url, "Range: bytes=0-9"),
                ("GET", url, "Range: bytes=999999-"),
                ("GET", url, f"If-Modified-Since: {LATER}"),
                ("GET", url, "If-None-Match: *"),
            )
            expected = [(200, whole), (200, b""), (206, whole[:10]), (416, None), (304, b""), (304, b"")]
            for (status, _, body), (wanted, content) in zip(answers, expected, strict=True):
                self.assertEqual(status, wanted, url)
                self.assertTrue(content is None or body == content, (url, status))
