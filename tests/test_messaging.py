"""Messages: what a Publisher puts on the wire, what becomes of those that a service consumes."""

from __future__ import annotations

import zlib
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred

from tests.services import OnRabbitMQ, Recorded, ServicesCase, properties_of
from txservices.amqp import publish as amqp_publish
from txservices.amqp.entities import Exchange, Queue
from txservices.amqp.returning import PAUSE_FIRST
from txservices.constants import NON_PERSISTENT
from txservices.containers import ServiceContainer, WorkerContext
from txservices.contextdata import ContextDataProvider
from txservices.events import EventDispatcher, event_handler
from txservices.exceptions import (
    ChannelClosedByBroker,
    DeclarationMismatch,
    EncodeError,
    UndeliverableMessage,
)
from txservices.extensions import DependencyProvider, Entrypoint
from txservices.messaging import Consumer, Publisher, QueueConsumer, consume, decode_from_headers
from txservices.rpc import RpcProxy, rpc
from txservices.testing.waiting import Heard


class PublisherTests(ServicesCase):
    """The dependency, in a service."""

    async def publisher(self, *args: Any, **options: Any) -> Any:
        """What a Publisher of these options injects."""
        injected = Heard()

        class Seeing(DependencyProvider):
            def worker_setup(self, worker_ctx: WorkerContext) -> None:
                injected(worker_ctx.service.publish)

        class Publishing:
            name = "publishing"
            publish = Publisher(*args, **options)
            seeing = Seeing()

            @rpc
            def method(self):
                pass

        await self.start(Publishing)
        await (await self.cluster({"language": "en"})).publishing.method()
        return injected.things[0]

    async def consumed(self, queue: Queue) -> Recorded:
        recorded = Recorded()
        await self.connections().consume(queue, recorded, 10).ready
        return recorded

    async def test_exchange(self) -> None:
        """The exchange and all in ``declare`` are there when the service has started; headers carry the context."""
        exchange = Exchange("readings", type="fanout")
        publish = await self.publisher(exchange=exchange, declare=[Queue("kept", exchange)])
        await publish({"a": 1}, headers={"h": 1})
        (message,) = await (await self.consumed(Queue("kept"))).wait()
        self.assertEqual((message.exchange, message.routing_key, message.body), ("readings", "", b'{"a": 1}'))
        headers = properties_of(message)["headers"]
        self.assertEqual((headers["nameko.language"], headers["h"]), ("en", 1))
        self.assertEqual(len(headers["nameko.call_id_stack"]), 2)

    async def test_given_header_wins(self) -> None:
        """A call's header goes over the context's value of that name, prefixed or not; a provider's is below it."""
        queue = Queue("kept", Exchange("readings", type="fanout"))
        publish = await self.publisher(queue=queue, headers={"nameko.language": "fr"})
        await publish(1)
        await publish(1, headers={"language": "de"})
        await publish(1, headers={"nameko.language": "it", "language": "it"})
        recorded = await (await self.consumed(queue)).wait(3)
        contexts = [decode_from_headers(properties_of(message)["headers"]) for message in recorded]
        self.assertEqual([context["language"] for context in contexts], ["en", "de", "it"])

    async def test_header_that_counts(self) -> None:
        """A handler that sends a message on with a counter in its header counts."""
        heard = Heard()
        on = Queue("on", Exchange("on", type="fanout"))

        class Counts:
            name = "counts"
            publish = Publisher(queue=on)
            count = ContextDataProvider("count")

            @consume(on)
            async def again(self, value):
                heard(self.count)
                if self.count < 5:
                    await self.publish(value, headers={"count": self.count + 1})

        await self.start(Counts)
        publisher = self.connections().publisher
        await publisher.publish("on", "", b"1", {"content_type": "application/json", "headers": {"count": 1}})
        self.assertEqual(await heard.wait(5), [1, 2, 3, 4, 5])

    async def test_queue(self) -> None:
        """A queue in place of an exchange is declared with its own, which is published to."""
        publish = await self.publisher(queue=Queue("q", Exchange("x"), "key"), routing_key="key")
        await publish(1)
        (message,) = await (await self.consumed(Queue("q"))).wait()
        self.assertEqual((message.exchange, message.routing_key), ("x", "key"))

    async def test_default_exchange(self) -> None:
        """Without an exchange the routing key is a queue's name; what a call declares is declared first."""
        publish = await self.publisher()
        await publish(1, routing_key="late", declare=[Queue("late")], mandatory=True)
        (message,) = await (await self.consumed(Queue("late"))).wait()
        self.assertEqual(message.exchange, "")

    async def test_declaration_that_is_refused(self) -> None:
        """What a call declares and the broker refuses fails that call; dropped, it is a line in the log."""
        await self.connections().publisher.declare(Queue("kept"))
        publish = await self.publisher()
        with self.assertRaises(DeclarationMismatch):
            await publish(1, routing_key="kept", declare=[Queue("kept", durable=False)])
        publish(2, routing_key="kept", declare=[Queue("kept", durable=False)])
        await publish(3, routing_key="kept")
        (message,) = await (await self.consumed(Queue("kept"))).wait()
        self.assertEqual(message.body, b"3")

    async def test_undeliverable(self) -> None:
        """A mandatory message that no queue takes is an error, and with use_confirms=False nobody is told."""
        publish = await self.publisher()
        with self.assertRaises(UndeliverableMessage):
            await publish(1, routing_key="nowhere", mandatory=True)
        await publish(1, routing_key="nowhere", mandatory=True, use_confirms=False)

    async def test_no_exchange(self) -> None:
        """An exchange that only had to exist, and doesn't, refuses the service's start."""
        with self.assertRaises(ChannelClosedByBroker):
            await self.publisher(exchange=Exchange("missing", passive=True))

    async def test_value_that_cannot_be_written(self) -> None:
        """A value that can't be written raises from the call itself, and holds back no ack."""
        publish = await self.publisher()
        with self.assertRaises(EncodeError):
            publish(object())
        with self.assertRaises(ValueError):
            publish(1, headers={"x": object()})
        self.assertEqual(publish.args[0].unconfirmed.count, 0)


