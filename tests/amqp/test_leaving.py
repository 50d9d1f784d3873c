"""Stops, where the broker does not answer or is not there."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.amqp.test_connection import ConnectionsTestCase
from txservices.amqp import connection as connection_module
from txservices.amqp import leaving as leaving_module
from txservices.amqp.connections import Connections
from txservices.amqp.endpoints import endpoint_for
from txservices.amqp.entities import Queue
from txservices.amqp.leaving import AWAY_TIMEOUT, Leaving
from txservices.broker.memory import brokers
from txservices.broker.server import Broker
from txservices.containers import ServiceContainer
from txservices.events import EventDispatcher, event_handler
from txservices.exceptions import ConnectionLost, RpcConnectionError
from txservices.rpc import RpcProxy, rpc


class LeavingTests(ConnectionsTestCase):
    """With the embedded broker, and with no broker."""

    async def test_no_answer_to_who_stops(self) -> None:
        """A stop that is not the process's drops a connection which does not answer it; the others have a new one."""
        self.patch(leaving_module, "STOP_TIMEOUT", 0.1)
        await self.connections.publisher.publish("", "q", b"", {})
        first = self.connections.publisher.connection.protocol
        self.assertFalse(await self.connections.leaving.answered(Deferred()))
        self.assertTrue(first.closed)
        await self.connections.publisher.publish("", "q", b"", {})
        self.assertIsNot(self.connections.publisher.connection.protocol, first)
        self.assertTrue(await self.connections.leaving.answered(self.connections.drain()))

    async def test_first_needed_by_the_stop(self) -> None:
        """A connection that is first needed when the stop has begun is waited for no longer than one that was lost."""
        nowhere = self.connect("amqp://guest:s3cret@127.0.0.1:1/")
        nowhere.leaving.begin()
        began = reactor.seconds()
        await self.assertFailure(nowhere.publisher.publish("", "q", b"", {}), ConnectionLost)
        self.assertLess(reactor.seconds() - began, AWAY_TIMEOUT + 10)

    async def test_what_a_stop_could_not_publish_is_said(self) -> None:
        """If a stop finds no broker, waiting publishes fail, and the log says how many went where."""
        said: list[str] = []
        observe = lambda event: said.append(formatEvent(event))  # noqa: E731
        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        nowhere = self.connect("amqp://guest:s3cret@127.0.0.1:1/")
        waiting = [nowhere.publisher.publish("", queue, b"", {}) for queue in ("few", "many", "many")]
        began = reactor.seconds()
        await nowhere.stopService()
        self.assertLess(reactor.seconds() - began, AWAY_TIMEOUT + 10)
        for publish in waiting:
            self.failureResultOf(publish, ConnectionLost)
        (line,) = [each for each in said if "did not confirm" in each]
        self.assertIn("did not confirm 3 messages", line)
        self.assertIn("2 to '' as 'many', 1 to '' as 'few'", line)

    async def test_connections_end_before_publishes_fail(self) -> None:
        """When the broker is given up the connections go first: a worker that then fails can't ack its message."""
        full = Queue("full", arguments={"x-max-length": 0, "x-overflow": "reject-publish"})
        await self.connections.publisher.declare(full)
        await self.connections.consume(Queue("q"), lambda message: None, 1).ready
        consuming = self.connections.consuming.protocol
        ended: list[bool] = []
        publish: Any = self.connections.publisher.publish("", "full", b"", {})
        publish.addErrback(lambda failure: ended.append(consuming.closed))
        self.connections.leaving.abort()
        self.assertEqual(ended, [True])


