"""Outbox: what reading brings on leaves in one write, and nothing overtakes what waits for its socket."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from txservices.amqp.outbox import Outbox, send


class Sender:
    """Stands in for a channel or connection: counts how often an outbox flushed it."""

    def __init__(self) -> None:
        self.flushed = 0

    def flush(self) -> None:
        self.flushed += 1


class OutboxTests(TestCase):
    """When connections are flushed."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.outbox = Outbox(self.clock)
        self.first, self.second = Sender(), Sender()

    def flushed(self) -> tuple[int, int]:
        return self.first.flushed, self.second.flushed

    def add(self, *senders: Any) -> None:
        for sender in senders:
            self.outbox.add(sender.flush)

    def test_at_the_end_of_the_turn(self) -> None:
        """Bytes that no read brought on are sent when the turn of the reactor ends, by one delayed call."""
        self.add(self.first, self.second)
        self.assertEqual(self.flushed(), (0, 0))
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(0)
        self.assertEqual(self.flushed(), (1, 1))

    def test_at_the_end_of_what_was_read(self) -> None:
        """Bytes that a read brings on, on either connection, are sent once it is worked off, without a delayed call."""
        seen = []
        self.outbox.receive(lambda data: (self.add(self.first, self.second), seen.append(self.flushed())), b"")
        self.assertEqual(seen, [(0, 0)])
        self.assertEqual(self.flushed(), (1, 1))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_bytes_that_are_wrong(self) -> None:
        """Frames before the bad bytes are answered nevertheless, and the error is raised."""

        def feed(data: bytes) -> None:
            self.add(self.first)
            raise ValueError(data)

        self.assertRaises(ValueError, self.outbox.receive, feed, b"bad")
        self.assertEqual(self.flushed(), (1, 0))
        self.add(self.second)
        self.clock.advance(0)
        self.assertEqual(self.flushed(), (1, 1))


class Collecting(Protocol):
    """Keeps what comes in, and tells when it is so many bytes."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.wanted = 0
        self.whole: Deferred[bytes] = Deferred()
        self.lost: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self.transport.pauseProducing()

    def read(self, wanted: int) -> Deferred[bytes]:
        self.wanted = wanted
        self.transport.resumeProducing()
        return self.whole

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        if len(self.data) >= self.wanted:
            self.whole.callback(bytes(self.data))

    def connectionLost(self, reason: Any = None) -> None:
        self.lost.callback(None)


class SendTests(TestCase):
    """Past the reactor, where that is safe."""

    async def connected(self) -> tuple[Collecting, Collecting]:
        """Both ends of a connection."""
        accepted: Deferred[Collecting] = Deferred()

        class Accepting(Factory):
            noisy = False

            def buildProtocol(self, addr: Any) -> Collecting:
                protocol = Collecting()
                reactor.callLater(0, accepted.callback, protocol)
                return protocol

        class Connecting(Factory):
            noisy = False
            protocol = Collecting

        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Accepting())
        self.addCleanup(port.stopListening)
        client: Any = await TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port).connect(Connecting())
        server = await accepted

        async def close() -> None:
            for end in (client, server):
                end.transport.abortConnection()
                await end.lost

        self.addCleanup(lambda: Deferred.fromCoroutine(close()))
        return client, server

    async def test_all_of_it_in_order(self) -> None:
        """Bytes that the socket doesn't take at once wait for it, and later ones are sent after them."""
        client, server = await self.connected()
        data = [bytes([number]) * 3_000_000 for number in range(4)]
        send(client.transport, b"first")
        client.transport.write(b"by the reactor")
        for each in data:
            send(client.transport, each)
        expected = b"".join([b"first", b"by the reactor", *data])
        self.assertEqual(await server.read(len(expected)), expected)

    async def test_at_once(self) -> None:
        """It is on its way before the reactor polls again."""
        client, server = await self.connected()
        writers = []
        self.patch(client.transport, "startWriting", lambda: writers.append(1))
        send(client.transport, b"hello")
        self.assertEqual(await server.read(5), b"hello")
        self.assertEqual(writers, [])

    async def test_lost(self) -> None:
        """Sending on a connection that is gone does nothing: who has to know is told by the reactor."""
        client, server = await self.connected()
        transport = client.transport
        server.transport.abortConnection()
        client.transport.resumeProducing()
        await client.lost
        send(transport, b"hello")
        self.assertFalse(transport.connected)
