"""Which handler a request goes to, and what is answered if there is none."""

from __future__ import annotations

from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred
from werkzeug.routing import BaseConverter, Map

from tests.web.peer import Service, WebTestCase, text
from txservices.exceptions import ConfigurationError
from txservices.web import router
from txservices.web.handlers import http


class Urls(WebTestCase):
    """Which URL is whose, and the pages for those that are nobody's."""

    async def test_pages(self) -> None:
        """No match is 404, no such method 405 with Allow, a missing slash 308 to an absolute URL; all HTML."""
        await self.serve(Service)
        peer = self.peer()
        html = b"Content-Type: text/html; charset=utf-8\r\n"
        for path in ("/nowhere", "/number/x", "/number/-1", "/number/" + "9" * 5000):
            answer = peer.get(path)
            self.assertTrue(answer.startswith(b"HTTP/1.1 404 NOT FOUND\r\n" + html + b"Content-Length: 207\r\n"), path)
        for method in ("PUT", "DELETE"):
            answer = peer.get("/number/1", method=method)
            head = b"HTTP/1.1 405 METHOD NOT ALLOWED\r\n" + html + b"Allow: GET, HEAD\r\nContent-Length: 153\r\n"
            self.assertTrue(answer.startswith(head))
        answer = peer.get("/slash?a=%20b")
        self.assertTrue(answer.startswith(b"HTTP/1.1 308 PERMANENT REDIRECT\r\n" + html))
        self.assertIn(b"\r\nLocation: http://here:8000/slash/?a=%20b\r\n", answer)

    async def test_options(self) -> None:
        """OPTIONS answers the methods of a URL, unless the service has a method for it."""

        class Other:
            name = "other"

            @http("OPTIONS", "/own")
            def own(self, request):
                return "my own"

        await self.serve(Service, Other)
        peer = self.peer()
        self.assertEqual(
            peer.get("/number/1", method="OPTIONS"),
            b"HTTP/1.1 204 NO CONTENT\r\nAllow: GET, HEAD, OPTIONS\r\nDate: now\r\n\r\n",
        )
        self.assertIn(b"\r\nAllow: OPTIONS, POST\r\n", peer.get("/length", method="OPTIONS"))
        self.assertEqual(peer.get("/own", method="OPTIONS"), text("200 OK", "my own"))
        self.assertIn(b" 404 ", peer.get("/nowhere", method="OPTIONS"))

    async def test_host_untrusted(self) -> None:
        """A Host that can't be one is not written into a redirect: our own address is."""
        await self.serve(Service)
        for host in ("Host: here:80000", "Host: a,b", "X: no host"):
            answer = self.peer().send(f"GET /slash HTTP/1.0\r\n{host}\r\n\r\n".encode())
            self.assertIn(b"\r\nLocation: http://10.0.0.1:12345/slash/\r\n", answer)

    async def test_not_utf8(self) -> None:
        """A URL that is not UTF-8, or has no path, answers 400, a query too; one in the form for proxies is served."""
        await self.serve(Service)
        peer = self.peer()
        for path in ("/%ff", "/number/%c3", "*", "number/1", "ftp://here/number/1"):
            self.assertTrue(peer.get(path).startswith(b"HTTP/1.1 400 BAD REQUEST\r\n"), path)
        query = peer.send(b"GET /number/7?x=\xa8 HTTP/1.1\r\nHost: here\r\n\r\n")
        self.assertTrue(query.startswith(b"HTTP/1.1 400 BAD REQUEST\r\n"))
        self.assertEqual(peer.get("http://here:8000/number/7?x"), text("200 OK", "7"))

    async def test_two_services(self) -> None:
        """All services of a process share the address, methods of one name and all."""

        class Other:
            name = "other"

            @http("GET", "/other/<int:value>")
            def number(self, request, value):
                return f"other {value}"

            @http("POST", "/number/<int:value>")
            def post(self, request, value):
                return "posted"

        await self.serve(Service, Other)
        self.assertEqual(len(self.reactor.tcpServers), 1)
        peer = self.peer()
        self.assertEqual(peer.get("/number/1"), text("200 OK", "1"))
        self.assertEqual(peer.get("/other/1"), text("200 OK", "other 1"))
        self.assertEqual(peer.get("/number/1", method="POST"), text("200 OK", "posted"))

    async def test_known(self) -> None:
        """What is known of a URL holds for its method and query, is each request's own, and ends with a new rule."""

        class Numbers(BaseConverter):
            made = 0

            def to_python(self, value: str) -> Any:
                Numbers.made += 1
                return [Numbers.made]

        class Known:
            name = "known"

            @http("GET,PUT", "/known/<text>")
            def method(self, request, text):
                request.path_values["text"] = "changed"
                return f"{request.method} {text} {request.query_string.decode()}"

            @http("GET", "/made/<numbers:value>")
            def made(self, request, value):
                value.append(0)
                return str(value)

        class Better:
            name = "better"

            @http("GET", "/known/a")
            def method(self, request):
                return "better"

        with mock.patch.object(Map, "default_converters", {**Map.default_converters, "numbers": Numbers}):
            runner = await self.serve(Known)
            peer = self.peer()
            for _ in range(2):
                for path, query in (("/known/a", ""), ("/known/a", "x=1"), ("/known/b", "")):
                    for method in ("GET", "PUT"):
                        answer = peer.get(f"{path}?{query}", method=method)
                        self.assertEqual(answer, text("200 OK", f"{method} {path[-1]} {query}"))
                self.assertIn(b" 405 ", peer.get("/known/a", method="POST"))
                self.assertEqual(peer.get("/known/b", method="HEAD"), text("200 OK", "", length=len("HEAD b ")))
            self.assertEqual(peer.get("/made/x"), text("200 OK", "[1, 0]"))
            self.assertEqual(peer.get("/made/x"), text("200 OK", "[2, 0]"))
            runner.add_service(Better)
            self.assertEqual(peer.get("/known/a"), text("200 OK", "better"))

    async def test_known_is_bounded(self) -> None:
        """No number of URLs, and no long ones, make what is known of them grow."""
        await self.serve(Service)
        peer = self.peer()
        matches = self.site.resource.matches
        for number in range(router.MATCHES_MAX + 10):
            peer.get(f"/number/{number}")
        self.assertLessEqual(len(matches), router.MATCHES_MAX)
        known = len(matches)
        self.assertEqual(peer.get(f"/number/1?{'x' * router.URI_MAX}"), text("200 OK", "1"))
        peer.get("/nowhere")
        self.assertEqual(len(matches), known)

    async def test_claimed_twice(self) -> None:
        """Two methods that claim one URL are refused at the start, by name; the variable's name makes no second URL."""

        class Other:
            name = "other"

            @http("POST,GET", "/number/<int:another>")
            def method(self, request, another):
                return ""

        error = await self.assertFailure(Deferred.fromCoroutine(self.serve(Service, Other)), ConfigurationError)
        self.assertIn("service.number and other.method both serve POST,GET /number/<int:another>", str(error))

    async def test_impossible(self) -> None:
        """A URL that werkzeug can't read is refused at the start, with the method it stands on."""
        for url in ("no-slash", "/<nothing:x>", "/<int:x>/<int:x>"):

            class Bad:
                name = "bad"
                method = http("GET", url)(lambda self, request, **values: "")

            error = await self.assertFailure(Deferred.fromCoroutine(self.serve(Bad)), ConfigurationError)
            self.assertIn(f"bad.method: GET {url!r}: ", str(error))
