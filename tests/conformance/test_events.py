"""Events: lines 21 to 31."""

from __future__ import annotations

from typing import Any

from tests.conformance.cases import JSON, Case
from tests.services import OnRabbitMQ, properties_of
from txservices.amqp.entities import Exchange, Queue
from txservices.events import (
    BROADCAST,
    SERVICE_POOL,
    SINGLETON,
    EventDispatcher,
    EventHandler,
    EventHandlerConfigurationError,
    event_handler,
)
from txservices.exceptions import ChannelClosedByBroker, ConfigurationError
from txservices.extensions import DependencyProvider
from txservices.rpc import rpc
from txservices.standalone.events import event_dispatcher
from txservices.testing.waiting import Heard

UNRELIABLE = {"reliable_delivery": False}


class Source:
    """The service that dispatches the events."""

    name = "source"
    dispatch = EventDispatcher()

    @rpc
    def tell(self, event_type, data):
        return self.dispatch(event_type, data)


class Instance(DependencyProvider):
    """Injects the container, by which instances of a service are told apart."""

    def get_dependency(self, worker_ctx):
        return worker_ctx.container


class Kept(EventHandler):
    """A handler whose broadcast identifier stays."""

    broadcast_identifier = "kept"


def listener(heard: Heard, service: str = "listener", decorator: Any = event_handler, **options: Any) -> type:
    """A service that tells which instance of it heard what."""

    class Listener:
        name = service
        instance = Instance()

        @decorator("source", "type", **options)
        def handle(self, data):
            heard((self.instance, data))

    return Listener


class EventCase(Case):
    """A test that dispatches events and sees what was heard."""

    async def tell(self, *events: Any) -> None:
        async with event_dispatcher(self.config) as dispatch:
            for event in events:
                await dispatch("source", "type", event)

    async def ended(self, heard: Heard, count: int) -> list[Any]:
        """The events heard, once no queue has one left that could still be heard."""
        await heard.wait(count)
        for container in self.stage.containers:
            await container.stop()
        self.assertEqual([name for name, queue in self.vhost.queues.items() if len(queue)], [])
        self.assertEqual(len(heard.things), count)
        return heard.things


class Handlers(EventCase):
    """Lines 21 to 24: who hears an event."""

    async def test_line_21_service_pool(self) -> None:
        """One instance of each service hears an event."""
        heard = Heard()
        one, other = listener(heard, "one"), listener(heard, "other", handler_type=SERVICE_POOL)
        await self.start(one, one, other)
        await self.tell("a", "b")
        told = sorted((container.service_name, data) for container, data in await self.ended(heard, 4))
        self.assertEqual(told, [("one", "a"), ("one", "b"), ("other", "a"), ("other", "b")])

    async def test_line_22_two_handlers(self) -> None:
        """Two handlers of one service both hear it."""
        heard = Heard()

        class Twice:
            name = "twice"

            @event_handler("source", "type")
            def first(self, data):
                heard("first")

            @event_handler("source", "type")
            def second(self, data):
                heard("second")

        await self.start(Twice)
        await self.tell(1)
        self.assertEqual(sorted(await self.ended(heard, 2)), ["first", "second"])

    async def test_line_23_singleton(self) -> None:
        """One instance of all services hears it."""
        heard = Heard()
        await self.start(*[listener(heard, name, handler_type=SINGLETON) for name in ("one", "one", "other")])
        await self.tell(1, 2, 3)
        told = await self.ended(heard, 3)
        self.assertEqual(sorted(data for _, data in told), [1, 2, 3])

    async def test_line_24_broadcast(self) -> None:
        """Every instance hears it, from a queue of its own."""
        heard = Heard()
        instance = listener(heard, handler_type=BROADCAST, **UNRELIABLE)
        containers = await self.start(instance, instance)
        names = {container.entrypoints[0].queue.name for container in containers}
        self.assertEqual(len(names & set(self.vhost.queues)), 2)
        await self.tell(1)
        self.assertEqual({container for container, _ in await self.ended(heard, 2)}, set(containers))


