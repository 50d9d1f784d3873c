"""What a broker shows of us."""

from __future__ import annotations

import os
import re
import socket
import sys

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.services import OnRabbitMQ, ServicesCase
from txservices.amqp.entities import Queue
from txservices.amqp.naming import HOST_MAX, SERVICES_MAX, process_of
from txservices.messaging import consume
from txservices.rpc import RpcProxy, rpc

HERE = f"on {socket.gethostname()[:HOST_MAX]}, pid {os.getpid()}"


class Names(SynchronousTestCase):
    """Of services and their process."""

    def test_names(self) -> None:
        """The services, or the program if there are none, the host and the process; what is too long is cut."""
        self.patch(sys, "argv", ["/usr/bin/manage.py"])
        table = [
            (["shop"], "shop"),
            (["shop", "stock"], "shop, stock"),
            ([], "manage.py"),
            (["x" * SERVICES_MAX], "x" * SERVICES_MAX),
            (["x" * (SERVICES_MAX + 1)], "x" * (SERVICES_MAX - 3) + "…"),
            (["é" * 200], "é" * ((SERVICES_MAX - 3) // 2) + "…"),
            (["\ud800"], "?"),
        ]
        for services, shown in table:
            self.assertEqual(process_of(services), f"{shown} {HERE}")
        self.patch(sys, "argv", [""])
        self.assertEqual(process_of([]), f"python {HERE}")

    def test_room(self) -> None:
        """Whatever the names are, a consumer tag has room for them and for an id."""
        self.patch(socket, "gethostname", lambda: "h" * 300)
        self.patch(os, "getpid", lambda: 4_194_304)  # the largest that Linux has
        self.assertLess(len(f"{process_of(['é' * 200])}, {8 * 'f'}".encode()), 256)


class Shop:
    name = "shop"
    stock = RpcProxy("stock")

    @rpc
    def sell(self):
        return self.stock.take()

    @consume(Queue("orders"))
    def order(self, body):
        pass


class Stock:
    name = "stock"

    @rpc
    def take(self):
        return 1


class Shown(ServicesCase):
    """On the embedded broker, over TCP."""

    async def test_log(self) -> None:
        """The broker's log has the names of connections, with services, host and pid, and the tags of consumers."""
        uri = await self.stage.listen()
        process = self.process(AMQP_URI=uri)
        with capturedLogs() as events:
            process.runner(process.config, Shop, Stock)
            (runner,) = process.runners
            await runner.start()
        lines = [formatEvent(event) for event in events if event["log_namespace"].startswith("txservices.broker")]
        for name in ("consumes (shop, stock", "shop consumes (shop", "stock consumes (stock"):
            one = [line for line in lines if line.endswith(f"user 'guest', 'txservices: {name} {HERE})'")]
            self.assertEqual(len(one), 1, lines)
            self.assertRegex(one[0], r"^a connection from 127\.0\.0\.1:\d+: user ")
        for queue, whose in (("rpc-shop", "shop"), ("orders", "shop"), ("rpc-stock", "stock")):
            self.assertRegex("\n".join(lines), rf"(?m)^queue '{queue}' is consumed: '{whose} {HERE}, [0-9a-f]{{8}}'$")


class ShownByRabbitMQ(OnRabbitMQ):
    """In the lists of rabbitmqctl."""

    async def test_lists(self) -> None:
        """Connections have a name, and consumers a tag, with services, host and pid; the tags are unique."""
        runner = self.stage.runner(self.config, Shop, Stock)
        await runner.start()
        await (await self.cluster()).shop.sell()
        connections = await self.node.ctl("list_connections", "vhost", "client_properties")
        for name in ("publishes (shop, stock", "consumes (shop, stock", "shop consumes (shop", "stock consumes (stock"):
            self.assertEqual(connections.count(f'{{"connection_name","txservices: {name} {HERE})"}}'), 1, connections)
        consumers = await self.node.ctl("list_consumers", "-p", self.vhost_name, "queue_name", "consumer_tag")
        tags = re.findall(rf"(?m)^(\S+)\t(.+) {HERE}, ([0-9a-f]{{8}})$", consumers)
        self.assertEqual(
            sorted((queue, whose) for queue, whose, _ in tags if "reply" not in queue),
            [("orders", "shop"), ("rpc-shop", "shop"), ("rpc-stock", "stock")],
        )
        self.assertEqual(len({unique for *_, unique in tags}), len(tags))
