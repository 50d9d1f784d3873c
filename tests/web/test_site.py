"""What clients can make a site hold, and how they are turned away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import TestCase

from tests.web.peer import Service, WebTestCase, converse, text
from txservices.exceptions import ConfigurationError
from txservices.runners import run_services
from txservices.web import channel, heads, site

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

    async def test_close_channels(self) -> None:
        """Connections end at once if they are idle, or else after their answer, or after CLOSE_TIMEOUT."""
        await self.serve(Service)
        idle, answered, stuck = (self.peer() for _ in range(3))
        idle.get("/number/1")
        answered.get("/wait")
        waiting = Service.waiting
        stuck.get("/wait")
        self.addCleanup(Service.waiting.callback, "nobody hears it")
        self.site.cancel()
        closed = self.site.close_channels()
        self.assertEqual([each.transport.connected for each in (idle, answered, stuck)], [False, True, True])
        waiting.callback("late")
        self.assertEqual(answered.received(), text("200 OK", "late", after="Connection: close"))
        self.assertEqual([each.transport.connected for each in (answered, stuck)], [False, True])
        self.assertNoResult(closed)
        self.reactor.advance(site.CLOSE_TIMEOUT)
        self.assertFalse(stuck.transport.connected)
        self.successResultOf(closed)

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


class OnTheNetwork(TestCase):
    """With sockets."""

    async def test_turned_away(self) -> None:
        """A client that is turned away reads its answer, though it has sent a request, or sends one then."""
        async with run_services({"WEB_SERVER_ADDRESS": "0", "WEB_CONNECTIONS_MAX": 0}, Service) as runner:
            port = runner.containers[0].entrypoints[0].server.port
            for size in (10, 1_000_000):
                data = b"POST /length HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (size, b"x" * size)
                self.assertEqual(await converse(port, data), REFUSAL)
