"""The address, its URLs, its limits, and how it ends."""

from __future__ import annotations

import errno
import itertools
import logging
import socket
import threading
from typing import Any
from unittest import mock

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from werkzeug.wrappers import Response

from tests.web.peer import DATE, WebTestCase, text
from txservices.exceptions import ConfigurationError
from txservices.runners import ServiceRunner, run_services
from txservices.web import site
from txservices.web.handlers import http
from txservices.web.server import parse_address

UNAVAILABLE = (
    b"HTTP/1.1 503 SERVICE UNAVAILABLE\r\nRetry-After: 5\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: 42\r\nDate: now\r\nConnection: close\r\n\r\nError: the service is stopping, try again\n"
)


class Addresses(SynchronousTestCase):
    """WEB_SERVER_ADDRESS."""

    def test_read(self) -> None:
        """[host:]port is read; without a host it is the loopback."""
        for address, expected in [
            ("0.0.0.0:8000", ("0.0.0.0", 8000)),
            ("localhost:0", ("localhost", 0)),
            ("8000", ("127.0.0.1", 8000)),
            (0, ("127.0.0.1", 0)),
        ]:
            self.assertEqual(parse_address(address), expected)

    def test_refused(self) -> None:
        """Anything else is refused with its name and value."""
        wrong = [":80", "", "here", "::1", "[::1]:80", "http://here:80", "here:x", "a:65536", "a:1 ", "a:\u0661"]
        for address in wrong:
            error = self.assertRaises(ConfigurationError, parse_address, address)
            self.assertIn(f"WEB_SERVER_ADDRESS: {address!r} is no address", str(error))


class Service:
    """A few URLs."""

    name = "service"
    waiting: Deferred[Any]

    @http("GET", "/number/<int:value>")
    def number(self, request, value):
        return str(value)

    @http("GET", "/slash/")
    def slash(self, request):
        return "/"

    @http("POST", "/length")
    def length(self, request):
        return str(len(request.get_data()))

    @http("GET", "/wait")
    def wait(self, request):
        Service.waiting = Deferred()
        return Service.waiting

    @http("GET", "/big/<int:size>")
    def big(self, request, size):
        return "x" * size


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
        for method in ("OPTIONS", "DELETE"):
            answer = peer.get("/number/1", method=method)
            head = b"HTTP/1.1 405 METHOD NOT ALLOWED\r\n" + html + b"Allow: GET, HEAD\r\nContent-Length: 153\r\n"
            self.assertTrue(answer.startswith(head))
        answer = peer.get("/slash?a=%20b")
        self.assertTrue(answer.startswith(b"HTTP/1.1 308 PERMANENT REDIRECT\r\n" + html))
        self.assertIn(b"\r\nLocation: http://here:8000/slash/?a=%20b\r\n", answer)

    async def test_host_untrusted(self) -> None:
        """A Host that is no host is not written into a redirect: our own address is."""
        await self.serve(Service)
        for host in ("Host: e<vil>", "X: no host"):
            answer = self.peer().send(f"GET /slash HTTP/1.1\r\n{host}\r\n\r\n".encode())
            self.assertIn(b"\r\nLocation: http://10.0.0.1:12345/slash/\r\n", answer)

    async def test_not_utf8(self) -> None:
        """A URL that is not UTF-8, or has no path, answers 400; one in the form for proxies is served."""
        await self.serve(Service)
        peer = self.peer()
        for path in ("/%ff", "/number/%c3", "*", "number/1", "ftp://here/number/1"):
            self.assertTrue(peer.get(path).startswith(b"HTTP/1.1 400 BAD REQUEST\r\n"), path)
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


