"""A declaration for which the broker closes the connection fails, and costs those beside it no more than reconnects."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.amqp.peer import Peer
from tests.amqp.test_publisher import PublisherCase
from tests.services import OnRabbitMQ, ServicesCase
from txservices.amqp.entities import Exchange, Queue
from txservices.exceptions import ConnectionClosedByBroker, DeclarationMismatch
from txservices.testing.waiting import Heard

UNKNOWN = {"reply_code": 503, "reply_text": "COMMAND_INVALID - unknown exchange type", "class_id": 40, "method_id": 10}


class DeclarationsTests(PublisherCase):
    """A broker that closes the connection for one queue, which the test plays."""

    def answer(self, bad: str = "bad", **close: Any) -> list[str]:
        """Answer what is asked until nothing more is, or the bad queue is declared. Gives the queues in order."""
        declared = []
        while sent := self.peer.sent():
            for number, name, args in sent:
                if name == "queue.declare":
                    declared.append(args["queue"])
                    if args["queue"] == bad:
                        self.peer.method(0, "connection.close", **(close or UNKNOWN))
                        return declared
                    self.peer.method(number, "queue.declare-ok", queue=args["queue"])
                elif name in ("channel.open", "channel.close", "confirm.select"):
                    self.peer.method(number, f"{name}-ok")
        return declared

    def connect_again(self) -> Deferred[None]:
        """Another connection. Gives what becomes of its restoring."""
        self.lose_connection()
        clock, self.peer = self.peer.clock, Peer()
        self.peer.clock = self.peer.protocol.clock = clock
        self.peer.connect()
        return Deferred.fromCoroutine(self.publisher.restore(self.peer.protocol))

    def usable(self) -> None:
        """The connection is restored: it is there for everyone."""
        self.connection.protocol = self.peer.protocol
        self.connection.waiting.fire(self.peer.protocol)

    def test_declared_again(self) -> None:
        """They are declared one at a time on the next connection, and the culprit is left out from then on."""
        queues = [Queue(name) for name in ("first", "bad", "last")]
        declaring = self.publisher.declare(*queues)
        self.assertEqual(self.answer(bad=""), ["first", "bad", "last"])
        self.successResultOf(declaring)
        for close in (UNKNOWN, {"reply_code": 541}, {"reply_code": 540, "reply_text": "no queue 'bad' of that kind"}):
            self.publisher.topology.entities = dict.fromkeys(queues)
            restoring = self.connect_again()
            self.assertEqual(self.answer(**close), ["first", "bad"])
            self.failureResultOf(restoring, ConnectionClosedByBroker)
            restoring = self.connect_again()
            self.assertEqual(self.answer(**close), ["first", "bad"])
            self.failureResultOf(restoring, ConnectionClosedByBroker)
            for _ in range(2):
                restoring = self.connect_again()
                self.assertEqual(self.answer(), ["first", "last"])
                self.successResultOf(restoring)
            self.assertEqual(list(self.publisher.topology.entities), [queues[0], queues[2]])

    def test_lost_meanwhile(self) -> None:
        """A connection that ends in another way, or for a message, has nobody left out."""
        declaring = self.publisher.declare(Queue("first"), Queue("bad"))
        self.answer(bad="")
        self.successResultOf(declaring)
        for close in ({"reply_code": 320}, {"reply_code": 541, "class_id": 60, "method_id": 40}):
            for _ in range(3):
                restoring = self.connect_again()
                self.assertEqual(self.answer(**close), ["first", "bad"])
                self.failureResultOf(restoring, ConnectionClosedByBroker)
        self.assertEqual(len(self.publisher.topology.entities), 2)

    def test_new_ones(self) -> None:
        """The culprit fails after the second connection; one that was beside it is declared after it, alone."""
        bad, good = self.publisher.declare(Queue("bad")), self.publisher.declare(Queue("good"))
        self.assertEqual(self.answer(), ["bad"])
        self.successResultOf(self.restored())
        self.assertEqual(self.answer(), ["bad"])
        self.failureResultOf(bad, ConnectionClosedByBroker)
        self.successResultOf(self.restored())
        self.assertEqual(self.answer(), ["good"])
        self.successResultOf(good)

    def test_lost_links(self) -> None:
        """However often the connection is lost otherwise, a declaration is made on the next one."""
        declaring = self.publisher.declare(Queue("bad"))
        for _ in range(5):
            self.assertEqual(self.answer(reply_code=320), ["bad"])
            self.successResultOf(self.restored())
        self.assertEqual(self.answer(bad=""), ["bad"])
        self.successResultOf(declaring)

    def restored(self) -> Deferred[None]:
        restoring = self.connect_again()
        self.channel = self.opened()
        self.usable()
        return restoring


class DeclarationsOnEmbeddedTests(ServicesCase):
    """Declarations beside each other, one of which is of a type that no broker has."""

    async def test_beside(self) -> None:
        """It fails, after two connections at most, and the others are made."""
        connections = self.connections()
        publisher = connections.publisher
        await publisher.declare(Queue("q"))
        connected = Heard()
        publisher.connection.on_connected.append(connected)
        good = [publisher.declare(Exchange(f"good {number}")) for number in range(3)]
        bad = publisher.declare(Exchange("bad", type="x-no-such"))
        good += [publisher.declare(Exchange(f"better {number}")) for number in range(3)]
        await self.assertFailure(bad, ConnectionClosedByBroker, DeclarationMismatch)
        for each in good:
            await each
        self.assertLessEqual(len(connected.things), 2)
        await publisher.publish("good 0", "k", b"", {})


class DeclarationsOnRabbitTests(OnRabbitMQ, DeclarationsOnEmbeddedTests):
    """The same on RabbitMQ, which closes the connection (503) before version 4."""
