"""Messages that a service consumes, and what becomes of each."""

from __future__ import annotations

import zlib
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred

from tests.services import OnRabbitMQ, Recorded, ServicesCase
from txservices.amqp import returning
from txservices.amqp.entities import Exchange, Queue
from txservices.amqp.leaving import STOP_TIMEOUT
from txservices.containers import WorkerContext
from txservices.events import event_handler
from txservices.extensions import DependencyProvider
from txservices.messaging import consume
from txservices.testing.waiting import Heard


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
        """A message that can't be read goes to the queue's dead letters, with the broker's reason."""
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
        """Messages of workers that are given up go back at once, to another instance."""
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
        self.assertLess(reactor.seconds() - began, STOP_TIMEOUT)
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


class RequeueTests(ServicesCase):
    """``requeue_on_error``."""

    async def test_pause(self) -> None:
        """An event that always fails comes again after growing pauses; others are handled meanwhile, and a stop does
        not wait for the pause."""
        self.patch(returning, "PAUSE_FIRST", 0.05)
        failed, heard = {"bad": Heard(), "worse": Heard()}, Heard()

        class Listener:
            name = "listener"

            @event_handler("teller", "told", requeue_on_error=True)
            def told(self, value):
                if value in failed:
                    failed[value](reactor.seconds())
                    raise ValueError(value)
                heard(value)

        (container,) = await self.start(Listener)
        publisher = self.connections().publisher
        for value in (b'"bad"', b'"good"'):
            await publisher.publish("teller.events", "told", value, {"content_type": "application/json"})
        await heard.wait()
        times = await failed["bad"].wait(4)
        for pause, one, other in zip((0.05, 0.1), times[1:], times[2:], strict=False):
            self.assertGreaterEqual(other - one, pause)
        for name in ("PAUSE_FIRST", "PAUSE_MAX"):  # a pause that begins now outlasts the test
            self.patch(returning, name, 600.0)
        for value in (b'"worse"', b'"good"'):
            await publisher.publish("teller.events", "told", value, {"content_type": "application/json"})
        await failed["worse"].wait(2)  # the first time there is no pause
        await heard.wait(2)
        began = reactor.seconds()
        await container.stop()
        self.assertLess(reactor.seconds() - began, STOP_TIMEOUT)
        self.flushLoggedErrors(ValueError)


class RequeueTestsOnRabbitMQ(OnRabbitMQ, RequeueTests):
    """The same on RabbitMQ."""
