"""The http entrypoint: which responses a method can give, what its errors answer, and what a subclass may change."""

from __future__ import annotations

import json
from random import Random
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred
from werkzeug.wrappers import Response

from tests import hostile
from tests.web.peer import WebTestCase, text
from txservices.exceptions import BadRequest, safe_for_serialization
from txservices.extensions import DependencyProvider
from txservices.web.handlers import HttpRequestHandler, http
from txservices.web.server import WebServer

CLOSE = "Connection: close"


class Documented:
    """The services of nameko's documentation."""

    name = "http_service"

    @http("GET", "/get/<int:value>")
    def get_method(self, request, value):
        return json.dumps({"value": value})

    @http("POST", "/post")
    def do_post(self, request):
        return f"received: {request.get_data(as_text=True)}"

    @http("GET,PUT, PATCH", "/multi")
    def do_multi(self, request):
        return request.method

    @http("GET", "/privileged")
    def forbidden(self, request):
        return 403, "Forbidden"

    @http("GET", "/headers")
    def redirect(self, request):
        return 201, {"Location": "https://www.example.com/widget/1"}, ""

    @http("GET", "/pairs")
    def pairs(self, request):
        return 200, [("X-Twice", "1"), ("X-Twice", "2"), ("Content-Type", "text/csv")], "a,b"

    @http("GET", "/fancy")
    def fancy(self, request):
        return "201 Fancy", "body"

    @http("GET", "/custom")
    def custom(self, request):
        return Response(b"\x00\xff", mimetype="application/octet-stream")

    @http("GET", "/nothing")
    def nothing(self, request):
        return 204, ""


ANSWERS = [
    ("GET", "/get/42", "", text("200 OK", '{"value": 42}')),
    ("POST", "/post", "post bødy", text("200 OK", "received: post bødy")),
    ("GET", "/multi", "", text("200 OK", "GET")),
    ("PUT", "/multi", "", text("200 OK", "PUT")),
    ("PATCH", "/multi", "", text("200 OK", "PATCH")),
    ("HEAD", "/get/42", "", text("200 OK", "", length=13)),
    ("GET", "/privileged", "", text("403 FORBIDDEN", "Forbidden")),
    ("GET", "/headers", "", text("201 CREATED", "", "Location: https://www.example.com/widget/1")),
    ("GET", "/fancy", "", text("201 Fancy", "body")),
    (
        "GET",
        "/pairs",
        "",
        b"HTTP/1.1 200 OK\r\nX-Twice: 1\r\nX-Twice: 2\r\nContent-Type: text/csv\r\nContent-Length: 3\r\nDate: now\r\n"
        b"\r\na,b",
    ),
    (
        "GET",
        "/custom",
        "",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 2\r\nDate: now\r\n\r\n\x00\xff",
    ),
    ("GET", "/nothing", "", b"HTTP/1.1 204 NO CONTENT\r\nContent-Type: text/plain; charset=utf-8\r\nDate: now\r\n\r\n"),
]


class Answers(WebTestCase):
    """The four ways to give a response, byte for byte."""

    async def test_answers(self) -> None:
        """Each of the documentation's methods answers as nameko's, all over one connection."""
        await self.serve(Documented)
        peer = self.peer()
        for method, path, body, expected in ANSWERS:
            self.assertEqual(peer.get(path, method=method, body=body), expected, (method, path))

    async def test_several_methods(self) -> None:
        """A URL may take several methods, with spaces between or without."""

        class Service:
            name = "service"

            @http("GET, POST,PUT ", "/")
            def method(self, request):
                return request.method

        await self.serve(Service)
        for method in ("GET", "POST", "PUT"):
            self.assertTrue(self.peer().get("/", method=method).endswith(f"\r\n\r\n{method}".encode()), method)
        self.assertIn(b" 405 METHOD NOT ALLOWED", self.peer().get("/", method="DELETE"))

    async def test_bad_results(self) -> None:
        """A result that is no response answers 500 with a call id, and the log says what it was."""
        results: list[Any] = [
            object(),
            5,
            {1, 2},
            {"a": object()},
            (200,),
            (200, {}, "", ""),
            (200, 5),
            ("Fancy", "x"),
            (99, ""),
            (700, ""),
        ]
        results += ["\ud800", (200, {"X-Snow": "☃"}, "")]

        class Service:
            name = "service"

            @http("GET", "/<int:index>")
            def method(self, request, index):
                return results[index]

        await self.serve(Service)
        peer = self.peer()
        for index in range(len(results)):
            answer = peer.get(f"/{index}")
            self.assertRegex(answer, rb"^HTTP/1.1 500 INTERNAL SERVER ERROR\r\n", results[index])
            self.assertRegex(
                answer, rb"\r\n\r\nError: internal error, the log has it as call service.method.[0-9a-f-]{36}\n$"
            )
        self.flushLoggedErrors(ValueError)


