"""Bodies that are made while they are sent: clients that read slowly, stops, and the sockets that carry them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import TestCase

from tests.web.peer import Conversation, WebTestCase, converse
from tests.web.test_bodies import HEAD, ONE_TWO, Given, plain
from txservices.runners import run_services
from txservices.web import bodies
from txservices.web.handlers import http


class Waits(WebTestCase):
    """Who waits for whom, in memory."""

    async def test_slow_reader(self) -> None:
        """While the client takes nothing, no piece is made, of whatever kind; then all arrive, in their order."""
        made: list[int] = []

        def counted() -> Iterator[Any]:
            for number in range(2_000):
                made.append(number)
                yield b"%04d" % number * 100

        async def counted_async() -> AsyncIterator[Any]:
            for piece in counted():
                yield await succeed(piece)

        kinds: list[Callable[[], Any]] = [
            counted, counted_async, lambda: map(succeed, counted()), lambda: succeed(counted())
        ]  # fmt: skip
        await self.serve(Given)
        for Given.body in kinds:
            made.clear()
            peer = self.peer()
            data = peer.get("/")
            self.assertLessEqual(len(made), bodies.PIECES_A_TURN)
            peer.channel.pauseProducing()
            taken = len(made)
            self.reactor.pump([0] * 50)
            self.assertLessEqual(len(made), taken + 1)
            peer.channel.resumeProducing()
            self.reactor.pump([0] * 50)
            data += peer.received()
            self.assertEqual(made, list(range(2_000)))
            self.assertEqual([int(line[:4]) for line in data.split(b"\r\n") if len(line) == 400], made)
            self.assertTrue(data.endswith(b"\r\n0\r\n\r\n"))

    async def test_bare(self) -> None:
        """HEAD, and a client that has left, end the iterator without a piece of it."""
        closed = []

        class Counting:
            def __iter__(self) -> Any:
                raise AssertionError("nobody wants it")

            def close(self) -> None:
                closed.append(self)

        Given.body = Counting
        await self.serve(Given)
        self.assertTrue(self.peer().get("/", method="HEAD").endswith(b"\r\n\r\n"))
        self.assertEqual(len(closed), 1)

    async def test_next_request(self) -> None:
        """The connection goes on with the next request, which may have come meanwhile."""
        Given.body = plain
        await self.serve(Given)
        peer = self.peer()
        self.assertEqual(peer.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" * 3), ONE_TWO * 3)
        self.assertEqual(peer.get("/"), ONE_TWO)

    async def test_left_while_making(self) -> None:
        """A client that leaves while a piece is made ends the wait for it, in the next turn of the reactor."""
        ended: list[bool] = []

        def leaving() -> Iterator[Any]:
            try:
                peer.leave()
                yield Deferred()
            finally:
                ended.append(True)

        Given.body = leaving
        await self.serve(Given)
        peer = self.peer()
        self.assertEqual(peer.get("/"), b"")
        self.assertEqual(ended, [])
        self.reactor.advance(0)
        self.assertEqual(ended, [True])


class Stop(WebTestCase):
    """A stop, while a body is sent."""

    async def test_waited_for(self) -> None:
        """A response whose head has gone out is sent to its end, and its connection closed after it."""
        rest: Deferred[str] = Deferred()
        Given.body = lambda: iter(["one", rest])
        runner = await self.serve(Given)
        peer = self.peer()
        self.assertEqual(peer.get("/"), HEAD % b"" + b"3\r\none\r\n")
        stopping = runner.stop()
        self.assertNoResult(stopping)
        self.assertTrue(peer.transport.connected)
        rest.callback("two")
        self.assertEqual(peer.received(), b"3\r\ntwo\r\n0\r\n\r\n")
        self.assertFalse(peer.transport.connected)
        await stopping

    async def test_long(self) -> None:
        """So is a long text that its client takes slowly; ``SHUTDOWN_TIMEOUT`` is the end of it."""

        class Long:
            name = "long"

            @http("GET", "/")
            def method(self, request):
                return "x" * 10_000_000

        for patient in (True, False):
            runner = await self.serve(Long, SHUTDOWN_TIMEOUT=30)
            peer = self.peer()
            peer.get("/")
            peer.channel.pauseProducing()
            stopping = runner.stop()
            self.reactor.advance(29)
            self.assertTrue(peer.transport.connected)
            self.assertNoResult(stopping)
            if patient:
                peer.channel.resumeProducing()
                self.reactor.pump([0] * 50)
                self.assertIn(b"x" * 300_000, peer.transport.value())
            else:
                self.reactor.advance(1)
            await stopping
            self.assertFalse(peer.transport.connected)

    async def test_idle(self) -> None:
        """A connection that is kept open between requests is closed at once."""
        rest: Deferred[str] = Deferred()
        Given.body = lambda: iter(["one", rest])
        runner = await self.serve(Given)
        idle, busy = self.peer(), self.peer()
        Given.body, body = plain, Given.body
        self.assertEqual(idle.get("/"), ONE_TWO)
        Given.body = body
        busy.get("/")
        stopping = runner.stop()
        self.assertFalse(idle.transport.connected)
        self.assertTrue(busy.transport.connected)
        rest.callback("")
        await stopping

    async def test_killed(self) -> None:
        """A kill cuts it and ends its iterator."""
        ended = []

        async def waiting() -> AsyncIterator[str]:
            try:
                yield "one"
                await Deferred()
            finally:
                ended.append("ended")

        Given.body = waiting
        runner = await self.serve(Given)
        peer = self.peer()
        peer.get("/")
        await runner.kill()
        self.assertEqual(ended, ["ended"])
        self.assertFalse(peer.transport.connected)


class Sockets(TestCase):
    """Long and short pieces over TCP, and a stop there."""

    async def test_lengths(self) -> None:
        """Pieces arrive in their order, long ones and short ones, and the access log counts the bytes of all."""
        pieces = [b"%03d" % number * (70_000 if number % 3 else 10) for number in range(12)]
        body = b"".join(pieces)
        Given.body = lambda: iter(pieces)
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        config = {"WEB_SERVER_ADDRESS": "0", "WEB_ACCESS_LOG": "combined"}
        with capturedLogs() as events:
            async with run_services(config, Given) as runner:
                port = runner.containers[0].entrypoints[0].server.port
                for version, expected in [(0, body), (1, chunks)]:
                    request = b"GET / HTTP/1.%d\r\nHost: h\r\nConnection: close\r\n\r\n" % version
                    answer = await converse(port, request)
                    self.assertTrue(answer.partition(b"\r\n\r\n")[2] == expected, version)
        lines = [formatEvent(each) for each in events if each.get("log_namespace") == "txservices.web.accesslog"]
        self.assertEqual([line.split('" ')[1].split()[1] for line in lines], [str(len(body))] * 2)

    async def test_download(self) -> None:
        """A client gets all of a long download, though the service stops when it has begun."""
        size = 4_000_000
        Given.body = lambda: (b"x" * 50_000 for _ in range(size // 50_000))
        async with run_services({"WEB_SERVER_ADDRESS": "0"}, Given) as runner:
            talk = Conversation(b"GET / HTTP/1.0\r\nHost: h\r\n\r\n")
            port = runner.containers[0].entrypoints[0].server.port
            await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), talk)
            await talk.begun
        received = await talk.closed
        self.assertEqual(received.count(b"x"), size + received.partition(b"\r\n\r\n")[0].count(b"x"))
