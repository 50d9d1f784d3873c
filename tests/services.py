"""Services of a test, on an embedded broker that is the test's own; and what to wait on in place of sleeping."""

from __future__ import annotations

import itertools
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests import rabbitmq
from txservices.amqp.connections import Connections
from txservices.amqp.entities import Exchange, Message, Queue
from txservices.calls import Client
from txservices.containers import ServiceContainer
from txservices.standalone.rpc import ClusterProxy, ClusterRpcProxy

numbers = itertools.count(1)


class Heard:
    """What was told, in order, and a way to wait for it."""

    def __init__(self) -> None:
        self.things: list[Any] = []
        self.waiting: list[tuple[int, Deferred[list[Any]]]] = []

    def __call__(self, thing: Any = None) -> None:
        self.things.append(thing)
        due = [each for each in self.waiting if each[0] <= len(self.things)]
        self.waiting = [each for each in self.waiting if each[0] > len(self.things)]
        for _, waiter in due:
            waiter.callback(list(self.things))

    def wait(self, count: int = 1) -> Deferred[list[Any]]:
        """Fires with all that was told when there are that many."""
        waiter: Deferred[list[Any]] = Deferred()
        if len(self.things) >= count:
            waiter.callback(list(self.things))
        else:
            self.waiting.append((count, waiter))
        return waiter


class Recorded(Heard):
    """Messages: acked as they come."""

    def __call__(self, thing: Any = None) -> None:
        thing.ack()
        super().__call__(thing)


class ServicesCase(TestCase):
    """A test with services, standalone proxies and bare connections, all stopped when it ends."""

    timeout = 15

    def setUp(self) -> None:
        self.config: dict[str, Any] = {"AMQP_URI": f"memory://test-{next(numbers)}", "RPC_TIMEOUT": 10}
        self.stops: list[Any] = []

    async def tearDown(self) -> None:
        for stop in reversed(self.stops):
            await stop()

    async def start(self, *service_classes: type, **config: Any) -> list[ServiceContainer]:
        """Containers of these classes, running."""
        containers = [ServiceContainer(each, {**self.config, **config}) for each in service_classes]
        self.stops += [container.stop for container in containers]
        for container in containers:
            await container.start()
        return containers

    async def cluster(self, *args: Any, config: dict[str, Any] | None = None, **kwargs: Any) -> ClusterProxy:
        """A standalone proxy of all services."""
        proxy = ClusterRpcProxy({**self.config, **(config or {})}, *args, **kwargs)
        self.stops.append(proxy.stop)
        return await proxy.start()

    def connections(self) -> Connections:
        """Bare connections to the test's broker."""
        made = Connections.from_config(self.config)
        made.startService()
        self.stops.append(made.stopService)
        return made

    async def tap(self, exchange: str, key: str = "#", **options: Any) -> Recorded:
        """The messages that pass through an exchange."""
        recorded = Recorded()
        queue = Queue(f"tap-{next(numbers)}", Exchange(exchange, type="topic", **options), key, auto_delete=True)
        await self.connections().consume(queue, recorded, 100).ready
        return recorded


class OnRabbitMQ(ServicesCase):
    """The same on a RabbitMQ, in a virtual host of the test's own; to be named before the case that it takes there."""

    skip = rabbitmq.skip
    timeout = 100

    def setUp(self) -> None:
        super().setUp()
        self.node = rabbitmq.node()
        self.vhost_name = self.node.new_vhost()
        self.config["AMQP_URI"] = self.node.uri(self.vhost_name)


def client_of(proxy: ClusterProxy) -> Client:
    """The client that makes the calls of a standalone proxy."""
    client: Client = proxy._begin.func.__self__
    return client


def properties_of(message: Message) -> dict[str, Any]:
    """A message's properties without its id, which is new each time."""
    return {name: value for name, value in message.properties.items() if name != "message_id"}