class Errors(WebTestCase):
    """The response to an exception."""

    async def test_unexpected(self) -> None:
        """An unexpected exception answers a call id; its text is in the log, under that id, and nowhere else."""

        class Service:
            name = "service"

            @http("GET", "/")
            def method(self, request):
                raise ValueError("s3cret")

        await self.serve(Service)
        with mock.patch("txservices.web.handlers.log") as log:
            answer = self.peer().get("/")
        self.assertNotIn(b"s3cret", answer)
        self.assertIn(b"HTTP/1.1 500 INTERNAL SERVER ERROR\r\n", answer)
        logged = log.error.call_args.kwargs
        self.assertIn(f"the log has it as call {logged['call_id']}\n".encode(), answer)
        self.assertEqual(str(logged["error"]), "s3cret")
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    async def test_expected(self) -> None:
        """Exceptions that are expected, and BadRequest, answer 400 with their name and text."""

        class Service:
            name = "service"

            @http("GET", "/expected", expected_exceptions=[KeyError])
            def expected(self, request):
                raise KeyError("foo")

            @http("GET", "/bad")
            def bad(self, request):
                raise BadRequest("no foo")

        await self.serve(Service)
        peer = self.peer()
        self.assertEqual(peer.get("/expected"), text("400 BAD REQUEST", "Error: KeyError: 'foo'\n"))
        self.assertEqual(peer.get("/bad"), text("400 BAD REQUEST", "Error: BadRequest: no foo\n"))
        self.flushLoggedErrors(BadRequest)

    async def test_signature(self) -> None:
        """URL variables that the method does not take answer 400, and no worker runs."""
        made = []

        class Service:
            name = "service"

            def __init__(self) -> None:
                made.append(self)

            @http("GET", "/<foo>")
            def method(self, request, bar):
                return ""

        await self.serve(Service)
        answer = self.peer().get("/x")
        self.assertTrue(answer.startswith(b"HTTP/1.1 400 BAD REQUEST\r\n"))
        self.assertIn(b"\r\n\r\nError: IncorrectSignature: method() ", answer)
        self.assertEqual(made, [])

    async def test_documented_override(self) -> None:
        """response_from_exception overridden, as the documentation does it, answers JSON."""

        class InvalidArgumentsError(Exception):
            pass

        class HttpEntrypoint(HttpRequestHandler):
            def response_from_exception(self, exc):
                if isinstance(exc, InvalidArgumentsError):
                    body = json.dumps({"error": "INVALID_ARGUMENTS", "message": safe_for_serialization(exc)})
                    return Response(body, status=400, mimetype="application/json")
                return HttpRequestHandler.response_from_exception(self, exc)

        class Service:
            name = "service"

            @HttpEntrypoint.decorator("GET", "/custom_exception")
            def custom_exception(self, request):
                raise InvalidArgumentsError("Argument `foo` is required.")

            @HttpEntrypoint.decorator("GET", "/other")
            def other(self, request):
                raise ValueError("s3cret")

        await self.serve(Service)
        peer = self.peer()
        body = b'{"error": "INVALID_ARGUMENTS", "message": "Argument `foo` is required."}'
        self.assertEqual(
            peer.get("/custom_exception"),
            b"HTTP/1.1 400 BAD REQUEST\r\nContent-Type: application/json\r\nContent-Length: 72\r\nDate: now\r\n\r\n"
            + body,
        )
        self.assertIn(b"the log has it as call service.other.", peer.get("/other"))
        self.flushLoggedErrors(InvalidArgumentsError, ValueError)

    async def test_override_that_raises(self) -> None:
        """An override that raises answers 500, and the server goes on."""

        class Broken(HttpRequestHandler):
            def response_from_exception(self, exc):
                raise RuntimeError("in the override")

            def handle_request(self, request):
                if request.args:
                    raise RuntimeError("before")
                return super().handle_request(request)

        class Service:
            name = "service"

            @Broken.decorator("GET", "/")
            def method(self, request):
                raise ValueError("s3cret")

        await self.serve(Service)
        peer = self.peer()
        for path in ("/", "/?x=1"):
            answer = peer.get(path)
            self.assertTrue(answer.startswith(b"HTTP/1.1 500 "), path)
            self.assertNotIn(b"override", answer)
        self.flushLoggedErrors(RuntimeError, ValueError)


class Overrides(WebTestCase):
    """The steps that a subclass may change."""

    async def test_each_step(self) -> None:
        """URL rule, arguments, response and context data are the subclass's."""

        class Server(WebServer):
            def context_data_from_headers(self, request):
                return {"language": request.headers["Accept-Language"]}

        class Handler(HttpRequestHandler):
            server = Server()

            def get_url_rule(self):
                rule = super().get_url_rule()
                return type(rule)("/v1" + self.url, methods=rule.methods)

            def get_entrypoint_parameters(self, request):
                return (request.args["a"],), request.path_values

            def response_from_result(self, result):
                return Response(json.dumps(result), mimetype="application/json")

            def handle_request(self, request):
                response = super().handle_request(request)
                response.headers["X-Handled"] = "yes"
                return response

        class Language(DependencyProvider):
            def get_dependency(self, worker_ctx):
                return worker_ctx.data.get("language")

        class Service:
            name = "service"
            language = Language()

            @Handler.decorator("GET", "/<b>")
            def method(self, a, b):
                return [a, b, self.language]

        await self.serve(Service)
        answer = self.peer().get("/v1/two?a=one", "Accept-Language: fr")
        self.assertIn(b"X-Handled: yes\r\n", answer)
        self.assertIn(b"application/json\r\n", answer)
        self.assertTrue(answer.endswith(b'["one", "two", "fr"]'))


