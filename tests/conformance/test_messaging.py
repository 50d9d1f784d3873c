"""Messages: lines 32 to 40."""

from __future__ import annotations

import zlib
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

from twisted.internet.defer import Deferred

from tests.conformance.cases import JSON, QUEUE, Case
from tests.services import properties_of, without_deadline
from txservices.amqp.entities import Exchange, Queue
from txservices.events import EventDispatcher
from txservices.exceptions import ChannelClosedByBroker, UndeliverableMessage
from txservices.extensions import DependencyProvider, Entrypoint
from txservices.messaging import Consumer, Publisher, consume
from txservices.rpc import RpcProxy, rpc
from txservices.standalone.events import event_dispatcher
from txservices.testing.waiting import Heard
from txservices.utils.waiting import Unconfirmed


class Context(DependencyProvider):
    """Injects the worker's context data."""

    def get_dependency(self, worker_ctx):
        return worker_ctx.data


def publishing(publisher: Publisher) -> type:
    """A service that publishes what it is told to."""

    class Publishing:
        name = "publishing"
        publish = publisher

        @rpc
        def tell(self, value, options):
            return self.publish(value, **options)

        @rpc
        def tell_times(self, values):
            for value in values:
                self.publish(value)

    return Publishing


class Publishers(Case):
    """Lines 32 to 34, and 36 to 40: what goes out."""

    async def told(self, publisher: Publisher, value: Any = 1, context: Any = None, **options: Any) -> Any:
        """Have a service with that publisher publish; fires when it is confirmed."""
        await self.start(publishing(publisher))
        return await (await self.cluster(context)).publishing.tell(value, options)

    async def test_line_32_publisher(self) -> None:
        """Exchange, queue and binding are declared when the service has started; JSON and context headers go out."""
        await self.start(publishing(Publisher(exchange=QUEUE.exchange, declare=[QUEUE], routing_key="key")))
        exchange, queue = self.vhost.exchanges["x"], self.vhost.queues["q"]
        self.assertEqual((exchange.type, exchange.durable, queue.durable), ("direct", True, True))
        self.assertIn(("x", "key"), {(each.source, each.key) for each in queue.incoming})
        await (await self.cluster({"language": "en"})).publishing.tell({"a": "ø"}, {})
        (message,) = await self.take(QUEUE)
        self.assertEqual((message.exchange, message.routing_key), ("x", "key"))
        self.assertEqual(message.body, b'{"a": "\\u00f8"}')
        properties = properties_of(message)
        self.assertEqual(properties.pop("headers").keys(), {"nameko.language", "nameko.call_id_stack"})
        self.assertEqual(properties, JSON)

    async def test_line_33_none_in_headers(self) -> None:
        """A context value of None is left out with a warning, by Publisher, EventDispatcher and RpcProxy alike.

        What goes along is read at each publish, as nameko 3 has it; 2.14 reads it before ``worker_setup``.
        """

        class Forgetting(DependencyProvider):
            def worker_setup(self, worker_ctx):
                worker_ctx.data.update(forgotten=None, kept=2)

        class Service:
            name = "service"
            forgetting = Forgetting()
            publish = Publisher(exchange=QUEUE.exchange, declare=[QUEUE], routing_key="key")
            dispatch = EventDispatcher()
            other = RpcProxy("service")

            @rpc
            async def tell(self):
                await self.publish(1)
                await self.dispatch("type", 1)
                await self.other.listen()

            @rpc
            def listen(self):
                pass

        await self.start(Service)
        events, calls = await self.tap("service.events"), await self.tap("nameko-rpc", "service.listen")
        await (await self.cluster()).service.tell()
        for (message,) in (await self.take(QUEUE), await events.wait(), await calls.wait()):
            self.assertEqual(without_deadline(message.headers).keys(), {"nameko.kept", "nameko.call_id_stack"})
        warned = [each["message"] for each in self.flushWarnings() if each["category"] is UserWarning]
        self.assertTrue(warned and all("'forgotten'" in each for each in warned), warned)

    async def test_line_34_headers_both_ways(self) -> None:
        """Strangers' headers are context too, and go on with the prefix; one prefix is taken off, and put on."""

        class Relay:
            name = "relay"
            context = Context()
            publish = Publisher(exchange=QUEUE.exchange, declare=[QUEUE], routing_key="key")

            @consume(Queue("in", Exchange("in"), "in"))
            def relay(self, body):
                return self.publish(self.context)

        await self.start(Relay)
        given = {"nameko.language": "en", "foo": "bar", "nameko.nameko.z": 1, "other.x": Decimal("1.5"), "n": [1, {}]}
        await self.publish("in", "in", 1, headers=given)
        (message,) = await self.take(QUEUE)
        headers = message.headers
        self.assertRegex(headers.pop("nameko.call_id_stack")[0], "^relay.relay.")
        expected = {"nameko.language": "en", "nameko.foo": "bar", "nameko.nameko.z": 1, "nameko.n": [1, {}]}
        self.assertEqual(headers, {**expected, "nameko.other.x": Decimal("1.5")})

    async def test_line_36_precedence(self) -> None:
        """A call's options go over the provider's, those over its class's; headers merge, declarations add up.

        An option that means nothing is refused rather than passed on: it was a typing mistake as often as not.
        """

        class Urgent(Publisher):
            priority = 1
            app_id = type = "class"

        late = Queue("late", Exchange("x"), "late")
        publisher = Urgent(
            exchange=Exchange("x"), declare=[QUEUE], type="init", headers={"a": 1, "b": 1, "nameko.language": "init"},
            routing_key="key",
        )  # fmt: skip
        await self.start(publishing(publisher))
        tell = (await self.cluster({"language": "en"})).publishing.tell
        await tell(1, {"priority": 3, "headers": {"b": 2}})
        (message,) = await self.take(QUEUE)
        properties, headers = message.properties, message.headers
        self.assertEqual((properties["priority"], properties["app_id"], properties["type"]), (3, "class", "init"))
        self.assertEqual((headers["a"], headers["b"], headers["nameko.language"]), (1, 2, "en"))
        (container_publisher,) = publisher_of(self)
        await container_publisher.publish(worker(), 2, routing_key="late", declare=[late])
        self.assertEqual((await self.take(late))[0].body, b"2")
        with self.assertRaises(TypeError):
            container_publisher.publish(worker(), 3, prioritty=1)

    async def test_line_37_confirms(self) -> None:
        """A publish to an exchange that is gone fails; with ``use_confirms=False`` nobody is told but the log.

        nameko learns of it by closing the channel on everyone; here the one message fails alone.
        """
        await self.start(publishing(Publisher(exchange=Exchange("gone", auto_delete=True))))
        protocol = await self.bare.consuming.when_connected()
        await (await protocol.open_channel()).exchange_delete(exchange="gone")
        (publisher,) = publisher_of(self)
        with self.assertRaises(ChannelClosedByBroker) as raised:
            await publisher.publish(worker(), 1)
        self.assertEqual(raised.exception.code, 404)
        lines = self.lines()
        await publisher.publish(worker(), 1, use_confirms=False)
        self.assertRegex((await lines.wait())[0], "'' was not published to 'gone'")

    async def test_line_38_mandatory(self) -> None:
        """A mandatory message that no queue takes is UndeliverableMessage, without confirms a line in the log."""
        await self.start(publishing(Publisher()))
        (publisher,) = publisher_of(self)
        with self.assertRaises(UndeliverableMessage):
            await publisher.publish(worker(), 1, routing_key="nowhere", mandatory=True)
        lines = self.lines()
        await publisher.publish(worker(), 1, routing_key="nowhere", mandatory=True, use_confirms=False)
        self.assertRegex((await lines.wait())[0], "'nowhere' was not published to ''")
        await self.bare.publisher.declare(Exchange("source.events", type="topic"))
        async with event_dispatcher(self.config, mandatory=True) as dispatch:
            with self.assertRaises(UndeliverableMessage):
                await dispatch("source", "type", 1)

    async def test_line_39_properties(self) -> None:
        """Every property that can be given is on the wire, of init's and of a call's options.

        ``expiration`` is in seconds, as kombu takes it and not as nameko's documentation has it. ``user_id`` is
        checked by the broker.
        """
        moment = datetime(2020, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
        options = {
            "delivery_mode": 1,
            "priority": 5,
            "correlation_id": "c",
            "reply_to": "r",
            "message_id": "m",
            "type": "t",
            "app_id": "a",
            "user_id": "guest",
            "timestamp": moment,
        }
        await self.start(publishing(Publisher(exchange=QUEUE.exchange, declare=[QUEUE], expiration=10, **options)))
        (publisher,) = publisher_of(self)
        context = worker()
        await publisher.publish(context, "x" * 100, routing_key="key", compression="gzip")
        await publisher.publish(context, b"\xff", routing_key="key", content_type="image/x", content_encoding="binary")
        compressed, given = await self.take(QUEUE, 2)
        properties = properties_of(compressed)
        self.assertEqual(properties.pop("headers")["compression"], "application/x-gzip")
        self.assertEqual(zlib.decompress(compressed.body), b'"' + b"x" * 100 + b'"')
        self.assertEqual(compressed.properties["message_id"], "m")
        self.assertEqual(properties.pop("expiration"), "10000")
        del options["message_id"]
        self.assertEqual({name: properties[name] for name in options}, options)
        self.assertEqual((given.body, given.properties["content_type"]), (b"\xff", "image/x"))

    async def test_line_40_sent_until_confirmed(self) -> None:
        """A publish that loses its connection is sent again until it is confirmed, whatever ``retry_policy`` says.

        nameko counts retries; here the end is ``timeout``, and the message id stays, so that a duplicate can be told.
        """
        retry = {"retry": False, "retry_policy": {"max_retries": 0}}
        await self.start(publishing(Publisher(exchange=QUEUE.exchange, declare=[QUEUE], **retry)))
        (publisher,) = publisher_of(self)
        context = worker()
        telling = [publisher.publish(context, number, routing_key="key") for number in range(3)]
        publisher.publisher.connections.publisher.connection.protocol.abort()
        telling.append(publisher.publish(context, 3, routing_key="key"))
        for each in telling:
            await each
        bodies = {message.properties["message_id"]: message.body for message in await self.take(QUEUE, 4)}
        self.assertEqual(sorted(bodies.values()), [b"0", b"1", b"2", b"3"])
        self.assertEqual(context.unconfirmed.count, 0)


class Worker:
    """Stands in for a worker that publishes."""

    context_data: dict[str, Any] = {"language": "en"}
    unconfirmed: Unconfirmed | None = None


def worker() -> Any:
    return Worker()


def publisher_of(case: Case) -> list[Any]:
    """The publishers of the first container that the case has started."""
    container = case.stage.containers[0]
    return [each for each in container.dependencies if isinstance(each, Publisher)]


class Consumers(Case):
    """Line 35: what becomes of what is consumed."""

    def consuming(self, heard: Heard, decorator: Any = consume, **options: Any) -> type:
        class Consuming:
            name = "consuming"

            @decorator(QUEUE, **options)
            def handle(self, body):
                return heard(body)

        return Consuming

    async def test_line_35_acked(self) -> None:
        """A message is acked when its handler has returned, or raised, and until then it is not."""
        heard, answers = Heard(), [Deferred[None](), Deferred[None]()]

        class Consuming:
            name = "consuming"

            @consume(QUEUE)
            def handle(self, body):
                heard(body)
                return answers[body]

        (container,) = await self.start(Consuming)
        for number in range(2):
            await self.publish("x", "key", number)
        await heard.wait(2)
        self.assertEqual(self.left_in("q"), 2)
        answers[0].callback(None)
        answers[1].errback(ValueError("why"))
        await container.stop()
        self.assertEqual(self.left_in("q"), 0)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    async def test_line_35_requeued(self) -> None:
        """With ``requeue_on_error`` a message whose handler raised comes again, marked as redelivered."""
        redelivered = Heard()

        class Telling(Consumer):
            def handle_result(self, message, worker_ctx, result, exc_info):
                redelivered(message.redelivered)
                return super().handle_result(message, worker_ctx, result, exc_info)

        class Consuming:
            name = "consuming"

            @Telling.decorator(QUEUE, requeue_on_error=True, expected_exceptions=ValueError)
            def handle(self, body):
                if len(redelivered.things) < 2:
                    raise ValueError(body)

        (container,) = await self.start(Consuming)
        await self.publish("x", "key", 1)
        self.assertEqual(await redelivered.wait(3), [False, True, True])
        await container.stop()
        self.assertEqual(self.left_in("q"), 0)

    async def test_line_35_requeued_while_killed(self) -> None:
        """A message that comes while the container is being killed goes back, ``requeue_on_error`` or not."""
        heard, ending = Heard(), Deferred[None]()

        class Slow(Entrypoint):
            def kill(self):
                return ending

        consuming = self.consuming(heard)
        Slow.decorator(consuming.handle)
        (container,) = await self.start(consuming)
        killing = container.kill()
        await self.publish("x", "key", 1)
        self.assertEqual((heard.things, self.left_in("q")), ([], 1))
        ending.callback(None)
        await killing
        self.assertEqual([message.body for message in await self.take(QUEUE)], [b"1"])
