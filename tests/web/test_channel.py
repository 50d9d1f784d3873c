"""A connection's life: clients that end their side, and those that send more than their share."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.trial.unittest import TestCase

from tests.web.peer import Conversation, Peer, Service, WebTestCase, text
from txservices.runners import run_services
from txservices.utils import turns
from txservices.web import channel
from txservices.web.handlers import http

GET = b"GET /number/%d HTTP/1.1\r\nHost: h\r\n\r\n"


class HalfClosed(WebTestCase):
    """Clients that end their side, and wait for their answers."""

    async def test_waits(self) -> None:
        """A method that waits is answered, and so is what was sent after it; then the connection ends."""
        await self.serve(Service)
        peer = self.peer()
        self.assertEqual(peer.send(b"GET /wait HTTP/1.1\r\nHost: h\r\n\r\n" + GET % 1) + peer.end(), b"")
        self.assertTrue(peer.transport.connected)
        Service.waiting.callback("at last")
        self.assertEqual(peer.received(), text("200 OK", "at last") + text("200 OK", "1"))
        self.assertFalse(peer.transport.connected)

    async def test_idle(self) -> None:
        """Between requests, and before the first, the connection ends at once."""
        await self.serve(Service)
        for sent in (b"", GET % 1, b"\r\n"):
            peer = self.peer()
            peer.send(sent)
            self.assertEqual(peer.end(), b"")
            self.assertFalse(peer.transport.connected)

    async def test_not_complete(self) -> None:
        """A request that is not complete is answered 400."""
        await self.serve(Service)
        upload = b"POST /length HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nfour"
        for sent in (GET[:-2], upload, b"G"):
            peer = self.peer()
            peer.send(sent)
            self.assertTrue(peer.end().startswith(b"HTTP/1.1 400 Bad Request\r\n"), sent)
            self.assertFalse(peer.transport.connected)

    async def test_refused(self) -> None:
        """A client that was refused, and ends its side when it has read that, is not waited for any longer."""
        await self.serve(Service, WEB_CONNECTIONS_MAX=1)
        wrong, turned_away = self.peer(), self.peer()
        wrong.send(b"what?\r\n\r\n")
        for peer in (wrong, turned_away):
            self.assertTrue(peer.transport.connected)
            peer.end()
            self.assertFalse(peer.transport.connected)

    async def test_cancelled(self) -> None:
        """With ``cancel_on_disconnect`` the end of the client's side is taken for the client's end."""
        cancelled: list[bool] = []

        class Work:
            name = "work"

            @http("GET", "/", cancel_on_disconnect=True)
            def wait(self, request):
                return Deferred(lambda _: cancelled.append(True))

        await self.serve(Work)
        peer = self.peer()
        peer.get("/")
        self.assertEqual(peer.end(), b"")
        self.assertFalse(peer.transport.connected)
        self.assertEqual(cancelled, [True])

    async def test_full(self) -> None:
        """While the client does not read, nothing more is answered; then the rest is, and the connection ends."""
        await self.serve(Service)
        peer = self.peer()
        peer.send(GET % 1)
        peer.channel.pauseProducing()
        self.assertEqual(peer.send(GET % 2 * 3) + peer.end(), b"")
        peer.channel.resumeProducing()
        self.assertEqual(peer.received(), text("200 OK", "2") * 3)
        self.assertFalse(peer.transport.connected)


class Sharing(WebTestCase):
    """What a connection may do in a turn of the reactor."""

    async def test_others_have_their_turn(self) -> None:
        """Clients with two hundred requests each hold no timer, and no client with one; each gets its answers in order.

        A method takes a millisecond here, on a clock that only the methods move.
        """
        clock = self.reactor

        class Work:
            name = "work"

            @http("GET", "/number/<int:value>")
            def number(self, request, value):
                clock.rightNow += 0.001
                return str(value)

        await self.serve(Work)
        greedy = [self.peer() for _ in range(20)]
        for peer in greedy:
            for first in range(0, 200, 100):  # as TCP cuts it
                peer.channel.dataReceived(b"".join(GET % number for number in range(first, first + 100)))
        self.assertLess(clock.rightNow, 2 * turns.TURN)
        modest = self.peer()
        modest.send(GET % 7)
        late, answered = [], None
        while any(answers(peer) < 200 for peer in greedy):
            began = clock.rightNow
            take_turn(clock)
            late.append(clock.rightNow - began)
            if answered is None and answers(modest):
                answered = len(late)
        self.assertLess(max(late), 2 * turns.TURN)
        assert answered is not None
        self.assertLess(answered, 3)
        self.assertEqual(greedy[-1].received(), b"".join(text("200 OK", str(number)) for number in range(200)))

    async def test_not_read_on(self) -> None:
        """What waits here for its turn has a limit: beyond it the client is not read until there is room."""
        await self.serve(Service)
        peer = self.peer()
        peer.send(b"GET /wait HTTP/1.1\r\nHost: h\r\n\r\n")
        requests = b"".join(GET % number for number in range(1000))
        peer.send(requests[: channel.BUFFER_MAX])
        self.assertEqual(peer.transport.producerState, "producing")
        peer.send(requests[channel.BUFFER_MAX :])
        self.assertEqual(peer.transport.producerState, "paused")
        Service.waiting.callback("")
        self.reactor.pump([0] * 3)
        self.assertEqual(peer.transport.producerState, "producing")
        self.assertEqual(answers(peer), 1001)

    async def test_chunks(self) -> None:
        """Many small chunks are read over several turns."""
        await self.serve(Service)
        peer = self.peer()
        peer.send(b"POST /length HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        self.assertEqual(peer.send(b"1\r\nx\r\n" * (2 * turns.STEPS_AT_ONCE) + b"0\r\n\r\n"), b"")
        self.reactor.advance(0)
        self.assertEqual(peer.received(), text("200 OK", str(2 * turns.STEPS_AT_ONCE)))

    async def test_left(self) -> None:
        """A client that leaves while its requests wait harms nobody."""
        await self.serve(Service)
        left, stays = self.peer(), self.peer()
        for peer in (left, stays):
            peer.channel.dataReceived(GET % 1 * 100)
        left.leave()
        self.reactor.advance(0)
        self.assertEqual(answers(stays), 100)


def take_turn(clock: Any) -> None:
    """Call what is due now, and not what becomes due meanwhile, as a reactor does in a turn."""
    due = [call for call in clock.getDelayedCalls() if call.getTime() <= clock.seconds()]
    clock.calls = [call for call in clock.calls if call not in due]
    for call in due:
        call.called = 1
        call.func(*call.args, **call.kw)


def answers(peer: Peer) -> int:
    return int(peer.transport.value().count(b"HTTP/1.1 200 OK"))


class OverTCP(TestCase):
    """The same with sockets."""

    async def test_half_closed(self) -> None:
        """Requests that wait, pipelined ones and uploads are answered to clients that have ended their side."""

        class Working:
            name = "working"
            begun: list[Deferred[Any]] = []

            @http("GET", "/wait/<int:value>")
            def wait(self, request, value):
                self.begun.append(Deferred())
                return self.begun[-1].addCallback(lambda _: str(value))

            @http("GET", "/number/<int:value>")
            def number(self, request, value):
                return str(value)

            @http("POST", "/length")
            def length(self, request):
                return str(len(request.get_data()))

        def waits(number: int) -> bytes:
            return GET.replace(b"number", b"wait") % number

        size = 5_000_000
        upload = b"POST /length HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (size, b"x" * size)
        async with run_services({"WEB_SERVER_ADDRESS": "0"}, Working) as runner:
            port = runner.containers[0].entrypoints[0].server.port
            talks = [Conversation(data) for data in (waits(1), waits(2) + GET % 3 * 1000, upload)]
            for talk in talks:
                await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), talk)
                talk.transport.loseWriteConnection()
            self.assertEqual(await talks[2].closed, text("200 OK", str(size)))
            for waiting in Working.begun:
                waiting.callback(None)
            one, many = await gatherResults([talk.closed for talk in talks[:2]])
            self.assertEqual(one, text("200 OK", "1"))
            self.assertEqual(many, text("200 OK", "2") + text("200 OK", "3") * 1000)
