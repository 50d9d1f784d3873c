"""``EventDispatcher``: the events that it publishes, and the errors when it can't."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.logger import LogLevel, globalLogPublisher

from tests.services import Recorded, ServicesCase, properties_of
from tests.test_events import listener
from txservices.amqp.entities import Exchange, Queue
from txservices.command.tap import needs_amqp
from txservices.containers import ServiceContainer
from txservices.events import (
    EventDispatcher,
    event_handler,
)
from txservices.exceptions import ChannelClosedByBroker, EncodeError
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
