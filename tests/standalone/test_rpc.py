"""Proxies of programs that are no service: their life, their calls, and what stands on the wire for them."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from tests.services import ServicesCase, client_of, overdue, without_deadline
from txservices import exceptions
from txservices import rpc as services_rpc
from txservices.amqp import publish
from txservices.amqp.entities import Queue
from txservices.amqp.topology import queue_exists
from txservices.exceptions import ConfigurationError, RpcConnectionError, RpcTimeout, UnknownService
from txservices.rpc import rpc
from txservices.standalone import blocking
from txservices.standalone import rpc as standalone
from txservices.standalone.rpc import Caller, ClusterRpcProxy, ServiceRpcProxy
from txservices.testing.waiting import Heard


class Echo:
    """Whom the proxies call."""

    name = "echo-service"

    @rpc
    def echo(self, value):
        return value


class ProxyTests(ServicesCase):
    """Both proxies."""

    async def test_cluster(self) -> None:
        """Any service, as long as an ``async with``."""
        await self.start(Echo)
        async with ClusterRpcProxy(self.config) as cluster:
            self.assertEqual(await cluster["echo-service"].echo("ø"), "ø")
            with self.assertRaises(UnknownService):
                await cluster.nobody.echo(1)

    async def test_service(self) -> None:
        """One service, from start to stop."""
        await self.start(Echo)
        proxy = ServiceRpcProxy("echo-service", self.config)
        service = await proxy.start()
        reply = service.echo.call_async(1)
        self.assertEqual(await reply.result(), 1)
        await proxy.stop()

    async def test_after_stop(self) -> None:
        """A stopped proxy is of no more use, and says so."""
        proxy = ClusterRpcProxy(self.config)
        cluster = await proxy.start()
        await proxy.stop()
        await proxy.stop()
        with self.assertRaises(RuntimeError):
            cluster.echo.echo(1)
        with self.assertRaises(RuntimeError):
            await proxy.start()

    async def test_never_started(self) -> None:
        """Stopping what never started is nothing."""
        await ClusterRpcProxy(self.config).stop()

    async def test_error_inside(self) -> None:
        """An error in the ``async with`` closes the connections, and goes on."""
        with self.assertRaises(ZeroDivisionError):
            async with ClusterRpcProxy(self.config):
                raise ZeroDivisionError

    async def test_forgotten_call(self) -> None:
        """A call that nobody waits for has got out when the proxy has stopped."""
        heard = Heard()

        class Hearing:
            name = "hearing"

            @rpc
            def method(self, value):
                heard(value)

        await self.start(Hearing)
        async with ClusterRpcProxy(self.config) as cluster:
            cluster.hearing.method.call_async(1)
        self.assertEqual(await heard.wait(), [1])

    async def test_reply_queue_is_taken_away(self) -> None:
        """A proxy that stops leaves no reply queue on the broker."""
        await self.start(Echo)
        proxy = ClusterRpcProxy(self.config)
        await (await proxy.start())["echo-service"].echo(1)
        name = proxy.client.replies.queue.name
        self.assertTrue(await self.is_there(name))
        await proxy.stop()
        self.assertFalse(await self.is_there(name))

    async def is_there(self, queue: str) -> bool:
        protocol = await self.connections().publisher.connection.when_connected()
        return await queue_exists(protocol, queue, 5)

    async def test_two_proxies(self) -> None:
        """Two proxies in one program have a reply queue each, and do not mix up answers."""
        await self.start(Echo)
        one, two = await self.cluster(), await self.cluster()
        first, second = one["echo-service"].echo(1), two["echo-service"].echo(2)
        self.assertEqual([await second, await first], [2, 1])

    async def test_timeout(self) -> None:
        """A timeout is each call's, from its own beginning; the proxy goes on, and takes another for one call."""
        heard, answer = Heard(), Deferred[Any]()

        class Waiting:
            name = "waiting"

            @rpc
            def method(self):
                heard()
                return answer if len(heard.things) < 3 else "now"

        await self.start(Waiting)
        cluster = await self.cluster(timeout=60)
        calls = (cluster.waiting.method(), cluster.waiting.method.call_async().result())
        await heard.wait(2)
        await overdue(cluster)
        for call in calls:
            with self.assertRaises(RpcTimeout) as raised:
                await call
            self.assertEqual(raised.exception.timeout, 60)
        self.assertEqual(await cluster.waiting.method.options(timeout=50)(), "now")
        answer.callback("late")

    async def test_wire(self) -> None:
        """Context goes along; one call id for all calls of a proxy; the reply queue has nameko's name and arguments."""
        await self.start(Echo)
        tap = await self.tap("nameko-rpc", "echo-service.*")
        cluster = await self.cluster({"language": "da", "call_id_stack": ["before"]})
        for _ in range(2):
            await cluster["echo-service"].echo(1)
        first, second = [without_deadline(message.headers) for message in await tap.wait(2)]
        self.assertEqual(first, second)
        self.assertEqual(first["nameko.language"], "da")
        before, own = first["nameko.call_id_stack"]
        self.assertEqual(before, "before")
        self.assertRegex(own, r"^standalone_rpc_proxy\.call\.[0-9a-f-]{36}$")
        reply_to = tap.things[0].properties["reply_to"]
        name = f"rpc.reply-standalone_rpc_proxy-{reply_to}"
        self.assertEqual(client_of(cluster).replies.queue.name, name)
        await self.connections().publisher.declare(Queue(name, arguments={"x-expires": 300000}))

    def test_caller(self) -> None:
        """The context given is copied, not kept."""
        given = {"language": "da"}
        caller = Caller.of(given)
        self.assertEqual(given, {"language": "da"})
        self.assertEqual(caller.context_data["language"], "da")

    async def test_reconnect(self) -> None:
        """A proxy that lost its connections takes calls again."""
        await self.start(Echo)
        cluster = await self.cluster()
        connections = client_of(cluster).connections
        await cluster["echo-service"].echo(1)
        for connection in (connections.consuming, connections.publisher.connection):
            connection.protocol.abort()
        self.assertEqual(await cluster["echo-service"].echo(2), 2)


