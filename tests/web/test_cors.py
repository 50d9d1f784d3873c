"""CORS: what browsers are told of pages of other origins, by configuration and by decorator."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.web.peer import WebTestCase, text
from txservices.exceptions import ConfigurationError
from txservices.web.cors import Cors
from txservices.web.handlers import http

SHOP = "https://shop.example"
WHOLE = Cors(
    [SHOP, "http://localhost:3000"],
    methods="PUT",
    headers="X-Token",
    credentials=True,
    max_age=5,
    expose=["X-A", "X-B"],
)


class Service:
    """URLs with settings of their own, and without."""

    name = "service"

    @http("GET, PUT", "/whole", cors=WHOLE)
    def whole(self, request):
        return "whole"

    @http("GET", "/all", cors=Cors("*"))
    def all(self, request):
        return {"a": 1}

    @http("GET,POST", "/configured")
    def configured(self, request):
        return ""

    @http("GET", "/never", cors=False)
    def never(self, request):
        return "never"

    @http("GET", "/bug", cors=WHOLE)
    def bug(self, request):
        raise ValueError

    @http("GET", "/own", cors=Cors("*"))
    def own(self, request):
        return 200, {"Access-Control-Allow-Origin": "https://mine.example", "Vary": "Origin, Accept"}, ""


def headers_of(answer: bytes) -> dict[str, str]:
    """The headers of CORS, without the words that all begin with, and Vary."""
    lines = answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    named = [line.split(": ", 1) for line in lines]
    ours = [
        (name.removeprefix("Access-Control-"), value) for name, value in named if name.startswith("Access-Control-")
    ]
    found = dict(ours)
    assert len(found) == len(ours), "a header is there twice"
    varies = [value for name, value in named if name == "Vary"]
    return {**found, "Vary": ", ".join(varies)} if varies else found


class Responses(WebTestCase):
    """Answers to requests that browsers send at once."""

    async def test_each(self) -> None:
        """An origin that may is named, another is not; the answer is the same, and depends on the origin."""
        await self.serve(Service)
        whole = {"Allow-Credentials": "true", "Expose-Headers": "X-A, X-B", "Vary": "Origin"}
        table: list[tuple[str, str | None, dict[str, str]]] = [
            ("/whole", SHOP, {"Allow-Origin": SHOP, **whole}),
            ("/whole", "http://localhost:3000", {"Allow-Origin": "http://localhost:3000", **whole}),
            ("/whole", "https://evil.example", {"Vary": "Origin"}),
            ("/whole", "https://shop.example.evil.example", {"Vary": "Origin"}),
            ("/whole", "http://shop.example", {"Vary": "Origin"}),
            ("/whole", "null", {"Vary": "Origin"}),
            ("/whole", None, {"Vary": "Origin"}),
            ("/bug", SHOP, {"Allow-Origin": SHOP, **whole}),
            ("/all", SHOP, {"Allow-Origin": "*"}),
            ("/all", None, {"Allow-Origin": "*"}),
            ("/own", SHOP, {"Allow-Origin": "https://mine.example", "Vary": "Origin, Accept"}),
            ("/configured", SHOP, {}),
            ("/nowhere", SHOP, {}),
        ]
        for path, origin, expected in table:
            for method in ("GET", "HEAD"):
                headers = [] if origin is None else [f"Origin: {origin}"]
                answer = self.peer().get(path, *headers, method=method)
                self.assertEqual(headers_of(answer), expected, (path, origin))
        self.assertTrue(self.peer().get("/whole", "Origin: https://evil.example").endswith(b"\r\n\r\nwhole"))
        self.flushLoggedErrors(ValueError)

    async def test_configured(self) -> None:
        """WEB_CORS is for every URL that has none of its own, also for those that nobody serves."""
        await self.serve(Service, WEB_CORS={"origins": [SHOP]})
        for path, expected in [
            ("/configured", {"Allow-Origin": SHOP, "Vary": "Origin"}),
            ("/nowhere", {"Allow-Origin": SHOP, "Vary": "Origin"}),
            ("/all", {"Allow-Origin": "*"}),
            ("/never", {}),
        ]:
            self.assertEqual(headers_of(self.peer().get(path, f"Origin: {SHOP}")), expected, path)
        self.assertIn(b" 405 ", self.peer().get("/configured", method="PUT"))

    async def test_option(self) -> None:
        """cors= takes a Cors, or False, and nothing else."""

        class Wrong:
            name = "wrong"

            @http("GET", "/", cors=True)
            def method(self, request):
                return ""

        await self.assertFailure(Deferred.fromCoroutine(self.serve(Wrong)), ConfigurationError)

    async def test_without(self) -> None:
        """Without any of it the answer is as ever, byte for byte."""
        await self.serve(Service)
        self.assertEqual(self.peer().get("/never", f"Origin: {SHOP}"), text("200 OK", "never"))


class Preflights(WebTestCase):
    """A browser asks before it sends."""

    def ask(self, path: str, origin: str, method: str | None) -> bytes:
        headers = [f"Origin: {origin}"]
        if method is not None:
            headers.append(f"Access-Control-Request-Method: {method}")
        return self.peer().get(path, *headers, method="OPTIONS")

    async def test_each(self) -> None:
        """An origin that may is told what; another, or one that asks for a method that isn't there, is not."""
        await self.serve(Service, WEB_CORS={"origins": SHOP, "max_age": 0})
        whole = {
            "Allow-Origin": SHOP,
            "Allow-Credentials": "true",
            "Allow-Methods": "PUT",
            "Allow-Headers": "X-Token",
            "Max-Age": "5",
            "Vary": "Origin",
        }
        configured = {
            "Allow-Origin": SHOP,
            "Allow-Methods": "GET, HEAD, POST",
            "Allow-Headers": "Authorization, Content-Type",
            "Max-Age": "0",
            "Vary": "Origin",
        }
        table: list[tuple[str, str, str | None, dict[str, str]]] = [
            ("/whole", SHOP, "PUT", whole),
            ("/whole", SHOP, "GET", whole),
            ("/whole", "https://evil.example", "PUT", {"Vary": "Origin"}),
            ("/whole", SHOP, "DELETE", {}),
            ("/whole", SHOP, None, {}),
            ("/configured", SHOP, "POST", configured),
            ("/never", SHOP, "GET", {}),
        ]
        for path, origin, method, expected in table:
            answer = self.ask(path, origin, method)
            self.assertTrue(answer.startswith(b"HTTP/1.1 204 NO CONTENT\r\nAllow: "), answer)
            self.assertEqual(headers_of(answer), expected, (path, origin, method))

    async def test_no_method_runs(self) -> None:
        """No method of the service runs for it, and a service's own method for OPTIONS is asked in its place."""

        class Own:
            name = "own"

            @http("OPTIONS", "/it")
            def it(self, request):
                return "mine"

            @http("GET", "/it", cors=Cors("*"))
            def get(self, request):
                raise ValueError

        await self.serve(Own)
        self.assertEqual(self.ask("/it", SHOP, "GET"), text("200 OK", "mine"))


class Mistakes(SynchronousTestCase):
    """Settings that can't be."""

    def test_refused(self) -> None:
        """The origin * with credentials, and what is no origin, are told at once."""
        for origins in (
            "shop.example",
            f"{SHOP}/",
            f"{SHOP}/path",
            "HTTPS://shop.example",
            "null",
            "",
            "https://*.a.b",
        ):
            self.assertRaises(ConfigurationError, Cors, origins)
        for starred in ("*", [SHOP, "*"]):
            arguments: dict[str, Any] = {"credentials": True}
            self.assertRaises(ConfigurationError, Cors, starred, **arguments)
        Cors(["http://[::1]:8000", "http://127.0.0.1", "chrome-extension://abcdef"])
