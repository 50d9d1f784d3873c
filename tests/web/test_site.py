"""HTTP itself: what goes over a connection, what a client can make us hold, and how bodies are sent."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.task import Clock, deferLater
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import TestCase
from werkzeug.wrappers import Response

from tests.web.peer import Conversation, Service, WebTestCase, converse, text
from txservices.exceptions import ConfigurationError
from txservices.runners import ServiceRunner, run_services
from txservices.web import channel, heads, site
from txservices.web.handlers import http

REFUSAL = (
    b"HTTP/1.1 503 SERVICE UNAVAILABLE\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 33\r\n"
    b"Retry-After: 5\r\nDate: now\r\nConnection: close\r\n\r\nError: all connections are taken\n"
)


@contextmanager
def capture() -> Iterator[list[Any]]:
    """Warnings that are logged meanwhile."""
    warned: list[Any] = []

    def observe(event: Any) -> None:
        if event["log_level"] is LogLevel.warn:
            warned.append(event)

    globalLogPublisher.addObserver(observe)
    try:
        yield warned
    finally:
        globalLogPublisher.removeObserver(observe)


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
        head = b"GET /number/1 HTTP/1.%d\r\nHost: h\r\n%b\r\n"
        close = b"Connection: close\r\n"
        for request in (head % (0, b""), head % (1, close), head % (1, b"Connection: a\r\nConnection: b, Close\r\n")):
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


class Limits(WebTestCase):
    """The memory that a client can make us hold."""

    async def test_body(self) -> None:
        """A body over WEB_BODY_MAX answers 413 before it is read, its length said or not; one of just that is read."""
        await self.serve(Service, WEB_BODY_MAX=10)
        refusal = (
            b"HTTP/1.1 413 REQUEST ENTITY TOO LARGE\r\nContent-Type: text/plain; charset=utf-8\r\n"
            b"Content-Length: 33\r\nDate: now\r\n"
            b"Connection: close\r\n\r\nError: the body is over 10 bytes\n"
        )
        head = b"POST /length HTTP/1.1\r\nHost: h\r\n"
        self.assertEqual(self.peer().send(head + b"Content-Length: 10\r\n\r\n" + b"x" * 10), text("200 OK", "10"))
        peer = self.peer()
        self.assertEqual(peer.send(head + b"Expect: 100-continue\r\nContent-Length: 11\r\n\r\n"), refusal)
        self.assertTrue(peer.transport.connected)
        self.assertTrue(peer.transport.half_closed)
        self.assertEqual(peer.send(b"x" * 11), b"")
        peer.end()
        self.assertFalse(peer.transport.connected)
        peer = self.peer()
        self.assertEqual(peer.send(head + b"Transfer-Encoding: chunked\r\n\r\nb\r\n"), b"")
        self.assertEqual(peer.send(b"x" * 11 + b"\r\n"), refusal)
        self.assertEqual(peer.send(b"b\r\n" + b"x" * 11 + b"\r\n"), b"")
        self.reactor.advance(channel.LINGER + 1)
        self.assertFalse(peer.transport.connected)

    async def test_body_max_refused(self) -> None:
        """A WEB_BODY_MAX that is not a number of bytes is refused at the start."""
        starting = Deferred.fromCoroutine(self.serve(Service, WEB_BODY_MAX="16M"))
        error = await self.assertFailure(starting, ConfigurationError)
        self.assertIn("WEB_BODY_MAX: '16M'", str(error))

    async def test_connections(self) -> None:
        """A client beyond WEB_CONNECTIONS_MAX is answered 503 and read no more; the others stay, and so do later ones.

        The log tells so once in a while.
        """
        await self.serve(Service, WEB_CONNECTIONS_MAX=3)
        first, *others = [self.peer() for _ in range(3)]
        with capture() as warned:
            refused = [self.peer() for _ in range(5)]
        self.assertEqual([each["why"] for each in warned], ["all 3 connections of WEB_CONNECTIONS_MAX are taken"])
        for peer in refused:
            self.assertEqual(peer.received(), REFUSAL)
            self.assertTrue(peer.transport.half_closed)
            self.assertEqual(peer.get("/number/1"), b"")
        for peer in (first, *others, first):
            self.assertEqual(peer.get("/number/1"), text("200 OK", "1"))
        refused[0].leave()
        self.assertEqual(self.peer().received(), REFUSAL)  # it had no place
        first.leave()
        later = self.peer()
        self.assertEqual(later.get("/number/2"), text("200 OK", "2"))
        self.assertEqual(self.peer().received(), REFUSAL)
        self.reactor.advance(channel.LINGER)
        self.assertFalse(any(each.transport.connected for each in refused))
        self.assertEqual(later.get("/number/3"), text("200 OK", "3"))
        self.assertEqual(self.site.turned_away, {})

    async def test_connections_of_an_address(self) -> None:
        """So is one beyond WEB_CONNECTIONS_PER_ADDRESS; clients at other addresses come in, and this one does later."""
        await self.serve(Service, WEB_CONNECTIONS_PER_ADDRESS=2)
        first, second = self.peer(), self.peer()
        with capture() as warned:
            self.assertEqual(self.peer().received(), REFUSAL)
        address = first.transport.getPeer().host
        why = f"all 2 connections of WEB_CONNECTIONS_PER_ADDRESS are taken by {address}"
        self.assertEqual([each["why"] for each in warned], [why])
        other = self.peer("10.0.0.9")
        for peer in (first, second, other):
            self.assertEqual(peer.get("/number/1"), text("200 OK", "1"))
        first.leave()
        self.assertEqual(self.peer().get("/number/2"), text("200 OK", "2"))
        self.assertEqual(self.site.addresses, {address: 2, "10.0.0.9": 1})

    async def test_connections_refused(self) -> None:
        """Beyond TURNED_AWAY_MAX clients that do not go after their refusal, further ones are cut off."""
        await self.serve(Service, WEB_CONNECTIONS_MAX=0)
        refused = [self.peer() for _ in range(site.TURNED_AWAY_MAX + 5)]
        connected = [each.transport.connected for each in refused]
        self.assertEqual(connected, [True] * site.TURNED_AWAY_MAX + [False] * 5)

    async def test_stop_with_refused(self) -> None:
        """A stop does not wait for clients that were turned away."""
        runner = await self.serve(Service, WEB_CONNECTIONS_MAX=0)
        refused = self.peer()
        self.successResultOf(runner.stop())
        self.assertFalse(refused.transport.connected)
        self.assertEqual([each for each in self.reactor.getDelayedCalls() if each.active()], [])

    async def test_lines(self) -> None:
        """A URL that is too long answers 414, too long headers or too many 431; each ends the connection."""
        await self.serve(Service)
        start = b"GET / HTTP/1.1\r\n"
        for data, status in [
            (b"GET /" + b"x" * channel.REQUEST_LINE_MAX, b"414 URI Too Long"),
            (start + b"X: " + b"x" * channel.HEAD_MAX, b"431 Request Header Fields Too Large"),
            (start + b"X: x\r\n" * (heads.HEADERS_MAX + 1) + b"\r\n", b"431 Request Header Fields Too Large"),
        ]:
            peer = self.peer()
            self.assertTrue(peer.send(data).startswith(b"HTTP/1.1 %b\r\n" % status), status)
            self.assertTrue(peer.transport.half_closed)
            self.assertEqual(peer.send(data), b"")

    async def test_slow(self) -> None:
        """A client that has not sent a whole head in time is let go, bytes now and then or not."""
        await self.serve(Service)
        silent, slow, answered = (self.peer() for _ in range(3))
        slow.send(b"GET / HTTP/1.1\r\n")
        answered.get("/wait")
        for _ in range(int(channel.REQUEST_TIMEOUT) + 1):
            slow.send(b"X: x\r\n")
            self.reactor.advance(1)
        self.assertEqual([each.transport.connected for each in (silent, slow, answered)], [0, 0, 1])
        Service.waiting.callback("at last")
        self.assertEqual(answered.received(), text("200 OK", "at last"))
        self.reactor.pump([1] * int(channel.REQUEST_TIMEOUT + 1))
        self.assertFalse(answered.transport.connected)

    async def test_slow_body(self) -> None:
        """A body may take its time for BODY_GRACE, and then must come at WEB_BODY_RATE; in chunks, too."""
        await self.serve(Service, WEB_BODY_RATE=100)
        head = b"POST /length HTTP/1.1\r\nHost: h\r\n"
        for start, piece in (
            (b"Content-Length: 10000\r\n\r\n", b"%b"),
            (b"Transfer-Encoding: chunked\r\n\r\n", b"64\r\n%b\r\n"),
        ):
            quick, slow, idle = (self.peer() for _ in range(3))
            for peer in (quick, slow, idle):
                peer.send(head + start)
            for second in range(95):
                quick.send(piece % (b"x" * 100))
                if second % 3 and slow.transport.connected:  # two thirds of that
                    slow.send(piece % (b"x" * 100))
                    gone = second
                self.reactor.advance(1)
            self.assertTrue(quick.transport.connected)
            self.assertIn(gone, range(55, 65))  # 20 s, and a second for each 100 bytes
            self.assertFalse(idle.transport.connected)
            quick.send(piece % (b"x" * 500))

    async def test_no_rate(self) -> None:
        """With a WEB_BODY_RATE of 0, a body may go on for as long as something comes once in a while."""
        await self.serve(Service, WEB_BODY_RATE=0)
        peer = self.peer()
        peer.send(b"POST /length HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n")
        for _ in range(99):
            peer.send(b"x")
            self.reactor.pump([10] * 5)
        self.assertEqual(peer.send(b"x"), text("200 OK", "100"))


class Bodies(TestCase):
    """Sending, with sockets."""

    async def test_big(self) -> None:
        """A long body arrives whole, and so do the requests after it."""
        size = 3_000_000
        data = b"GET /big/%d HTTP/1.1\r\nHost: h\r\n\r\nGET /number/1 HTTP/1.0\r\n\r\n" % size
        async with run_services({"WEB_SERVER_ADDRESS": "0"}, Service) as runner:
            answer = await converse(runner.containers[0].entrypoints[0].server.port, data)
        self.assertEqual(answer, text("200 OK", "x" * size) + text("200 OK", "1", after="Connection: close"))

    async def test_turned_away(self) -> None:
        """A client that is turned away reads its answer, though it has sent a request, or sends one then."""
        async with run_services({"WEB_SERVER_ADDRESS": "0", "WEB_CONNECTIONS_MAX": 0}, Service) as runner:
            port = runner.containers[0].entrypoints[0].server.port
            for size in (10, 1_000_000):
                data = b"POST /length HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (size, b"x" * size)
                self.assertEqual(await converse(port, data), REFUSAL)

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
            chunked = await converse(port, b"GET /parts HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            self.assertEqual(
                chunked, head % (b"Transfer-Encoding: chunked\r\n", close) + b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
            )
            self.assertEqual(await converse(port, b"GET /parts HTTP/1.0\r\n\r\n"), head % (b"", close) + b"onetwo")
            bare = await converse(port, b"HEAD /parts HTTP/1.0\r\n\r\n")
            self.assertEqual(bare, head % (b"", close))
            self.assertEqual(closed, ["parts"] * 3)
            short = await converse(port, b"GET /short HTTP/1.1\r\nHost: h\r\n\r\n")
            self.assertTrue((head % (b"Content-Length: 10\r\n", b"") + b"one").startswith(short))
            long = await converse(port, b"GET /long HTTP/1.0\r\n\r\n")
            self.assertEqual(long, head % (b"Content-Length: 4\r\n", close) + b"onet")
            broken = await converse(port, b"GET /broken HTTP/1.1\r\nHost: h\r\n\r\n")
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
            talk = Conversation(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), talk)
            await talk.begun
            getattr(talk.transport, leave)()
            while not Endless.closed.called:
                clock.advance(1)
                await deferLater(reactor, 0)
            talk.transport.abortConnection()
            await talk.closed
        await runner.stop()