class AwayTests(SynchronousTestCase):
    """How long a lost connection is waited for."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.connected = True
        self.told: list[str] = []
        self.leaving = Leaving(
            lambda: self.connected, lambda: self.told.append("abort"), lambda: self.told.append("reconnect"), self.clock
        )
        self.leaving.on_aborted.append(lambda: self.told.append("aborted"))

    def change(self, connected: bool) -> None:
        self.connected = connected
        self.leaving.look()

    def test_away(self) -> None:
        """A connection that is lost during the stop and does not come back in time is waited for no longer."""
        self.change(False)
        self.change(True)
        self.leaving.begin()
        self.clock.advance(AWAY_TIMEOUT)
        self.change(False)
        self.clock.advance(AWAY_TIMEOUT - 0.1)
        self.assertEqual(self.told, [])
        self.clock.advance(0.1)
        self.assertEqual(self.told, ["abort", "aborted"])
        self.leaving.begin()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_away_at_the_beginning(self) -> None:
        """A connection that is not there when the stop begins is waited for from then on."""
        self.change(False)
        self.clock.advance(AWAY_TIMEOUT)
        self.assertEqual(self.told, [])
        self.leaving.begin()
        self.clock.advance(AWAY_TIMEOUT)
        self.assertEqual(self.told, ["abort", "aborted"])

    def test_back_in_time(self) -> None:
        """A connection that comes back is waited for anew when it is lost again."""
        self.leaving.begin()
        for _ in range(3):
            self.change(False)
            self.clock.advance(AWAY_TIMEOUT - 0.1)
            self.change(True)
            self.clock.advance(AWAY_TIMEOUT)
        self.assertEqual(self.told, [])

    def test_end(self) -> None:
        """After the stop nothing is waited for."""
        self.change(False)
        self.leaving.begin()
        self.leaving.end()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.change(True)
        self.change(False)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class Absent:
    """An endpoint at which nothing listens."""

    def connect(self, factory: Any) -> Deferred[Any]:
        return fail(ConnectionRefusedError())


class GoneTests(SynchronousTestCase):
    """How long the stop of a service takes whose broker is gone, by a clock of the test's own."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.broker = brokers[self.id()] = Broker(self.id(), clock=self.clock)
        self.addCleanup(brokers.pop, self.id())
        self.absent = False
        self.config = {"AMQP_URI": f"memory://{self.id()}", "RPC_TIMEOUT": 50, "PUBLISH_TIMEOUT": 50}

        def endpoint(address: Any, tls: Any, clock: Any) -> Any:
            return Absent() if self.absent else endpoint_for(address, tls, clock)

        self.patch(connection_module, "endpoint_for", endpoint)

    def go(self) -> None:
        """The broker goes, and each connection with it."""
        self.absent = True
        for session in list(self.broker.sessions):
            session.transport.abortConnection()

    def started(self, service: type[Any]) -> ServiceContainer:
        container = ServiceContainer(service, self.config, clock=self.clock)
        starting = container.start()
        self.clock.pump([0.01] * 10)
        self.successResultOf(starting)
        return container

    def seconds_to(self, ending: Deferred[Any]) -> float:
        """The seconds of the clock until it fires."""
        began = self.clock.seconds()
        while not ending.called and self.clock.seconds() < began + 100:
            self.clock.advance(0.01)
        self.successResultOf(ending)
        return self.clock.seconds() - began

    def end(self) -> None:
        """The broker ends, too, and nothing is left on the clock."""
        self.seconds_to(self.broker.close())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_idle(self) -> None:
        """A service that has lost its broker stops at once; one that has never found it does so, too."""

        class Idle:
            name = "idle"

            @rpc
            def method(self) -> None:
                pass

        running = self.started(Idle)
        self.go()
        waiting = ServiceContainer(Idle, self.config, clock=self.clock)
        starting = waiting.start()
        self.clock.advance(5)
        self.assertNoResult(starting)
        for container in (running, waiting):
            self.assertEqual(self.seconds_to(container.stop()), 0)
        self.failureResultOf(starting, CancelledError)
        self.end()

    def test_at_work(self) -> None:
        """One whose workers wait for the broker stops after AWAY_TIMEOUT: then their publishes and calls fail."""
        begun: list[str] = []
        go_on, over = Deferred[None](), Deferred[None]()

        class Slow:
            name = "slow"

            @rpc
            async def work(self) -> None:
                begun.append("called")
                await over

        class Worker:
            name = "worker"
            dispatch = EventDispatcher()
            slow = RpcProxy("slow")

            @event_handler("source", "told")
            async def told(self, number: int) -> None:
                begun.append("told")
                await go_on
                await self.dispatch("thought", number)

            @event_handler("source", "asked")
            async def asked(self, number: int) -> None:
                await self.slow.work()

        slow, worker = self.started(Slow), self.started(Worker)
        source = Connections.from_config(self.config, self.clock)
        source.startService()
        for what in ("told", "asked"):
            source.publisher.publish("source.events", what, b"1", {"content_type": "application/json"})
        self.clock.pump([0.01] * 10)
        self.assertEqual(sorted(begun), ["called", "told"])
        self.go()
        go_on.callback(None)
        self.clock.advance(5)
        self.assertEqual(worker.workers.under_way, 2)
        self.assertLess(self.seconds_to(worker.stop()), AWAY_TIMEOUT + 0.1)
        self.assertEqual(len(self.flushLoggedErrors(ConnectionLost, RpcConnectionError)), 2)
        over.callback(None)
        self.seconds_to(slow.stop())
        self.seconds_to(source.stopService())
        self.end()
