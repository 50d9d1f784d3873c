"""The consumers of a container, for an entrypoint of one's own."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.services import Recorded, ServicesCase
from txservices.amqp.entities import Queue
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

    async def test_in_turn(self) -> None:
        """With ``in_turn`` its messages wait while all workers are taken; without it, it gets each one at once."""
        for in_turn in (True, False):
            go, waits, read, heard = Deferred[None](), Heard(), Heard(), Heard()

            class Lines(Entrypoint):
                in_turn: Any
                queue_consumer = QueueConsumer()
                queue = Queue("lines")

                def setup(self):
                    self.queue_consumer.register_provider(self)

                def stop(self):
                    return self.queue_consumer.unregister_provider(self)

                def handle_message(self, body, message, read=read):
                    read(body)
                    self.container.spawn_worker(self, (body,), {})
                    self.queue_consumer.ack_message(message)

            class Service:
                name = "service"

                @Lines.decorator
                def line(self, text, go=go, heard=heard):
                    heard(text)
                    return go

            Lines.in_turn = in_turn
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

    async def test_never_started(self) -> None:
        """A provider of a service that did not start may be taken out all the same."""
        consumer = ServiceContainer(Reading, self.config).entrypoints[0]
        await consumer.stop()
