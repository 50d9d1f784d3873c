"""Event handlers: who hears what, in which queue it waits, and when it is done with."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.services import ServicesCase
from txservices.amqp.entities import Exchange
from txservices.containers import ServiceContainer
from txservices.events import (
    BROADCAST,
    SERVICE_POOL,
    SINGLETON,
    EventHandler,
    EventHandlerConfigurationError,
    event_handler,
    get_event_exchange,
)
from txservices.extensions import DependencyProvider
from txservices.standalone.events import event_dispatcher
from txservices.testing.waiting import Heard


class Stable(EventHandler):
    """A broadcast with an identifier that stays."""

    broadcast_identifier = "stable"


stable_handler = Stable.decorator


def listener(heard: Heard, service: str = "listener", **options: Any) -> type:
    """A service that hears ``source``'s "type" events, and says which instance heard what."""

    class Instance(DependencyProvider):
        def get_dependency(self, worker_ctx):
            return worker_ctx.container

    class Listener:
        name = service
        instance = Instance()

        @event_handler("source", "type", **options)
        def handle(self, data):
            heard((self.instance, data))

    return Listener


class DeliveryTests(ServicesCase):
    """Each event reaches exactly whom it must."""

    async def told(self, heard: Heard, expected: int, numbers: int = 6) -> list[tuple[ServiceContainer, Any]]:
        """The events heard, after so many and a last one have come through."""
        dispatch = event_dispatcher(self.config)
        self.addCleanup(dispatch.stop)
        for number in range(numbers):
            await dispatch("source", "type", number)
        return await heard.wait(expected)

    async def test_service_pool(self) -> None:
        """One instance of each service hears an event, each in turn."""
        heard = Heard()
        one, other = listener(heard, "one"), listener(heard, "other", handler_type=SERVICE_POOL)
        await self.start(one, one, other)
        told = await self.told(heard, 12)
        for service, instances in (("one", 2), ("other", 1)):
            of_service = [(each, data) for each, data in told if each.service_name == service]
            self.assertEqual(sorted(data for _, data in of_service), list(range(6)))
            self.assertEqual(len({each for each, _ in of_service}), instances)

    async def test_singleton(self) -> None:
        """One instance of all services hears an event."""
        heard = Heard()
        one, other = [listener(heard, name, handler_type=SINGLETON) for name in ("one", "other")]
        await self.start(one, other)
        told = await self.told(heard, 6)
        self.assertEqual(sorted(data for _, data in told), list(range(6)))
        self.assertEqual(len({each for each, _ in told}), 2)

    async def test_broadcast(self) -> None:
        """Every instance hears an event. The type need not be the constant itself."""
        heard = Heard()
        handler = listener(heard, handler_type="".join(("broad", "cast")), reliable_delivery=False)
        await self.start(handler, handler)
        told = await self.told(heard, 12)
        for container in {each for each, _ in told}:
            self.assertEqual([data for each, data in told if each is container], list(range(6)))

    async def test_two_handlers(self) -> None:
        """Two handlers in a service both hear an event; one of another type does not."""
        heard = Heard()

        class Twice:
            name = "twice"

            @event_handler("source", "type")
            def first(self, data):
                heard("first")

            @event_handler("source", "*")
            def second(self, data):
                heard("second")

            @event_handler("source", "other")
            def third(self, data):
                heard("third")

        await self.start(Twice)
        await self.told(heard, 2, 1)
        self.assertEqual(sorted(heard.things), ["first", "second"])

    async def test_reliable(self) -> None:
        """Events wait for a service that has run before."""
        heard = Heard()
        (container,) = await self.start(listener(heard))
        await container.stop()
        dispatch = event_dispatcher(self.config)
        self.addCleanup(dispatch.stop)
        await dispatch("source", "type", "while away")
        await self.start(listener(heard))
        self.assertEqual([data for _, data in await heard.wait()], ["while away"])

    async def test_unreliable(self) -> None:
        """Without reliable delivery a stopped service misses events."""
        heard = Heard()
        (container,) = await self.start(listener(heard, reliable_delivery=False))
        await container.stop()
        dispatch = event_dispatcher(self.config)
        self.addCleanup(dispatch.stop)
        await dispatch("source", "type", "while away")
        await self.start(listener(heard, reliable_delivery=False))
        await dispatch("source", "type", "back")
        self.assertEqual([data for _, data in await heard.wait()], ["back"])

    async def test_error_in_a_handler(self) -> None:
        """An event whose handler raises is done with; with requeue_on_error it comes again."""
        table: list[tuple[dict[str, Any], int]] = [({}, 1), ({"requeue_on_error": True}, 3)]
        for options, times in table:
            heard = Heard()

            class Failing:
                name = f"failing-{times}"

                @event_handler("source", "type", **options)
                def handle(self, data, heard=heard, times=times):
                    heard(data)
                    if len(heard.things) < times or (times == 1 and data == 0):
                        raise ValueError(data)

            (container,) = await self.start(Failing)
            await self.told(heard, times + 1, 2)
            await container.stop()
            self.assertEqual((len(heard.things), set(heard.things)), (times + 1, {0, 1}))
            self.flushLoggedErrors(ValueError)

    async def test_body_that_cannot_be_read(self) -> None:
        """An undecodable event is rejected, and the next one is heard."""
        heard = Heard()
        await self.start(listener(heard))
        connections = self.connections()
        for body, kind in ((b"{", "application/json"), (b"1", "application/x-python-serialize")):
            await connections.publisher.publish("source.events", "type", body, {"content_type": kind})
        await self.told(heard, 1, 1)
        self.assertEqual([data for _, data in heard.things], [0])

    async def test_killed(self) -> None:
        """An event that a killed service had begun is heard by another instance."""
        heard, begun = Heard(), Heard()

        class Slow:
            name = "slow"

            @event_handler("source", "type")
            def handle(self, data):
                begun()
                answer: Deferred[None] = Deferred(lambda _: heard("cancelled"))
                return answer if len(begun.things) == 1 else heard(data)

        (container,) = await self.start(Slow)
        dispatch = event_dispatcher(self.config)
        self.addCleanup(dispatch.stop)
        await dispatch("source", "type", 1)
        await begun.wait()
        await container.kill()
        await self.start(Slow)
        self.assertEqual(await heard.wait(2), ["cancelled", 1])