class Wire(WebTestCase):
    """HTTP itself."""

    async def test_pipelined(self) -> None:
        """Requests that come together are answered in turn, over the one connection, however they are cut."""
        await self.serve(Service)
        data = b"".join(b"GET /number/%d HTTP/1.1\r\nHost: h\r\n\r\n" % n for n in range(3))
        expected = b"".join(text("200 OK", str(n)) for n in range(3))
        self.assertEqual(self.peer().send(data), expected)
        peer = self.peer()
        self.assertEqual(b"".join(peer.send(data[n : n + 1]) for n in range(len(data))), expected)

    async def test_closing(self) -> None:
        """HTTP/1.0, and who asks for it, gets one response and the end of the connection."""
        await self.serve(Service)
        for request in (b"GET /number/1 HTTP/1.0\r\n\r\n", b"GET /number/1 HTTP/1.1\r\nConnection: close\r\n\r\n"):
            peer = self.peer()
            self.assertEqual(peer.send(request), text("200 OK", "1", after="Connection: close"))
            self.assertFalse(peer.transport.connected)

    async def test_chunked_request(self) -> None:
        """A body that comes in chunks is read."""
        await self.serve(Service)
        head = b"POST /length HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        self.assertEqual(self.peer().send(head + b"4\r\nfour\r\n3\r\nsix\r\n0\r\n\r\n"), text("200 OK", "7"))

    async def test_continue(self) -> None:
        """A client that asks whether to send a body is told to."""
        await self.serve(Service)
        peer = self.peer()
        head = b"POST /length HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
        self.assertEqual(peer.send(head), b"HTTP/1.1 100 Continue\r\n\r\n")
        self.assertEqual(peer.send(b"four"), text("200 OK", "4"))

    async def test_access_log(self) -> None:
        """A line for each request goes to the logger txservices.web.server, for who wants its debug lines."""
        await self.serve(Service)
        with self.assertLogs("txservices.web.server", logging.DEBUG) as logged:
            self.peer().get("/number/1?x")
        self.assertEqual(logged.output, ['DEBUG:txservices.web.server:192.168.1.1 "GET /number/1?x" 200 1'])


class Limits(WebTestCase):
    """What a client can make us hold."""

    async def test_body(self) -> None:
        """A body over WEB_BODY_MAX answers 413 before it is read, its length said or not; one of just that is read."""
        await self.serve(Service, WEB_BODY_MAX=10)
        refusal = (
            b"HTTP/1.1 413 REQUEST ENTITY TOO LARGE\r\nContent-Type: text/plain; charset=utf-8\r\n"
            b"Content-Length: 33\r\n"
            b"Connection: close\r\n\r\nError: the body is over 10 bytes\n"
        )
        head = b"POST /length HTTP/1.1\r\nHost: h\r\n"
        self.assertEqual(self.peer().send(head + b"Content-Length: 10\r\n\r\n" + b"x" * 10), text("200 OK", "10"))
        peer = self.peer()
        self.assertEqual(peer.send(head + b"Expect: 100-continue\r\nContent-Length: 11\r\n\r\n"), refusal)
        self.assertTrue(peer.transport.connected)
        self.assertEqual(peer.send(b"x" * 11), b"")
        self.assertFalse(peer.transport.connected)
        peer = self.peer()
        self.assertEqual(peer.send(head + b"Transfer-Encoding: chunked\r\n\r\nb\r\n"), b"")
        self.assertEqual(peer.send(b"x" * 11 + b"\r\n"), refusal)
        self.assertEqual(peer.send(b"b\r\n" + b"x" * 11 + b"\r\n"), b"")
        self.reactor.advance(site.LINGER + 1)
        self.assertFalse(peer.transport.connected)

    async def test_body_max_refused(self) -> None:
        """A WEB_BODY_MAX that is no number of bytes is refused at the start."""
        starting = Deferred.fromCoroutine(self.serve(Service, WEB_BODY_MAX="16M"))
        error = await self.assertFailure(starting, ConfigurationError)
        self.assertIn("WEB_BODY_MAX: '16M'", str(error))

    async def test_lines(self) -> None:
        """A URL that is too long answers 414, a header 431, too many of them 400; each ends the connection."""
        await self.serve(Service)
        start = b"GET / HTTP/1.1\r\n"
        for data, status in [
            (b"GET /" + b"x" * site.REQUEST_LINE_MAX, b"414 URI Too Long"),
            (start + b"X: " + b"x" * site.REQUEST_LINE_MAX, b"431 Request Header Fields Too Large"),
            (start + b"X: x\r\n" * (site.HEADERS_MAX + 2), b"400 Bad Request"),
        ]:
            peer = self.peer()
            self.assertTrue(peer.send(data).startswith(b"HTTP/1.1 %b\r\n" % status), status)
            self.assertFalse(peer.transport.connected)

    async def test_slow(self) -> None:
        """A client that has not sent a whole head in time is let go, bytes now and then or not; a body may go on."""
        await self.serve(Service)
        silent, slow, body, answered = (self.peer() for _ in range(4))
        slow.send(b"GET / HTTP/1.1\r\n")
        body.send(b"POST /length HTTP/1.1\r\nContent-Length: 4\r\n\r\n")
        answered.get("/wait")
        for _ in range(int(site.REQUEST_TIMEOUT) + 1):
            slow.send(b"X: x\r\n")
            if body.transport.connected and self.reactor.seconds() % 20 == 10:
                body.send(b"x")
            self.reactor.advance(1)
        self.assertEqual([each.transport.connected for each in (silent, slow, body, answered)], [0, 0, 1, 1])
        self.assertEqual(body.send(b"x"), text("200 OK", "4"))
        Service.waiting.callback("at last")
        self.assertEqual(answered.received(), text("200 OK", "at last"))
        self.reactor.pump([1] * int(site.REQUEST_TIMEOUT + 1))
        self.assertFalse(answered.transport.connected)