class Delivery(EventCase):
    """Lines 25 to 28: when an event is done with, and when it waits."""

    async def test_line_25_requeue_on_error(self) -> None:
        """With ``requeue_on_error`` an event comes again, also to another instance, until its handler has done it."""
        heard = Heard()

        class Failing:
            name = "failing"
            instance = Instance()

            @event_handler("source", "type", requeue_on_error=True)
            def handle(self, data):
                heard(self.instance)
                if len(set(heard.things)) < 2:
                    raise ValueError(data)

        await self.start(Failing, Failing)
        await self.tell(1)
        while len(set(heard.things)) < 2:
            await heard.wait(len(heard.things) + 1)
        await self.ended(heard, len(heard.things))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), len(heard.things) - 1)

    async def test_line_26_reliable(self) -> None:
        """The queue of a stopped service stays, and what came meanwhile is heard at its next start."""
        heard = Heard()
        (container,) = await self.start(listener(heard))
        await container.stop()
        await self.tell("meanwhile")
        self.assertEqual(self.left_in("evt-source-type--listener.handle"), 1)
        await self.start(listener(heard))
        self.assertEqual([data for _, data in await self.ended(heard, 1)], ["meanwhile"])

    async def test_line_27_unreliable(self) -> None:
        """Without reliable delivery the queue goes with the service, and what comes meanwhile is lost."""
        heard = Heard()
        (container,) = await self.start(listener(heard, **UNRELIABLE))
        self.assertIn("evt-source-type--listener.handle", self.vhost.queues)
        await container.stop()
        self.assertNotIn("evt-source-type--listener.handle", self.vhost.queues)
        await self.tell("meanwhile")
        await self.start(listener(heard, **UNRELIABLE))
        await self.tell("then")
        self.assertEqual([data for _, data in await self.ended(heard, 1)], ["then"])

    async def test_line_28_reliable_broadcast(self) -> None:
        """A reliable broadcast is refused while the container is made, unless its identifier stays the same."""
        heard = Heard()
        with self.assertRaises(EventHandlerConfigurationError):
            await self.start(listener(heard, handler_type=BROADCAST))
        kept = listener(heard, decorator=Kept.decorator, handler_type=BROADCAST)
        (container,) = await self.start(kept)
        await container.stop()
        await self.tell("meanwhile")
        await self.start(kept)
        self.assertEqual([data for _, data in await self.ended(heard, 1)], ["meanwhile"])


