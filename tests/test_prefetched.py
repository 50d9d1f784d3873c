"""Messages that a service has taken: they are decoded in their turn, and their bytes have a bound.

The limit never keeps away what a worker waits for: replies, other services of the process, and calls of its own.
"""

from __future__ import annotations

import gc
import json
import tracemalloc
import weakref
from contextvars import ContextVar
from typing import Any
from unittest import mock

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.services import OnRabbitMQ, ServicesCase, consuming
from txservices.amqp.entities import Queue
from txservices.amqp.options import Sending
from txservices.containers import ServiceContainer
from txservices.extensions import Entrypoint
from txservices.messaging import amqp, consume
from txservices.rpc import ClusterRpc, RpcProxy, rpc
from txservices.testing.waiting import Heard

SIZE = 400_000  # bytes; it is decoded in a thread
LIMIT = 4 * SIZE
COUNT = 50
QUEUE = Queue("big")


class Other:
    """Whom workers call."""

    name = "other"

    @rpc
    def echo(self, value: Any) -> Any:
        return value


class BytesTests(ServicesCase):
    """Fifty messages for a service that takes the bytes of four."""

    heard: Heard
    answers: list[Deferred[Any]]

    def setUp(self) -> None:
        super().setUp()
        self.config.update(PREFETCHED_BYTES_MAX=LIMIT, max_workers=2)
        heard = self.heard = Heard()
        answers = self.answers = []

        class Big:
            name = "big"
            other = RpcProxy("other")
            itself = RpcProxy("big")

            @consume(QUEUE)
            async def take(self, body: str) -> None:
                answer: Deferred[Any] = Deferred()
                answers.append(answer)
                heard(int(body[:10]))
                whom = await answer
                if whom == "other":
                    await self.other.echo(1)
                elif whom == "itself":
                    await self.itself.small()

            @rpc
            def small(self) -> None:
                pass

        self.service = Big

    async def publish(self, count: int = COUNT, size: int = SIZE) -> None:
        publisher = self.connections().publisher
        await publisher.declare(QUEUE)
        for number in range(count):
            body = b'"%010d%b"' % (number, b"x" * size)
            await publisher.publish("", QUEUE.name, body, {"content_type": "application/json"})

    async def begin(self, *others: type, **config: Any) -> ServiceContainer:
        """Start the service, and wait until its connection is not read."""
        self.config.update(config)
        container, *_ = await self.start(self.service, *others)
        assert container.workers is not None
        await self.heard.wait(self.config["max_workers"])
        self.own = consuming(container)
        prefetched = self.own.prefetched
        assert prefetched is not None
        self.prefetched = prefetched
        self.paused = Heard()
        pause = prefetched.pause

        def noted() -> None:
            pause()
            self.paused(prefetched.bytes)

        prefetched.pause = noted
        if prefetched.paused:
            self.paused(prefetched.bytes)
        else:
            await self.paused.wait()
        return container

    async def answer(self, first: int, end: int = COUNT, whom: str = "") -> None:
        """Let the workers of these messages go on, one after the other."""
        for number in range(first, end):
            await self.heard.wait(number + 1)
            self.answers[number].callback(whom)
        while self.prefetched.bytes:
            await self.turn()

    async def rest(self) -> None:
        """Let all workers go on, until every message was heard."""
        while self.answers or len(self.heard.things) < COUNT:
            if not self.answers:
                await self.heard.wait(len(self.heard.things) + 1)
            while self.answers:
                self.answers.pop().callback("")

    def turn(self) -> Deferred[None]:
        """Fires when the reactor has read what there is."""
        turned: Deferred[None] = Deferred()
        reactor.callLater(0.001, turned.callback, None)
        return turned

    async def test_bound(self) -> None:
        """No more than the limit and a message is held, all are handled once, and memory says the same."""
        await self.publish()
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        before = tracemalloc.get_traced_memory()[0]
        await self.begin()
        self.assertLessEqual(self.prefetched.bytes, LIMIT + SIZE + 100)
        await self.answer(0)
        peak = tracemalloc.get_traced_memory()[1] - before
        self.assertEqual(sorted(self.heard.things), list(range(COUNT)))
        self.assertLessEqual(max(self.paused.things), LIMIT + SIZE + 100)
        self.assertLess(peak, LIMIT + 12 * SIZE)  # of fifty messages; of each there are copies in parts

    async def test_replies(self) -> None:
        """Workers get their replies while the connection is not read: from another process, and from their own."""
        await self.publish()
        await self.process().start(Other)
        await self.begin()
        await self.answer(0, whom="other")
        self.assertEqual(sorted(self.heard.things), list(range(COUNT)))

    async def test_replies_of_the_same_process(self) -> None:
        """A service in the same process is called while nothing is read for its neighbour."""
        await self.publish()
        await self.begin(Other)
        self.assertTrue(self.prefetched.paused)
        await self.answer(0, whom="other")
        self.assertEqual(sorted(self.heard.things), list(range(COUNT)))

    async def test_calls_of_itself(self) -> None:
        """A worker may call its own service as long as one of its workers is free, however much the others hold."""
        await self.publish(2, LIMIT + LIMIT // 2)
        self.config["max_workers"] = 3
        (container,) = await self.start(self.service)
        await self.heard.wait(2)
        prefetched = consuming(container).prefetched
        self.assertGreater(prefetched.bytes, LIMIT)
        for answer in self.answers:
            answer.callback("itself")
        cluster = await self.cluster()
        await cluster.big.small()
        while prefetched.bytes:
            await self.turn()

    async def test_longer_than_the_limit(self) -> None:
        """Messages that are longer than the limit are handled, one after the other."""
        await self.publish(5, LIMIT + 1)
        await self.begin(max_workers=1)
        await self.answer(0, 5)
        self.assertEqual(sorted(self.heard.things), list(range(5)))

    async def test_lost_connection(self) -> None:
        """A connection that is lost while it is not read is made again, and every message is handled."""
        await self.publish()
        await self.begin()
        protocol = self.own.protocol
        protocol.abort()
        done = 0
        while len(set(self.heard.things)) < COUNT or done < len(self.answers):
            while done < len(self.answers):
                self.answers[done].callback("")
                done += 1
            await self.heard.wait(len(self.heard.things) + (len(set(self.heard.things)) < COUNT))
        while self.prefetched.bytes:
            await self.turn()
        self.assertIsNot(self.own.protocol, protocol)

    async def test_stop(self) -> None:
        """A stop while the connection is not read is quick: workers end, and no message is lost or handled twice."""
        await self.publish()
        container = await self.begin()
        stopping = container.stop()
        done = 0
        while not stopping.called:
            while done < len(self.answers):
                self.answers[done].callback("")
                done += 1
            await self.turn()
        await stopping
        self.assertLess(len(self.heard.things), COUNT / 2)
        heard = list(self.heard.things)
        self.answers.clear()
        await self.process().start(self.service)
        await self.rest()
        self.assertEqual(sorted(self.heard.things), list(range(COUNT)), heard)

    async def test_kill(self) -> None:
        """A kill while the connection is not read ends it, and everything goes back."""
        await self.publish()
        container = await self.begin()
        connections = amqp(container)
        await container.kill()
        self.assertNotIn(self.own, connections.in_use)
        await gatherResults(list(connections.left.values()))
        self.assertEqual((self.own.protocol, self.own.running, connections.left), (None, 0, {}))
        self.answers.clear()
        self.heard.things.clear()
        await self.process().start(self.service)
        await self.rest()
        self.assertEqual(sorted(self.heard.things), list(range(COUNT)))

    async def test_heartbeats(self) -> None:
        """The connection outlives many heartbeat intervals in which it is not read: neither side gives it up."""
        await self.publish()
        await self.begin(HEARTBEAT=1)
        protocol = self.own.protocol
        heartbeat = protocol.heartbeat
        beats = Heard()
        send = heartbeat.send

        def beat() -> None:
            send()
            beats(None)

        heartbeat.send = beat
        await beats.wait(8)
        self.assertTrue(self.prefetched.paused)
        await self.answer(0)
        self.assertIs(self.own.protocol, protocol)
        self.assertEqual(sorted(self.heard.things), list(range(COUNT)))


class BytesTestsOnRabbitMQ(OnRabbitMQ, BytesTests):
    """The same where the messages come over TCP."""


DECODED: list[Any] = []


def decode(body: bytes) -> Any:
    DECODED.append(json.loads(body))
    return DECODED[-1]


SERIALIZERS = {
    "noting": {
        "encoder": "json.dumps",
        "decoder": "tests.test_prefetched.decode",
        "content_type": "application/x-noting",
    }
}


class InTurnTests(ServicesCase):
    """When a message is decoded."""

    def setUp(self) -> None:
        super().setUp()
        DECODED.clear()
        self.config.update(max_workers=2, SERIALIZERS=SERIALIZERS, serializer="noting")

    async def test_decoded_in_turn(self) -> None:
        """The body of a message, or a call, is decoded when a worker can begin, and not before."""
        heard = Heard()
        answers: list[Deferred[Any]] = []

        def wait(value: Any) -> Deferred[Any]:
            answer: Deferred[Any] = Deferred()
            answers.append(answer)
            heard(value)
            return answer

        class Service:
            name = "service"

            @consume(QUEUE)
            def take(self, value: Any) -> Deferred[Any]:
                return wait(value)

            @rpc
            def call(self, value: Any) -> Deferred[Any]:
                return wait(value)

        (container,) = await self.start(Service)
        cluster = await self.cluster()
        publisher = self.connections().publisher
        calls = [cluster.service.call(number) for number in range(3)]
        await heard.wait(2)
        for number in range(3, 6):
            await publisher.publish("", QUEUE.name, b"%d" % number, {"content_type": "application/x-noting"})
        for number in range(6):
            while container.workers.waiting < max(4 - number, 0):
                await publisher.publish("", "nobody", b"", {})
            taken = [each for each in DECODED if not isinstance(each, dict) or "args" in each]  # without the replies
            self.assertEqual(len(taken), min(number + 2, 6))
            answers[number].callback(number)
        self.assertEqual(await gatherResults(calls), [0, 1, 2])


class Held:
    """An argument."""


class WorkerTests(SynchronousTestCase):
    """What a worker that has waited finds, and what one that has ended leaves."""

    def test_leaves_nothing(self) -> None:
        """A worker with proxies is freed when it ends, and its long message with it; the collector need not come."""
        until: Deferred[None] = Deferred()

        class Service:
            name = "service"
            other = RpcProxy("other")
            cluster = ClusterRpc()

            @Entrypoint.decorator
            async def method(self, argument: Any) -> None:
                self.other.method  # noqa: B018  # the proxy remembers it
                self.cluster.other.method  # noqa: B018
                await until

        container = ServiceContainer(Service, {"max_workers": 1, "AMQP_URI": "memory://nobody"}, clock=Clock())
        for dependency in container.dependencies:
            dependency.sending = Sending()
            dependency.reply_listener.client = mock.Mock()
        (entrypoint,) = container.entrypoints
        gc.disable()
        self.addCleanup(gc.enable)
        arguments = [Held() for _ in range(3)]
        left = [weakref.ref(each) for each in arguments]
        while arguments:
            container.spawn_worker(entrypoint, (arguments.pop(),), {}, {}, None)
        until.callback(None)
        self.assertEqual([each() for each in left], [None] * 3)

    def test_not_of_the_one_before(self) -> None:
        """A worker that waited sees nothing of the context of the one whose end began it."""
        variable: ContextVar[str] = ContextVar("variable", default="nothing")
        seen: list[str] = []
        until: Deferred[None] = Deferred()

        class Service:
            name = "service"

            @Entrypoint.decorator
            async def method(self, value: str) -> None:
                seen.append(variable.get())
                variable.set(value)
                await until

        container = ServiceContainer(Service, {"max_workers": 1}, clock=Clock())
        (entrypoint,) = container.entrypoints
        for value in ("one", "two"):
            container.spawn_worker(entrypoint, (value,), {}, {}, None)
        until.callback(None)
        self.assertEqual(seen, ["nothing", "nothing"])
