"""The http entrypoint: which responses a method can give, and what a subclass may change."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from werkzeug.wrappers import Response

from tests.web.peer import WebTestCase, text
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
