"""Messages that a handler publishes without waiting, and what becomes of its own message if such a publish fails."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from twisted.internet import reactor
from twisted.internet.task import deferLater

from tests.services import OnRabbitMQ, Recorded, ServicesCase
from txservices import containers
from txservices.amqp import leaving
from txservices.amqp import publisher as publisher_module
from txservices.amqp.entities import Queue
from txservices.containers import ServiceContainer
from txservices.exceptions import (
    AmqpError,
    PublishBufferFull,
    RemoteError,
    UndeliverableMessage,
)
from txservices.messaging import Publisher, consume
from txservices.rpc import rpc
from txservices.runners import ServiceRunner
from txservices.testing.waiting import Heard


def nothing(_: Any) -> None:
    """A callback."""


IN = Queue("in", arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
DEAD = Queue("dead")
FULL = Queue("full", arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
NOBODY = {"routing_key": "nobody", "mandatory": True}
MISSING = {"exchange": "missing", "routing_key": "k"}


class LostTests(ServicesCase):
    """A service that publishes, and a broker that does not take it."""

    async def relay(self, tell: Any, *messages: bytes) -> Heard:
        """Start a service that handles each message by ``tell(publish, body)``; gives what it handled."""
        handled = Heard()

        class Relay:
            name = "relay"
            publish = Publisher()

            @consume(IN)
            async def handle(self, body: Any) -> None:
                handled(body)
                waiting = tell(self.publish, body)
                if waiting is not None:
                    await waiting

        await self.tell(IN, *messages)
        self.containers = await self.start(Relay)
        return handled

    async def tell(self, queue: Queue, *bodies: bytes) -> None:
        """Publish these; the queue is declared."""
        publisher = self.connections().publisher
        await publisher.declare(queue)
        for body in bodies:
            await publisher.publish("", queue.name, body, {"content_type": "application/json"})

    async def consumed(self, queue: Queue) -> Recorded:
        recorded = Recorded()
        await self.connections().consume(queue, recorded, 10).ready
        return recorded

    async def assert_settled(self) -> None:
        """Nothing comes back any more."""
        for container in self.containers:
            await container.stop()
        left = await self.consumed(IN)
        await self.tell(IN, b'"last"')
        self.assertEqual([message.body for message in await left.wait()], [b'"last"'])

    async def test_refused(self) -> None:
        """What the broker refuses for good has the handler's message rejected, once: it is in the dead letters."""
        dead = await self.consumed(DEAD)
        kinds = [NOBODY, MISSING, {**NOBODY, "use_confirms": False}, {**MISSING, "timeout": 5}]

        def tell(publish: Any, number: int) -> None:
            publish(number, **kinds[number])

        handled = await self.relay(tell, *(b"%d" % number for number in range(len(kinds))))
        letters = await dead.wait(len(kinds))
        self.assertEqual(sorted(int(message.body) for message in letters), list(range(len(kinds))))
        self.assertEqual(sorted(handled.things), list(range(len(kinds))))
        await self.assert_settled()

    async def test_looked_at(self) -> None:
        """A handler that deals with the failure keeps control: its message is acked."""
        seen = Heard()

        async def wait(sent: Any) -> None:
            try:
                await sent
            except (UndeliverableMessage, AmqpError) as error:
                seen(type(error).__name__)

        def tell(publish: Any, number: int) -> Any:
            sent = publish(number, **(NOBODY if number % 2 else MISSING))
            if number > 1:
                return wait(sent)
            sent.addErrback(lambda failure: seen(failure.type.__name__))
            return None

        await self.relay(tell, b"0", b"1", b"2", b"3")
        self.assertEqual(sorted(await seen.wait(4)), ["ChannelClosedByBroker"] * 2 + ["UndeliverableMessage"] * 2)
        await self.assert_settled()
        await self.tell(DEAD, b'"no dead letter"')
        self.assertEqual([message.body for message in await (await self.consumed(DEAD)).wait()], [b'"no dead letter"'])

    async def test_nacked(self) -> None:
        """What is nacked up to its own deadline has the handler's message come again, until it is confirmed."""
        await self.tell(FULL, b'"full"')

        def tell(publish: Any, body: str) -> None:
            publish(body, routing_key="full", timeout=0.3)

        handled = await self.relay(tell, b'"told"')
        await handled.wait(2)
        got = await self.consumed(FULL)
        self.assertEqual([message.body for message in await got.wait(2)], [b'"full"', b'"told"'])
        await self.assert_settled()

    async def test_no_room(self) -> None:
        """What finds no room has the handler's message come again, until there is some."""
        await self.tell(DEAD)

        def tell(publish: Any, body: str) -> None:
            full = len(handled.things) < 3
            with patch.object(publisher_module, "UNCONFIRMED_MAX", 0 if full else 100):
                publish(body, routing_key="dead")

        handled = await self.relay(tell)
        await self.tell(IN, b'"told"')
        got = await self.consumed(DEAD)
        self.assertEqual([message.body for message in await got.wait()], [b'"told"'])
        self.assertEqual(handled.things, ["told"] * 3)
        await self.assert_settled()

    async def test_call(self) -> None:
        """A call whose method's publish has failed by the time of the answer is answered with that failure."""
        results = Heard()

        class Teller(Publisher):
            def worker_result(self, worker_ctx: Any, result: Any = None, exc_info: Any = None) -> None:
                results((result, exc_info and exc_info[0]))

        class Service:
            name = "service"
            publish = Teller()

            @rpc
            def method(self, looks: bool) -> str:
                with patch.object(publisher_module, "UNCONFIRMED_MAX", 0):
                    sent = self.publish(1, routing_key="dead")
                if looks:
                    sent.addErrback(nothing)
                return "done"

        await self.start(Service)
        cluster = await self.cluster()
        error = await self.assertFailure(cluster.service.method(False), RemoteError)
        self.assertEqual(error.exc_type, "PublishBufferFull")
        self.assertEqual(await cluster.service.method(True), "done")
        self.assertEqual(await results.wait(2), [(None, PublishBufferFull), ("done", None)])

    async def test_call_answered_before(self) -> None:
        """If it fails after the answer, the request comes again, and its caller has one answer."""
        handled = Heard()

        class Service:
            name = "service"
            publish = Publisher()

            @rpc
            def method(self, value: int) -> int:
                handled(value)
                self.publish(value, routing_key="full", timeout=0.3)
                return value

        await self.tell(FULL, b"1")
        (container,) = await self.start(Service)
        cluster = await self.cluster()
        self.assertEqual(await cluster.service.method(2), 2)
        await handled.wait(2)
        got = await self.consumed(FULL)
        await got.wait(2)
        await container.stop()
        self.assertEqual(set(handled.things), {2})

    async def test_stop(self) -> None:
        """A stop ends within its bound, however long what was told would be tried: its message goes back."""
        self.patch(leaving, "STOP_TIMEOUT", 0.2)  # seconds
        await self.tell(FULL, b'"full"')

        def tell(publish: Any, body: str) -> None:
            publish(body, routing_key="full", timeout=None)

        handled = await self.relay(tell, b'"told"')
        await handled.wait()
        await self.containers[0].stop()
        got = await self.consumed(IN)
        (message,) = await got.wait()
        self.assertTrue(message.redelivered)
        await self.stage.stop()  # the message told again is as long in vain: within that bound as well

    async def test_kill(self) -> None:
        """A kill does not wait for what is tried again, nor does a stop that it interrupts; its message goes back."""
        await self.tell(FULL, b'"full"')
        for stops_first in (False, True):
            for runs in (ServiceContainer, ServiceRunner):
                with self.subTest(runs=runs, stops_first=stops_first):
                    await self.end_now(runs, stops_first)

    async def end_now(self, runs: Any, stops_first: bool) -> None:
        handled = Heard()

        class Relay:
            name = "relay"
            publish = Publisher()

            @consume(IN)
            def handle(self, body: Any) -> None:
                self.publish(body, routing_key="full")
                handled()

        await self.tell(IN, b'"told"')
        if runs is ServiceContainer:
            running: Any = ServiceContainer(Relay, self.config)
            shared = running.shared
        else:
            running = ServiceRunner(self.config)
            running.add_service(Relay)
            shared = running.shared
        await running.start()
        await handled.wait()
        publisher = shared.namedServices["amqp"].publisher
        while not publisher.nacked:
            await deferLater(reactor, 0)
        self.patch(containers, "KILL_TIMEOUT", 60.0)
        began = reactor.seconds()
        if stops_first:
            running.stop()
        await running.kill()
        self.assertLess(reactor.seconds() - began, leaving.STOP_TIMEOUT)
        connections = self.connections()
        back = Recorded()
        consumer = connections.consume(IN, back, 10)
        (message,) = await back.wait()
        self.assertTrue(message.redelivered)
        await consumer.close()


class LostTestsOnRabbitMQ(OnRabbitMQ, LostTests):
    """The same on RabbitMQ."""
