"""Row 5: a link that is cut after N bytes, for every N from none to the whole of a conversation, each way.

Each step is a fresh client whose first connections end after N bytes; the ones after that are healthy. Whatever was cut
in two, the conversation must come to its end as if nothing had been: all messages arrive, each publish is confirmed,
each call has one answer, and nothing is logged as an error.

In memory against the embedded broker for every N, and over the proxy against RabbitMQ for some, or for every N in the
long form.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from tests.faults.proxy import Conditions
from tests.faults.scene import FULL, FaultsCase, until
from tests.services import Recorded, numbers
from txservices.amqp import connection as connection_module
from txservices.amqp.connections import Connections
from txservices.amqp.endpoints import endpoint_for
from txservices.amqp.entities import Exchange, Queue
from txservices.broker.memory import brokers
from txservices.broker.server import Broker
from txservices.containers import ServiceContainer
from txservices.events import EventDispatcher, event_handler
from txservices.rpc import rpc
from txservices.standalone.rpc import ClusterRpcProxy

EVENTS = Exchange("events", type="topic")
QUEUE = Queue("q", EVENTS, "k")
BODIES = [b"", b"one", b"two" * 20]
STRIDE = 1 if FULL else 71  # bytes from one cut to the next, on RabbitMQ

UP, DOWN = "up", "down"


class Meter:
    """Counts what passes on a connection, and ends it when as much has passed as may."""

    def __init__(self, protocol: Any, way: str, limit: int | None) -> None:
        self.protocol = protocol
        self.counted = way
        self.limit = limit
        self.passed = {UP: 0, DOWN: 0}
        self.receive, protocol.dataReceived = protocol.dataReceived, self.down
        self.make, protocol.makeConnection = protocol.makeConnection, self.connect

    def connect(self, transport: Any) -> None:
        self.transport = transport
        self.write, transport.write = transport.write, self.up
        self.make(transport)

    def up(self, data: bytes) -> None:
        self.write(self.part(UP, data))
        self.end_if_due(UP)

    def down(self, data: bytes) -> None:
        part = self.part(DOWN, data)
        if part:
            self.receive(part)
        self.end_if_due(DOWN)

    def part(self, way: str, data: bytes) -> bytes:
        if way == self.counted and self.limit is not None:
            data = data[: max(self.limit - self.passed[way], 0)]
        self.passed[way] += len(data)
        return data

    def end_if_due(self, way: str) -> None:
        if way == self.counted and self.limit is not None and self.passed[way] >= self.limit:
            self.transport.loseConnection()  # what was written before still passes


class Stairs(TestCase):
    """Every step, in memory, on a clock of its own."""

    timeout = 100

    def setUp(self) -> None:
        self.patch(connection_module, "endpoint_for", self.metered)
        self.meters: list[Meter] = []
        self.limit: tuple[str, int] | None = None

    def metered(self, address: Any, tls: Any, clock: Any) -> Any:
        """An endpoint whose first two connections, one of each kind, are cut."""
        inner = endpoint_for(address, tls, clock)
        test = self

        class Metered:
            def connect(self, factory: Any) -> Deferred[Any]:
                build = factory.buildProtocol

                def building(address: Any) -> Any:
                    protocol = build(address)
                    way, limit = test.limit or (UP, None)
                    test.meters.append(Meter(protocol, way, limit if len(test.meters) < 2 else None))
                    return protocol

                factory.buildProtocol = building
                return inner.connect(factory)

        return Metered()

    def converse(self, limit: tuple[str, int] | None) -> None:
        """Declare, consume, publish, ack, close: from the first byte to the last, on virtual time."""
        clock = Clock()
        name = f"stairs-{next(numbers)}"
        broker = brokers[name] = Broker(name, clock=clock)
        self.meters, self.limit = [], limit
        connections = Connections.from_config({"AMQP_URI": f"memory://{name}"}, clock)
        connections.startService()
        recorded = Recorded()
        consumer = connections.consume(QUEUE, recorded, 10)
        declared = connections.publisher.declare(EVENTS)
        published = gatherResults(
            [connections.publisher.publish("events", "k", body, {"message_id": body.decode()}) for body in BODIES]
        )
        try:
            self.run_until(clock, lambda: consumer.ready.called and declared.called)
            # what was published before the queue was there is dropped: that is what a topic exchange is for
            again = [connections.publisher.publish("events", "k", body, {}, mandatory=True) for body in BODIES]
            self.run_until(clock, lambda: published.called and all(each.called for each in again))
            self.run_until(clock, lambda: set(BODIES) <= {message.body for message in recorded.things})
            for each in (consumer.ready, declared, published, *again):
                self.successResultOf(each)
            queue = broker.vhosts["/"].queues["q"]
            self.run_until(clock, lambda: not len(queue) and not any(each.unacked for each in queue.consumers))
        finally:
            stopped = connections.stopService()
            self.run_until(clock, lambda: stopped.called)
            ended = broker.close()
            self.run_until(clock, lambda: ended.called)
            brokers.pop(name)
        self.assertEqual(broker.sessions, {})

    def run_until(self, clock: Clock, done: Any) -> None:
        """Let virtual time pass, half a minute at most."""
        for _ in range(3000):
            if done():
                return
            clock.advance(0.01)
        raise AssertionError(f"not done after 30 s, cut at {self.limit}")

    def climb(self, way: str) -> None:
        self.converse(None)
        longest = max(meter.passed[way] for meter in self.meters[:2])
        self.assertGreater(longest, 500)
        came_back = 0
        for limit in range(longest + 1):
            self.converse((way, limit))
            came_back += len(self.meters) > 2
            errors = self.flushLoggedErrors()
            self.assertEqual(errors, [], f"cut {way} after {limit} bytes")
        self.assertGreater(came_back, longest * 0.8)  # a cut in the last words is no loss

    def test_row_05_every_byte_up(self) -> None:
        """Cut after N bytes to the broker."""
        self.climb(UP)

    def test_row_05_every_byte_down(self) -> None:
        """Cut after N bytes from the broker."""
        self.climb(DOWN)


class OnRabbitMQ(FaultsCase):
    """Some steps of it, all in the long form, with services and calls, over TCP."""

    timeout = 1500 if FULL else 60

    async def test_row_05_some_bytes(self) -> None:
        """A service and its caller, whose links are cut after N bytes, find each other; each call has its answer."""
        self.patch(connection_module, "RETRY_FIRST", 0.01)
        got: list[int] = []

        class Both:
            name = "both"
            dispatch = EventDispatcher()

            @rpc
            async def tell(self, number: int) -> int:
                await self.dispatch("told", number)
                return number

            @event_handler("both", "told")
            def told(self, number: int) -> None:
                got.append(number)

        async def converse(number: int, way: Conditions | None = None, limit: int | None = None) -> None:
            """From the start of the service to its end; the first connections may be cut."""
            if way is not None:
                way.cut_after = limit
            container = ServiceContainer(Both, self.config)
            starting = container.start()
            await self.proxy.linked.wait(len(self.proxy.linked.things) + 2)
            self.proxy.up.cut_after = self.proxy.down.cut_after = None
            await starting
            async with ClusterRpcProxy(self.config) as cluster:
                self.assertEqual(await cluster.both.tell(number), number)
            await until(lambda: number in got)
            await container.stop()

        await converse(0)
        longest = {
            self.proxy.up: max(link.up.passed for link in self.proxy.linked.things),
            self.proxy.down: max(link.down.passed for link in self.proxy.linked.things),
        }
        steps = [(way, limit) for way, whole in longest.items() for limit in range(0, whole + 1, STRIDE)]
        for number, (way, limit) in enumerate(steps, 1):
            await converse(number, way, limit)
        print(f"\n{self.id()}: cut {len(steps)} times, after up to {[*longest.values()]} bytes to and from the broker")
        self.assertEqual(set(got), set(range(len(steps) + 1)))
