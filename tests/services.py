"""Services of a test: on the stage that is shipped, or on a RabbitMQ; and what tests look at inside them."""

from __future__ import annotations

import itertools
import re
from typing import Any

from twisted.logger import formatEvent, globalLogPublisher

from tests import rabbitmq
from txservices.amqp import ondemand
from txservices.amqp.connection import Connection
from txservices.amqp.entities import Message
from txservices.calls import Client
from txservices.consumers import amqp
from txservices.containers import ServiceContainer
from txservices.standalone.rpc import ClusterProxy
from txservices.testing import TestCase
from txservices.testing.stage import Stage
from txservices.testing.waiting import Heard

numbers = itertools.count(1)


class Recorded(Heard):
    """Messages: acked as they come."""

    def __call__(self, thing: Any = None) -> None:
        thing.ack()
        super().__call__(thing)


class TrustsNewQueues(TestCase):
    """To be named before a case: messages to a new delay queue or parking queue are confirmed at once.

    Otherwise they wait for a second, in which a crash of RabbitMQ may lose such a queue: tests/amqp/test_ondemand.py
    tries that wait.
    """

    def setUp(self) -> None:
        super().setUp()
        self.patch(ondemand, "LASTS_AFTER", 0)


class ServicesCase(TestCase):
    """A test with services, standalone proxies and bare connections, all stopped when it ends."""

    timeout = 120

    def setUp(self) -> None:
        super().setUp()
        self.config["SHUTDOWN_TIMEOUT"] = 30  # longer than a busy machine takes to end what is under way

    def logged(self, pattern: str) -> Heard:
        """The lines of the log, from now on, in which the pattern is found."""
        lines = Heard()

        def observe(event: dict[str, Any]) -> None:
            text = formatEvent(event)
            if re.search(pattern, text):
                lines(text)

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        return lines

    def process(self, **config: Any) -> Stage:
        """A stage on the same broker, as of another process: with its own connections, and its own configuration."""
        stage = Stage(**{**self.config, **config})
        self.addCleanup(stage.stop)
        return stage


class OnRabbitMQ(ServicesCase):
    """The same on a RabbitMQ, in a virtual host of the test's own; to be named before the case that it takes there."""

    skip = rabbitmq.skip
    timeout = 240

    def setUp(self) -> None:
        super().setUp()
        self.node = rabbitmq.node()
        self.vhost_name = self.node.new_vhost()
        self.config["AMQP_URI"] = self.node.uri(self.vhost_name)


async def overdue(proxy: ClusterProxy) -> None:
    """End the time of a proxy's calls now, where a short one would be over before a slow machine has sent them."""
    client = client_of(proxy)
    await client.connections.drain()
    for call in client.pending.values():
        call.deadline = client.clock.seconds()


def client_of(proxy: ClusterProxy) -> Client:
    """The client that makes the calls of a standalone proxy."""
    client: Client = proxy._begin.func.__self__
    return client


def consuming(container: ServiceContainer) -> Connection:
    """The connection that a service's own messages come in on."""
    name = f"txservices: {container.service_name} consumes"
    (connection,) = [each for each in amqp(container).in_use if each.connection_name == name]
    return connection


def without_deadline(headers: dict[str, Any]) -> dict[str, Any]:
    """A request's headers without those of its caller's deadline, which nameko's requests do not have."""
    return {name: value for name, value in headers.items() if not name.startswith("nameko.call_")} | {
        "nameko.call_id_stack": headers["nameko.call_id_stack"]
    }


def properties_of(message: Message) -> dict[str, Any]:
    """A message's properties without its id, which is new each time."""
    return {name: value for name, value in message.properties.items() if name != "message_id"}
