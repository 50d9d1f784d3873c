"""RabbitMQ's management, asked by tests; and the connections that it shows and closes."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests import rabbitmq
from tests.testing import managed
from txservices.amqp.connections import Connections
from txservices.testing.rabbit import Client, HTTPError
from txservices.testing.utils import assert_stops_raising, get_rabbit_connections, reset_rabbit_connections

VHOST = f"a/b c{os.getpid()}"  # has to be quoted in a URL; one for each process that runs these tests


class ClientTests(TestCase):
    """``Client``."""

    skip = rabbitmq.skip
    timeout = 120

    def setUp(self) -> Deferred[None]:
        self.node = managed.node()
        self.manager = Client(self.node.api_uri)
        return Deferred.fromCoroutine(self.make_vhost())

    async def make_vhost(self) -> None:
        await self.manager.create_vhost(VHOST)
        self.addCleanup(self.manager.delete_vhost, VHOST)
        await self.manager.set_vhost_permissions(VHOST, "guest", ".*", ".*", ".*")

    async def connect(self) -> Connections:
        connections = Connections.from_config({"AMQP_URI": self.node.uri(VHOST)})
        connections.startService()
        self.addCleanup(connections.stopService)
        await connections.publisher.connection.when_connected()
        return connections

    async def names(self, listed: Deferred[Any]) -> list[str]:
        return [each["name"] for each in await listed]

    async def test_vhosts(self) -> None:
        """A virtual host is made, listed, and deleted."""
        self.assertIn(VHOST, await self.names(self.manager.get_all_vhosts()))
        await self.manager.create_vhost("other")
        await self.manager.delete_vhost("other")
        self.assertNotIn("other", await self.names(self.manager.get_all_vhosts()))

    async def test_queues_and_exchanges(self) -> None:
        """Queues are made, bound and shown; exchanges are shown."""
        await self.manager.create_queue(VHOST, "q/1", durable=True)
        await self.manager.create_queue_binding(VHOST, "amq.topic", "q/1", "a.*")
        self.assertTrue((await self.manager.get_queue(VHOST, "q/1"))["durable"])
        self.assertEqual(await self.names(self.manager.get_queues(VHOST)), ["q/1"])
        bindings = await self.manager.get_queue_bindings(VHOST, "q/1")
        self.assertIn(("amq.topic", "a.*"), [(each["source"], each["routing_key"]) for each in bindings])
        self.assertIn("amq.topic", await self.names(self.manager.get_exchanges(VHOST)))

    async def test_messages(self) -> None:
        """Messages are published, looked at, and taken."""
        await self.manager.create_queue(VHOST, "q")
        await self.manager.create_queue_binding(VHOST, "amq.topic", "q", "key")
        sent = await self.manager.publish(VHOST, "amq.topic", "key", "text", {"content_type": "text/plain"})
        self.assertEqual(sent, {"routed": True})
        self.assertEqual(await self.manager.publish(VHOST, "amq.topic", "other", "text"), {"routed": False})
        (looked_at,) = await self.manager.get_messages(VHOST, "q", requeue=True)
        (taken,) = await self.manager.get_messages(VHOST, "q", count=5)
        self.assertEqual((looked_at["payload"], taken["payload"], taken["redelivered"]), ("text", "text", True))
        self.assertEqual(taken["properties"]["content_type"], "text/plain")
        self.assertEqual(await self.manager.get_messages(VHOST, "q"), [])

    async def test_connections(self) -> None:
        """A virtual host's connections are shown, and closed by the broker; those of others are left."""
        connections = await self.connect()
        connection = connections.publisher.connection
        protocol = await connection.when_connected()
        name: list[str] = []

        async def appears() -> None:
            found = await get_rabbit_connections(VHOST, self.manager)
            name.append(found[0]["name"])

        await assert_stops_raising(appears, IndexError, timeout=30)
        self.assertEqual(await get_rabbit_connections("/", self.manager), [])
        await reset_rabbit_connections(VHOST, self.manager)
        await protocol.disconnected.wait()
        await connection.when_connected()
        with self.assertRaises(HTTPError) as raised:
            await self.manager.delete_connection(name[0])
        self.assertEqual(raised.exception.response.status_code, 404)

    async def test_connection_that_is_gone(self) -> None:
        """One that closes between being shown and being closed is no error."""
        known = [{"name": "127.0.0.1:1 -> 127.0.0.1:2", "vhost": VHOST}]
        self.patch(self.manager, "get_connections", lambda: Deferred.fromCoroutine(self.give(known)))
        await reset_rabbit_connections(VHOST, self.manager)

    async def give(self, value: Any) -> Any:
        return value

    async def test_refused(self) -> None:
        """A refusal of the management says what was asked, and why not; nobody's password is in it."""
        with self.assertRaises(HTTPError) as raised:
            await self.manager.get_queue(VHOST, "nothing")
        self.assertRegex(str(raised.exception), r"^GET queues/a%2Fb%20c\d+/nothing is answered 404: .*Not Found")
        stranger = Client(self.node.api_uri.replace("guest:guest", "guest:secret"))
        with self.assertRaises(HTTPError) as raised:
            await stranger.get_all_vhosts()
        self.assertEqual(raised.exception.response.status_code, 401)
        self.assertNotIn("secret", str(raised.exception))

    async def test_nobody_there(self) -> None:
        """Where there is no management, the error says where, and what may be missing."""
        client = Client(f"http://guest:secret@127.0.0.1:{rabbitmq.free_port()}")
        with self.assertRaises(ConnectionError) as raised:
            await client.get_connections()
        self.assertRegex(str(raised.exception), r"http://guest:\*+@127\.0\.0\.1:\d+: .*rabbitmq_management")
