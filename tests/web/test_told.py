"""HTTP requests are told to observers when they are answered: their rule, status and seconds."""

from __future__ import annotations

from tests.observing import failing, hearing
from tests.web.peer import Service, WebTestCase
from txservices.web.handlers import http


class Failing:
    """A URL whose method fails."""

    name = "failing"

    @http("GET", "/error")
    def error(self, request):
        raise ValueError("no")


class RequestsTests(WebTestCase):
    """Each request is told of once."""

    async def test_answers(self) -> None:
        """The rule is the one that the request matched, and None if it matched no rule."""
        await self.serve(Service, Failing, WEB_BODY_MAX=10)
        told = hearing(self, "request_ended")
        table = [
            ("GET", "/number/5", "", "/number/<int:value>", 200),
            ("HEAD", "/number/5?a=b", "", "/number/<int:value>", 200),
            ("GET", "/number/x", "", None, 404),
            ("POST", "/number/5", "", None, 405),
            ("GET", "/slash", "", None, 308),
            ("POST", "/length", "short", "/length", 200),
            ("POST", "/length", "longer than ten bytes", None, 413),
            ("GET", "/big/2000", "", "/big/<int:size>", 200),
            ("GET", "/error", "", "/error", 500),
            ("BREW", "/pot", "", None, 404),
        ]
        for method, path, body, route, status in table:
            told.told.clear()
            self.peer().get(path, method=method, body=body)
            self.assertEqual(told.told, [("request_ended", method, route, status, 0.0, "http")], (method, path))
        self.flushLoggedErrors(ValueError)

    async def test_not_read(self) -> None:
        """Requests that can't be read, and clients for whom there is no connection, are told of by their status."""
        await self.serve(Service, WEB_CONNECTIONS_MAX=1)
        told = hearing(self, "request_ended")
        table = [
            (b"GET /%b HTTP/1.1\r\n" % (b"x" * 17_000), 414),
            (b"GET / HTTP/1.1\r\nA: %b\r\n\r\n" % (b"x" * 17_000), 431),
            (b"GET / HTTP/1.1\r\n%b\r\n" % (b"A:\r\n" * 501), 431),
            (b"\x16\x03\x01", 400),
        ]
        for data, status in table:
            told.told.clear()
            peer = self.peer()
            peer.send(data)
            with self.subTest(status=status):
                self.assertEqual(told.told, [("request_ended", "", None, status, 0.0, "http")])
            peer.leave()
        told.told.clear()
        self.peer()
        self.peer()
        self.assertEqual(told.told, [("request_ended", "", None, 503, 0.0, "http")])

    async def test_waits(self) -> None:
        """A request is told of when its answer is there, also if its client has left; several are told in order."""
        await self.serve(Service)
        told = hearing(self, "request_ended")
        for leaves in (False, True):
            peer = self.peer()
            peer.get("/wait")
            self.reactor.advance(2)
            if leaves:
                peer.leave()
            self.assertEqual(told.told, [])
            Service.waiting.callback("late")
            self.assertEqual(told.told, [("request_ended", "GET", "/wait", 200, 2.0, "http")])
            told.told.clear()
        self.peer().send(b"GET /number/1 HTTP/1.1\r\nHost: h\r\n\r\nGET /slash/ HTTP/1.1\r\nHost: h\r\n\r\n")
        self.assertEqual([route for _, _, route, *_ in told.told], ["/number/<int:value>", "/slash/"])

    async def test_client_leaves_in_the_middle(self) -> None:
        """A long answer that its client does not wait for is told of when it leaves."""
        await self.serve(Service)
        told = hearing(self, "request_ended")
        peer = self.peer()
        peer.get("/big/10000000")
        self.assertEqual(told.told, [])
        peer.leave()
        self.assertEqual(told.told, [("request_ended", "GET", "/big/<int:size>", 200, 0.0, "http")])

    async def test_observer_that_fails(self) -> None:
        """One that raises harms no answer."""
        await self.serve(Service)
        failing(self)
        self.assertTrue(self.peer().get("/number/5").endswith(b"\r\n\r\n5"))
        self.assertTrue(self.peer().get("/number/6").endswith(b"\r\n\r\n6"))
        await self.runner.stop()
        self.flushLoggedErrors(SystemExit)
