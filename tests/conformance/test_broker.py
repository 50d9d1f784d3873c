"""The broker's part, and the network's: lines 41 to 48."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.logger import LogLevel

from tests.conformance.cases import QUEUE, Case, Waiting
from tests.services import OnRabbitMQ, client_of, consuming
from txservices.amqp.entities import Exchange, Queue
from txservices.containers import ServiceContainer
from txservices.events import EventDispatcher, event_handler
from txservices.exceptions import PublishTimeout, RpcConnectionError, RpcTimeout
from txservices.messaging import consume
from txservices.rpc import RpcProxy, rpc
from txservices.standalone.events import event_dispatcher
from txservices.standalone.rpc import ClusterRpcProxy
from txservices.testing.waiting import Heard


class Echo:
    """The service that the tests call."""

    name = "echo"

    @rpc
    def echo(self, value):
        return value


class Lost(Case):
    """Lines 41 to 44: connections that are lost, or only seem to be there."""

    async def test_line_41_lost_while_idle(self) -> None:
        """A service that lost its connections while it was idle is back by itself, and serves."""
        heard = Heard()

        class Service(Echo):
            @event_handler("source", "type")
            def hear(self, data):
                heard(data)

        (container,) = await self.start(Service)
        cluster = await self.cluster()
        self.assertEqual(await cluster.echo.echo(1), 1)
        self.cut(self.amqp(container))
        self.assertEqual(await cluster.echo.echo(2), 2)
        async with event_dispatcher(self.config) as dispatch:
            await dispatch("source", "type", 3)
        self.assertEqual(await heard.wait(), [3])

    async def test_line_42_caller_lost_with_a_call_in_flight(self) -> None:
        """The reply to a call whose caller lost its connections comes when they are back, from a worker too."""
        waiting = Waiting()

        class Caller:
            name = "caller"
            waiting = RpcProxy("waiting")

            @rpc
            def relay(self):
                return self.waiting.method()

        await self.start(waiting.service)
        (caller,) = await self.process().start(Caller)
        cluster = await self.cluster()
        direct, relayed = cluster.waiting.method(), cluster.caller.relay()
        await waiting.called(2)
        await self.bare.publisher.publish("", "nobody", b"", {})  # by then the broker has confirmed the requests
        self.cut(client_of(cluster).connections, self.amqp(caller))
        for answer in list(waiting.answers):
            answer.callback("after all")
        await waiting.called(3)  # the relay's own request comes again with its caller's connection
        waiting.answers[2].callback("after all")
        self.assertEqual(await gatherResults([direct, relayed]), ["after all"] * 2)

    async def test_line_43_service_lost_in_a_call(self) -> None:
        """A service that loses its connection in a worker does the call twice; its caller has one answer."""
        waiting = Waiting()
        (container,) = await self.start(waiting.service)
        cluster = await self.cluster()
        replies = await self.tap("nameko-rpc", client_of(cluster).replies.reply_to)
        call = cluster.waiting.method()
        await waiting.called()
        self.cut(self.amqp(container))
        await waiting.called(2)
        waiting.answers[0].callback("first")
        self.assertEqual(await call, "first")
        waiting.answers[1].callback("second")
        await replies.wait(2)
        await container.stop()
        self.assertEqual((self.left_in("rpc-waiting"), client_of(cluster).pending), (0, {}))

    async def test_line_43_service_lost_in_an_event(self) -> None:
        """An event whose worker was running comes again, and acking the lost one does no harm."""
        heard, answers = Heard(), [Deferred[None](), Deferred[None]()]

        class Hearing:
            name = "hearing"

            @event_handler("source", "type")
            def hear(self, data):
                heard(data)
                return answers[len(heard.things) - 1]

        (container,) = await self.start(Hearing)
        async with event_dispatcher(self.config) as dispatch:
            await dispatch("source", "type", 1)
        await heard.wait()
        self.cut(self.amqp(container))
        self.assertEqual(await heard.wait(2), [1, 1])
        for answer in answers:
            answer.callback(None)
        await container.stop()
        self.assertEqual(self.left_in("evt-source-type--hearing.hear"), 0)

    async def test_line_44_black_holes(self) -> None:
        """Each connection may fall silent, in each direction: heartbeats tell, and no call is lost.

        nameko's publishers have no heartbeat, and find out when they next publish.
        """
        holes = [(which, way) for which in ("consuming", "publishing") for way in ("in", "out")]
        services = [type(f"Echo{n}", (Echo,), {"name": f"echo-{n}"}) for n in range(len(holes))]
        containers = [(await self.process(HEARTBEAT=1).start(each))[0] for each in services]
        cluster = await self.cluster()
        names = [each.name for each in services]
        self.assertEqual(await gatherResults([cluster[name].echo(name) for name in names]), names)
        lines = self.lines()
        for container, (which, way) in zip(containers, holes, strict=True):
            connections = self.amqp(container)
            connection = consuming(container) if which == "consuming" else connections.publisher.connection
            pipe = connection.protocol.transport
            (pipe if way == "in" else pipe.peer).pauseProducing()
        self.assertEqual(await gatherResults([cluster[name].echo(name) for name in names]), names)
        silent = [line for line in lines.things if "was silent for" in line]
        self.assertGreaterEqual(len(silent), 2)  # of the others the broker heard nothing, and closed them

    async def test_line_44_timeouts(self) -> None:
        """A call, and an event, into a black hole end when their time is up; the proxy works when it is gone."""
        await self.start(Echo)
        cluster = await self.cluster()
        self.assertEqual(await cluster.echo.echo(1), 1)
        hole = client_of(cluster).connections.publisher.connection.protocol.transport.peer
        hole.pauseProducing()
        with self.assertRaises(RpcTimeout):
            await cluster.echo.echo.options(timeout=0.1)(2)
        hole.resumeProducing()
        self.assertEqual(await cluster.echo.echo(3), 3)
        dispatch = event_dispatcher(self.config, timeout=1)
        self.addCleanup(dispatch.stop)
        await self.bare.publisher.declare(Exchange("source.events", type="topic"))
        await dispatch("source", "type", 1)
        hole = dispatch.connections.publisher.connection.protocol.transport.peer
        hole.pauseProducing()
        with self.assertRaises(PublishTimeout):
            await dispatch("source", "type", 2)
        hole.resumeProducing()
        await dispatch("source", "type", 3)

    async def test_line_44_stale_publisher(self) -> None:
        """A connection that was lost between two publishes costs the second one nothing."""
        await self.start(Echo)
        cluster = await self.cluster()
        for number in range(3):
            self.assertEqual(await cluster.echo.echo(number), number)
            client_of(cluster).connections.publisher.connection.protocol.transport.peer.abortConnection()

    async def test_line_44_broker_down(self) -> None:
        """Where no broker is, a proxy's start ends with its timeout, and says where it looked."""
        proxy = ClusterRpcProxy({"AMQP_URI": "amqp://localhost:1/"}, timeout=0.1)
        with self.assertRaises(RpcConnectionError) as raised:
            await proxy.start()
        self.assertIn("no broker at amqp://localhost:1/", str(raised.exception))


