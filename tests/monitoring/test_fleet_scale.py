"""Three hundred processes answer one ask, and not all in one moment; one that may not answer does without."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from twisted.internet.base import DelayedCall
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.monitoring.test_fleet import FleetCase
from txservices.amqp.connections import Connections
from txservices.broker.memory import brokers
from txservices.broker.server import Broker
from txservices.exceptions import ConnectionClosedByBroker, DeclarationMismatch
from txservices.monitoring.answering import Answering
from txservices.monitoring.fleet import Fleet
from txservices.utils import default_reactor

PROCESSES = 300


class QuickClock(Clock):
    """A clock of many calls. Twisted's sorts all of them after each, which took most of the time of this test."""

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kw: object) -> DelayedCall:
        time = self.seconds() + delay
        call = DelayedCall(time, callable, args, kw, self.calls.remove, lambda call: None, self.seconds)
        insort(self.calls, call, key=DelayedCall.getTime)
        return call

    def advance(self, amount: float) -> None:
        self.calls.sort(key=DelayedCall.getTime)  # some may have been put off
        super().advance(amount)

    def _sortCalls(self) -> None:
        pass


class Many(SynchronousTestCase):
    """Processes on a broker in memory, all of one clock."""

    def test_all_answer(self) -> None:
        """All are heard within 2 s, also if nobody knew of them. Of those that are known the answers are spread."""
        clock = QuickClock()
        broker = brokers["fleet"] = Broker("fleet", clock=clock)
        self.addCleanup(brokers.pop, "fleet")
        self.addCleanup(broker.close)
        config = {"AMQP_URI": "memory://fleet", "HEARTBEAT": 0}
        asker = Fleet(self.started(config, clock))
        opened = asker.start()
        for number in range(PROCESSES):
            connections = self.started(config, clock)
            shared: Any = SimpleNamespace(containers={f"service_{number % 20}": None})
            Answering(connections, shared, config).setServiceParent(connections)
        clock.pump([0.01] * 20)
        self.successResultOf(opened)
        answered: list[float] = []
        answer = Answering.answer
        self.patch(Answering, "answer", lambda each, *args: (answered.append(clock.seconds()), answer(each, *args)))
        for known in (0, PROCESSES):
            self.assertEqual(len(asker.known), known)
            answered.clear()
            began, told = clock.seconds(), asker.ask("services", "counts", "failures")
            while not told.called and clock.seconds() - began < 2.0:
                clock.advance(0.01)
            found = self.successResultOf(told)
            self.assertEqual((len(found.answers), found.missing, found.unreadable), (PROCESSES, [], []))
            self.assertEqual(len(answered), PROCESSES)
        self.assertLess(max(answered) - began, 1.1)
        self.assertGreater(max(answered) - min(answered), 0.3)

    def started(self, config: dict[str, Any], clock: Clock) -> Connections:
        connections = Connections.from_config(config, clock)
        connections.startService()
        self.addCleanup(connections.stopService)
        return connections


class Refused(FleetCase):
    """A process that may not do what it needs."""

    def process(self, number: int) -> Answering:
        connections = Connections.from_config(self.config, default_reactor())
        shared: Any = SimpleNamespace(containers={f"service_{number % 20}": None})
        process = Answering(connections, shared, self.config)
        process.setServiceParent(connections)
        connections.startService()
        self.addCleanup(connections.stopService)
        return process

    async def test_refused(self) -> None:
        """A process that may not declare what it needs says so once, and is none the worse for it."""
        process = self.process(1)
        await process.connection.when_connected()
        await process.opening
        with capturedLogs() as logged:
            for _ in range(3):
                process.refused(Failure(DeclarationMismatch("exchange 'txservices-fleet' may not be declared")))
        lines = [event for event in logged if "does without" in event["log_format"]]
        self.assertEqual(len(lines), 1)
        self.assertIn(process.attach, process.connection.on_connected)
        process.refused(Failure(ConnectionClosedByBroker(540, "NOT_IMPLEMENTED")))
        self.assertNotIn(process.attach, process.connection.on_connected, "else each connection would be closed for it")
