"""Errors as responses: those of werkzeug's exceptions, and all of them as problem details."""

from __future__ import annotations

import json
from typing import Any

from twisted.logger import LogLevel, capturedLogs
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import (
    HTTPException,
    NotFound,
    RequestedRangeNotSatisfiable,
    ServiceUnavailable,
    Unauthorized,
    abort,
)
from werkzeug.wrappers import Response

from tests.web.peer import WebTestCase, text
from txservices.exceptions import BadRequest
from txservices.observers import Observer, observers
from txservices.web.handlers import http


class Payment(HTTPException):
    """A user's own."""

    code = 402
    description = "pay first"


class Odd(HTTPException):
    """One without a status."""


class Hostile(HTTPException):
    """One that can't be asked."""

    @property
    def code(self) -> int:
        raise ValueError("s3cret")


RAISED: list[tuple[Any, int]] = [
    (lambda: abort(404), 404),
    (lambda: abort(403, "not yours"), 403),
    (lambda: abort(418), 418),
    (Payment, 402),
    (RequestedRangeNotSatisfiable, 416),
    (lambda: Unauthorized(www_authenticate=WWWAuthenticate("basic", {"realm": "x"})), 401),
    (lambda: abort(Response("ready", 409)), 409),
    (lambda: BadRequest("ours"), 400),
    (lambda: abort(503), 503),
    (lambda: ServiceUnavailable(retry_after=7), 503),
    (Odd, 500),
    (Hostile, 500),
]


class Service:
    """Raises them."""

    name = "service"

    @http("GET", "/raised/<int:which>")
    def raised(self, request, which):
        raise RAISED[which][0]()

    @http("GET", "/blocking", blocking=False)
    async def waits(self, request):
        abort(410)

    @http("POST", "/json")
    def json(self, request):
        return request.get_json()

    @http("POST", "/form", expected_exceptions=())
    def form(self, request):
        return request.form["missing"]

    @http("GET", "/expected", expected_exceptions=NotFound)
    def expected(self, request):
        abort(404)

    @http("GET", "/key", expected_exceptions=KeyError)
    def key(self, request):
        raise KeyError("foo")

    @http("GET", "/bug")
    def bug(self, request):
        raise ValueError("s3cret")

    @http("GET", "/slash/")
    def slash(self, request):
        return ""


def status_of(answer: bytes) -> int:
    return int(answer.split()[1])


class Exceptions(WebTestCase):
    """werkzeug's exceptions."""

    async def test_status(self) -> None:
        """Each keeps its status; a client's fault is not in the log, a fault of ours is, as an error."""
        await self.serve(Service)
        for which, (_, status) in enumerate(RAISED):
            with capturedLogs() as logged:
                answer = self.peer().get(f"/raised/{which}")
            self.assertEqual(status_of(answer), status, which)
            self.assertNotIn(b"s3cret", answer)
            errors = [each for each in logged if each["log_level"] >= LogLevel.warn]
            self.assertEqual(bool(errors), status >= 500, (which, errors))
        self.flushLoggedErrors()
        self.assertEqual(status_of(self.peer().get("/blocking")), 410)

    async def test_head_and_body(self) -> None:
        """The headers and the body of an exception are kept."""
        await self.serve(Service)
        get = self.peer().get
        self.assertIn(b"<p>not yours</p>", get("/raised/1"))
        self.assertIn(b"\r\nWWW-Authenticate: Basic realm=x\r\n", get("/raised/5"))
        self.assertEqual(get("/raised/6"), text("409 CONFLICT", "ready"))
        self.assertEqual(get("/raised/7"), text("400 BAD REQUEST", "Error: BadRequest: ours\n"))
        self.assertIn(b"\r\nRetry-After: 7\r\n", get("/raised/9"))
        self.flushLoggedErrors()

    async def test_requests(self) -> None:
        """What a request lacks or has wrong, when a method asks for it, is 400 or 415, and not in the log."""
        await self.serve(Service)
        with capturedLogs() as logged:
            for path, body, kind, status in [
                ("/json", "{", "application/json", 400),
                ("/json", "[1,2", "application/json", 400),
                ("/json", "{}", "text/plain", 415),
                ("/json", "\x80", "application/json", 400),
                ("/form", "a=b", "application/x-www-form-urlencoded", 400),
                ("/json", '{"a": 1}', "application/json", 200),
            ]:
                answer = self.peer().get(path, f"Content-Type: {kind}", method="POST", body=body)
                self.assertEqual(status_of(answer), status, (path, body))
        self.assertEqual([each for each in logged if each["log_level"] >= LogLevel.warn], [])

    async def test_expected(self) -> None:
        """One of expected_exceptions is 400 with name and text, as in nameko."""
        await self.serve(Service)
        answer = self.peer().get("/expected")
        self.assertTrue(answer.startswith(b"HTTP/1.1 400 BAD REQUEST\r\n"))
        self.assertIn(b"\r\n\r\nError: NotFound: 404 Not Found: ", answer)

    async def test_told(self) -> None:
        """An observer is told that the service did nothing wrong."""
        outcomes = []

        class Noting(Observer):
            def worker_ended(self, worker, outcome, waited, seconds, error):
                outcomes.append(outcome)

        await self.serve(Service)
        noting = Noting({})
        observers.add(noting)
        self.addCleanup(observers.remove, noting)
        for path in ("/raised/0", "/raised/7", "/raised/8", "/bug"):
            self.peer().get(path)
        self.assertEqual(outcomes, ["expected", "expected", "error", "error"])
        self.flushLoggedErrors()


