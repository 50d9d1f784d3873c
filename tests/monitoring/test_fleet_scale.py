"""Three hundred processes answer one ask, and not all in one moment; one that may not answer does without."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import gatherResults
from twisted.logger import capturedLogs
from twisted.python.failure import Failure

from tests.monitoring.test_fleet import FleetCase
from txservices.amqp.connections import Connections
from txservices.exceptions import ConnectionClosedByBroker, DeclarationMismatch
from txservices.monitoring import fleet
from txservices.monitoring.answering import Answering
from txservices.utils import default_reactor

PROCESSES = 300


class Many(FleetCase):
    """Processes without services, each with its own connections."""

    def process(self, number: int) -> Answering:
        connections = Connections.from_config(self.config, default_reactor())
        shared: Any = SimpleNamespace(containers={f"service_{number % 20}": None})
        process = Answering(connections, shared, self.config)
        process.setServiceParent(connections)
        connections.startService()
        self.addCleanup(connections.stopService)
        return process

    async def test_all_answer(self) -> None:
        """All are heard, with answers spread, each within a second."""
        processes = [self.process(number) for number in range(PROCESSES)]
        await gatherResults([each.connection.when_connected() for each in processes])
        await gatherResults([each.opening for each in processes if each.opening is not None])
        delays: list[float] = []
        later = self.fleet.clock.callLater

        def noted(seconds: float, call: Any, *args: Any) -> Any:
            if getattr(call, "__func__", None) is Answering.answer:
                delays.append(seconds)
            return later(seconds, call, *args)

        for each in processes:
            each.clock = SimpleNamespace(callLater=noted, seconds=self.fleet.clock.seconds)
            self.fleet.known[each.id] = each.process()
        self.patch(fleet, "QUIET", 20.0)  # however slow this machine is
        self.patch(fleet, "WAIT_MAX", 25.0)
        told = await self.fleet.ask("services", "counts", "failures")
        self.assertEqual(len(told.answers), PROCESSES)
        self.assertEqual((told.missing, told.unreadable), ([], []))
        self.assertEqual(len(delays), PROCESSES)
        self.assertLess(max(delays), 1.0)
        self.assertGreater(max(delays) - min(delays), 0.3)

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