class Flow(Case):
    """Lines 45 to 47: how much is under way."""

    async def test_line_45_prefetch(self) -> None:
        """A handler that is stuck holds what it may prefetch, and the others get the rest."""
        heard, stuck = Heard(), Deferred[None]()

        class Stuck:
            name = "stuck"

            @consume(QUEUE)
            def handle(self, body):
                heard(body)
                return stuck

        (container,) = await self.start(Stuck, prefetch_count=2)
        for number in range(6):
            await self.publish("x", "key", number)
        await heard.wait(2)
        self.assertEqual(len(await self.take(QUEUE, 4)), 4)
        stuck.callback(None)
        await container.stop()
        self.assertEqual(len(heard.things), 2)

    async def test_line_46_no_deadlock(self) -> None:
        """With more events than workers, all of which wait for replies, the replies still come in."""
        heard = Heard()

        class Busy:
            name = "busy"
            echo = RpcProxy("echo")
            dispatch = EventDispatcher()

            @event_handler("source", "type")
            async def one(self, data):
                heard(await self.echo.echo(data))

            @event_handler("source", "type")
            async def other(self, data):
                heard(await self.echo.echo(data))

        await self.start(Busy, Echo, max_workers=2)
        async with event_dispatcher(self.config) as dispatch:
            await gatherResults([dispatch("source", "type", number) for number in range(20)])
        self.assertEqual(sorted(await heard.wait(40)), sorted([*range(20)] * 2))

    async def test_line_47_heartbeat(self) -> None:
        """60 seconds, or as HEARTBEAT says, on both connections; 0 and null for none.

        nameko's publishing connections have none.
        """
        for config, wished, agreed in (({}, 60, 60), ({"HEARTBEAT": 5}, 5, 5), ({"HEARTBEAT": 0}, 0, 0),
                                       ({"HEARTBEAT": None}, 0, 0)):  # fmt: skip
            (container,) = await self.process(**config).start(Echo)
            connections = self.amqp(container)
            await connections.publisher.publish("", "nobody", b"", {})
            for connection in (consuming(container), connections.publisher.connection):
                self.assertEqual(connection.heartbeat, wished)
                self.assertEqual(connection.protocol.heartbeat.interval, agreed)
            await container.stop()


