"""Functions around every method, converters of one's own, and limits of a URL."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from werkzeug.exceptions import NotFound
from werkzeug.routing import BaseConverter, ValidationError
from werkzeug.wrappers import Response

from tests.web.peer import WebTestCase, text
from txservices.exceptions import ConfigurationError
from txservices.web.handlers import http

HERE = __name__
waiting: list[Deferred[Any]] = []
seen: list[Any] = []


async def outer(request, handle):
    """Adds a header to every response."""
    seen.append("outer")
    response = await handle(request)
    response.headers["X-Outer"] = "yes"
    return response


def inner(request, handle):
    """Answers some requests itself, in several ways."""
    seen.append("inner")
    how = request.args.get("how")
    if how == "text":
        return "from the middleware"
    if how == "tuple":
        return 403, {"error": "no"}
    if how == "abort":
        raise NotFound
    if how == "bug":
        raise ValueError("s3cret")
    if how == "wrong":
        return 5
    return handle(request)


NO_FUNCTION = 5


class Hex(BaseConverter):
    """A number, written in hexadecimal."""

    regex = "[0-9a-fx]+"

    def to_python(self, value):
        if value == "x":
            raise ValidationError
        if value == "xx":
            raise KeyError(value)
        return int(value, 16)


class Service:
    """Methods of several kinds."""

    name = "service"

    @http("GET", "/plain")
    def plain(self, request):
        return "plain"

    @http("GET", "/later")
    def later(self, request):
        waiting.append(Deferred())
        return waiting[-1]

    @http("GET", "/bug")
    def bug(self, request):
        raise KeyError("s3cret")

    @http("GET", "/stream")
    def stream(self, request):
        return Response(iter(["a", "b"]))


class Functions(WebTestCase):
    """WEB_MIDDLEWARE."""

    async def start(self) -> Any:
        await self.serve(Service, WEB_MIDDLEWARE=[f"{HERE}.outer", f"{HERE}.inner"])
        seen.clear()
        return self.peer().get

    async def test_around(self) -> None:
        """They are called in their order, around methods that answer at once, later, or with an error."""
        get = await self.start()
        expected = (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nX-Outer: yes\r\nContent-Length: 5\r\n"
        )
        self.assertEqual(get("/plain"), expected + b"Date: now\r\n\r\nplain")
        self.assertEqual(seen, ["outer", "inner"])
        self.assertEqual(get("/later"), b"")
        waiting.pop().callback({"a": 1})
        self.assertRegex(self.peers[0].received(), rb"(?s)^HTTP/1.1 200 OK.*X-Outer: yes.*\{\"a\":1\}$")
        self.assertRegex(get("/bug"), rb"(?s)^HTTP/1.1 500 .*X-Outer: yes")
        self.flushLoggedErrors(KeyError)

    async def test_answers(self) -> None:
        """One may answer in place of the method, as a method may, or raise."""
        get = await self.start()
        for how, status, body in [
            ("text", 200, b"from the middleware"),
            ("tuple", 403, b'{"error":"no"}'),
            ("abort", 404, None),
            ("bug", 500, None),
            ("wrong", 500, None),
        ]:
            answer = get(f"/plain?how={how}")
            self.assertEqual(int(answer.split()[1]), status, how)
            self.assertNotIn(b"s3cret", answer)
            if body is not None:
                self.assertEqual(answer.partition(b"\r\n\r\n")[2], body)
        self.flushLoggedErrors(ValueError, TypeError)

    async def test_without(self) -> None:
        """URLs that nobody serves are not asked about, and without the key nothing is."""
        get = await self.start()
        get("/nowhere")
        self.assertEqual(seen, [])
        await self.runner.stop()
        await self.serve(Service)
        self.assertEqual(self.peer().get("/plain"), text("200 OK", "plain"))

    async def test_mistakes(self) -> None:
        """A function that isn't there fails the start."""
        for path in ("no.such", f"{HERE}.nothing", f"{HERE}.NO_FUNCTION"):
            starting = Deferred.fromCoroutine(self.serve(Service, WEB_MIDDLEWARE=[path]))
            self.assertIn("WEB_MIDDLEWARE: ", str(await self.assertFailure(starting, ConfigurationError)))


class Converters(WebTestCase):
    """WEB_CONVERTERS."""

    async def test_each(self) -> None:
        """A converter of one's own reads the variables of a URL; what it refuses is 404, and its bug 500."""

        class Hexadecimal:
            name = "hexadecimal"

            @http("GET", "/<hex:number>")
            def method(self, request, number):
                return str(number)

        await self.serve(Hexadecimal, WEB_CONVERTERS={"hex": f"{HERE}.Hex"})
        get = self.peer().get
        self.assertEqual(get("/ff"), text("200 OK", "255"))
        self.assertEqual(get("/ff"), text("200 OK", "255"))
        for path, status in (("/x", 404), ("/g", 404), ("/xx", 500)):
            self.assertEqual(int(get(path).split()[1]), status, path)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    async def test_mistakes(self) -> None:
        """A converter that isn't there, or is none, fails the start."""
        for path in ("no.such", f"{HERE}.outer", f"{HERE}.Service"):
            starting = Deferred.fromCoroutine(self.serve(Service, WEB_CONVERTERS={"hex": path}))
            self.assertIn("WEB_CONVERTERS: hex: ", str(await self.assertFailure(starting, ConfigurationError)))


