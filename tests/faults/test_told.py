"""What handlers tell without waiting for it, in an alarm longer than PUBLISH_TIMEOUT and over a lost connection."""

from __future__ import annotations

from typing import Any

from tests import rabbitmq
from tests.faults.checker import EVENT, Checker
from tests.faults.scene import FULL, FaultsCase, until
from tests.services import ServicesCase
from txservices.amqp.connections import Connections
from txservices.amqp.entities import Exchange, Message, Queue
from txservices.broker.memory import broker_named
from txservices.events import EventDispatcher, event_handler
from txservices.exceptions import PublishTimeout

EVENTS = 500 if FULL else 200
TIMEOUT = 0.5  # seconds, PUBLISH_TIMEOUT of the service
JSON = {"content_type": "application/json"}
AGAIN = Queue("again", Exchange("relay.events", type="topic"), "again")
HUGE = 2**40  # bytes, over any mark


class Relay:
    """Tells each event again, and waits for nothing."""

    name = "relay"
    dispatch = EventDispatcher()

    @event_handler("teller", "told")
    def told(self, number: int) -> None:
        self.dispatch("again", number)


class Embedded(ServicesCase):
    """On the embedded broker."""

    timeout = 60

    async def alarm(self) -> None:
        """Have the broker take no messages."""
        self.broker = broker_named(self.config["AMQP_URI"].removeprefix("memory://"))
        self.broker.watermark.take(HUGE)

    async def calm(self) -> None:
        self.broker.watermark.take(-HUGE)

    async def test_nothing_is_lost(self) -> None:
        """Every event is told again, though its first attempt took longer than PUBLISH_TIMEOUT and lost its link."""
        checker = Checker(self.mktemp())
        (relay,) = await self.start(Relay)
        await relay.stop()
        connections = self.connections()
        for number in range(EVENTS):
            confirmed = connections.publisher.publish("teller.events", "told", b"%d" % number, dict(JSON))
            checker.event(number, confirmed)
        await checker.ended()

        def heard(message: Message) -> None:
            checker.note(EVENT, "handled", int(message.body))
            message.ack()

        await connections.consume(AGAIN, heard, 100).ready
        await self.alarm()
        (relay,) = await self.start(Relay, PUBLISH_TIMEOUT=TIMEOUT)
        theirs: Connections = relay.shared.namedServices["amqp"]
        await until(lambda: len(theirs.publisher.unconfirmed) >= 40)
        late = theirs.publisher.publish("", "again", b"-1", {}, timeout=4 * TIMEOUT)
        await self.assertFailure(late, PublishTimeout)
        self.assertGreaterEqual(len(theirs.publisher.unconfirmed), 40)
        for each in theirs.in_use:
            protocol: Any = each.protocol
            protocol.abort()
        await until(lambda: theirs.connected and len(theirs.publisher.unconfirmed) >= 40)
        await self.calm()
        await until(lambda: not checker.missing(), 30)
        print(f"\n{self.id()}: {checker.check()}")
        await until(lambda: not theirs.publisher.unconfirmed)


class OnRabbitMQ(FaultsCase, Embedded):
    """On RabbitMQ, with a memory alarm."""

    timeout = 100

    def node(self) -> rabbitmq.Node:
        return rabbitmq.mortal()

    async def alarm(self) -> None:
        self.addCleanup(self.calm)
        await self.broker.ctl("set_vm_memory_high_watermark", "0.00001")

    async def calm(self) -> None:
        await self.broker.ctl("set_vm_memory_high_watermark", "0.4")