class Hostile(WebTestCase):
    """What nobody expects."""

    async def test_exceptions(self) -> None:
        """Whatever a method raises, its client gets a 500 or a 400, and the next one an answer."""
        errors = [hostile.exception(Random(seed)) for seed in range(100)]

        class Service:
            name = "service"

            @http("GET", "/<int:number>", expected_exceptions=KeyError)
            def method(self, request, number):
                raise errors[number]

        await self.serve(Service)
        for number in range(len(errors)):
            self.assertRegex(self.peer().get(f"/{number}"), rb"HTTP/1.1 (400|500) ")
        self.flushLoggedErrors()

    async def test_steps(self) -> None:
        """Whatever an overridden step raises, its client gets a 500."""
        steps = ["get_entrypoint_parameters", "check_signature", "response_from_result", "response_from_exception"]
        steps += ["handle_request"]

        for step in steps:
            for error in hostile.RAISED:
                handler = type("Handler", (HttpRequestHandler,), {step: hostile.raising(error)})

                class Service:
                    name = "service"

                    @handler.decorator("GET", "/")
                    def method(self, request, step=step):
                        if step == "response_from_exception":
                            raise ValueError
                        return "fine"

                runner = await self.serve(Service)
                self.assertIn(b"HTTP/1.1 500 ", self.peer().get("/"), (step, error))
                await runner.stop()
        self.flushLoggedErrors()


class Asynchronous(WebTestCase):
    """Methods that wait."""

    async def test_waits(self) -> None:
        """The response goes out when the method's Deferred or coroutine has a result; requests behind it wait."""
        results: dict[str, Deferred[Any]] = {"a": Deferred(), "b": Deferred(), "c": Deferred()}

        class Service:
            name = "service"

            @http("GET", "/<key>")
            async def method(self, request, key):
                return await results[key]

        await self.serve(Service)
        peer = self.peer()
        self.assertEqual(peer.get("/a") + peer.get("/b"), b"")
        results["b"].callback("second")
        self.assertEqual(peer.received(), b"")
        results["a"].callback((201, "first"))
        self.assertEqual(peer.received(), text("201 CREATED", "first") + text("200 OK", "second"))
        peer.get("/c")
        results["c"].errback(ValueError("s3cret"))
        self.assertIn(b"HTTP/1.1 500 ", peer.received())
        self.flushLoggedErrors(ValueError)

    async def test_client_leaves(self) -> None:
        """A client that leaves ends nothing: the worker goes on, can read the body, and nothing is logged."""
        going_on: Deferred[None] = Deferred()
        done = []

        class Service:
            name = "service"

            @http("POST", "/")
            async def method(self, request):
                await going_on
                done.append(request.get_data(as_text=True))
                return "too late"

        await self.serve(Service)
        peer = self.peer()
        peer.get("/", method="POST", body="the body")
        peer.leave()
        going_on.callback(None)
        self.assertEqual(done, ["the body"])
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_max_workers(self) -> None:
        """Requests beyond WEB_MAX_WORKERS wait for their turn and are answered."""
        results: list[Deferred[str]] = []

        class Service:
            name = "service"

            @http("GET", "/")
            def method(self, request):
                results.append(Deferred())
                return results[-1]

        await self.serve(Service, WEB_MAX_WORKERS=1)
        first, second = self.peer(), self.peer()
        first.get("/")
        second.get("/")
        self.assertEqual(len(results), 1)
        results[0].callback("one")
        self.assertEqual(first.received(), text("200 OK", "one"))
        results[1].callback("two")
        self.assertEqual(second.received(), text("200 OK", "two"))

    async def test_leaves_before_its_turn(self) -> None:
        """A request whose client has left before its worker could begin is dropped, and so is its body."""
        results: list[Deferred[str]] = []
        asked: list[str] = []

        class Service:
            name = "service"

            @http("POST", "/<name>")
            def method(self, request, name):
                asked.append(name)
                results.append(Deferred())
                return results[-1]

        await self.serve(Service, WEB_MAX_WORKERS=1)
        (container,) = self.runner.containers
        peers = {name: self.peer() for name in ("first", "left", "second", "third")}
        for name, peer in peers.items():
            peer.get(f"/{name}", method="POST", body="the body")
        (handler,) = container.entrypoints
        self.assertEqual((asked, len(handler.server.pending)), (["first"], 4))
        peers["left"].leave()
        self.assertEqual(len(handler.server.pending), 3)
        for number, name in enumerate(("first", "second", "third")):
            results[number].callback(name)
            self.assertEqual(peers[name].received(), text("200 OK", name))
        self.assertEqual(asked, ["first", "second", "third"])
        self.assertEqual(len(handler.server.pending), 0)
