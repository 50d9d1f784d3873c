"""The consumers of a container, for an entrypoint of one's own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.services import Recorded, ServicesCase
from txservices import consumers
from txservices.amqp.entities import Message, Queue
from txservices.consumers import QueueConsumer, amqp
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
            (subscription,), (reader,) = consumer.opened, consumer.readers.values()
            self.assertIs(reader.long.places, container.workers if kind is InTurn else None)
            await container.kill()
            self.assertFalse(subscription.consuming)
            self.assertTrue(consumer.returning.cancelled)
            self.assertEqual("own" in vars(consumer), kind is InTurn)
            if kind is InTurn:
                self.assertTrue(consumer.own.prefetched.closing)

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


class Alone(SynchronousTestCase):
    """Without a broker."""

    def setUp(self) -> None:
        config = {"AMQP_URI": "memory://nobody"}
        self.container = ServiceContainer(Reading, config, clock=Clock())
        self.consumer: Any = self.container.entrypoints[0].queue_consumer
        self.consumer.setup()

    def test_end_of_the_process(self) -> None:
        """The connections are told when the process stops, and wait for no confirm when it is killed."""
        self.assertTrue(self.consumer.needs_amqp)
        connections = amqp(self.container)
        self.assertEqual((connections.leaving.begun, connections.publisher.cancelled), (False, False))
        self.container.shared.stopping()
        self.assertTrue(connections.leaving.begun)
        self.container.shared.killing()
        self.assertTrue(connections.publisher.cancelled)

    def test_read_again(self) -> None:
        """The service's own connection is read again when no message waits for a worker any more."""
        prefetched = self.consumer.own.prefetched
        prefetched.paused = True
        for call in self.container.workers.on_none_queued:
            call()
        self.assertFalse(prefetched.paused)

    def subscription(self, name: str, connection: Any) -> Any:
        return SimpleNamespace(
            connection=connection, unsettled=0, drain=lambda: self.step("drain", name), close=lambda: self.step(name)
        )

    def step(self, *words: str) -> Deferred[None]:
        self.steps.append(" ".join(words))
        waiting = self.waiting[self.steps[-1]] = Deferred[None]()
        return waiting

    def close(self, own: bool) -> Deferred[None]:
        """Begin to close a subscription on the service's own connection, if it has one, and one on another."""
        self.steps: list[str] = []
        self.waiting: dict[str, Deferred[None]] = {}
        connections = SimpleNamespace(
            leaving=SimpleNamespace(answered=lambda waited: waited),
            drain=lambda: self.step("drain all"),
            leave=lambda connection: self.step("leave"),
        )
        self.patch(consumers, "amqp", lambda container: connections)
        self.consumer.opened = [self.subscription("other", SimpleNamespace(prefetched=None))]
        if own:
            vars(self.consumer)["own"] = SimpleNamespace(prefetched=object())
            self.consumer.opened.append(self.subscription("own", self.consumer.own))
        closing: Deferred[None] = self.consumer.stop()
        return closing

    def test_close(self) -> None:
        """It waits for what is unsettled, and for the end of each connection, on which its own are closed."""
        for own in (False, True):
            closing = self.close(own)
            drains = ["drain other", "drain own"] if own else ["drain other"]
            for name in drains:
                self.assertEqual(self.steps, drains)
                self.waiting[name].callback(None)
            self.assertEqual(self.steps[len(drains) :], ["other", "own", "leave"] if own else ["other"])
            if own:
                self.waiting["leave"].callback(None)
            self.assertNoResult(closing)
            self.waiting["other"].callback(None)
            self.successResultOf(closing)
        self.assertTrue(self.consumer.returning.cancelled)

    def test_kill_with_an_error(self) -> None:
        """An error while the service's own connection is closed in a kill is logged, for nobody waits for it."""

        async def leave(connection: Any) -> None:
            raise ValueError("why")

        connections = SimpleNamespace(leave=leave)
        self.patch(consumers, "amqp", lambda container: connections)
        vars(self.consumer)["own"] = SimpleNamespace(prefetched=object())
        with capturedLogs() as lines:
            self.consumer.kill()
        self.assertEqual([formatEvent(line) for line in lines], ["while a connection is closed"])
        self.flushLoggedErrors(ValueError)

    def test_close_after_an_abort(self) -> None:
        """Aborted workers settle nothing: it waits for what is unconfirmed alone, and tells what goes back."""
        self.container.workers.aborted = True
        for left, told in ((0, []), (2, ["reading: 2 messages go back"])):
            closing = self.close(own=False)
            self.consumer.opened[0].unsettled = left
            self.assertEqual(self.steps, ["drain all"])
            with capturedLogs() as lines:
                self.waiting["drain all"].callback(None)
            self.assertEqual([formatEvent(line) for line in lines], told)
            self.assertEqual(self.steps, ["drain all", "other"])
            self.waiting["other"].callback(None)
            self.successResultOf(closing)
