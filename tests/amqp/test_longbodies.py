"""Bodies that are decoded in a thread: their order, their settlement, and the end."""

from __future__ import annotations

import threading
import zlib
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from tests.observing import hearing
from tests.services import OnRabbitMQ, Recorded, ServicesCase
from txservices.amqp.consume import Consumer as AmqpConsumer
from txservices.amqp.entities import Exchange, Message, Queue
from txservices.amqp.longbodies import LongBodies
from txservices.events import EventDispatcher, event_handler
from txservices.messaging import consume
from txservices.rpc import RpcProxy, rpc
from txservices.serialization.bounds import HERE_MAX
from txservices.testing.waiting import Heard

LONG = "x" * (HERE_MAX + 1)
DEAD = Queue("dead", Exchange("dead", type="fanout"))
QUEUE = Queue("q", arguments={"x-dead-letter-exchange": "dead"})


class Held:
    """Holds every decoding thread until ``go`` is called."""

    def __init__(self, case: ServicesCase) -> None:
        self.event = threading.Event()
        self.began = Heard()
        begin = LongBodies.begin

        def held(long: LongBodies) -> None:
            decode = long.decode

            def wait(*arguments: Any) -> Any:
                self.event.wait(10)
                return decode(*arguments)

            if long.decode.__name__ != "wait":
                long.decode = wait
            begin(long)
            self.began()

        case.patch(LongBodies, "begin", held)
        case.addCleanup(self.event.set)

    def go(self) -> None:
        self.event.set()