class Problems(WebTestCase):
    """WEB_PROBLEM_DETAILS."""

    def problem(self, answer: bytes) -> dict[str, Any]:
        head, _, body = answer.partition(b"\r\n\r\n")
        self.assertIn(b"\r\nContent-Type: application/problem+json\r\n", head)
        self.assertEqual(head.count(b"Content-Type"), 1)
        details: dict[str, Any] = json.loads(body)
        self.assertEqual(details["status"], status_of(answer))
        self.assertEqual(details["type"], "about:blank")
        return details

    async def test_each(self) -> None:
        """Each error is a problem with its status, and keeps its headers."""
        await self.serve(Service, WEB_PROBLEM_DETAILS=True)
        peer = self.peer()
        for method, path, title, detail in [
            ("GET", "/nowhere", "Not Found", "The requested URL was not found"),
            ("DELETE", "/bug", "Method Not Allowed", "The method is not allowed"),
            ("GET", "/raised/1", "Forbidden", "not yours"),
            ("GET", "/raised/3", "Payment Required", "pay first"),
            ("GET", "/raised/7", "Bad Request", "BadRequest: ours"),
            ("GET", "/key", "Bad Request", "KeyError: 'foo'"),
            ("GET", "/bug", "Internal Server Error", "internal error, the log has it as call service.bug."),
            ("GET", "/%ff", "Bad Request", "The URL is not UTF-8."),
        ]:
            details = self.problem(peer.get(path, method=method))
            self.assertEqual(details["title"], title)
            self.assertTrue(details["detail"].startswith(detail), details)
        self.assertIn(b"\r\nAllow: GET, HEAD\r\n", peer.get("/bug", method="PUT"))
        self.assertIn(b"\r\nWWW-Authenticate: Basic", peer.get("/raised/5"))
        self.flushLoggedErrors(ValueError)

    async def test_refused(self) -> None:
        """So is the answer to what is no request, or is too long, before any method is found."""
        await self.serve(Service, WEB_PROBLEM_DETAILS=True, WEB_BODY_MAX=10)
        for data, title in [
            (b"POST /json HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\n", "Request Entity Too Large"),
            (b"GET / HTTP/1.1\r\n\r\n", "Bad Request"),
            (b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 20_000, "Request Header Fields Too Large"),
        ]:
            details = self.problem(self.peer().send(data))
            self.assertIn(details["title"], (title, "Content Too Large"))  # its name since Python 3.13

    async def test_no_problems(self) -> None:
        """A ready response, a redirect and an answer to OPTIONS stay as they are."""
        await self.serve(Service, WEB_PROBLEM_DETAILS=True)
        peer = self.peer()
        self.assertEqual(peer.get("/raised/6"), text("409 CONFLICT", "ready"))
        self.assertIn(b" 308 ", peer.get("/slash"))
        self.assertIn(b" 204 ", peer.get("/bug", method="OPTIONS"))

    async def test_stopped(self) -> None:
        """A service that has stopped says so in a problem."""

        class Other:
            name = "other"

            @http("GET", "/other")
            def method(self, request):
                return ""

        runner = await self.serve(Service, Other, WEB_PROBLEM_DETAILS=True)
        await runner.containers[1].stop()
        answer = self.peer().get("/other")
        self.assertEqual(self.problem(answer)["detail"], "the service is stopping, try again")
        self.assertIn(b"\r\nRetry-After: 5\r\n", answer)
