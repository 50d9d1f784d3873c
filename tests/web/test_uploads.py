"""Bodies of requests that are read as they come, in the reactor and in threads."""

from __future__ import annotations

import hashlib
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from werkzeug.exceptions import BadRequest, ClientDisconnected, HTTPException, RequestEntityTooLarge

from tests.web.peer import Conversation, Peer, WebTestCase, converse, text
from txservices.runners import run_services
from txservices.web import channel, uploads
from txservices.web.handlers import http

HEAD = "POST {} HTTP/1.1\r\nHost: h\r\n{}\r\n\r\n"
CLOSE = "Connection: close"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def head(path: str, *headers: str) -> bytes:
    return HEAD.format(path, "\r\n".join(headers)).encode()


class Uploads:
    """Reads bodies as they come."""

    name = "uploads"
    seen: list[bytes]
    errors: list[HTTPException]
    gate: Deferred[Any]

    @http("POST", "/read", stream=True)
    async def read(self, request):
        self.seen.clear()
        try:
            async for piece in request.stream:
                self.seen.append(piece)
        except HTTPException as error:
            self.errors.append(error)
            raise
        return str(sum(map(len, self.seen)))

    @http("POST", "/wait", stream=True)
    async def wait(self, request):
        await self.gate
        return await self.read(request)

    @http("POST", "/refuse", stream=True)
    def refuse(self, request):
        return 401, "who are you?"

    @http("POST", "/wrong", stream=True)
    def wrong(self, request):
        return request.get_data()

    @http("POST", "/echo", stream=True)
    def echo(self, request):
        return 200, request.stream

    @http("POST", "/whole")
    def whole(self, request):
        return f"whole {len(request.get_data())}"


