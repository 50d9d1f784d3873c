"""How much a connection reads at once: by how long it took to handle what it read before."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.amqp.peer import Peer
from tests.broker.peer import Client
from txservices.testing.waiting import Heard
from txservices.wire.frames import HEARTBEAT_FRAME
from txservices.wire.reading import READ_FIRST, READ_MAX, READ_MIN, READ_TIME, Reading

QUICK, GOOD, SLOW = READ_TIME / 10, READ_TIME / 2, READ_TIME * 1.1


class Transport:
    """A socket, or what is around one."""

    bufferSize = READ_MAX


class Sizes(SynchronousTestCase):
    """The sizes of pieces."""

    def test_steps(self) -> None:
        """Slow pieces make it smaller, quick ones that are full make it larger, within the bounds."""
        reading = Reading(Transport())
        self.assertEqual((reading.size, reading.source.bufferSize), (READ_FIRST, READ_FIRST))
        table = [
            (READ_MAX, SLOW, READ_MAX // 2),
            (READ_MAX // 2, GOOD, READ_MAX // 2),
            (READ_MAX // 2, SLOW, READ_MAX // 4),
            (1_000, QUICK, READ_MAX // 4),  # it was not full, so it says nothing
            (READ_MAX // 4, QUICK, READ_MAX // 2),
            (20_000, SLOW, 10_000),
            (10_000, SLOW, 5_000),
            (5_000, SLOW, READ_MIN),
            (READ_MIN, SLOW * 100, READ_MIN),
            (READ_MIN, QUICK, READ_MIN * 2),
            (READ_MIN * 2, QUICK, READ_MIN * 4),
            (READ_MIN * 4, QUICK, READ_MIN * 8),
            (READ_MAX // 2, QUICK, READ_MAX),
            (READ_MAX, QUICK, READ_MAX),
        ]
        for length, seconds, size in table:
            reading.adapt(length, seconds)
            self.assertEqual((reading.size, reading.source.bufferSize), (size, size), (length, seconds))

    def test_behind_tls(self) -> None:
        """With TLS around it, it is the socket that reads less."""
        wrapped: Any = Transport()
        wrapped.transport = Transport()
        Reading(wrapped).adapt(READ_MAX, SLOW)
        self.assertEqual((wrapped.bufferSize, wrapped.transport.bufferSize), (READ_MAX, READ_MAX // 2))


class Both(SynchronousTestCase):
    """A client and the embedded broker."""

    def check(self, protocol: Any, clock: Clock, seconds: list[float]) -> None:
        """``seconds`` has how long the next frame takes."""
        data = HEARTBEAT_FRAME * (READ_MAX // len(HEARTBEAT_FRAME))
        seconds[0] = SLOW
        protocol.dataReceived(data)
        self.assertEqual(protocol.transport.bufferSize, len(data) // 2)
        protocol.dataReceived(data)
        self.assertEqual(protocol.transport.bufferSize, READ_MAX)

    def slowed(self, protocol: Any, clock: Clock) -> list[float]:
        seconds, receive = [0.0], protocol.reader.receive

        def slow(*args: Any) -> None:
            clock.advance(seconds[0])
            seconds[0] = 0.0
            receive(*args)

        protocol.reader.receive = slow
        return seconds

    def test_client(self) -> None:
        """A client reads less after a piece that took long."""
        peer = Peer()
        peer.connect()
        self.check(peer.protocol, peer.clock, self.slowed(peer.protocol, peer.clock))

    def test_broker(self) -> None:
        """So does the embedded broker."""
        client = Client()
        client.open()
        self.check(client.session, client.clock, self.slowed(client.session, client.clock))


class OverTCP(TestCase):
    """Twisted's sockets."""

    async def test_pieces(self) -> None:
        """No piece is longer than ``bufferSize``, of which there is no word in Twisted's documentation."""
        heard, lost = Heard(), Deferred[None]()

        class Reads(Protocol):
            def connectionMade(self) -> None:
                transport: Any = self.transport
                transport.bufferSize = 100

            def dataReceived(self, data: bytes) -> None:
                heard(len(data))

            def connectionLost(self, reason: Any = None) -> None:
                lost.callback(None)

        port = reactor.listenTCP(0, Factory.forProtocol(Reads), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        client = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port), Protocol())
        client.transport.write(b"x" * 10_000)
        client.transport.loseConnection()
        await lost
        self.assertEqual((sum(heard.things), max(heard.things)), (10_000, 100))
