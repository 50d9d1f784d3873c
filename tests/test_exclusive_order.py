"""One message after the other, over all instances of a service: ``exclusive_order``."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.services import OnRabbitMQ, ServicesCase, TrustsNewQueues, consuming
from txservices.amqp.entities import Exchange, Queue
from txservices.constants import SINGLE_ACTIVE_ARGUMENT
from txservices.containers import ServiceContainer
from txservices.events import event_handler
from txservices.exceptions import DeclarationMismatch
from txservices.messaging import consume
from txservices.retry import Retry
from txservices.testing.waiting import Heard

LEDGER = Queue("ledger", Exchange("bookings"), "booked")


class InOrder(TrustsNewQueues, ServicesCase):
    """Instances of a service that books numbers."""

    def setUp(self) -> None:
        super().setUp()
        self.heard = Heard()
        self.held = {2, 4, 6}
        self.waiting: list[Deferred[None]] = []

    async def instance(self, name: str) -> ServiceContainer:
        """Another process with the service, which notes when it begins and ends each number, and waits for some."""
        heard, instance = self.heard, name

        case = self

        class Ledger:
            name = "ledger"

            @consume(LEDGER, exclusive_order=True)
            async def book(self, number: int) -> None:
                heard((instance, number, "begins"))
                if number in case.held:
                    waiting: Deferred[None] = Deferred()
                    case.waiting.append(waiting)
                    await waiting
                heard((instance, number, "ends"))

        (container,) = await self.process().start(Ledger)
        return container

    def release(self, number: int) -> None:
        """Have the instances that handle a number end that."""
        self.held.remove(number)
        waiting, self.waiting = self.waiting, []
        for each in waiting:
            if not each.called:
                each.callback(None)

    async def publish(self, *numbers: int) -> None:
        publisher = self.connections().publisher
        for number in numbers:
            await publisher.publish("bookings", "booked", b"%d" % number, {"content_type": "application/json"})

    async def test_over_instances(self) -> None:
        """The order is that of publishing, also when the active instance is stopped, is killed, or loses its broker."""
        first, second, third = [await self.instance(name) for name in "abc"]
        await self.publish(*range(5))
        await self.heard.wait(5)
        stopped = first.stop()  # while it handles 2
        await self.publish(5)  # the broker has heard by now whatever a stop says at once
        self.release(2)
        await stopped
        await self.heard.wait(9)
        await second.kill()  # while it handles 4
        await self.heard.wait(10)
        self.release(4)
        await self.publish(6, 7)
        await self.heard.wait(14)
        fourth = await self.instance("d")
        await self.publish(8)
        protocol = consuming(third).protocol
        assert protocol is not None
        protocol.transport.abortConnection()  # while it handles 6
        await self.heard.wait(15)
        self.release(6)
        await self.heard.wait(21)
        began = [(name, number) for name, number, what in self.heard.things if what == "begins"]
        self.assertEqual(
            began,
            [("a", 0), ("a", 1), ("a", 2), ("b", 3), ("b", 4), ("c", 4), ("c", 5), ("c", 6)]
            + [("d", number) for number in (6, 7, 8)],
        )
        things = self.heard.things
        self.assertLess(things.index(("a", 2, "ends")), things.index(("b", 3, "begins")))
        await fourth.stop()

    async def failing(self, **options: Any) -> list[int]:
        """The order in which messages are handled, the second of which fails once."""
        heard = self.heard

        class Ledger:
            name = "ledger"

            @consume(LEDGER, exclusive_order=True, **options)
            def book(self, number: int) -> None:
                heard(number)
                if number == 1 and heard.things.count(1) == 1:
                    raise ZeroDivisionError

        await self.start(Ledger, prefetch_count=10)
        await self.publish(*range(4))
        things: list[int] = await heard.wait(5)
        self.flushLoggedErrors(ZeroDivisionError)
        return things

    async def test_requeued(self) -> None:
        """With ``requeue_on_error`` the others wait for a message that failed."""
        self.assertEqual(await self.failing(requeue_on_error=True), [0, 1, 1, 2, 3])

    async def test_retried(self) -> None:
        """With ``retry`` they don't."""
        self.assertEqual(await self.failing(retry=Retry(attempts=2, delay=0.3)), [0, 1, 2, 3, 1])

    async def test_events(self) -> None:
        """An event handler can have it, and the queue of one that had it not is another queue: the start says so."""

        class Before:
            name = "ledger"

            @event_handler("shop", "sold")
            def sold(self, data: Any) -> None: ...

        class Ledger:
            name = "ledger"

            @event_handler("shop", "sold", exclusive_order=True)
            def sold(self, data: Any) -> None:
                heard(data)

        heard = self.heard
        (container,) = await self.start(Before)
        error = await self.assertFailure(self.start_of(Ledger), DeclarationMismatch)
        self.assertIn(SINGLE_ACTIVE_ARGUMENT, str(error))
        await container.stop()
        channel = await (await self.connections().consuming.when_connected()).open_channel()
        await channel.queue_delete(queue="evt-shop-sold--ledger.sold")
        await self.start(Ledger)
        await self.dispatch("shop", "sold", 7)
        self.assertEqual(await heard.wait(), [7])

    def start_of(self, service: type) -> Deferred[Any]:
        return Deferred.fromCoroutine(self.start(service))


class OnRabbitMQInOrder(OnRabbitMQ, InOrder):
    """The same on RabbitMQ."""