class Reading(WebTestCase):
    """In the reactor, in memory."""

    async def begin(self, **config: Any) -> Peer:
        Uploads.seen, Uploads.errors, Uploads.gate = [], [], Deferred()
        await self.serve(Uploads, **config)
        return self.peer()

    async def test_as_it_comes(self) -> None:
        """The method has each piece when it has come, and the connection goes on with the next request."""
        peer = await self.begin()
        for first, second, last in (
            (head("/read", "Content-Length: 6") + b"ab", b"cd", b"ef"),
            (head("/read", "Transfer-Encoding: chunked") + b"2\r\nab\r\n", b"2\r\ncd\r\n", b"2\r\nef\r\n0\r\n\r\n"),
        ):
            self.assertEqual(peer.send(first), b"")
            self.assertEqual(Uploads.seen, [b"ab"])
            self.assertEqual(peer.send(second), b"")
            self.assertEqual(Uploads.seen, [b"ab", b"cd"])
            self.assertEqual(peer.send(last + head("/whole", "Content-Length: 1") + b"x"),
                             text("200 OK", "6") + text("200 OK", "whole 1"))  # fmt: skip

    async def test_without(self) -> None:
        """No body is an empty one."""
        peer = await self.begin()
        for headers in (["Content-Length: 0"], [], ["Transfer-Encoding: chunked"]):
            body = b"0\r\n\r\n" if "chunked" in str(headers) else b""
            self.assertEqual(peer.send(head("/read", *headers) + body), text("200 OK", "0"))

    async def test_continue(self) -> None:
        """A client that waits to send is told to when the method begins to read, and never if it does not."""
        peer = await self.begin()
        expect = ("Content-Length: 4", "Expect: 100-continue")
        self.assertEqual(peer.send(head("/wait", *expect)), b"")
        Uploads.gate.callback(None)
        self.assertEqual(peer.received(), CONTINUE)
        self.assertEqual(peer.send(b"body"), text("200 OK", "4"))
        self.assertEqual(peer.send(head("/refuse", *expect)), text("401 UNAUTHORIZED", "who are you?", after=CLOSE))

    async def test_unread(self) -> None:
        """An answer to a body that is not read closes the connection, and the client may send on until it sees that."""
        peer = await self.begin()
        answer = peer.send(head("/refuse", "Content-Length: 100") + b"x" * 10)
        self.assertEqual(answer, text("401 UNAUTHORIZED", "who are you?", after=CLOSE))
        self.assertTrue(peer.transport.half_closed)
        self.assertEqual(peer.send(b"x" * 90 + head("/whole", "Content-Length: 0")), b"")
        self.assertTrue(peer.transport.connected)
        self.reactor.pump([1] * int(channel.LINGER + 2))
        self.assertFalse(peer.transport.connected)

    async def test_slow_method(self) -> None:
        """What waits for a slow method is bounded, and its client's time does not pass meanwhile."""
        peer = await self.begin(WEB_BODY_RATE=1000)
        size, sent = 3_000_000, 0
        peer.send(head("/wait", f"Content-Length: {size}"))
        while peer.transport.producerState == "producing":
            peer.send(b"x" * 10_000)
            sent += 10_000
        self.assertLess(sent, uploads.HELD_MAX + channel.BUFFER_MAX + 30_000)
        self.reactor.pump([10] * 100)
        self.assertTrue(peer.transport.connected)
        Uploads.gate.callback(None)
        self.assertEqual(peer.transport.producerState, "producing")
        answer = b""
        while sent < size:
            answer += peer.send(b"x" * 10_000)
            sent += 10_000
        self.assertEqual(answer, text("200 OK", str(size)))

    async def test_slow_client(self) -> None:
        """A client that sends nothing more is cut off, and its method hears of it."""
        peer = await self.begin()
        peer.send(head("/read", "Content-Length: 6") + b"ab")
        self.reactor.pump([1] * int(channel.REQUEST_TIMEOUT + 2))
        self.assertFalse(peer.transport.connected)
        self.assertEqual(list(map(type, Uploads.errors)), [ClientDisconnected])

    async def test_left(self) -> None:
        """So does the method of a client that leaves, and nothing of that is an error in the log."""
        peer = await self.begin()
        peer.send(head("/read", "Content-Length: 6") + b"ab")
        peer.leave()
        self.assertEqual(list(map(type, Uploads.errors)), [ClientDisconnected])
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_half_closed(self) -> None:
        """A client that ends its side too early is answered 400, and one that ends it after the body as ever."""
        peer = await self.begin()
        peer.send(head("/read", "Content-Length: 6") + b"ab")
        peer.channel.readConnectionLost()
        self.assertIn(b"HTTP/1.1 400 BAD REQUEST\r\n", peer.received())
        self.assertFalse(peer.transport.connected)
        peer = self.peer()
        peer.send(head("/wait", "Content-Length: 2") + b"ab")
        peer.channel.readConnectionLost()
        self.assertEqual(peer.received(), b"")
        Uploads.gate.callback(None)
        self.assertTrue(peer.received().endswith(b"\r\n\r\n2"))
        self.assertFalse(peer.transport.connected)

    async def test_too_long(self) -> None:
        """Beyond ``WEB_BODY_MAX`` the answer is 413: before the method begins if the length is said, and else to it."""
        peer = await self.begin(WEB_BODY_MAX=10)
        self.assertIn(b" 413 ", peer.send(head("/read", "Content-Length: 11")))
        self.assertEqual(Uploads.errors, [])
        peer = self.peer()
        peer.send(head("/read", "Transfer-Encoding: chunked") + b"8\r\nabcdefgh\r\n")
        self.assertIn(b" 413 ", peer.send(b"8\r\nabcdefgh\r\n"))
        self.assertEqual(list(map(type, Uploads.errors)), [RequestEntityTooLarge])

    async def test_malformed(self) -> None:
        """A body that turns out to be none is answered 400."""
        peer = await self.begin()
        peer.send(head("/read", "Transfer-Encoding: chunked") + b"2\r\nab\r\n")
        self.assertIn(b"HTTP/1.1 400 BAD REQUEST\r\n", peer.send(b"xyz\r\n"))
        self.assertEqual(list(map(type, Uploads.errors)), [BadRequest])

    async def test_file_in_the_reactor(self) -> None:
        """To read it as a file would hold the reactor up: the error says what to write."""
        peer = await self.begin()
        answer = peer.send(head("/wrong", "Content-Length: 2") + b"ab")
        self.assertIn(b" 500 ", answer)
        (failure,) = self.flushLoggedErrors(RuntimeError)
        self.assertIn("async for piece in request.stream", str(failure.value))

    async def test_echo(self) -> None:
        """The body of a request may be that of the response: each piece goes out as it comes."""
        peer = await self.begin()
        answer = peer.send(head("/echo", "Content-Length: 4") + b"ab")
        self.assertTrue(answer.endswith(b"\r\n\r\n2\r\nab\r\n"), answer)
        self.assertIn(b"Connection: close\r\n", answer)
        self.assertEqual(peer.send(b"cd"), b"2\r\ncd\r\n0\r\n\r\n")

    async def test_stop(self) -> None:
        """A stop waits for an upload as for any worker."""
        peer = await self.begin()
        peer.send(head("/read", "Content-Length: 4") + b"ab")
        stopping = self.runner.stop()
        self.assertNoResult(stopping)
        self.assertTrue(peer.send(b"cd").endswith(b"Connection: close\r\n\r\n4"))
        await stopping


