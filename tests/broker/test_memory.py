"""Client and server joined inside the process."""

from __future__ import annotations

from typing import Any

from twisted.internet import protocol
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from txservices.amqp.connections import Connections
from txservices.amqp.entities import Exchange, Message, Queue
from txservices.amqp.protocol import Protocol
from txservices.broker import memory
from txservices.broker.server import Broker
from txservices.broker.session import Session
from txservices.exceptions import UndeliverableMessage
from txservices.utils.address import parse_address


class Side(protocol.Protocol):
    """Keeps what it gets."""

    transport: Any

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.lost: list[type] = []
        self.paused: list[bool] = []

    def dataReceived(self, data: bytes) -> None:
        self.got.append(data)

    def connectionLost(self, reason: Failure) -> None:
        self.lost.append(reason.type)

    def pauseProducing(self) -> None:
        self.paused.append(True)

    def resumeProducing(self) -> None:
        self.paused.append(False)


class PipeTests(SynchronousTestCase):
    """The two transports."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.one, self.other = Side(), Side()
        memory.join(self.one, self.other, self.clock)

    def turn(self) -> None:
        self.clock.advance(0)

    def test_a_turn_is_one_piece(self) -> None:
        """Everything that one side writes in a turn comes to the other in the next one, as one piece."""
        self.one.transport.write(b"a")
        self.one.transport.writeSequence([b"b", b"c"])
        self.assertEqual(self.other.got, [])
        self.turn()
        self.assertEqual(self.other.got, [b"abc"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_lose(self) -> None:
        """The end comes after what was written; then nothing more can be."""
        self.one.transport.write(b"last")
        self.one.transport.loseConnection()
        self.one.transport.write(b"too late")
        self.turn()
        self.assertEqual(
            (self.other.got, self.other.lost, self.one.lost), ([b"last"], [ConnectionDone], [ConnectionDone])
        )
        self.other.transport.write(b"to nobody")
        self.turn()
        self.assertEqual(self.one.got, [])

    def test_abort(self) -> None:
        """An abort loses what was written, both ways."""
        self.one.transport.write(b"lost")
        self.other.transport.write(b"lost too")
        self.one.transport.abortConnection()
        self.one.transport.abortConnection()
        self.assertEqual(self.one.lost, [])
        self.turn()
        self.assertEqual((self.one.got, self.other.got), ([], []))
        self.assertEqual((self.one.lost, self.other.lost), ([ConnectionAborted], [ConnectionLost]))

    def test_back_pressure(self) -> None:
        """A side that does not read gets nothing, and pauses the other's producer when enough waits."""
        self.one.transport.registerProducer(self.one, True)
        self.other.transport.pauseProducing()
        self.one.transport.write(b"x" * memory.BUFFER_MAX)
        self.turn()
        self.assertEqual((self.other.got, self.one.paused), ([], []))
        self.one.transport.write(b"x")
        self.assertEqual(self.one.paused, [True])
        self.other.transport.resumeProducing()
        self.turn()
        self.assertEqual(len(self.other.got[0]), memory.BUFFER_MAX + 1)
        self.assertEqual(self.one.paused, [True, False])

    def test_error_in_a_protocol(self) -> None:
        """An error in one side ends the connection, as it would over TCP."""
        self.other.dataReceived = lambda data: 1 / 0
        self.one.transport.write(b"x")
        self.turn()
        self.turn()
        self.assertEqual((self.one.lost, self.other.lost), ([ConnectionLost], [ConnectionAborted]))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class HeldUpTests(SynchronousTestCase):
    """One process that holds up both its sides."""

    def test_neither_gives_up_the_other(self) -> None:
        """After any time in which nothing ran, both sides are alive to each other, whatever was written before it."""
        clock = Clock()
        client = Protocol(parse_address("memory://"), 10, "PLAIN", "tests", clock)
        ours, _ = memory.join(client, Session(Broker(clock=clock), trusted=True), clock)
        clock.pump([0] * 20)
        self.successResultOf(client.opened)
        clock.pump([1] * 9)
        client.open_channel()  # so that both sides wrote something in this half interval
        clock.pump([0] * 5)
        clock.rightNow += 100
        clock.pump([0] * 5)
        self.assertTrue(ours.connected)
        ours.abortConnection()
        clock.advance(0)
        self.assertEqual(clock.getDelayedCalls(), [])


class EndpointTests(TestCase):
    """memory://NAME, with the client of txservices on the other side."""

    def setUp(self) -> None:
        self.addCleanup(memory.brokers.pop, "tests-broker", None)

    def connect(self) -> Connections:
        connections = Connections.from_config({"AMQP_URI": "memory://tests-broker"})
        connections.startService()
        self.addCleanup(connections.stopService)
        return connections

    async def test_made_by_the_first(self) -> None:
        """The first to connect makes the broker; nobody to connect to is refused as it is over TCP."""
        self.assertNotIn("tests-broker", memory.brokers)
        side = await memory.endpoint("tests-broker").connect(Factory.forProtocol(Side))
        broker = memory.brokers["tests-broker"]
        self.assertEqual(len(broker.sessions), 1)
        side.transport.loseConnection()
        await broker.close()
        self.assertEqual(len(broker.sessions), 0)

    async def test_messages(self) -> None:
        """Messages published in one connection are consumed in another, in order, and acked."""
        sender, receiver = self.connect(), self.connect()
        got: list[bytes] = []
        done: Deferred[None] = Deferred()

        def receive(message: Message) -> None:
            got.append(message.body)
            message.ack()
            if len(got) == 500:
                done.callback(None)

        exchange = Exchange("x", "topic")
        consumer = receiver.consume(Queue("q", exchange, "a.*"), receive, 10)
        await consumer.ready
        sending = [sender.publisher.publish("x", "a.b", b"%d" % number, {}, mandatory=True) for number in range(500)]
        for each in sending:
            await each
        await done
        await consumer.drain()
        self.assertEqual(got, [b"%d" % number for number in range(500)])
        with self.assertRaises(UndeliverableMessage):
            await sender.publisher.publish("x", "b.b", b"", {}, mandatory=True)
