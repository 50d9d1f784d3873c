"""``TestCase`` and its stage: services, broker and HTTP in memory."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase as TrialTestCase

from txservices.amqp.entities import Exchange
from txservices.broker import memory
from txservices.events import event_handler
from txservices.exceptions import ConfigurationError, DecodeError, RpcConnectionError
from txservices.extensions import DependencyProvider
from txservices.rpc import RpcProxy, rpc
from txservices.standalone.rpc import ClusterRpcProxy
from txservices.testing import TestCase
from txservices.testing.services import dummy, entrypoint_hook, entrypoint_waiter
from txservices.testing.stage import Stage
from txservices.testing.waiting import Heard
from txservices.utils.life import State
from txservices.web.handlers import http


class Greeting:
    name = "greeting"

    @rpc
    def hello(self, who: str) -> str:
        return f"Hello, {who}!"

    @event_handler("source", "type")
    def handle(self, data: Any) -> Any:
        return data

    @dummy
    def nothing(self) -> None: ...


def listener(heard: Heard) -> type:
    class Listener:
        name = "listener"

        @event_handler("source", "type")
        def handle(self, data: Any) -> None:
            heard(data)

    return Listener


class Web:
    name = "web"
    greeting = RpcProxy("greeting")

    @http("GET,POST", "/hello/<who>")
    async def hello(self, request: Any, who: str) -> Any:
        if request.method == "POST":
            return 201, request.get_data(as_text=True)
        return await self.greeting.hello(who)

    @http("GET", "/long")
    def long(self, request: Any) -> str:
        return "x" * 1_000_000


class CaseTests(TestCase):
    """The tools that a test is given."""

    async def test_cluster(self) -> None:
        """Services are called through a proxy."""
        await self.start(Greeting)
        self.assertEqual(await (await self.cluster()).greeting.hello("world"), "Hello, world!")

    async def test_dispatch(self) -> None:
        """Events are dispatched in anybody's name."""
        (container,) = await self.start(Greeting)
        async with entrypoint_waiter(container, "handle") as waited:
            await self.dispatch("source", "type", {"a": 1})
        self.assertEqual(waited.get(), {"a": 1})

    async def test_web_session(self) -> None:
        """HTTP goes to the service's site, and no port is opened."""
        await self.start(Greeting, Web)
        session = self.web_session()
        response = await session.get("/hello/world")
        self.assertEqual((response.code, await response.text()), (200, "Hello, world!"))
        response = await session.post("http://127.0.0.1:8000/hello/world", data=b"body")
        self.assertEqual((response.code, await response.text()), (201, "body"))
        self.assertEqual((await session.get("/nothing")).code, 404)
        self.assertEqual(len(await (await session.get("/long")).content()), 1_000_000)

    async def test_response_left_unread(self) -> None:
        """A response whose body nobody reads doesn't keep the test from ending."""
        await self.start(Web)
        self.assertEqual((await self.web_session().get("/long")).code, 200)

    async def test_nobody_serves(self) -> None:
        """Where no service serves, the connection is refused."""
        await self.start(Greeting)
        await self.assertFailure(self.web_session().get("/"), ConnectionRefusedError)

    async def test_tap(self) -> None:
        """A tap hears messages that are published by hand, on connections of the test's own."""
        await self.start(Greeting)
        tapped = await self.tap("source.events", "other")
        await self.connections().publisher.publish("source.events", "other", b"1", {})
        self.assertEqual([message.body for message in await tapped.wait()], [b"1"])

    async def test_configuration(self) -> None:
        """Keywords are keys of the configuration."""
        (container,) = await self.start(Greeting, max_workers=3)
        self.assertEqual(container.max_workers, 3)
        self.assertEqual(self.container(Greeting, max_workers=4).max_workers, 4)

    async def test_no_start(self) -> None:
        """A class that is no service is an error of ``start``."""
        with self.assertRaises(ConfigurationError):
            await self.start(object)