class RequeueTests(ServicesCase):
    """``requeue_on_error``."""

    async def test_pause(self) -> None:
        """An event that always fails comes again after growing pauses; others are handled meanwhile, and a stop does
        not wait for the pause."""
        failed, heard = Heard(), Heard()

        class Listener:
            name = "listener"

            @event_handler("teller", "told", requeue_on_error=True)
            def told(self, value):
                if value == "bad":
                    failed(reactor.seconds())
                    raise ValueError(value)
                heard(value)

        (container,) = await self.start(Listener)
        publisher = self.connections().publisher
        for value in (b'"bad"', b'"good"'):
            await publisher.publish("teller.events", "told", value, {"content_type": "application/json"})
        await heard.wait()
        times = await failed.wait(5)
        self.assertLess(times[1] - times[0], PAUSE_FIRST)
        for pause, one, other in zip((0.1, 0.2, 0.4), times[1:], times[2:], strict=False):
            self.assertGreaterEqual(other - one, pause)
        await publisher.publish("teller.events", "told", b'"good"', {"content_type": "application/json"})
        await heard.wait(2)
        began = reactor.seconds()
        await container.stop()
        self.assertLess(reactor.seconds() - began, 0.5)  # the pause is 0.8 s now
        self.flushLoggedErrors(ValueError)


class CharsetTests(ServicesCase):
    """Texts in other charsets, on a broker."""

    async def test_texts(self) -> None:
        """Texts arrive as they were written; one that can't be decoded is rejected alone, and the others arrive."""
        dead, heard = Recorded(), Heard()
        connections = self.connections()
        await connections.consume(Queue("dead", Exchange("dlx", type="fanout")), dead, 10).ready

        class Texts:
            name = "texts"
            publish = Publisher()

            @rpc
            def send(self, text, **options):
                return self.publish(text, routing_key="q", **options)

            @consume(Queue("q", arguments={"x-dead-letter-exchange": "dlx"}))
            def method(self, body):
                heard(body)

        await self.start(Texts)
        send = (await self.cluster()).texts.send
        await send("é", content_type="application/data", content_encoding="latin-1")
        for body, encoding in ((b"\xe9", None), (b"\xe9", "utf-8"), (b"\xe9", "hex"), (b"\xe9", "binary")):
            properties = {"content_encoding": encoding, "headers": {}}
            await connections.publisher.publish("", "q", body, properties, mandatory=True)
        await send("日本", content_type="application/text", content_encoding="shift_jis")
        self.assertEqual(await heard.wait(3), ["é", b"\xe9", "日本"])
        encodings = [message.properties.get("content_encoding") for message in await dead.wait(3)]
        self.assertEqual(encodings, [None, "utf-8", "hex"])


class CharsetTestsOnRabbitMQ(OnRabbitMQ, CharsetTests):
    """On RabbitMQ."""


class RequeueTestsOnRabbitMQ(OnRabbitMQ, RequeueTests):
    """The same on RabbitMQ."""


class PublisherTestsOnRabbitMQ(OnRabbitMQ, PublisherTests):
    """The same on RabbitMQ."""


