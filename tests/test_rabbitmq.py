"""The private RabbitMQ that the other tests stand on: it answers, keeps tests apart, comes back, and ends."""

from __future__ import annotations

import json
import os
import socket

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests import processes, rabbitmq
from txservices.amqp.connections import Connections
from txservices.amqp.entities import Queue


async def declare(uri: str, queue: Queue) -> None:
    connections = Connections.from_config({"AMQP_URI": uri})
    connections.startService()
    try:
        await connections.publisher.declare(queue)
    finally:
        await connections.stopService()


class TheNode(TestCase):
    """One node for the whole run."""

    skip = rabbitmq.skip

    def setUp(self) -> None:
        self.node = rabbitmq.node()

    def test_one_node(self) -> None:
        """The second to ask gets the node that runs, on loopback and on no port that RabbitMQ usually has."""
        self.assertIs(rabbitmq.node(), self.node)
        self.assertEqual(rabbitmq.Node.known(self.node.how_to_reach()).uri(), self.node.uri())
        self.assertTrue(self.node.answers())
        self.assertRegex(self.node.uri(), r"^amqp://guest:guest@127\.0\.0\.1:\d+/%2F$")
        self.assertNotIn(self.node.port, (5672, 25672))

    def test_uri(self) -> None:
        """Names that would break a URI are quoted in it."""
        self.assertTrue(self.node.uri("a/b", "me@here", "p:s").startswith("amqp://me%40here:p%3As@127.0.0.1:"))
        self.assertTrue(self.node.uri("a/b").endswith("/a%2Fb"))

    async def test_virtual_hosts(self) -> None:
        """Queues of one virtual host are not in another."""
        one, other = self.node.new_vhost(), self.node.new_vhost()
        await declare(self.node.uri(one), Queue("mine"))
        counts = [self.node.evaluate(f'length(rabbit_amqqueue:list(<<"{each}">>)).') for each in (one, other)]
        self.assertEqual(counts, ["1", "0"])

    async def test_side_by_side(self) -> None:
        """Processes of a run make virtual hosts at the same time."""
        program = (
            "import json, sys; from tests.rabbitmq import Node; node = Node.known(json.loads(sys.argv[1]));"
            "[node.new_vhost() for _ in range(10)]"
        )
        node = json.dumps(self.node.how_to_reach())
        for making in [processes.python(self, "-c", program, node) for _ in range(2)]:
            await processes.succeed(making)

    async def test_rabbitmqctl_complains(self) -> None:
        """A rabbitmqctl that fails says what was typed and what it answered."""
        error = await self.assertFailure(self.node.ctl("delete_vhost", "nowhere"), AssertionError)
        self.assertRegex(str(error), r"rabbitmqctl delete_vhost nowhere ended with \d+")


class Ending(TestCase):
    """A node does not outlive who started it."""

    skip = rabbitmq.skip

    async def test_ended(self) -> None:
        """Held up by hand and ended: the port is closed, the folder gone."""
        folder = os.path.abspath(self.mktemp())
        os.makedirs(folder)
        holder = processes.python(self, "-m", "tests.rabbitmq", TMPDIR=folder)
        found = await holder.line(r"^amqp://guest:guest@127\.0\.0\.1:(\d+)/%2F$", rabbitmq.START_TIMEOUT)
        port = int(found[1])
        self.assertEqual(len(os.listdir(folder)), 1)
        self.assertEqual(await holder.end(), 0, str(holder))
        for _ in range(100):
            if refused(port):
                break
            await deferLater(reactor, 0.05)
        self.assertTrue(refused(port))
        self.assertEqual(os.listdir(folder), [])


class Missing(TestCase):
    """Where RabbitMQ is not installed."""

    def test_missing(self) -> None:
        """Somebody who needs a node all the same is told the line that installs it."""
        self.patch(rabbitmq, "MISSING", "no rabbitmq-server on this machine: apt-get install rabbitmq-server")
        error = self.assertRaises(AssertionError, rabbitmq.Node)
        self.assertIn("apt-get install rabbitmq-server", str(error))


def refused(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