class QueueTests(ServicesCase):
    """Names and flags of what is declared: nameko's instances share it with ours."""

    def entrypoint(self, handler: Any = event_handler, **options: Any) -> Any:
        class Service:
            name = "service"

            @handler("source", "type", **options)
            def method(self, data):
                pass

        container = ServiceContainer(Service, self.config)
        (entrypoint,) = container.entrypoints
        entrypoint.setup()
        return entrypoint

    def queue(self, **options: Any) -> Any:
        return self.entrypoint(**options).queue

    def test_queues(self) -> None:
        """Every handler type, reliable or not, declares the queue that nameko does."""
        pool, single = "evt-source-type--service.method", "evt-source-type"
        unreliable = {"reliable_delivery": False}
        table: list[tuple[dict[str, Any], str, bool, bool]] = [
            ({}, pool, False, False),
            ({"handler_type": SERVICE_POOL, **unreliable}, pool, True, False),
            ({"handler_type": SINGLETON}, single, False, False),
            ({"handler_type": SINGLETON, **unreliable}, single, True, False),
            ({"handler_type": BROADCAST, "handler": stable_handler}, pool + "-stable", False, False),
            ({"handler_type": BROADCAST, "handler": stable_handler, **unreliable}, pool + "-stable", True, True),
        ]
        for options, name, auto_delete, exclusive in table:
            queue = self.queue(**options)
            self.assertEqual(
                (queue.name, queue.durable, queue.auto_delete, queue.exclusive, queue.arguments),
                (name, True, auto_delete, exclusive, {}),
            )
            self.assertEqual(queue.routing_key, "type")
            self.assertEqual(queue.exchange, Exchange("source.events", type="topic"))

    def test_broadcast_identifier(self) -> None:
        """A broadcast's queue is this instance's own, by 32 hex digits."""
        names = {self.queue(handler_type=BROADCAST, reliable_delivery=False).name for _ in range(2)}
        self.assertEqual(len(names), 2)
        for name in names:
            self.assertRegex(name, "^evt-source-type--service.method-[0-9a-f]{32}$")

    def test_parked(self) -> None:
        """Events are parked by the name of their queue, and those of a queue that has a new name each time without it.

        Else nobody would find them there after a new start.
        """
        pool, unreliable = "evt-source-type--service.method", {"reliable_delivery": False}
        table: list[tuple[dict[str, Any], str]] = [
            ({}, pool),
            (unreliable, pool),
            ({"handler_type": SINGLETON}, "evt-source-type"),
            ({"handler_type": BROADCAST, **unreliable}, pool),
            ({"handler_type": BROADCAST, "handler": stable_handler, **unreliable}, pool),
            ({"handler_type": BROADCAST, "handler": stable_handler}, f"{pool}-stable"),
        ]
        for options, name in table:
            self.assertEqual(self.entrypoint(**options).parked_as, name, options)

    def test_contradiction(self) -> None:
        """A reliable broadcast needs an identifier that stays: refused while the container is made."""
        with self.assertRaises(EventHandlerConfigurationError):
            self.queue(handler_type=BROADCAST)

    def test_unknown_type(self) -> None:
        """A handler type that there isn't is refused, with those there are."""
        with self.assertRaises(EventHandlerConfigurationError) as raised:
            self.queue(handler_type="everyone")
        self.assertIn("service_pool, singleton, broadcast", str(raised.exception))

    def test_exchange(self) -> None:
        """The two keys of the configuration are heeded; only False itself leaves an exchange undeclared."""
        table: list[tuple[dict[str, Any], bool, bool]] = [
            ({}, False, False),
            ({"AUTO_DELETE_EVENT_EXCHANGES": True}, True, False),
            ({"AUTO_DELETE_EVENT_EXCHANGES": False}, False, False),
            ({"DECLARE_EVENT_EXCHANGES": False}, False, True),
            ({"DECLARE_EVENT_EXCHANGES": None}, False, False),
            ({"DECLARE_EVENT_EXCHANGES": True}, False, False),
        ]
        for config, auto_delete, passive in table:
            exchange = get_event_exchange("a", config)
            self.assertEqual(
                exchange, Exchange("a.events", type="topic", auto_delete=auto_delete, passive=passive), config
            )