class Topology(EventCase):
    """Lines 29 to 31: what is on the broker."""

    async def test_line_29_queues(self) -> None:
        """Name and flags of each handler's queue: those with which nameko's instances declare it."""
        pool, single = "evt-source-type--listener.handle", "evt-source-type"
        table: list[tuple[Any, dict[str, Any], str, bool, bool]] = [
            (event_handler, {"handler_type": SERVICE_POOL}, pool, False, False),
            (event_handler, {"handler_type": SERVICE_POOL, **UNRELIABLE}, pool, True, False),
            (event_handler, {"handler_type": SINGLETON}, single, False, False),
            (event_handler, {"handler_type": SINGLETON, **UNRELIABLE}, single, True, False),
            (Kept.decorator, {"handler_type": BROADCAST}, f"{pool}-kept", False, False),
            (event_handler, {"handler_type": BROADCAST, **UNRELIABLE}, f"{pool}-[0-9a-f]{{32}}", True, True),
        ]
        for decorator, options, name, auto_delete, exclusive in table:
            (container,) = await self.start(listener(Heard(), decorator=decorator, **options))
            (found,) = self.vhost.queues.values()
            self.assertRegex(found.name, f"^{name}$")
            self.assertEqual((found.durable, found.auto_delete), (True, auto_delete), options)
            self.assertEqual((found.owner is not None, found.arguments), (exclusive, {}), options)
            self.assertIn(("source.events", "type"), {(each.source, each.key) for each in found.incoming})
            await container.stop()
            for left in list(self.vhost.queues):
                protocol = await self.bare.consuming.when_connected()
                await (await protocol.open_channel()).queue_delete(queue=left)

    async def test_line_30_exchange_options(self) -> None:
        """AUTO_DELETE_EVENT_EXCHANGES declares with auto-delete; DECLARE_EVENT_EXCHANGES: false takes what is there."""
        for auto_delete in (False, True):
            self.config["AMQP_URI"] += "x"
            for service in (Source, listener(Heard())):
                (container,) = await self.start(service, AUTO_DELETE_EVENT_EXCHANGES=auto_delete)
                exchange = self.vhost.exchanges["source.events"]
                self.assertEqual((exchange.type, exchange.durable, exchange.auto_delete), ("topic", True, auto_delete))
                await container.stop()
        self.config["AMQP_URI"] += "y"
        # a dispatcher that does not declare starts, and a handler's binding needs the exchange to be there
        (container,) = await self.start(Source, DECLARE_EVENT_EXCHANGES=False)
        self.assertNotIn("source.events", self.vhost.exchanges)
        await container.stop()

    async def test_line_31_dispatched_event(self) -> None:
        """An event on the wire: exchange, routing key, bare body, properties, and the context in its headers."""
        await self.start(Source)
        tap = await self.tap("source.events")
        cluster = await self.cluster({"language": "en"})
        for data in ({"a": 1}, "payload"):
            await cluster.source.tell("evt", data)
        first, second = await tap.wait(2)
        self.assertEqual((first.exchange, first.routing_key, first.body), ("source.events", "evt", b'{"a": 1}'))
        self.assertEqual(second.body, b'"payload"')
        properties = properties_of(first)
        headers = properties.pop("headers")
        self.assertEqual(properties, JSON)
        self.assertEqual(headers.keys(), {"nameko.language", "nameko.call_id_stack"})

    async def test_line_31_standalone_dispatcher(self) -> None:
        """A program's event has no headers, and needs the exchange of the service in whose name it is."""
        async with event_dispatcher(self.config) as dispatch:
            with self.assertRaises(ChannelClosedByBroker) as raised:
                await dispatch("source", "type", 1)
            self.assertEqual(raised.exception.code, 404)
            tap = await self.tap("source.events")
            await dispatch("source", "type", 1)
        (message,) = await tap.wait()
        self.assertEqual(properties_of(message), {**JSON, "headers": {}})

    async def test_line_30_mixed_declarations(self) -> None:
        """A service that declares an exchange otherwise than it is refuses to start, with the difference."""
        await self.bare.publisher.declare(Exchange("source.events", type="topic", auto_delete=True))
        await self.bare.publisher.declare(
            Queue("holds", Exchange("source.events", type="topic", auto_delete=True), "#")
        )
        for service in (Source, listener(Heard())):
            with self.assertRaises(ConfigurationError) as raised:
                await self.start(service)
            self.assertIn("auto_delete", str(raised.exception))


class QueuesOnRabbitMQ(OnRabbitMQ):
    """Line 29, as RabbitMQ reports it."""

    async def test_line_29_queues(self) -> None:
        """RabbitMQ says the same of each handler's queue as of nameko's."""
        await self.start(
            listener(Heard(), "pool"),
            listener(Heard(), "brief", **UNRELIABLE),
            listener(Heard(), "one", handler_type=SINGLETON),
            listener(Heard(), "all", handler_type=BROADCAST, **UNRELIABLE),
        )
        columns = ("name", "durable", "auto_delete", "exclusive", "arguments")
        listed = await self.node.ctl("list_queues", "--vhost", self.vhost_name, "--silent", *columns)
        # RabbitMQ 4 names the type of every queue, whatever was declared
        listed = listed.replace('{"x-queue-type","classic"}', "")
        found = sorted(line.split("\t") for line in listed.splitlines())
        broadcast = found.pop(1)
        self.assertEqual(
            found,
            [
                ["evt-source-type", "true", "false", "false", "[]"],
                ["evt-source-type--brief.handle", "true", "true", "false", "[]"],
                ["evt-source-type--pool.handle", "true", "false", "false", "[]"],
            ],
        )
        self.assertRegex(broadcast[0], "^evt-source-type--all.handle-[0-9a-f]{32}$")
        # declared durable, as nameko does it; RabbitMQ says false of one that goes with its connection
        self.assertEqual(broadcast[1:], ["false", "true", "true", "[]"])