class PublisherCoreTests(ServicesCase):
    """What publishes, as the import of nameko's has it: with a provider and by itself."""

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
        """What that module has not, it has not."""
        self.assertFalse(hasattr(amqp_publish, "get_connection"))


class Reading:
    """A service that consumes."""

    name = "reading"

    @consume(Queue("q"))
    def read(self, body): ...


class HeaderTests(ServicesCase):
    """``HeaderEncoder`` and ``HeaderDecoder``: what a subclass changes of how context travels."""

    async def test_prefix(self) -> None:
        """A publisher and a consumer with a prefix of their own understand each other, and nobody else's context."""
        heard = Heard()
        queue = Queue("q", Exchange("x"), "key")

        class OursOut(Publisher):
            header_prefix = "ours"

        class OursIn(Consumer):
            header_prefix = "ours"

        class Context(DependencyProvider):
            def get_dependency(self, worker_ctx):
                return worker_ctx.data

        class Relay:
            name = "relay"
            context = Context()
            publish = OursOut(Exchange("x"), declare=[queue], routing_key="key")

            @rpc
            def tell(self):
                self.context["language"] = "en"
                return self.publish(1, headers={"nameko.user_id": 7})

            @OursIn.decorator(queue)
            def hear(self, body):
                heard(self.context)

        await self.start(Relay)
        await (await self.cluster()).relay.tell()
        (context,) = await heard.wait()
        self.assertEqual((context["language"], context["nameko.user_id"]), ("en", 7))


class QueueConsumerTests(ServicesCase):
    """``QueueConsumer``, for an entrypoint of one's own."""

    async def test_provider(self) -> None:
        """Its queue is consumed while the service runs; it gets bodies with their messages, and settles them."""
        queue, heard = Queue("lines"), Heard()

        class Lines(Entrypoint):
            queue_consumer = QueueConsumer()
            queue = Queue("lines")

            def setup(self):
                self.queue_consumer.register_provider(self)

            def stop(self):
                return self.queue_consumer.unregister_provider(self)

            def handle_message(self, body, message):
                if body == "again" and not message.redelivered:
                    self.queue_consumer.requeue_message(message)
                    return
                if body == "broken":
                    raise ValueError("why")
                self.container.spawn_worker(self, (body, message.redelivered), {})
                self.queue_consumer.ack_message(message)

        class Service:
            name = "service"

            @Lines.decorator
            def line(self, text, redelivered):
                heard((text, redelivered))

        (container,) = await self.start(Service)
        connections = self.connections()
        for body in (b'"one"', b'"again"', b'"broken"', b"no JSON", b'"last"'):
            await connections.publisher.publish("", "lines", body, {"content_type": "application/json"})
        self.assertEqual(sorted(await heard.wait(3)), [("again", True), ("last", False), ("one", False)])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        await container.stop()
        left = Recorded()
        await connections.publisher.publish("", "lines", b"kept", {})
        await connections.consume(queue, left, 10).ready
        self.assertEqual([message.body for message in await left.wait()], [b"kept"])

    async def test_never_started(self) -> None:
        """A provider of a service that did not start may be taken out all the same."""
        consumer = ServiceContainer(Reading, self.config).entrypoints[0]
        await consumer.stop()


