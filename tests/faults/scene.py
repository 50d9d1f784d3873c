"""The base of the fault tests: a node behind a proxy, services on it, the log, and a node that may be treated badly."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater

from tests import rabbitmq
from tests.faults.proxy import Proxy
from tests.services import ServicesCase
from tests.turns import slowness
from txservices.amqp.connections import Connections
from txservices.rpc import rpc

FULL = bool(os.environ.get("FAULTS_FULL"))  # the long form of what is scaled down
BACK = 2.0  # seconds within which all is back once the broker can be reached
BUSY = 5  # times that, on a machine that does other work: less than any timeout that would have to end it else
LOOK_AGAIN = 0.02


async def until(true: Callable[[], Any], seconds: float = 10) -> None:
    """Look again and again until it is so. For conditions that nothing announces."""
    end = reactor.seconds() + seconds
    while not true():
        if reactor.seconds() > end:
            raise AssertionError(f"not so after {seconds} s")
        await deferLater(reactor, LOOK_AGAIN)


class Echo:
    """Answers at once."""

    name = "echo"

    @rpc
    def echo(self, value: Any) -> Any:
        return value


class FaultsCase(ServicesCase):
    """A test whose services reach a virtual host of their own over ``self.proxy``."""

    skip = rabbitmq.skip
    timeout = 120

    def node(self) -> rabbitmq.Node:
        """The broker; override it for one that may be harmed."""
        return rabbitmq.node()

    async def setUp(self) -> None:
        self.broker = self.node()
        self.vhost = self.broker.new_vhost()
        self.direct = {"AMQP_URI": self.broker.uri(self.vhost)}
        self.proxy = await Proxy(self.broker.port).listen()
        self.addCleanup(self.proxy.shut)
        super().setUp()  # now, so that the services stop before the proxy
        self.config.update({"AMQP_URI": self.proxy.uri(self.direct["AMQP_URI"]), "RPC_TIMEOUT": 30})

    def tearDown(self) -> None:
        self.proxy.heal()

    def bare(self, **config: Any) -> Connections:
        """Connections over the proxy."""
        return self.connected({**self.config, **config})

    def past_the_proxy(self) -> Connections:
        """Connections that no fault touches."""
        return self.connected(self.direct)

    def connected(self, config: dict[str, Any]) -> Connections:
        made = Connections.from_config(config)
        made.startService()
        self.addCleanup(made.stopService)
        return made

    def in_time(self, began: float, allowed: float) -> None:
        """Assert that no more than so many seconds have passed since then; more on a slower or a busy machine.

        How many seconds we wait ourselves is tested by a Clock: test_returning row 34, tests/amqp/test_leaving,
        tests/wire/test_heartbeat.
        """
        self.assertLess(reactor.seconds() - began, allowed * BUSY * slowness())

    async def delete_queue(self, name: str) -> None:
        """Delete a queue, as an administrator does, on a connection of its own."""
        channel = await (await self.past_the_proxy().consuming.when_connected()).open_channel()
        await channel.queue_delete(queue=name)

    async def depth(self, name: str) -> tuple[int, int]:
        """How many messages wait in a queue, and how many consume it."""
        connections = self.past_the_proxy()
        protocol = await connections.consuming.when_connected()
        channel = await protocol.open_channel()
        declared = await channel.queue_declare(queue=name, passive=True)
        found = declared.message_count, declared.consumer_count
        await protocol.close_channel(channel)
        return found