class StageTests(TrialTestCase):
    """The stage by itself."""

    async def test_end(self) -> None:
        """After it nothing is left: no service, no broker, and no call in the reactor."""
        stage = Stage()
        (container,) = await stage.start(Greeting)
        await stage.cluster()
        self.assertIn(stage.broker, memory.brokers)
        await stage.stop()
        self.assertIs(container.life.state, State.ENDED)
        self.assertNotIn(stage.broker, memory.brokers)
        left = [str(each) for each in reactor.getDelayedCalls() if "TestCase" not in str(each)]  # trial's own timeout
        self.assertEqual(left, [])

    async def test_apart(self) -> None:
        """Two stages know nothing of each other."""
        one, two = Stage(), Stage()
        self.addCleanup(one.stop)
        self.addCleanup(two.stop)
        await one.start(Greeting)
        error = await (await two.cluster()).greeting.hello("world").addErrback(lambda failure: failure.type.__name__)
        self.assertEqual(error, "UnknownService")

    async def test_runner(self) -> None:
        """A runner's services are served, called and stopped as well."""
        stage = Stage()
        self.addCleanup(stage.kill)
        runner = stage.runner(stage.config, Greeting, Web)
        await runner.start()
        self.assertEqual(await (await stage.web_session().get("/hello/you")).text(), "Hello, you!")

    async def test_get_message(self) -> None:
        """A message is taken out of a queue; with none there, time runs out."""
        stage = Stage()
        self.addCleanup(stage.stop)
        (container,) = await stage.start(Greeting)
        await container.stop()
        await stage.dispatch("source", "type", {"a": 1})
        queue = "evt-source-type--greeting.handle"
        self.assertEqual((await stage.get_message(queue, ack=False)).payload, {"a": 1})
        message = await stage.get_message(queue)
        self.assertEqual((message.payload, message.headers), ({"a": 1}, {}))
        self.assertEqual(message.properties["content_type"], "application/json")
        with self.assertRaises(DeferredTimeout):
            await stage.get_message(queue, timeout=0.01)

    async def test_get_text(self) -> None:
        """A body of a type that no serializer has is text in its encoding, or bytes, unless ``accept`` is given."""
        stage = Stage()
        self.addCleanup(stage.stop)
        (container,) = await stage.start(Greeting)
        await container.stop()
        queue = "evt-source-type--greeting.handle"
        publisher = stage.connections().publisher
        for content_type, encoding, payload in [
            ("text/plain", "utf-8", "h\xe4"),
            ("text/html", "latin-1", "h\xe4"),
            ("application/pdf", "binary", b"h\xe4"),
            (None, None, "h"),
        ]:
            assert isinstance(payload, (str, bytes))
            body = payload if isinstance(payload, bytes) else payload.encode(encoding or "utf-8")
            properties = {"content_type": content_type, "content_encoding": encoding}
            given = {name: value for name, value in properties.items() if value is not None}
            await publisher.publish("", queue, body, given)
            if content_type is not None:
                with self.assertRaisesRegex(DecodeError, content_type):
                    await stage.get_message(queue, accept="json")  # which puts it back
            self.assertEqual((await stage.get_message(queue)).payload, payload)
        await publisher.publish("", queue, b"0", {"content_type": "application/x-python-serialize"})
        with self.assertRaises(DecodeError):
            await stage.get_message(queue)

    async def test_kill(self) -> None:
        """Killing waits for no worker."""
        stage = Stage(SHUTDOWN_TIMEOUT=1000)
        (container,) = await stage.start(Greeting)
        with entrypoint_hook(container, "nothing") as nothing:
            self.assertIsNone(await nothing())
        await stage.kill()
        self.assertIs(container.life.state, State.ENDED)

    async def test_connections(self) -> None:
        """A test publishes by itself, on connections that end with the stage."""
        stage = Stage()
        heard = Heard()
        await stage.start(listener(heard))
        connections = stage.connections()
        properties = {"content_type": "application/json", "content_encoding": "utf-8", "headers": {}}
        await connections.publisher.publish("source.events", "type", b"7", properties, mandatory=True)
        self.assertEqual(await heard.wait(), [7])
        await stage.stop()
        self.assertEqual([each.protocol for each in connections.in_use], [None])

    async def test_tap(self) -> None:
        """A tap hears copies of what passes through an exchange, for all routing keys or for some."""
        stage = Stage()
        self.addCleanup(stage.stop)
        await stage.start(Greeting)
        every, one = await stage.tap("source.events"), await stage.tap(Exchange("source.events", type="topic"), "two")
        for event_type in ("one", "two"):
            await stage.dispatch("source", event_type, {"is": event_type})
        messages = await every.wait(2)
        self.assertEqual([message.routing_key for message in messages], ["one", "two"])
        self.assertEqual([message.body for message in await one.wait()], [b'{"is": "two"}'])

    async def test_another_process(self) -> None:
        """A second stage with the first's address is on the same broker, with connections of its own."""
        stage = Stage()
        self.addCleanup(stage.stop)
        other = Stage(AMQP_URI=stage.config["AMQP_URI"])
        self.addCleanup(other.stop)
        (here,), (there,) = await stage.start(Greeting), await other.start(Web)
        self.assertEqual(await (await other.web_session().get("/hello/you")).text(), "Hello, you!")
        self.assertIsNot(here.shared, there.shared)
        await other.stop()
        self.assertEqual(await (await stage.cluster()).greeting.hello("still"), "Hello, still!")

    async def test_listen(self) -> None:
        """Programs of other processes reach the broker in memory by TCP, until the stage stops."""
        stage = Stage()
        await stage.start(Greeting)
        uri = await stage.listen()
        async with ClusterRpcProxy({"AMQP_URI": uri}) as cluster:
            self.assertEqual(await cluster.greeting.hello("there"), "Hello, there!")
        await stage.stop()
        with self.assertRaises(RpcConnectionError):
            await ClusterRpcProxy({"AMQP_URI": uri}, timeout=0.2).start()

    async def test_start_fails(self) -> None:
        """The error of a start is the service's own."""
        stage = Stage()
        self.addCleanup(stage.stop)

        class Fails(DependencyProvider):
            def start(self) -> None:
                raise ZeroDivisionError("on purpose")

        class Broken:
            name = "broken"
            fails = Fails()

        with self.assertRaisesRegex(ZeroDivisionError, "on purpose"):
            await stage.start(Greeting, Broken)


class HeardTests(TrialTestCase):
    """``Heard``."""

    def test_wait(self) -> None:
        """A wait fires once there are enough things, at once if there are already, with everything heard by then."""
        heard = Heard()
        one, two = heard.wait(), heard.wait(2)
        heard("a")
        self.assertEqual(self.successResultOf(one), ["a"])
        self.assertNoResult(two)
        heard("b")
        self.assertEqual(self.successResultOf(two), ["a", "b"])
        self.assertEqual(self.successResultOf(heard.wait()), ["a", "b"])
        self.assertEqual(heard.things, ["a", "b"])

    def test_time_is_up(self) -> None:
        """A wait whose time is up does not keep the others from theirs."""
        heard, clock = Heard(), Clock()
        short, long = heard.wait().addTimeout(1, clock), heard.wait()
        clock.advance(1)
        self.failureResultOf(short, DeferredTimeout)
        heard("late")
        self.assertEqual(self.successResultOf(long), ["late"])