class ConsumerTests(ServicesCase):
    """The entrypoint."""

    queue = Queue("q", Exchange("x"), "key")

    async def send(self, body: bytes, **properties: Any) -> None:
        whole = {"content_type": "application/json", **properties}
        await self.connections().publisher.publish("x", "key", body, whole, mandatory=True)

    async def assert_empty(self) -> None:
        """Nothing is left in the queue."""
        left = Recorded()
        consumer = self.connections().consume(self.queue, left, 10)
        await consumer.ready
        await self.send(b'"last"')
        self.assertEqual([message.body for message in await left.wait()], [b'"last"'])
        await consumer.close()

    async def test_consume(self) -> None:
        """The method gets the body; the context comes from the headers; then the message is done with."""
        heard = Heard()

        class Context(DependencyProvider):
            def get_dependency(self, worker_ctx: WorkerContext) -> Any:
                return worker_ctx.data

        class Consuming:
            name = "consuming"
            context = Context()

            @consume(self.queue)
            def method(self, body):
                heard((body, self.context))

        (container,) = await self.start(Consuming)
        await self.send(b'{"a": 1}', headers={"nameko.language": "en", "foo": "bar"})
        self.assertEqual(await heard.wait(), [({"a": 1}, {"language": "en", "foo": "bar"})])
        await container.stop()
        await self.assert_empty()

    async def test_accept(self) -> None:
        """One entrypoint may read what the others of its service don't."""
        heard = Heard()

        class Consuming:
            name = "consuming"

            @consume(self.queue, accept=["yaml"])
            def method(self, body):
                heard(body)

        await self.start(Consuming)
        await self.send(b"{}")
        await self.send(b"{1: 2}", content_type="application/x-yaml")
        self.assertEqual(await heard.wait(), [{1: 2}])

    async def test_bodies(self) -> None:
        """Compressed bodies are read, text of no accepted type stays text, and what can't be read is rejected."""
        heard = Heard()

        class Consuming:
            name = "consuming"

            @consume(self.queue)
            def method(self, body):
                heard(body)

        (container,) = await self.start(Consuming)
        await self.send(zlib.compress(b"[1]"), headers={"compression": "application/x-gzip"})
        await self.send("ø".encode(), content_type="application/data")
        await self.send(b"{")
        await self.send(b"1", content_type="application/x-python-serialize")
        await self.send(b"2")
        self.assertEqual(await heard.wait(3), [[1], "ø", 2])
        await container.stop()
        await self.assert_empty()

    async def test_dead_letters(self) -> None:
        """What can't be read goes to the queue's dead letters, with the broker's reason."""
        dead = Recorded()
        connections = self.connections()
        await connections.consume(Queue("dead", Exchange("dlx", type="fanout")), dead, 10).ready

        class Consuming:
            name = "consuming"

            @consume(Queue("q", Exchange("x"), "key", arguments={"x-dead-letter-exchange": "dlx"}))
            def method(self, body):
                pass

        await self.start(Consuming)
        await self.send(b"{")
        (message,) = await dead.wait()
        self.assertEqual(message.headers["x-death"][0]["reason"], "rejected")

    async def test_errors(self) -> None:
        """A message whose method raises is done with; with requeue_on_error it comes again until it doesn't."""

        def consuming(heard: Heard, **options: Any) -> type:
            class Consuming:
                name = "consuming"

                @consume(self.queue, **options)
                def method(self, body):
                    heard(body)
                    if len(heard.things) < 3:
                        raise ValueError(body)

            return Consuming

        for options, expected in (({}, [1, 2, 3]), ({"requeue_on_error": True}, [1, 1, 1])):
            heard = Heard()
            (container,) = await self.start(consuming(heard, **options), max_workers=1)
            for body in (b"1", b"2", b"3") if not options else (b"1",):
                await self.send(body)
            self.assertEqual(await heard.wait(3), expected)
            await container.stop()
            await self.assert_empty()
            self.flushLoggedErrors(ValueError)

    async def test_stop(self) -> None:
        """A stop waits for the worker that runs and takes no more; the next instance gets the rest."""
        heard, answer = Heard(), Deferred[None]()

        class Slow:
            name = "slow"

            @consume(self.queue)
            def method(self, body):
                heard(body)
                return answer

        (container,) = await self.start(Slow, max_workers=1)
        for body in (b"1", b"2"):
            await self.send(body)
        await heard.wait()
        stopping = container.stop()
        await self.send(b"3")
        self.assertFalse(stopping.called)
        answer.callback(None)
        await stopping
        done = len(heard.things)
        await self.start(Slow)
        self.assertEqual(sorted(await heard.wait(3)), [1, 2, 3])
        self.assertLess(done, 3)

    async def test_given_up_workers_are_not_waited_for(self) -> None:
        """What workers had that did not finish in time goes back as soon as they are given up, to another instance."""
        heard = Heard()

        class Stuck:
            name = "stuck"

            @consume(self.queue)
            def method(self, body):
                heard(body)
                return Deferred()

        (container,) = await self.start(Stuck, SHUTDOWN_TIMEOUT=0.1)
        await self.send(b"1")
        await heard.wait()
        began = reactor.seconds()
        await container.stop()
        self.assertLess(reactor.seconds() - began, 1)
        others = Recorded()
        await self.connections().consume(self.queue, others, 10).ready
        (message,) = await others.wait()
        self.assertTrue(message.redelivered)

    async def test_prefetch(self) -> None:
        """A stuck service holds no more messages than its prefetch_count: another instance gets the others."""
        heard = Heard()
        stuck = Deferred[None]()

        class Slow:
            name = "slow"

            @consume(self.queue, prefetch_count=2)
            def method(self, body):
                heard(body)
                return stuck

        (container,) = await self.start(Slow)
        for number in range(5):
            await self.send(str(number).encode())
        await heard.wait(2)
        others = Recorded()
        await self.connections().consume(self.queue, others, 10).ready
        await others.wait(3)
        (entrypoint,) = container.entrypoints
        self.assertEqual(entrypoint.consumer.unsettled, 2)
        stuck.callback(None)
