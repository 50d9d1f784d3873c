"""HTTP itself: what goes over a connection, and how bodies are sent."""

from __future__ import annotations

import itertools

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase
from werkzeug.wrappers import Response

from tests.web.peer import Conversation, Service, WebTestCase, converse, text
from txservices.runners import ServiceRunner, run_services
from txservices.web.handlers import http


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


class Bodies(TestCase):
    """Sending, with sockets."""

    async def test_big(self) -> None:
        """A long body arrives whole, and so do the requests after it."""
        size = 3_000_000
        data = b"GET /big/%d HTTP/1.1\r\nHost: h\r\n\r\nGET /number/1 HTTP/1.0\r\n\r\n" % size
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
