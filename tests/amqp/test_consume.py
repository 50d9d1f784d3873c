"""Messages to a program that is no service: ``Consumer``, as the import of nameko 3's has it."""

from __future__ import annotations

from typing import Any

from tests.services import Recorded, ServicesCase
from txservices.amqp import consume as amqp_consume
from txservices.amqp.entities import Exchange, Queue
from txservices.exceptions import DeclarationMismatch
from txservices.serialization import Serializers
from txservices.testing.waiting import Heard

QUEUE = Queue("q", Exchange("x"), "key")


class ConsumerTests(ServicesCase):
    """Queues, callbacks, and the end."""

    def consumer(self, *callbacks: Any, **options: Any) -> Any:
        options.setdefault("queues", [QUEUE])
        consumer = amqp_consume.Consumer(self.config["AMQP_URI"], callbacks=callbacks, **options)
        self.addCleanup(consumer.stop)
        return consumer

    async def send(self, *values: Any, serializer: str = "json", key: str = "key") -> None:
        connections = self.connections()
        for value in values:
            content_type, encoding, body = Serializers({}).encode(serializer, value)
            properties = {"content_type": content_type, "content_encoding": encoding}
            await connections.publisher.publish("x", key, body, properties, mandatory=True)

    async def test_callbacks(self) -> None:
        """Each message goes to each callback, of every queue."""
        one, other = Heard(), Heard()
        consumer: Any = self.consumer(
            lambda body, message: one(body),
            lambda body, message: (other((body, message.routing_key)), consumer.ack_message(message)),
            queues=[QUEUE, Queue("p", Exchange("x"), "other")],
        )
        running = consumer.run()
        await consumer.wait_until_consumer_ready()
        await self.send({"a": 1})
        await self.send(2, key="other")
        self.assertEqual(await other.wait(2), [({"a": 1}, "key"), (2, "other")])
        self.assertEqual(one.things, [{"a": 1}, 2])
        self.assertNoResult(running)
        await consumer.stop()
        self.successResultOf(running)

    async def test_requeue(self) -> None:
        """A message that is put back comes again."""
        heard = Heard()

        def handle(body: Any, message: Any) -> None:
            heard(message.redelivered)
            (consumer.ack_message if message.redelivered else consumer.requeue_message)(message)

        consumer = self.consumer(handle)
        consumer.run()
        await consumer.wait_until_consumer_ready()
        await self.send(1)
        self.assertEqual(await heard.wait(2), [False, True])

    async def test_rejected(self) -> None:
        """A message that can't be read, or whose callback raises, is rejected and does not come again."""
        heard = Heard()

        def handle(body: Any, message: Any) -> None:
            message.ack() if body == 1 else 1 / 0
            heard(body)

        consumer = self.consumer(handle)
        consumer.run()
        await consumer.wait_until_consumer_ready()
        await self.send({1: 2}, serializer="yaml")
        await self.send(0, 1)
        self.assertEqual(await heard.wait(), [1])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        await consumer.stop()
        left = Recorded()
        await self.connections().consume(QUEUE, left, 1).ready
        await self.send("last")
        self.assertEqual([message.body for message in await left.wait()], [b'"last"'])

    async def test_options(self) -> None:
        """It reads what ``accept`` names, and takes no more at once than ``prefetch_count``."""
        heard = Heard()
        consumer = self.consumer(lambda body, message: heard((body, message)), accept=["yaml"], prefetch_count=1)
        consumer.run()
        await consumer.wait_until_consumer_ready()
        await self.send({1: 2}, {3: 4}, serializer="yaml")
        ((body, message),) = await heard.wait()
        self.assertEqual(body, {1: 2})
        self.assertEqual(len(heard.things), 1)
        message.ack()
        (_, (body, message)) = await heard.wait(2)
        self.assertEqual(body, {3: 4})

    async def test_stopping(self) -> None:
        """A message that comes during the stop goes back; a stop without a start is no error."""
        await self.consumer().stop()
        heard = Heard()
        consumer = self.consumer(lambda body, message: heard(body))
        consumer.run()
        await consumer.wait_until_consumer_ready()
        consumer.should_stop = True
        await self.send(1)
        await consumer.stop()
        self.assertEqual(heard.things, [])
        left = Recorded()
        await self.connections().consume(QUEUE, left, 1).ready
        self.assertEqual([message.body for message in await left.wait()], [b"1"])

    async def test_mismatch(self) -> None:
        """If a queue exists with other properties, ``wait_until_consumer_ready`` says so."""
        await self.connections().publisher.declare(QUEUE)
        consumer = self.consumer(queues=[Queue("q", durable=False)])
        consumer.run()
        with self.assertRaises(DeclarationMismatch):
            await consumer.wait_until_consumer_ready()

    def test_names(self) -> None:
        """The module has no ``Worker``."""
        self.assertFalse(hasattr(amqp_consume, "Worker"))