class FlowOnRabbitMQ(OnRabbitMQ, Flow):
    """The same where it is RabbitMQ that hands out messages and beats."""


class Ends(Case):
    """Line 48: how consumers end."""

    async def test_line_48_stop_while_starting(self) -> None:
        """A service that waits for its broker stops when it is told to."""
        container = ServiceContainer(Echo, {"AMQP_URI": "amqp://localhost:1/"})
        starting = container.start()
        await container.stop()
        with self.assertRaises(CancelledError):
            await starting

    async def test_line_48_kill_closes_connections(self) -> None:
        """A killed container's connections are closed, and what it had taken goes back."""
        waiting = Waiting()
        container = ServiceContainer(waiting.service, self.config)  # alone: it owns its connections
        self.addCleanup(container.stop)
        await container.start()
        await self.publish("nameko-rpc", "waiting.method", {"args": [], "kwargs": {}})
        await waiting.called()
        self.assertEqual(self.open_connections(), 2)  # the test's publishing one, and the container's
        await container.kill()
        self.assertEqual(self.open_connections(), 1)
        self.assertEqual((len(self.vhost.queues["rpc-waiting"]), self.left_in("rpc-waiting")), (1, 1))

    def open_connections(self) -> int:
        return sum(session.transport.connected for session in self.broker.sessions)

    async def test_line_48_queue_deleted(self) -> None:
        """A queue that somebody deletes is declared and consumed again."""
        await self.start(Echo)
        protocol = await self.bare.consuming.when_connected()
        await (await protocol.open_channel()).queue_delete(queue="rpc-echo")
        while "rpc-echo" not in self.vhost.queues:
            await self.bare.publisher.publish("", "nobody", b"", {})
        self.assertEqual(await (await self.cluster()).echo.echo(1), 1)

    async def test_line_48_error_in_a_receiver(self) -> None:
        """An error in what takes messages is logged, and kills neither service nor connection.

        nameko's consumer thread dies of it, and its container with that.
        """
        broken, lines = Heard(), self.lines(LogLevel.critical)

        def receive(message: Any) -> None:
            broken(message)
            message.ack()
            raise ZeroDivisionError

        (container,) = await self.start(Echo)
        consumer = self.amqp(container).consume(Queue("odd"), receive, 1)
        await consumer.ready
        await self.publish("", "odd", 1)
        await self.publish("", "odd", 2)
        await broken.wait(2)
        for line in await lines.wait(2):
            self.assertRegex(line, "^<Message .* was not taken, rejected$")
        self.assertEqual(await (await self.cluster()).echo.echo(1), 1)
        self.assertTrue(container.running)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        await consumer.close()