class LongBodiesTests(ServicesCase):
    """In memory."""

    async def send(self, body: bytes, **properties: Any) -> None:
        published = Deferred[Any]()
        publisher = self.connections().publisher
        properties = {"content_type": "application/json", "content_encoding": "utf-8", "headers": {}, **properties}
        publisher.publish_then("", "q", body, properties, True, published.callback, 10)
        self.assertIsNone(await published)

    def consuming(self, heard: Heard, **options: Any) -> type:
        class Consuming:
            name = "consuming"

            @consume(QUEUE, **options)
            def method(self, body):
                heard(body if len(body) < 10 else len(body))

        return Consuming

    async def test_order(self) -> None:
        """Messages behind a long one wait for it; all are handled in their order, and acked."""
        held, heard = Held(self), Heard()
        (container,) = await self.start(self.consuming(heard))
        connections = self.connections()
        for body in ("1", LONG, "2", "3", LONG + "y", "4"):
            await self.send(b'"%b"' % body.encode())
        await held.began.wait()
        self.assertEqual(heard.things, ["1"])
        held.go()
        self.assertEqual(await heard.wait(6), ["1", len(LONG), "2", "3", len(LONG) + 1, "4"])
        await container.stop()
        left = Recorded()
        await connections.consume(QUEUE, left, 10).ready
        await self.send(b"9")
        self.assertEqual([message.body for message in await left.wait()], [b"9"])

    async def test_stop(self) -> None:
        """A stop waits for a body that is being decoded: its method runs, and what it took is acked."""
        held, heard = Held(self), Heard()
        (container,) = await self.start(self.consuming(heard))
        for body in (LONG, "2"):
            await self.send(b'"%b"' % body.encode())
        await held.began.wait()
        stopping = container.stop()
        self.assertFalse(stopping.called)
        held.go()
        await stopping
        self.assertEqual(heard.things[:1], [len(LONG)])
        await self.start(self.consuming(heard))
        self.assertEqual(await heard.wait(2), [len(LONG), "2"])

    async def test_stop_has_an_end(self) -> None:
        """A body that is not decoded within SHUTDOWN_TIMEOUT goes back, and another instance handles it."""
        held, heard = Held(self), Heard()
        (container,) = await self.start(self.consuming(heard), SHUTDOWN_TIMEOUT=0.05)
        await self.send(b'"%b"' % LONG.encode())
        await held.began.wait()
        await container.stop()
        self.assertEqual(heard.things, [])
        held.go()
        await self.start(self.consuming(heard))
        self.assertEqual(await heard.wait(), [len(LONG)])

    async def test_kill(self) -> None:
        """A kill waits for nothing, and the message goes back."""
        held, heard = Held(self), Heard()
        (container,) = await self.start(self.consuming(heard))
        await self.send(b'"%b"' % LONG.encode())
        await held.began.wait()
        await container.kill()
        held.go()
        await self.start(self.consuming(heard))
        self.assertEqual(await heard.wait(), [len(LONG)])

    async def test_what_can_not_be_read(self) -> None:
        """A long body that can't be read is rejected to the dead letters; those behind it are handled."""
        dead, heard = Recorded(), Heard()
        await self.connections().consume(DEAD, dead, 10).ready
        await self.start(self.consuming(heard), VALUES_MAX=100_000)
        bombs = [b"[" + LONG.encode(), b"[" + b"[]," * 100_000 + b"1]", b'"\xff' + LONG.encode() + b'"']
        for bomb in bombs:
            await self.send(bomb)
        grown = zlib.compress(b" " * (20 * 1024 * 1024))
        await self.send(grown, headers={"compression": "application/x-gzip"})
        await self.send(b'"after"')
        self.assertEqual([message.body for message in await dead.wait(4)], [*bombs, grown])
        self.assertEqual(await heard.wait(), ["after"])

    async def test_calls(self) -> None:
        """Long requests, replies and events arrive, compressed or not; a request that can't be read is answered."""
        heard = Heard()

        class Answering:
            name = "answering"
            dispatch = EventDispatcher()

            @rpc
            def echo(self, value):
                return value

            @rpc
            def tell(self, value):
                return self.dispatch("told", value)

            @event_handler("answering", "told")
            def told(self, value):
                heard(len(value))

        class Asking:
            name = "asking"
            answering = RpcProxy("answering", compression="gzip")

            @rpc
            async def ask(self, length):
                return len(await self.answering.echo("x" * length))

        await self.start(Answering, Asking, VALUES_MAX=100_000)
        cluster = await self.cluster()
        self.assertEqual(await cluster.answering.echo(LONG), LONG)
        self.assertEqual(await cluster.asking.ask(1_000_000), 1_000_000)
        await cluster.answering.tell(LONG)
        self.assertEqual(await heard.wait(), [len(LONG)])
        error = await self.assertFailure(cluster.answering.echo.options(timeout=120)([[]] * 100_000), Exception)
        self.assertEqual(error.__class__.__name__, "MalformedRequest")
        self.assertIn("VALUES_MAX", str(error))

    async def test_requests(self) -> None:
        """A long request is decoded in a thread, and calls its method before those that come after it: both wait."""
        held, heard, told, added = Held(self), Heard(), hearing(self, "worker_ended"), Heard()
        add = LongBodies.add

        def add_and_tell(bodies: LongBodies, message: Message) -> None:
            add(bodies, message)
            added(message)

        self.patch(LongBodies, "add", add_and_tell)

        class Answering:
            name = "answering"

            @rpc
            def method(self, value):
                heard(len(value))

        await self.start(Answering)
        cluster = await self.cluster()
        calls = [cluster.answering.method(value) for value in (LONG, "2")]
        await held.began.wait()
        await added.wait(2)
        self.assertEqual(heard.things, [])
        held.go()
        await gatherResults(calls)
        self.assertEqual(heard.things, [len(LONG), 1])
        self.assertEqual([waited > 0 for _, _, _, waited, _, _ in told.told], [True, True])

    async def test_consumer_without_a_service(self) -> None:
        """The consumer of a program gets long bodies, too."""
        heard = Heard()

        def handle(body: Any, message: Any) -> None:
            heard(len(body))
            message.ack()

        consumer = AmqpConsumer(self.config["AMQP_URI"], queues=[QUEUE], callbacks=[handle])
        consumer.run()
        self.addCleanup(consumer.stop)
        await consumer.wait_until_consumer_ready()
        for body in (LONG, "ab"):
            await self.send(b'"%b"' % body.encode())
        self.assertEqual(await heard.wait(2), [len(LONG), 2])


class LongBodiesOnRabbitMQ(OnRabbitMQ, LongBodiesTests):
    """On RabbitMQ."""
