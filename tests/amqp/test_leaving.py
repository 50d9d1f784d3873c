"""Stops, where the broker does not answer or is not there."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.logger import formatEvent, globalLogPublisher

from tests.amqp.test_connection import ConnectionsTestCase
from txservices.amqp import leaving as leaving_module
from txservices.amqp.leaving import AWAY_TIMEOUT
from txservices.exceptions import ConnectionLost


class LeavingTests(ConnectionsTestCase):
    """On the embedded broker, and on none."""

    async def test_no_answer_to_who_stops(self) -> None:
        """A stop that is not the process's drops a connection which does not answer it; the others have a new one."""
        self.patch(leaving_module, "STOP_TIMEOUT", 0.1)
        await self.connections.publish("", "q", b"", {})
        first = self.connections.publisher.connection.protocol
        self.assertFalse(await self.connections.leaving.answered(Deferred()))
        self.assertTrue(first.closed)
        await self.connections.publish("", "q", b"", {})
        self.assertIsNot(self.connections.publisher.connection.protocol, first)
        self.assertTrue(await self.connections.leaving.answered(self.connections.settled()))

    async def test_what_a_stop_could_not_publish_is_said(self) -> None:
        """Publishes that wait when a stop finds nobody fail, and the log says how many there were for whom."""
        said: list[str] = []
        observe = lambda event: said.append(formatEvent(event))  # noqa: E731
        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        nowhere = self.connect("amqp://guest:s3cret@127.0.0.1:1/")
        waiting = [nowhere.publish("", queue, b"", {}) for queue in ("few", "many", "many")]
        began = reactor.seconds()
        await nowhere.stopService()
        self.assertLess(reactor.seconds() - began, AWAY_TIMEOUT + 0.5)
        for publish in waiting:
            self.failureResultOf(publish, ConnectionLost)
        (line,) = [each for each in said if "did not confirm" in each]
        self.assertIn("did not confirm 3 messages", line)
        self.assertIn("2 to '' as 'many', 1 to '' as 'few'", line)
