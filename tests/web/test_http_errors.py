"""Errors of methods that HTTP calls: their answers and their lines in the log, also for the worst of exceptions."""

from __future__ import annotations

import json
from random import Random
from unittest import mock

from werkzeug.wrappers import Response

from tests import hostile
from tests.web.peer import WebTestCase, text
from txservices.exceptions import BadRequest, safe_for_serialization
from txservices.web.handlers import HttpRequestHandler, http


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