class Ending(WebTestCase):
    """Stopping, one service or all."""

    async def test_worker_still_answers(self) -> None:
        """A request under way is answered, and closes; another one is told to come back; then all is closed."""
        runner = await self.serve(Service)
        working, other, idle = self.peer(), self.peer(), self.peer()
        working.get("/wait")
        stopping = runner.stop()
        self.assertEqual(other.get("/number/1"), UNAVAILABLE)
        self.assertFalse(other.transport.connected)
        self.assertNoResult(stopping)
        self.assertTrue(idle.transport.connected)
        Service.waiting.callback("answered")
        self.assertEqual(working.received(), text("200 OK", "answered", after="Connection: close"))
        self.assertFalse(working.transport.connected)
        await stopping
        self.assertFalse(idle.transport.connected)

    async def test_given_up(self) -> None:
        """A worker that does not end in time leaves its request answered 503."""
        runner = await self.serve(Service, SHUTDOWN_TIMEOUT=3)
        peer = self.peer()
        peer.get("/wait")
        stopping = runner.stop()
        self.reactor.advance(3)
        await stopping
        self.assertEqual(peer.received(), UNAVAILABLE)

    async def test_killed(self) -> None:
        """So does a kill."""
        runner = await self.serve(Service)
        peer = self.peer()
        peer.get("/wait")
        await runner.kill()
        self.assertEqual(peer.received(), UNAVAILABLE)

    async def test_one_of_two(self) -> None:
        """One service stops: its URLs answer 503 and the other's go on; it may come back."""

        class Other:
            name = "other"

            @http("GET", "/other")
            def method(self, request):
                return "other"

        runner = await self.serve(Service, Other)
        await runner.containers[1].stop()
        self.assertEqual(self.peer().get("/other"), UNAVAILABLE)
        peer = self.peer()
        self.assertEqual(peer.get("/number/1"), text("200 OK", "1"))
        runner.add_service(Other)
        self.assertEqual(peer.get("/other"), text("200 OK", "other"))
        self.assertEqual(peer.get("/number/1"), text("200 OK", "1"))
        self.assertEqual(len(self.reactor.tcpServers), 1)


