"""The fleet on RabbitMQ: a process answers, and one whose user may not declare what that needs does without."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import TestCase

from tests import rabbitmq
from txservices.amqp.connections import Connections
from txservices.consumers import amqp
from txservices.monitoring.answering import Answering
from txservices.monitoring.fleet import Fleet
from txservices.rpc import rpc
from txservices.runners import ServiceRunner
from txservices.standalone.rpc import ClusterRpcProxy


class Stock:
    """Knows what there is."""

    name = "stock"

    @rpc
    def take(self, item: str) -> str:
        return item


class OnRabbitMQ(TestCase):
    """A process of one service."""

    skip = rabbitmq.skip
    timeout = 120

    def setUp(self) -> None:
        self.node = rabbitmq.node()
        self.vhost = self.node.new_vhost()

    async def run_process(self, user: str = "guest", password: str = "guest") -> Answering:
        runner = ServiceRunner({"AMQP_URI": self.node.uri(self.vhost, user, password), "FLEET": True})
        runner.add_service(Stock)
        await runner.start()
        self.addCleanup(runner.stop)
        process: Answering = next(each for each in amqp(runner.containers[0]) if isinstance(each, Answering))
        await process.connection.when_connected()
        if process.opening is not None:
            await process.opening
        return process

    async def fleet(self) -> Fleet:
        connections = Connections.from_config({"AMQP_URI": self.node.uri(self.vhost)}, reactor)
        connections.startService()
        self.addCleanup(connections.stopService)
        fleet = Fleet(connections)
        await fleet.start()
        return fleet

    async def call(self) -> Any:
        async with ClusterRpcProxy({"AMQP_URI": self.node.uri(self.vhost)}) as cluster:
            return await cluster.stock.take("tea")

    async def test_asked(self) -> None:
        """It answers what it is and what it counts, and tells what happens."""
        process, fleet = await self.run_process(), await self.fleet()
        await fleet.ask("counts")
        tailed: Deferred[Any] = Deferred()
        tailing = fleet.tail(lambda told: told["happened"] and not tailed.called and tailed.callback(told))
        self.addCleanup(tailing.stop)
        while not process.happening.leases:
            await fleet.ask()
        self.assertEqual(await self.call(), "tea")
        (answer,) = (await fleet.ask("services", "counts")).answers
        self.assertEqual(answer["process"]["id"], process.id)
        self.assertEqual(answer["services"][0]["methods"][0]["queue"], "rpc-stock")
        self.assertEqual([(each["method"], each["count"]) for each in answer["methods"]], [("take", 1)])
        self.assertEqual([each["name"] for each in (await tailed)["happened"]], ["take"])

    async def test_refused(self) -> None:
        """A user who may declare no queue of the fleet's: that is said once, and the service answers its callers."""
        for number, may_configure in enumerate(["^(rpc-.*|nameko-rpc)$", "^(rpc-.*|nameko-rpc|amq.gen.*)$"]):
            user = f"{self.vhost.replace('/', '-')}-{number}"
            self.node.new_user(user, self.vhost, may_configure)
            with self.subTest(may_configure=may_configure), capturedLogs() as events:
                process = await self.run_process(user, "s3cret")
                self.assertIsNone(process.channel)
                self.assertEqual(await self.call(), "tea")
                process.open_again()
                if process.opening is not None:
                    await process.opening
                lines = [formatEvent(each) for each in events]
                (line,) = [each for each in lines if "which does without" in each]
                self.assertRegex(line, r"403|ACCESS_REFUSED")
                self.assertNotIn("s3cret", "".join(lines))
            await process.shared.stopService()
