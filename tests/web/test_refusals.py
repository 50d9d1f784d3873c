"""The form of every error: a line of text from us, a page from werkzeug, and problem details for all if asked for."""

from __future__ import annotations

import json
from typing import Any

from werkzeug.exceptions import abort

from tests.web.peer import Peer, WebTestCase
from txservices.web.auth import BasicAuth
from txservices.web.forms import FIELDS_MAX, IN_THREAD
from txservices.web.handlers import http

TEXT, PAGE = "text/plain; charset=utf-8", "text/html; charset=utf-8"
PROBLEM = "application/problem+json"

STATUSES = (400, 401, 403, 404, 405, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 422, 428, 429, 431,
            500, 501, 502, 503, 504, 505)  # fmt: skip


class Service:
    """Refuses in each way that there is."""

    name = "service"

    @http("GET", "/abort/<int:status>")
    def aborts(self, request, status):
        abort(status)

    @http("POST", "/length")
    def length(self, request):
        return str(len(request.get_data()))

    @http("POST", "/short", body_max=5)
    def short(self, request):
        return ""

    @http("POST", "/stream", stream=True)
    async def stream(self, request):
        async for _ in request.stream:
            pass

    @http("POST", "/form")
    def form(self, request):
        return request.form["missing"]

    @http("POST", "/json")
    def json(self, request):
        return request.get_json()

    @http("GET", "/bug")
    def bug(self, request):
        raise ValueError("no")

    @http("GET", "/bad")
    def bad(self, request):
        return 200, {"X": "\n"}, ""

    @http("GET", "/expected", expected_exceptions=KeyError)
    def expected(self, request):
        raise KeyError("k")

    @http("GET", "/auth", auth=BasicAuth({}))
    def auth(self, request):
        return ""


def post(path: str, *headers: str, body: str = "") -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: h", *headers, "", body]).encode()


def get(path: str, *headers: str, line: str = "GET {} HTTP/1.1") -> bytes:
    return "\r\n".join([line.format(path), "Host: h", *headers, "", ""]).encode()


LONG = "x" * 17_000
CHUNKED, LENGTH = "Transfer-Encoding: chunked", "Content-Length: {}"
FORM = "Content-Type: application/x-www-form-urlencoded"
FIELDS = "&" * FIELDS_MAX * IN_THREAD

# What is refused before a method begins, while it reads, and after it: the bytes, the status, the type without problems
EARLY: list[tuple[bytes, int, str]] = [
    (b"\x16\x03\x01", 400, TEXT),
    (b"GET / HTTP/1.1\r\n\r\n", 400, TEXT),
    (get("/bug", "A : b"), 400, TEXT),
    (get("/bug", "Host: i"), 400, TEXT),
    (get("/%ff"), 400, TEXT),
    (get("bug"), 400, TEXT),
    (get("/auth"), 401, TEXT),
    (get("/nowhere"), 404, PAGE),
    (get("/bug", line="BREW {} HTTP/1.1"), 405, PAGE),
    (post("/length", LENGTH.format(100_001)), 413, TEXT),
    (post("/stream", LENGTH.format(100_001)), 413, TEXT),
    (post("/short", LENGTH.format(6)), 413, TEXT),
    (post("/nowhere", LENGTH.format(100_001)), 413, TEXT),
    (get(f"/{LONG}"), 414, TEXT),
    (get("/bug", f"A: {LONG}"), 431, TEXT),
    (post("/length", "Transfer-Encoding: x"), 501, TEXT),
    (get("/bug", line="GET {} HTTP/2.0"), 505, TEXT),
]
LATE: list[tuple[bytes, int, str]] = [
    (post("/length", CHUNKED, body="x\r\n"), 400, TEXT),
    (post("/stream", CHUNKED, body="x\r\n"), 400, TEXT),
    (post("/length", CHUNKED, body=f"186a1\r\n{'x' * 100_001}\r\n"), 413, TEXT),
    (post("/stream", CHUNKED, body=f"186a1\r\n{'x' * 100_001}\r\n"), 413, TEXT),
    (post("/short", CHUNKED, body="6\r\nsixsix\r\n"), 413, TEXT),
    (post("/form", FORM, LENGTH.format(len(FIELDS)), body=FIELDS), 413, TEXT),
    (post("/form", FORM, LENGTH.format(3), body="a=b"), 400, PAGE),
    (post("/json", LENGTH.format(2), body="{}"), 415, PAGE),
    (post("/json", "Content-Type: application/json", LENGTH.format(1), body="{"), 400, PAGE),
    (get("/expected"), 400, TEXT),
    (get("/bug"), 500, TEXT),
    (get("/bad"), 500, TEXT),
]


class Forms(WebTestCase):
    """Each error in its form."""

    def form_of(self, answer: bytes, status: int) -> str:
        """The content type of an answer, which is complete and has that status."""
        head, _, body = answer.partition(b"\r\n\r\n")
        line, *lines = head.decode().split("\r\n")
        headers = dict(each.split(": ", 1) for each in lines)
        self.assertEqual(int(line.split()[1]), status, answer[:200])
        self.assertEqual(len(lines), len(headers), lines)
        self.assertEqual(int(headers["Content-Length"]), len(body), answer[:200])
        kind = headers["Content-Type"]
        if kind == PROBLEM:
            self.assertEqual(json.loads(body)["status"], status)
        elif kind == TEXT:
            self.assertRegex(body.decode(), r"\AError: .+\n\Z")
        return kind

    async def check(self, rows: list[tuple[bytes, int, str]]) -> None:
        for as_problem in (False, True):
            await self.serve(Service, WEB_PROBLEM_DETAILS=as_problem, WEB_BODY_MAX=100_000)
            for data, status, kind in rows:
                with self.subTest(data=data[:60], as_problem=as_problem):
                    self.assertEqual(self.form_of(self.peer().send(data), status), PROBLEM if as_problem else kind)
            await self.runner.stop()
        self.flushLoggedErrors()

    async def test_early(self) -> None:
        """What is refused before a method begins."""
        await self.check(EARLY)

    async def test_late(self) -> None:
        """What is refused while the body comes, or by the method; of a 413 it is the same however it was found."""
        await self.check(LATE)

    async def test_aborted(self) -> None:
        """A status that a method aborts with has werkzeug's page."""
        await self.check([(get(f"/abort/{status}"), status, PAGE) for status in STATUSES])

    async def test_half_closed(self) -> None:
        """A client that ends its side in the middle of a body."""
        for as_problem in (False, True):
            await self.serve(Service, WEB_PROBLEM_DETAILS=as_problem)
            for path in ("/length", "/stream"):
                peer: Peer = self.peer()
                peer.send(post(path, LENGTH.format(5), body="ab"))
                self.assertEqual(self.form_of(peer.end(), 400), PROBLEM if as_problem else TEXT, path)
            await self.runner.stop()

    async def test_no_room(self) -> None:
        """503: all connections are taken, or the service is stopping."""

        class Other:
            name = "other"

            @http("GET", "/other")
            def method(self, request: Any) -> str:
                return ""

        for as_problem in (False, True):
            runner = await self.serve(Service, Other, WEB_PROBLEM_DETAILS=as_problem, WEB_CONNECTIONS_MAX=1)
            await runner.containers[1].stop()
            peer = self.peer()
            kind = PROBLEM if as_problem else TEXT
            self.assertEqual(self.form_of(peer.send(get("/other")), 503), kind)
            self.peer()
            self.assertEqual(self.form_of(self.peer().received(), 503), kind)
            await self.runner.stop()
