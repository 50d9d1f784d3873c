"""Messages that a service publishes, and their headers and charsets."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.services import OnRabbitMQ, Recorded, ServicesCase, properties_of
from txservices.amqp import refusals
from txservices.amqp.entities import Exchange, Queue
from txservices.containers import WorkerContext
from txservices.contextdata import ContextDataProvider
from txservices.exceptions import (
    DeclarationMismatch,
    EncodeError,
    UndeliverableMessage,
)
from txservices.extensions import DependencyProvider
from txservices.messaging import Consumer, Publisher, consume, decode_from_headers
from txservices.rpc import rpc
from txservices.testing.waiting import Heard


class PublisherTests(ServicesCase):
    """The dependency, in a service."""

    async def publisher(self, *args: Any, **options: Any) -> Any:
        """Start a service with a Publisher of these options, and give what it injects."""
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
        """If the broker refuses what a call declares, that call fails; if nobody looks, it is a line in the log."""
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
        """The start waits for an exchange that only has to exist, and doesn't, and says so."""
        said = self.logged("the start waits: exchange 'late' is not there")
        self.patch(refusals, "PAUSE_FIRST", 0.02)
        starting = Deferred.fromCoroutine(self.publisher(exchange=Exchange("late", passive=True)))
        await said.wait(2)
        self.assertFalse(starting.called)
        await self.connections().publisher.declare(Exchange("late"))
        await starting

    async def test_value_that_cannot_be_written(self) -> None:
        """A value that can't be written raises from the call itself, and holds back no ack."""
        publish = await self.publisher()
        with self.assertRaises(EncodeError):
            publish(object())
        with self.assertRaises(ValueError):
            publish(1, headers={"x": object()})
        self.assertEqual(publish.args[0].unconfirmed.count, 0)


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
            properties: dict[str, Any] = {"content_encoding": encoding, "headers": {}}
            await connections.publisher.publish("", "q", body, properties, mandatory=True)
        await send("日本", content_type="application/text", content_encoding="shift_jis")
        self.assertEqual(await heard.wait(3), ["é", b"\xe9", "日本"])
        encodings = [message.properties.get("content_encoding") for message in await dead.wait(3)]
        self.assertEqual(encodings, [None, "utf-8", "hex"])


class CharsetTestsOnRabbitMQ(OnRabbitMQ, CharsetTests):
    """On RabbitMQ."""


class PublisherTestsOnRabbitMQ(OnRabbitMQ, PublisherTests):
    """The same on RabbitMQ."""


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
