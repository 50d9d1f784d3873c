"""Events: who hears what, in which queue it waits, and when it is done with."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, globalLogPublisher

from tests.services import Recorded, ServicesCase, properties_of
from txservices.amqp.entities import Exchange, Queue
from txservices.command.tap import needs_amqp
from txservices.containers import ServiceContainer
from txservices.events import (
    BROADCAST,
    SERVICE_POOL,
    SINGLETON,
    EventDispatcher,
    EventHandler,
    EventHandlerConfigurationError,
    event_handler,
    get_event_exchange,
)
from txservices.exceptions import ChannelClosedByBroker, EncodeError
from txservices.extensions import DependencyProvider
from txservices.rpc import RpcProxy, rpc
from txservices.standalone.events import event_dispatcher
from txservices.testing.waiting import Heard


class Source:
    """Tells whatever it is told to."""

    name = "source"
    dispatch = EventDispatcher()

    @rpc
    def tell(self, event_type, data):
        return self.dispatch(event_type, data)

    @rpc
    def tell_and_forget(self, event_type, data):
        self.dispatch(event_type, data)
        return "answered"

    @rpc
    def tell_what_cannot_be_told(self):
        self.dispatch("type", object())


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
            self.assertEqual(sorted(heard.things), [0] * times + [1] if times == 1 else sorted(heard.things))
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


class DispatchTests(ServicesCase):
    """Dispatching, and the outcome of it."""

    def lines(self, level: LogLevel) -> Heard:
        """Lines that are logged at that level from now on."""
        lines = Heard()

        def observe(event: Any) -> None:
            if event["log_level"] is level:
                lines(event["log_format"].format(**event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        return lines

    async def test_on_the_wire(self) -> None:
        """The body is the bare data; key, properties and headers are nameko's."""
        await self.start(Source)
        tap = await self.tap("source.events")
        cluster = await self.cluster({"language": "en", "nothing": None})
        for data in ({"a": 1}, "payload", [1], None):
            await cluster.source.tell("type", data)
        messages = await tap.wait(4)
        self.assertEqual([message.body for message in messages], [b'{"a": 1}', b'"payload"', b"[1]", b"null"])
        self.assertEqual({message.routing_key for message in messages}, {"type"})
        properties = properties_of(messages[0])
        headers = properties.pop("headers")
        stack = headers.pop("nameko.call_id_stack")
        self.assertEqual([each.rpartition(".")[0] for each in stack], ["standalone_rpc_proxy.call", "source.tell"])
        self.assertEqual(headers, {"nameko.language": "en"})
        self.assertEqual(
            properties,
            {"content_type": "application/json", "content_encoding": "utf-8", "delivery_mode": 2, "priority": 0},
        )
        self.flushWarnings()

    async def test_nobody_listens(self) -> None:
        """An event that nobody listens to is no error."""
        await self.start(Source)
        self.assertIsNone(await (await self.cluster()).source.tell("type", 1))

    async def test_blocking_method(self) -> None:
        """In a blocking method a dispatch waits, and gives None."""

        class Blocking:
            name = "blocking"
            dispatch = EventDispatcher()

            @rpc(blocking=True)
            def tell(self):
                return [self.dispatch("type", 1)]

        await self.start(Blocking)
        tap = await self.tap("blocking.events")
        self.assertEqual(await (await self.cluster()).blocking.tell(), [None])
        self.assertEqual([message.body for message in tap.things], [b"1"])

    async def test_declares_more(self) -> None:
        """The queues in ``declare`` are there when the service has started: they get its first event."""

        class Telling:
            name = "telling"
            queue = Queue("audit", Exchange("telling.events", type="topic"), "#")
            dispatch = EventDispatcher(declare=[queue])

            @rpc
            def tell(self):
                return self.dispatch("type", 1)

        await self.start(Telling)
        await (await self.cluster()).telling.tell()
        heard = Recorded()
        await self.connections().consume(Telling.queue, heard, 1).ready
        self.assertEqual([message.body for message in await heard.wait()], [b"1"])

    def test_needs_a_broker(self) -> None:
        """A service that only dispatches is one that tap gives the embedded broker to."""

        class Telling:
            name = "telling"
            dispatch = EventDispatcher()

        self.assertTrue(needs_amqp(ServiceContainer(Telling, self.config)))

    async def test_dropped(self) -> None:
        """A dispatch that nobody waits for is delivered, with a reply that does not say it."""
        heard = Heard()
        await self.start(Source, listener(heard))
        self.assertEqual(await (await self.cluster()).source.tell_and_forget("type", 1), "answered")
        self.assertEqual([data for _, data in await heard.wait()], [1])

    async def test_dropped_failure(self) -> None:
        """A failed dispatch that nobody waits for is a line in the log, and not an unhandled error."""
        await self.start(Source, DECLARE_EVENT_EXCHANGES=False)
        lines = self.lines(LogLevel.error)
        self.assertEqual(await (await self.cluster()).source.tell_and_forget("type", 1), "answered")
        (line,) = await lines.wait()
        self.assertEqual(line.partition(":")[0], "'type' was not published to 'source.events'")

    async def test_failure(self) -> None:
        """A failed dispatch that is waited for is the method's error."""
        await self.start(Source, DECLARE_EVENT_EXCHANGES=False)
        cluster = await self.cluster()
        error = await cluster.source.tell("type", 1).addErrback(lambda failure: failure.value.exc_type)
        self.assertEqual(error, "ChannelClosedByBroker")
        self.assertEqual(len(self.flushLoggedErrors(ChannelClosedByBroker)), 1)

    async def test_data_that_cannot_be_written(self) -> None:
        """Data that can't be written raises in the method, dropped or not."""
        await self.start(Source)
        cluster = await self.cluster()
        error = await cluster.source.tell_what_cannot_be_told().addErrback(lambda failure: failure.value.exc_type)
        self.assertEqual(error, "EncodeError")
        self.assertEqual(len(self.flushLoggedErrors(EncodeError)), 1)

    async def test_acked_after_what_it_told(self) -> None:
        """A handler that told the world something is acked when the broker has it, and not before."""
        told, held = Heard(), []

        class Relay:
            name = "relay"
            dispatch = EventDispatcher()
            source = RpcProxy("source")

            @event_handler("source", "type")
            def handle(self, data):
                self.dispatch("again", data)
                told()

        (container,) = await self.start(Relay)
        (dispatcher,) = [each for each in container.dependencies if isinstance(each, EventDispatcher)]
        (handler,) = container.entrypoints

        class Holding:
            def publish_then(self, *args: Any) -> None:
                held.append(args[5])

        dispatcher.publisher.connections = SimpleNamespace(publisher=Holding())
        dispatch = event_dispatcher(self.config)
        self.addCleanup(dispatch.stop)
        await dispatch("source", "type", 1)
        await told.wait()
        self.assertEqual(handler.consumer.unsettled, 1)
        held[0](None)
        self.assertEqual(handler.consumer.unsettled, 0)
