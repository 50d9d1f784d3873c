"""The broker's door: TCP on a port of its own, users and virtual hosts."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock, deferLater
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
