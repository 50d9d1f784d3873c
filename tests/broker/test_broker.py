"""The broker's door: TCP on a port of its own, users and virtual hosts."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.broker.peer import Client
from tests.broker.test_memory import Side
from txservices.broker.server import Broker


class UserTests(SynchronousTestCase):
    """Users and virtual hosts: who may come in, and where to."""

    def test_users_and_vhosts(self) -> None:
        """Given users and virtual hosts take the place of guest and /."""
        broker = Broker(users={"me": "secret"}, vhosts=["a"], clock=Clock())
        self.assertTrue(broker.accepts("me", "secret", "127.0.0.1"))
        self.assertFalse(broker.accepts("guest", "guest", "127.0.0.1"))
        client = Client(broker)
        client.login("me", "secret")
        client.method(0, "connection.tune-ok")
        self.assertEqual(client.call(0, "connection.open", virtual_host="a")[0], "connection.open-ok")

    def test_vhosts_do_not_see_each_other(self) -> None:
        """A queue is in its virtual host and in no other."""
        broker = Broker(vhosts=["a", "b"], clock=Clock())
        one, other = Client(broker).open("a"), Client(broker).open("b")
        one.declare("q")
        self.assertEqual(other.refusal(1, "queue.declare", queue="q", passive=True)[1], 404)


class AddressTests(SynchronousTestCase):
    """The log says loudly who can come in from elsewhere."""

    def warning(self, host: str, **users: str) -> str:
        """The log's line about an address, if it has one."""
        broker = Broker(users=users, clock=MemoryReactorClock())
        with capturedLogs() as events:
            self.successResultOf(broker.listen(host, 5672))
        lines = [formatEvent(event) for event in events if event["log_level"] is LogLevel.warn]
        return lines[0] if lines else ""

    def test_this_machine_alone(self) -> None:
        """An address that nobody else reaches is nothing to warn of."""
        for host in ("127.0.0.1", "127.0.0.7", "::1"):
            self.assertEqual(self.warning(host, guest="guest", me="secret"), "")

    def test_others_reach_it(self) -> None:
        """For any other address one line names the users who may come in, without their passwords."""
        for host in ("0.0.0.0", "::", "192.0.2.7", ""):
            line = self.warning(host, guest="guest", me="secret", you="word")
            self.assertIn("OTHER MACHINES CAN REACH", line)
            self.assertTrue(line.endswith("me, you"), line)
            self.assertNotIn("secret", line)
            self.assertTrue(self.warning(host, guest="guest").endswith("no one"))


class ListenTests(TestCase):
    """Over TCP."""

    async def test_listen_and_stop(self) -> None:
        """A broker listens where it is told to; stopped, it has neither port nor connections."""
        broker = Broker()
        port = await broker.listen("127.0.0.1", 0)
        number = port.getHost().port
        with self.assertRaises(CannotListenError):
            await Broker().listen("127.0.0.1", number)
        side = await TCP4ClientEndpoint(reactor, "127.0.0.1", number).connect(Factory.forProtocol(Side))
        side.transport.write(b"AMQP\0\0\x09\x01")
        while not broker.sessions:
            await deferred_turn()
        await broker.close()
        self.assertEqual((list(broker.sessions), broker.ports), ([], []))
        while not side.lost:
            await deferred_turn()


async def deferred_turn() -> None:
    """One turn of the reactor."""
    await deferLater(reactor, 0)