class Blocking:
    """Reads bodies in a thread, as files."""

    name = "blocking"
    blocking = True

    @http("POST", "/hash", stream=True)
    def hash(self, request):
        found = hashlib.sha256()
        while piece := request.stream.read(10_000):
            found.update(piece)
        return found.hexdigest()

    @http("POST", "/lines", stream=True)
    def lines(self, request):
        return f"{len(list(request.stream))} lines"

    @http("POST", "/all", stream=True)
    def all(self, request):
        return str(len(request.get_data()))

    @http("POST", "/form", stream=True)
    def form(self, request):
        return request.form["a"]

    @http("POST", "/json", stream=True)
    def json(self, request):
        return request.json


class InThreads(TestCase):
    """Over sockets."""

    async def test_file(self) -> None:
        """The body is a file: read by size, by lines or whole, and what werkzeug makes of it."""
        body = b"".join(b"line %d\n" % number for number in range(200_000))
        form = b"a=" + b"x" * 300_000
        async with run_services({"WEB_SERVER_ADDRESS": "0"}, Blocking) as runner:
            port = runner.containers[0].entrypoints[0].server.port
            for path, sent, kind, expected in (
                ("/hash", body, "text/plain", hashlib.sha256(body).hexdigest()),
                ("/lines", body, "text/plain", "200000 lines"),
                ("/all", body, "text/plain", str(len(body))),
                ("/form", form, "application/x-www-form-urlencoded", "x" * 300_000),
                ("/json", b'{"a": 1}', "application/json", '{"a":1}'),
            ):
                asked = head(path, f"Content-Length: {len(sent)}", f"Content-Type: {kind}", CLOSE)
                answer = await converse(port, asked + sent)
                self.assertEqual(answer.partition(b"\r\n\r\n")[2].decode(), expected, path)

    async def test_left(self) -> None:
        """A thread that reads from a client that leaves gets an error."""
        async with run_services({"WEB_SERVER_ADDRESS": "0"}, Blocking) as runner:
            port = runner.containers[0].entrypoints[0].server.port
            talk = Conversation(head("/all", "Content-Length: 10", "Expect: 100-continue"))
            await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), talk)
            await talk.begun  # it reads
            workers = runner.containers[0].entrypoints[0].container.workers
            talk.transport.abortConnection()
            while workers.threads.running:
                await deferLater(reactor, 0.001)
        self.assertEqual(self.flushLoggedErrors(), [])
