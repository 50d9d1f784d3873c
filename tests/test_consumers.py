"""The consumers of a container, for an entrypoint of one's own."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.services import Recorded, ServicesCase
from txservices.amqp.entities import Message, Queue
from txservices.consumers import QueueConsumer
from txservices.containers import ServiceContainer
from txservices.extensions import Entrypoint
from txservices.messaging import consume
from txservices.testing.waiting import Heard


class Reading:
    """A service that consumes."""

    name = "reading"

    @consume(Queue("q"))
    def read(self, body): ...


class Lines(Entrypoint):
    """Consumes in its own way; what it does with a message is the test's to say."""

    queue_consumer = QueueConsumer()
    queue = Queue("lines")
    in_turn = False

    def setup(self) -> None:
        self.queue_consumer.register_provider(self)

    def stop(self) -> Any:
        return self.queue_consumer.unregister_provider(self)

    def handle_message(self, body: Any, message: Message) -> None: ...


class InTurn(Lines):
    """Its messages wait for a worker."""

    in_turn = True


class QueueConsumerTests(ServicesCase):
    """``QueueConsumer``, for an entrypoint of one's own."""

    async def test_provider(self) -> None:
        """Its queue is consumed while the service runs; it gets bodies with their messages, and settles them."""
        queue, heard = Queue("lines"), Heard()

        class Settling(Lines):
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

            @Settling.decorator
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

    async def test_in_turn(self) -> None:
        """With ``in_turn`` its messages wait while all workers are taken; without it, it gets each one at once."""
        for in_turn in (True, False):
            go, waits, read, heard = Deferred[None](), Heard(), Heard(), Heard()

            class Read(InTurn if in_turn else Lines):
                def handle_message(self, body, message, read=read):
                    read(body)
                    self.container.spawn_worker(self, (body,), {})
                    self.queue_consumer.ack_message(message)

            class Service:
                name = "service"

                @Read.decorator
                def line(self, text, go=go, heard=heard):
                    heard(text)
                    return go

            (container,) = await self.start(Service, max_workers=1)
            wait = container.workers.wait
            self.patch(container.workers, "wait", lambda *turn, wait=wait, waits=waits: waits(wait(*turn)))
            publisher = self.connections().publisher
            for body in (b'"one"', b'"two"'):
                await publisher.publish("", "lines", body, {"content_type": "application/json"})
            await waits.wait()
            self.assertEqual(read.things, ["one"] if in_turn else ["one", "two"])
            go.callback(None)
            self.assertEqual(await heard.wait(2), ["one", "two"])
            await container.stop()

    async def test_kill(self) -> None:
        """Nothing is consumed any more and no message waits; a connection of its own is read, and no other is made."""
        for kind in (Lines, InTurn):
            service = type("Service", (), {"name": "service", "line": kind.decorator(lambda service: None)})
            (container,) = await self.start(service)
            consumer = container.entrypoints[0].queue_consumer
            (subscription,) = consumer.opened
            await container.kill()
            self.assertFalse(subscription.consuming)
            self.assertTrue(consumer.returning.cancelled)
            self.assertEqual("own" in vars(consumer), kind.in_turn)
            self.assertEqual(consumer.own.prefetched.closing if kind.in_turn else False, kind.in_turn)

    async def test_acked(self) -> None:
        """A message that has failed and is acked has its pauses anew if it comes again."""
        consumer = ServiceContainer(Reading, self.config).entrypoints[0].queue_consumer
        consumer.setup()
        settled: list[bool] = []
        message = Message(b"", {}, "", "q", False, 1, "", lambda message, ack, requeue: settled.append(ack))
        for _ in range(2):
            consumer.requeue_message(message)
            self.assertEqual(len(consumer.returning.failures), 1)
            message.settled = False  # it comes again
            consumer.ack_message(message)
            self.assertEqual(len(consumer.returning.failures), 0)
            message.settled = False
        self.assertEqual(settled, [False, True] * 2)

    async def test_never_started(self) -> None:
        """A provider of a service that did not start may be taken out all the same."""
        consumer = ServiceContainer(Reading, self.config).entrypoints[0]
        await consumer.stop()