class Limited:
    """URLs with limits of their own."""

    name = "limited"
    cancelled: list[str] = []

    @http("POST", "/small", body_max=10)
    def small(self, request):
        return str(len(request.get_data()))

    @http("POST", "/large/<name>", body_max=1000)
    def large(self, request, name):
        return str(len(request.get_data()))

    @http("POST", "/other")
    def other(self, request):
        return str(len(request.get_data()))

    @http("GET", "/slow", timeout=5)
    async def slow(self, request):
        waiting.append(Deferred())
        try:
            return await waiting[-1]
        except BaseException:
            self.cancelled.append("slow")
            raise

    @http("GET", "/stubborn", timeout=5)
    async def stubborn(self, request):
        try:
            await Deferred()
        except BaseException:
            waiting.append(Deferred())
            await waiting[-1]

    @http("GET", "/hold")
    def hold(self, request):
        waiting.append(Deferred())
        return waiting[-1]

    @http("GET", "/worker", worker_timeout=5)
    def worker(self, request):
        return Deferred()


class Limits(WebTestCase):
    """body_max= and timeout=."""

    def setUp(self) -> None:
        super().setUp()
        waiting.clear()

    async def test_body(self) -> None:
        """A URL's own limit goes over the configuration's, below and above it; lengths that aren't said count, too."""
        await self.serve(Limited, WEB_BODY_MAX=100)
        for path, allowed in (("/small", 10), ("/large/x?y=1", 1000), ("/other", 100)):
            self.assertEqual(
                self.peer().get(path, method="POST", body="x" * allowed), text("200 OK", str(allowed)), path
            )
            refused = self.peer().get(path, method="POST", body="x" * (allowed + 1))
            self.assertIn(b" 413 ", refused, path)
            self.assertIn(f"the body is over {allowed} bytes".encode(), refused)
            chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (allowed + 1, b"x" * (allowed + 1))
            head = f"POST {path} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
            self.assertIn(b" 413 ", self.peer().send(head.encode() + chunk), path)
        self.assertIn(b" 404 ", self.peer().get("/nowhere", method="POST", body="x"))
        self.assertIn(b" 413 ", self.peer().get("/nowhere", method="POST", body="x" * 101))

    async def test_timeout(self) -> None:
        """After it the client is answered 504, and the worker is cancelled; an answer before it is sent as ever."""
        await self.serve(Limited)
        Limited.cancelled.clear()
        peer = self.peer()
        peer.get("/slow")
        self.reactor.advance(4.9)
        waiting.pop().callback("in time")
        self.assertEqual(peer.received(), text("200 OK", "in time"))
        self.assertEqual(peer.get("/slow"), b"")
        self.reactor.advance(5)
        answer = text("504 GATEWAY TIMEOUT", "Error: the method took too long\n")
        self.assertEqual(peer.received(), answer)
        self.assertEqual(Limited.cancelled, ["slow"])
        self.assertEqual(peer.get("/worker"), b"")
        self.reactor.advance(5)
        self.assertEqual(peer.received(), answer)

    async def test_stubborn(self) -> None:
        """A worker that goes on though it is cancelled does not hold its client up."""
        await self.serve(Limited)
        peer = self.peer()
        self.assertEqual(peer.get("/stubborn"), b"")
        self.reactor.advance(5)
        self.assertIn(b" 504 ", peer.received())
        waiting.pop().callback(None)
        self.assertEqual(peer.received(), b"")

    async def test_no_worker(self) -> None:
        """If no worker was free until then it is 503, and the method does not run."""
        await self.serve(Limited, WEB_MAX_WORKERS=1)
        holding, peer = self.peer(), self.peer()
        holding.get("/hold")
        self.assertEqual(peer.get("/slow"), b"")
        self.reactor.advance(5)
        answer = peer.received()
        self.assertIn(b" 503 ", answer)
        self.assertIn(b"\r\nRetry-After: ", answer)
        [held] = waiting
        waiting.clear()
        held.callback("held")
        self.assertEqual(holding.received(), text("200 OK", "held"))
        self.assertEqual(waiting, [])

    async def test_mistakes(self) -> None:
        """A limit that is no number above 0 fails the start."""
        for options in ({"timeout": 0}, {"timeout": "5"}, {"timeout": True}, {"body_max": -1}, {"body_max": 1.5}):

            class Wrong:
                name = "wrong"

                @http("GET", "/", **options)
                def method(self, request):
                    return ""

            starting = Deferred.fromCoroutine(self.serve(Wrong))
            self.assertIn("wrong.method: ", str(await self.assertFailure(starting, ConfigurationError)))