class StartTests(ServicesCase):
    """Starts that come to nothing."""

    def test_no_uri(self) -> None:
        """Without an address the proxy says what to configure."""
        with self.assertRaises(ConfigurationError):
            ClusterRpcProxy({})

    async def test_time_that_is_over(self) -> None:
        """With a timeout of 0 or less a start fails at once, and leaves neither connections nor a reply queue."""
        for timeout in (0, -1, -0.5):
            proxy = ClusterRpcProxy({"AMQP_URI": "memory://over"}, timeout=timeout, clock=(clock := Clock()))
            proxy.connections.startService = lambda: None
            stopped: list[bool] = []
            self.patch(proxy, "stop", lambda stopped=stopped: succeed(stopped.append(True)))
            starting = proxy.start()
            clock.advance(0)
            await self.assertFailure(starting, RpcConnectionError)
            self.assertEqual(stopped, [True])

    async def test_no_broker(self) -> None:
        """Where no broker answers, start fails after the length of a call, and says so without the password."""
        clock = Clock()
        proxy = ClusterRpcProxy({"AMQP_URI": "amqp://me:secret@localhost:1/"}, timeout=5, clock=clock)
        proxy.connections.startService = lambda: None
        proxy.connections.stopService = lambda: Deferred.fromCoroutine(nothing())
        starting = proxy.start()
        clock.advance(5)
        error = await starting.addErrback(lambda failure: failure.value)
        self.assertIsInstance(error, RpcConnectionError)
        self.assertIn("no broker at amqp://me:********@localhost:1/ within 5 s", str(error))


async def nothing() -> None:
    """Stands for a stop with nothing to stop."""


class NamekosNames(TestCase):
    """One thing may be imported under several names."""

    def test_same(self) -> None:
        """nameko's path and nameko 3's names lead to the one thing that there is."""
        self.assertIs(publish.UndeliverableMessage, exceptions.UndeliverableMessage)
        self.assertIs(services_rpc.ServiceRpc, services_rpc.RpcProxy)
        for module in standalone, blocking:
            self.assertIs(module.ServiceRpcClient, module.ServiceRpcProxy)
            self.assertIs(module.ClusterRpcClient, module.ClusterRpcProxy)