class Conversation(Protocol):
    """Sends bytes, and keeps what comes until the other side closes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.received = b""
        self.begun: Deferred[None] = Deferred()
        self.closed: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(self.data)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if not self.begun.called:
            self.begun.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.closed.callback(DATE.sub(b"Date: now\r\n", self.received))


async def converse(port: int, data: bytes) -> bytes:
    """All that comes back for bytes, over a real connection."""
    talk = Conversation(data)
    await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), talk)
    return await talk.closed.addTimeout(30, reactor)


class OnTheNetwork(TestCase):
    """With sockets."""

    async def test_any_port(self) -> None:
        """Port 0 is any free one, and the server says which."""
        async with run_services({"WEB_SERVER_ADDRESS": 0}, Service) as runner:
            (entrypoint, *_) = runner.containers[0].entrypoints
            self.assertNotEqual(entrypoint.server.port, 0)
            answer = await converse(entrypoint.server.port, b"GET /number/1 HTTP/1.0\r\n\r\n")
        self.assertEqual(answer, text("200 OK", "1", after="Connection: close"))

    async def test_blocking(self) -> None:
        """A blocking method runs in a thread, and reads the request there."""

        class Blocking:
            name = "blocking"
            blocking = True

            @http("POST", "/")
            def method(self, request):
                return f"{request.get_data(as_text=True)} {threading.current_thread() is threading.main_thread()}"

        async with run_services({"WEB_SERVER_ADDRESS": 0}, Blocking) as runner:
            port = runner.containers[0].entrypoints[0].server.port
            answer = await converse(port, b"POST / HTTP/1.0\r\nContent-Length: 4\r\n\r\nbody")
        self.assertEqual(answer, text("200 OK", "body False", after="Connection: close"))

    async def test_port_taken(self) -> None:
        """A port that is taken is the user's to mend: the error says which, and what to do."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = "127.0.0.1:%d" % taken.getsockname()[1]  # noqa: UP031
            runner = ServiceRunner({"WEB_SERVER_ADDRESS": address})
            runner.add_service(Service)
            error = await self.assertFailure(runner.start(), ConfigurationError)
        self.assertIn(f"can't listen at {address}: ", str(error))
        self.assertIn("set WEB_SERVER_ADDRESS to another", str(error))

    async def test_big(self) -> None:
        """A long body arrives whole, and so do the requests after it."""
        size = 3_000_000
        data = b"GET /big/%d HTTP/1.1\r\n\r\nGET /number/1 HTTP/1.0\r\n\r\n" % size
        async with run_services({"WEB_SERVER_ADDRESS": "0"}, Service) as runner:
            answer = await converse(runner.containers[0].entrypoints[0].server.port, data)
        self.assertEqual(answer, text("200 OK", "x" * size) + text("200 OK", "1", after="Connection: close"))

    async def test_streams(self) -> None:
        """A Response whose body is made while it is sent goes out in chunks, and is closed; or breaks off."""
        closed = []

        class Streaming:
            name = "streaming"

            @http("GET", "/parts")
            def parts(self, request):
                response = Response(part for part in ("one", "", "two"))
                response.call_on_close(lambda: closed.append("parts"))
                return response

            @http("GET", "/short")
            def short(self, request):
                return Response((part for part in ("one",)), headers={"Content-Length": "10"})

            @http("GET", "/long")
            def long(self, request):
                return Response((part for part in ("one", "two")), headers={"Content-Length": "4"})

            @http("GET", "/broken")
            def broken(self, request):
                return Response(1 / 0 if part else "0" for part in (0, 1))

        async with run_services({"WEB_SERVER_ADDRESS": "0"}, Streaming) as runner:
            port = runner.containers[0].entrypoints[0].server.port
            head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n%bDate: now\r\n%b\r\n"
            close = b"Connection: close\r\n"
            chunked = await converse(port, b"GET /parts HTTP/1.1\r\nConnection: close\r\n\r\n")
            self.assertEqual(
                chunked, head % (b"Transfer-Encoding: chunked\r\n", close) + b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
            )
            self.assertEqual(await converse(port, b"GET /parts HTTP/1.0\r\n\r\n"), head % (b"", close) + b"onetwo")
            bare = await converse(port, b"HEAD /parts HTTP/1.0\r\n\r\n")
            self.assertEqual(bare, head % (b"", close))
            self.assertEqual(closed, ["parts"] * 3)
            short = await converse(port, b"GET /short HTTP/1.1\r\n\r\n")
            self.assertTrue((head % (b"Content-Length: 10\r\n", b"") + b"one").startswith(short))
            long = await converse(port, b"GET /long HTTP/1.0\r\n\r\n")
            self.assertEqual(long, head % (b"Content-Length: 4\r\n", close) + b"onet")
            broken = await converse(port, b"GET /broken HTTP/1.1\r\n\r\n")
            self.assertNotIn(b"\r\n0\r\n\r\n", broken)
        self.flushLoggedErrors(ZeroDivisionError)

    async def test_stream_left(self) -> None:
        """A client that leaves in the middle, or takes nothing for too long, ends the making of what it was sent."""

        class Endless:
            name = "endless"
            closed: Deferred[None]

            @http("GET", "/")
            def method(self, request):
                response = Response(itertools.repeat(b"x" * 10_000))
                response.call_on_close(lambda: Endless.closed.callback(None))
                return response

        clock = Clock()
        runner = ServiceRunner({"WEB_SERVER_ADDRESS": "0"}, clock)
        runner.add_service(Endless)
        await runner.start()
        port = runner.containers[0].entrypoints[0].server.port
        for leave in ("abortConnection", "pauseProducing"):
            Endless.closed = Deferred()
            talk = Conversation(b"GET / HTTP/1.1\r\n\r\n")
            await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), talk)
            await talk.begun
            getattr(talk.transport, leave)()
            while not Endless.closed.called:
                clock.advance(1)
                await deferLater(reactor, 0)
            talk.transport.abortConnection()
            await talk.closed
        await runner.stop()


class Listening(WebTestCase):
    """Where it can't."""

    async def test_names_the_reason(self) -> None:
        """What the system says is in the error."""
        denied = CannotListenError("127.0.0.1", 80, OSError(errno.EACCES, "Permission denied"))
        with mock.patch.object(self.reactor, "listenTCP", side_effect=denied):
            starting = Deferred.fromCoroutine(self.serve(Service, WEB_SERVER_ADDRESS="127.0.0.1:80"))
            error = await self.assertFailure(starting, ConfigurationError)
        self.assertIn("can't listen at 127.0.0.1:80: [Errno 13] Permission denied: ", str(error))
