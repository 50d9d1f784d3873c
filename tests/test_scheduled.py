"""Messages and events with a delay, as services and programs send them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet import reactor

from tests.services import OnRabbitMQ, Recorded, ServicesCase, TrustsNewQueues
from txservices.amqp.delays import DELAY_MAX
from txservices.amqp.entities import Exchange, Queue
from txservices.events import EventDispatcher, event_handler
from txservices.messaging import Publisher
from txservices.rpc import rpc
from txservices.standalone.events import event_dispatcher
from txservices.testing.waiting import Heard

DELAY = 0.05
WORK = Queue("work", Exchange("works", type="topic"), "#")


class Source:
    name = "source"
    dispatch = EventDispatcher()
    publish = Publisher(exchange=WORK.exchange, declare=[WORK])
    later = Publisher(exchange=WORK.exchange, delay=DELAY)

    @rpc
    def tell(self, data: Any, delay: Any) -> Any:
        return self.dispatch("type", data, delay=delay)

    @rpc
    def send(self, data: Any, delay: Any) -> Any:
        return self.publish(data, routing_key="a.key", delay=delay)

    @rpc
    def send_later(self, data: Any) -> Any:
        return self.later(data, routing_key="a.key")


def listener(heard: Heard) -> type:
    class Listener:
        name = "listener"

        @event_handler("source", "type")
        def hear(self, data: Any) -> None:
            heard(data)

    return Listener


class ScheduledTests(TrustsNewQueues, ServicesCase):
    """Delays of one message, and of all messages of a publisher."""

    async def is_heard(self, heard: Heard, tell: Callable[[float], Awaitable[None]], *expected: str) -> None:
        """What is told is heard in that order."""
        delay = DELAY
        while True:
            await tell(delay)
            if await heard.wait(len(expected)) == [*expected] or delay > 10:
                break
            delay *= 5  # a slow machine has not told the last within the delay
            heard.things.clear()
        self.assertEqual(heard.things, [*expected])

    async def test_events(self) -> None:
        """An event is heard after its delay, behind one that has none, with its data and context."""
        heard = Heard()
        await self.start(Source, listener(heard))
        cluster = await self.cluster()

        async def tell(delay: float) -> None:
            for data, seconds in (("later", delay), ("now", None), ("at once", 0)):
                await cluster.source.tell(data, seconds)

        await self.is_heard(heard, tell, "now", "at once", "later")

    async def test_programs(self) -> None:
        """A program's events have delays, too."""
        heard = Heard()
        await self.start(Source, listener(heard))
        async with event_dispatcher(self.config) as dispatch:

            async def tell(delay: float) -> None:
                await dispatch("source", "type", "later", delay=delay)
                await dispatch("source", "type", "now")

            await self.is_heard(heard, tell, "now", "later")

    async def test_publishers(self) -> None:
        """A message comes to where it would have come without a delay: by its own exchange and routing key."""
        recorded = Recorded()
        await self.start(Source)
        await self.connections().consume(WORK, recorded, 0).ready
        cluster = await self.cluster()
        began = reactor.seconds()
        await cluster.source.send(1, DELAY)
        await cluster.source.send_later(2)
        await cluster.source.send(3, None)
        messages = await recorded.wait(3)
        self.assertGreaterEqual(reactor.seconds() - began, DELAY)
        self.assertEqual(sorted(each.body for each in messages), [b"1", b"2", b"3"])
        self.assertEqual({(each.exchange, each.routing_key) for each in messages}, {("works", "a.key")})

    async def test_mistakes(self) -> None:
        """Delays that can't be are refused at once, as is one with an expiration; nothing is sent or kept."""
        (container,) = await self.start(Source)
        publisher = next(each for each in container.dependencies if each.attr_name == "publish").publisher
        for delay in (-1, float("nan"), float("inf"), DELAY_MAX + 1):
            with self.assertRaises(ValueError, msg=delay):
                publisher.publish(1, delay=delay)
        for delay in ("1", True, [1]):
            with self.assertRaises(TypeError, msg=delay):
                publisher.publish(1, delay=delay)
        with self.assertRaisesRegex(ValueError, "both a delay and an expiration"):
            publisher.publish(1, delay=1, expiration=1)
        self.assertEqual(len(publisher.connections.publisher.unconfirmed), 0)


class ScheduledOnRabbitMQ(OnRabbitMQ, ScheduledTests):
    """The same on a RabbitMQ."""
