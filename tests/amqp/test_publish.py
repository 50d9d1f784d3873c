"""A publisher with a service and by itself, and what holds back the ack of the message that a worker handles."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.services import Recorded, ServicesCase, properties_of
from txservices.amqp import publish as amqp_publish
from txservices.amqp.entities import Exchange, Queue
from txservices.amqp.publish import Confirmation, unconfirmed_of, when_confirmed
from txservices.constants import NON_PERSISTENT
from txservices.events import EventDispatcher
from txservices.exceptions import DeclarationMismatch
from txservices.messaging import Publisher
from txservices.rpc import RpcProxy, rpc
from txservices.testing.waiting import Heard
from txservices.utils.waiting import Unconfirmed


class UnconfirmedTests(SynchronousTestCase):
    """An ack waits for the confirms of all that its worker published."""

    def setUp(self) -> None:
        self.owner, self.called = Owner(), Heard()

    def test_none(self) -> None:
        """An owner that has published nothing does not wait, and nothing is counted. Nor does it without an owner."""
        when_confirmed(self.owner, self.called)
        when_confirmed(None, self.called)
        self.assertEqual((len(self.called.things), self.owner.unconfirmed), (2, None))

    def test_some(self) -> None:
        """An owner waits for everything that it has published, and for nothing that another owner has."""
        other = Owner()
        confirmations = [
            Confirmation(unconfirmed_of(each), "exchange", "key") for each in (self.owner, self.owner, other)
        ]
        when_confirmed(self.owner, self.called)
        when_confirmed(self.owner, self.called)
        waiting = unconfirmed_of(self.owner).wait()
        confirmations[0].done(None)
        self.assertEqual(self.called.things, [])
        self.assertNoResult(waiting)
        confirmations[1].done(None)
        self.assertEqual(len(self.called.things), 2)
        self.successResultOf(waiting)
        self.assertEqual((unconfirmed_of(self.owner).count, unconfirmed_of(other).count), (0, 1))

    def test_published_in_answer(self) -> None:
        """A message that is published while the last confirm arrives counts as well."""
        counting = unconfirmed_of(self.owner)
        first, second = Confirmation(counting, "exchange", "key"), []
        when_confirmed(self.owner, self.called)
        first.addCallback(lambda _: second.append(Confirmation(counting, "exchange", "key")))
        first.done(None)
        self.assertEqual(self.called.things, [])
        second[0].done(None)
        self.assertEqual(len(self.called.things), 1)


class Owner:
    """Somebody who publishes."""

    unconfirmed: Unconfirmed | None = None


class PublisherTests(ServicesCase):
    """``Publisher``, by itself and as a provider's ``publisher_cls``."""

    def publisher(self, *args: Any, **options: Any) -> amqp_publish.Publisher:
        publisher = amqp_publish.Publisher(self.config["AMQP_URI"], *args, **options)
        self.addCleanup(publisher.stop)
        return publisher

    async def test_by_itself(self) -> None:
        """It connects with the first message, declares what it was told to, and merges the options."""
        queue = Queue("q", Exchange("x"), "key")
        publisher = self.publisher(exchange=Exchange("x"), declare=[queue], routing_key="key", headers={"a": 1})
        await publisher.publish({"n": 1}, extra_headers={"b": 2})
        await publisher.publish({"n": 2}, exchange="", routing_key="q", delivery_mode=NON_PERSISTENT)
        one, two = await (await self.consumed(queue)).wait(2)
        self.assertEqual((one.exchange, one.routing_key, one.body), ("x", "key", b'{"n": 1}'))
        self.assertEqual(properties_of(one)["headers"], {"a": 1, "b": 2})
        self.assertEqual((two.exchange, two.properties["delivery_mode"]), ("", 1))

    async def consumed(self, queue: Queue) -> Recorded:
        recorded = Recorded()
        await self.connections().consume(queue, recorded, 10).ready
        return recorded

    async def test_declared_again(self) -> None:
        """A declaration that was refused is tried again with the next message; one that stood is not."""
        await self.connections().publisher.declare(Queue("q"))
        publisher = self.publisher(declare=[Queue("q", durable=False)])
        for _ in range(2):
            with self.assertRaises(DeclarationMismatch):
                await publisher.publish(1, routing_key="q")
        good = self.publisher(declare=[Queue("new")])
        for _ in range(2):
            await good.publish(1, routing_key="new", mandatory=True)
        self.assertTrue(good.declared)

    async def test_stop(self) -> None:
        """A stop waits for the last confirm; one that was never used has nothing to close."""
        publisher = self.publisher(declare=[Queue("q")])
        last = publisher.publish(1, routing_key="q")
        await publisher.stop()
        self.successResultOf(last)
        self.assertRaises(RuntimeError, publisher.publish, 1)
        await self.publisher().stop()

    async def test_attributes(self) -> None:
        """Class attributes stand below init's options, and those below the call's; of providers too."""

        class Urgent(amqp_publish.Publisher):
            priority = 1
            app_id = "class"
            type = "class"

            def publish(self, payload: Any, **options: Any) -> Any:
                published.append(payload)
                return super().publish(payload, **options)

        published: list[Any] = []
        queue = Queue("q", Exchange("x"), "key")

        class Provided(Publisher):
            publisher_cls = Urgent
            delivery_mode = NON_PERSISTENT

        class Told(EventDispatcher):
            publisher_cls = Urgent

        class Caller(RpcProxy):
            publisher_cls = Urgent
            priority = 2

        class Service:
            name = "service"
            publish = Provided(Exchange("x"), declare=[queue], routing_key="key", type="init")
            dispatch = Told()
            caller = Caller("service", app_id="init")

            @rpc
            async def tell(self):
                await self.publish(1, priority=3)
                await self.dispatch("type", 2)
                await self.caller.nothing()

            @rpc
            def nothing(self): ...

        told, called = await self.tap("service.events"), await self.tap("nameko-rpc")
        await self.start(Service)
        await (await self.cluster()).service.tell()
        (message,) = await (await self.consumed(queue)).wait()
        names = ("priority", "app_id", "type", "delivery_mode")
        self.assertEqual([message.properties[name] for name in names], [3, "class", "init", 1])
        (event,) = await told.wait()
        self.assertEqual([event.properties[name] for name in names], [1, "class", "class", 2])
        request = next(each for each in await called.wait(4) if each.routing_key == "service.nothing")
        self.assertEqual([request.properties[name] for name in names], [2, "init", "class", 2])
        self.assertEqual(published, [1, 2])

    def test_names(self) -> None:
        """The module has no ``get_connection``, which would give kombu's objects."""
        self.assertFalse(hasattr(amqp_publish, "get_connection"))
