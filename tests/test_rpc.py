"""The service's side of RPC: which methods run for which requests, what becomes of values and errors, and that no
request is lost.
"""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import CancelledError, gatherResults
from twisted.trial.unittest import TestCase

from tests.answering import MESSAGE, AnsweringCase, Custom, Other, Service
from tests.services import Recorded, ServicesCase
from txservices.amqp import leaving
from txservices.amqp import publisher as publisher_module
from txservices.amqp.entities import Exchange, Queue
from txservices.broker.memory import brokers
from txservices.containers import ServiceContainer
from txservices.events import EventDispatcher
from txservices.exceptions import (
    ChannelClosedByBroker,
    ConnectionLost,
    IncorrectSignature,
    MalformedRequest,
    MethodNotFound,
    PublishBufferFull,
    PublishNacked,
    PublishTimeout,
    RemoteError,
    RpcConnectionError,
    UnknownService,
    deserialize_to_instance,
    registry,
)
from txservices.extensions import DependencyProvider
from txservices.rpc import REPLY_TIMEOUT, ClusterRpc, Responder, Rpc, RpcProxy, rpc
from txservices.serialization import Serializers
from txservices.testing.waiting import Heard

ANY_FORMAT = {"ACCEPT": ["json", "msgpack"]}
LONE_SURROGATE = "\ud800"  # JSON can write it, msgpack can't


class AnswerTests(ServicesCase):
    """From request to value or error."""

    async def test_arguments_and_value(self) -> None:
        """Positional and named arguments arrive as they were given, and so does the value."""
        await self.start(Service)
        cluster = await self.cluster()
        value = await cluster.service.echo(1, "ø", None, x={"y": [1.5]})
        self.assertEqual(value, [[1, "ø", None], {"x": {"y": [1.5]}}])

    async def test_each_kind_of_method(self) -> None:
        """Plain, async, inlineCallbacks and Deferred-returning methods all give their caller a value."""
        await self.start(Service, Other)
        service = (await self.cluster()).service
        values = await gatherResults(
            [service.plain("v"), service.coroutine("v"), service.generator("v"), service.deferred("v")]
        )
        self.assertEqual(values, ["v", "other v", "other v", "other v"])

    async def test_unknown_service(self) -> None:
        """A service that has never run is unknown, by its name, to workers and to standalone proxies."""
        await self.start(Service)
        cluster = await self.cluster()
        with self.assertRaises(UnknownService) as raised:
            await cluster.nobody.method()
        self.assertEqual(str(raised.exception), "Unknown service `nobody`")
        with self.assertRaises(RemoteError) as remote:
            await cluster.service.deferred(1)
        self.assertEqual(remote.exception.exc_type, "UnknownService")
        self.assertEqual(len(self.flushLoggedErrors(UnknownService)), 1)

    async def test_unknown_method(self) -> None:
        """A method that isn't there is named in the error."""
        await self.start(Service)
        cluster = await self.cluster()
        with self.assertRaises(MethodNotFound) as raised:
            await cluster.service.nothing()
        self.assertEqual(raised.exception.args, ("nothing",))

    async def test_signatures(self) -> None:
        """Arguments that the method does not take are refused with Python's words, and no worker runs."""
        await self.start(Service)
        service = (await self.cluster()).service
        accepted = [
            ("two", (1,), {}, [1, 1]),
            ("two", (1, 2), {}, [1, 2]),
            ("two", (), {"a": 1, "b": 2}, [1, 2]),
            ("named", (1,), {"b": 2}, [1, 2]),
            ("echo", (1, 2, 3), {}, [[1, 2, 3], {}]),
        ]
        for method, args, kwargs, value in accepted:
            self.assertEqual(await getattr(service, method)(*args, **kwargs), value)
        refused = [
            ("two", (), {}, "missing 1 required positional argument: 'a'"),
            ("two", (1, 2, 3), {}, "takes from 2 to 3 positional arguments but 4 were given"),
            ("two", (1,), {"a": 1}, "multiple values for argument 'a'"),
            ("two", (1,), {"c": 1}, "unexpected keyword argument 'c'"),
            ("named", (1, 2), {}, "positional argument"),
            ("named", (1,), {}, "keyword-only argument"),
            ("plain", (), {"self": 1}, "multiple values for argument 'self'"),
        ]
        for method, args, kwargs, text in refused:
            with self.assertRaises(IncorrectSignature) as raised:
                await getattr(service, method)(*args, **kwargs)
            self.assertIn(text, str(raised.exception))

    async def test_error_in_the_method(self) -> None:
        """The method's error arrives as its type's name and its text."""
        await self.start(Service)
        cluster = await self.cluster()
        with self.assertRaises(RemoteError) as raised:
            await cluster.service.fail()
        self.assertEqual((raised.exception.exc_type, raised.exception.value), ("Custom", "('a', 1)"))
        self.assertEqual(len(self.flushLoggedErrors(Custom)), 1)

    async def test_expected_error(self) -> None:
        """An expected error arrives likewise, and is no error in the service's log."""
        await self.start(Service)
        cluster = await self.cluster()
        with self.assertRaises(RemoteError):
            await cluster.service.fail_expectedly()

    async def test_error_behind_an_error(self) -> None:
        """An error two services away is wrapped once for each."""
        await self.start(Service, Other)
        cluster = await self.cluster()
        with self.assertRaises(RemoteError) as raised:
            await cluster.service.fail_there()
        self.assertEqual(str(raised.exception), "RemoteError Custom there")
        self.flushLoggedErrors(Custom, RemoteError)

    async def test_registered_error(self) -> None:
        """An error registered here arrives as itself, with its arguments made text."""
        deserialize_to_instance(Custom)
        self.addCleanup(registry.pop, f"{Custom.__module__}.Custom")
        await self.start(Service)
        cluster = await self.cluster()
        with self.assertRaises(Custom) as raised:
            await cluster.service.fail()
        self.assertEqual(raised.exception.args, ("a", "1"))
        self.flushLoggedErrors(Custom)

    async def test_exit_in_the_method(self) -> None:
        """SystemExit from a method is an error at the caller; the service goes on."""
        await self.start(Service)
        cluster = await self.cluster()
        with self.assertRaises(RemoteError) as raised:
            await cluster.service.leave()
        self.assertEqual(raised.exception.exc_type, "SystemExit")
        self.assertEqual(await cluster.service.plain(1), 1)
        self.flushLoggedErrors(SystemExit)

    async def test_unserializable_result(self) -> None:
        """A result that can't be written is an error at the caller, which shows it if it can be shown."""
        await self.start(Service)
        cluster = await self.cluster()
        with self.assertRaises(RemoteError) as raised:
            await cluster.service.unserializable()
        self.assertEqual(raised.exception.exc_type, "UnserializableValueError")
        self.assertIn("Unserializable value: `<set_iterator", raised.exception.value)
        with self.assertRaises(RemoteError) as raised:
            await cluster.service.unprintable()
        self.assertEqual(raised.exception.value, "Unserializable value: `[__repr__ failed]`")

    async def test_error_that_cannot_be_written(self) -> None:
        """An error's text that the request's serializer can't write is answered in JSON."""

        class Odd:
            name = "odd"

            @rpc(expected_exceptions=Custom)
            def method(self):
                raise Custom(LONE_SURROGATE)

        await self.start(Odd, **ANY_FORMAT)
        cluster = await self.process(**{**ANY_FORMAT, "serializer": "msgpack"}).cluster()
        error = await self.assertFailure(cluster.odd.method(), RemoteError)
        self.assertEqual((error.exc_type, error.value), ("Custom", LONE_SURROGATE))

    async def test_result_changed_on_the_way(self) -> None:
        """A subclass of Rpc may change what is sent, and the dependencies see what was."""
        seen = []

        class Changing(Rpc):
            def handle_result(self, message, worker_ctx, result, exc_info):
                return super().handle_result(message, worker_ctx, [result, "changed"], exc_info)

        class Seeing(DependencyProvider):
            def worker_result(self, worker_ctx, result=None, exc_info=None):
                seen.append((result, exc_info))

        class Changed:
            name = "changed"
            seeing = Seeing()

            @Changing.decorator
            def method(self):
                return 1

        await self.start(Changed)
        self.assertEqual(await (await self.cluster()).changed.method(), [1, "changed"])
        self.assertEqual(seen, [([1, "changed"], None)])


class ResponderTests(TestCase):
    """What becomes of a request, by what becomes of its reply."""

    def test_settled(self) -> None:
        """A request is acked with its reply, with the refusal in its place, or when its caller waits no longer. It is
        rejected if the refusal is refused as well, and goes back if its reply did not get out.

        A nacked reply is published again, and its request is done, so that it keeps no other away. A reply is not
        mandatory, since its caller may have gone.
        """
        refusal, nack, late = (
            ChannelClosedByBroker(406, "no"),
            PublishNacked("", "caller"),
            PublishTimeout("", "caller"),
        )
        table: list[tuple[list[Exception | None], list[str]]] = [
            ([None], ["ack"]),
            ([refusal, None], ["ack"]),
            ([refusal, refusal], ["reject"]),
            ([ConnectionLost("stopped")], ["requeue"]),
            ([late], ["ack"]),
            ([nack, None], ["ack"]),
            ([nack, nack], ["ack"]),
            ([nack, late], ["ack"]),
            ([nack, PublishBufferFull(1, 1)], ["ack"]),
            ([nack, ConnectionLost("stopped")], ["ack"]),
        ]
        for outcomes, expected in table:
            settled, ways = self.replied(outcomes, {})
            self.assertEqual(settled, expected, outcomes)
            self.assertEqual([way[:-1] for way in ways], [("replies", "caller", False, REPLY_TIMEOUT)] * len(outcomes))
            # only the first publish is told of a nack: the next is repeated until its time is up
            self.assertEqual([way[-1] for way in ways], [False, True][: len(outcomes)])

    def test_deadline(self) -> None:
        """A reply has the time that its caller waits, which is the request's expiration in milliseconds."""
        table = [("1500", 1.5), ("0", 0.0), (None, REPLY_TIMEOUT), ("soon", REPLY_TIMEOUT), ("9" * 400, REPLY_TIMEOUT)]
        for expiration, seconds in table:
            for outcomes in ([None], [PublishNacked("", "caller"), None], [ChannelClosedByBroker(406, "no"), None]):
                _, ways = self.replied(outcomes, {"expiration": expiration})
                self.assertEqual([way[3] for way in ways], [seconds] * len(outcomes), expiration)

    def replied(
        self, outcomes: list[Any], properties: dict[str, Any]
    ) -> tuple[list[str], list[tuple[str, str, bool, float, bool]]]:
        """Answer a request by publishes with these outcomes: how it is settled, and how each is published."""
        settled: list[str] = []
        ways: list[tuple[str, str, bool, float, bool]] = []

        def publish_then(exchange, key, body, properties, mandatory, done, timeout, always=False, retry_nacked=True):
            ways.append((exchange, key, mandatory, timeout, retry_nacked))
            done(outcomes[len(ways) - 1])

        message: Any = SimpleNamespace(
            properties={"reply_to": "caller", **properties},
            routing_key="a.b",
            ack=partial(settled.append, "ack"),
            reject=lambda requeue=False: settled.append("requeue" if requeue else "reject"),
        )
        connections: Any = SimpleNamespace(publisher=SimpleNamespace(publish_then=publish_then))
        responder = Responder(connections, "replies", Serializers({}), lambda message: message.reject(requeue=True))
        responder.send_response(message, None, 1, None)
        return settled, ways


class RequestTests(AnsweringCase):
    """No request is lost."""

    async def test_stop_answers_what_was_taken(self) -> None:
        """A service that stops finishes what it has begun, and the answer is sent and acked."""
        container, heard, answers = await self.waiting_service()
        cluster = await self.cluster()
        call = cluster.waiting.method()
        await heard.wait()
        stopping = container.stop()
        self.assertFalse(stopping.called)
        answers[0].callback("done")
        self.assertEqual(await call, "done")
        await stopping
        await self.assert_empty("waiting")

    async def test_kill_gives_requests_back(self) -> None:
        """What a killed service had begun is run by another instance, and its caller has one answer."""
        container, heard, answers = await self.waiting_service()
        cluster = await self.cluster()
        call = cluster.waiting.method()
        await heard.wait()
        await container.kill()
        answers[0].addErrback(lambda failure: failure.trap(CancelledError))
        _, heard, answers = await self.waiting_service()
        await heard.wait()
        answers[0].callback("the other")
        self.assertEqual(await call, "the other")

    async def test_kill_fails_the_calls_of_a_service(self) -> None:
        """A call that a killed service made fails at once, also if no worker waits for it."""
        _, heard, answers = await self.waiting_service()
        calls = []

        class Asking:
            name = "asking"
            waiting = RpcProxy("waiting", timeout=None)

            @rpc
            def ask(self):
                calls.append(self.waiting.method())

        (container,) = await self.start(Asking)
        await (await self.cluster()).asking.ask()
        await heard.wait()
        await container.kill()
        self.failureResultOf(calls[0], RpcConnectionError)
        answers[0].callback(None)

    async def test_stop_without_a_broker(self) -> None:
        """A service that waits for its broker stops at once."""
        container = ServiceContainer(Service, {"AMQP_URI": "amqp://localhost:1/"})
        starting = container.start()
        await container.stop()
        with self.assertRaises(CancelledError):
            await starting

    async def test_lost_service_connection(self) -> None:
        """A service that loses its connections runs the request again, and the caller has one answer."""
        container, heard, answers = await self.waiting_service()
        cluster = await self.cluster()
        call = cluster.waiting.method()
        await heard.wait()
        container.shared.get("amqp", None).consuming.protocol.abort()
        await heard.wait(2)
        for answer in answers:
            answer.callback("once")
        self.assertEqual(await call, "once")
        await container.stop()
        await self.assert_empty("waiting")

    async def test_refused_reply(self) -> None:
        """A reply that the broker refuses is answered with an error, once, and the request is done with."""
        container, heard, answers = await self.waiting_service()
        cluster = await self.cluster()
        responder = next(iter(container.entrypoints)).rpc_consumer.responder
        publisher = responder.connections.publisher
        publish_then = publisher.publish_then

        def refusing(exchange, *args):
            publish_then("no-such-exchange" if refused.things == [] else exchange, *args)
            refused()

        refused = Heard()
        publisher.publish_then = refusing
        call = cluster.waiting.method()
        await heard.wait()
        answers[0].callback("x")
        with self.assertRaises(RemoteError) as raised:
            await call
        self.assertEqual(raised.exception.exc_type, "ChannelClosedByBroker")
        await container.stop()
        await self.assert_empty("waiting")

    async def test_refused_reply_to_msgpack(self) -> None:
        """A refusal that the request's serializer can't write is answered in JSON, and says so."""
        container, heard, answers = await self.waiting_service(**ANY_FORMAT)
        publisher = container.shared.get("amqp", None).publisher
        publish_then = publisher.publish_then

        def refused_once(exchange, routing_key, body, properties, mandatory, done, timeout, always, retry_nacked):
            publisher.publish_then = publish_then
            done(ChannelClosedByBroker(406, LONE_SURROGATE))

        publisher.publish_then = refused_once
        call = (await self.process(**{**ANY_FORMAT, "serializer": "msgpack"}).cluster()).waiting.method()
        await heard.wait()
        answers[0].callback("x")
        error = await self.assertFailure(call, RemoteError)
        self.assertEqual(error.exc_type, "ChannelClosedByBroker")
        self.assertIn(LONE_SURROGATE, error.value)
        self.flushLoggedErrors(UnicodeEncodeError)  # trial's log file can't have the text either

    async def test_caller_is_gone(self) -> None:
        """A request whose caller's reply queue is gone is done with: the reply is dropped."""
        container, heard, answers = await self.waiting_service()
        body, properties = b'{"args": [], "kwargs": {}}', {**MESSAGE, "headers": {}, "reply_to": "nobody"}
        await self.connections().publisher.publish("nameko-rpc", "waiting.method", body, properties)
        await heard.wait()
        answers[0].callback("x")
        await container.stop()
        await self.assert_empty("waiting")

    async def test_failed_reply(self) -> None:
        """A request whose reply could not be published goes back to its queue, and is answered the next time."""
        container, heard, answers = await self.waiting_service()
        publisher = container.shared.get("amqp", None).publisher
        publish_then = publisher.publish_then

        def lost_once(exchange, routing_key, body, properties, mandatory, done, timeout, always, retry_nacked):
            publisher.publish_then = publish_then
            done(ConnectionLost("lost"))

        publisher.publish_then = lost_once
        call = (await self.cluster()).waiting.method()
        await heard.wait()
        answers[0].callback("not published")
        await heard.wait(2)
        answers[1].callback("published")
        self.assertEqual(await call, "published")
        await container.stop()
        await self.assert_empty("waiting")

    async def test_reply_without_room(self) -> None:
        """A reply that finds no room among the unconfirmed messages is published nevertheless: the method runs once."""
        container, heard, answers = await self.waiting_service()
        call = (await self.cluster()).waiting.method()
        await heard.wait()
        room = self.patch(publisher_module, "UNCONFIRMED_MAX", 0)
        answers[0].callback("answer")
        self.assertEqual(await call, "answer")
        self.assertEqual(len(heard.things), 1)
        await container.stop()
        room.restore()
        await self.assert_empty("waiting")

    async def test_max_workers(self) -> None:
        """Requests over max_workers wait for their turn; replies to workers get through nevertheless."""

        class Busy:
            name = "busy"
            other = RpcProxy("other")

            @rpc
            def method(self, value):
                return self.other.identify(value)

        await self.start(Busy, Other, max_workers=1)
        busy = (await self.cluster()).busy
        values = await gatherResults([busy.method(number) for number in range(20)])
        self.assertEqual(values, [f"other {number}" for number in range(20)])

    async def test_unknown_content(self) -> None:
        """MalformedRequest arrives as itself at a caller whose format the service does not accept."""
        await self.start(Service)
        cluster = await self.process(serializer="pickle", ACCEPT=["pickle", "json"]).cluster()
        with self.assertRaises(MalformedRequest):
            await cluster.service.plain(1)


class Telling:
    """Tells everybody, and does not wait for it."""

    name = "telling"
    dispatch = EventDispatcher()

    @rpc
    def tell(self):
        self.dispatch("type", 1)
        return "told"


class PublishedTests(AnsweringCase):
    """What a method publishes, and the ack of its request."""

    async def told(self) -> tuple[ServiceContainer, Queue]:
        """A service that has answered a call, while a full queue refuses what the method published; and that queue."""
        full = {"x-max-length": 0, "x-overflow": "reject-publish"}
        queue = Queue("full", Exchange("telling.events", type="topic"), "type", arguments=full)
        await self.connections().publisher.declare(queue)
        (container,) = await self.start(Telling)
        self.assertEqual(await (await self.cluster()).telling.tell(), "told")
        return container, queue

    async def test_not_acked_before_it_is_confirmed(self) -> None:
        """A request whose reply is out, but not what its method published, is still the broker's to give to another."""
        container, _ = await self.told()
        self.patch(leaving, "STOP_TIMEOUT", 0.1)  # seconds that its end waits for that message
        await container.kill()
        connections, left = self.connections(), Recorded()
        requests = Queue("rpc-telling", Exchange("nameko-rpc", type="topic"), "telling.*")
        await connections.consume(requests, left, 10).ready
        await connections.publisher.publish("nameko-rpc", "telling.last", b"", {}, mandatory=True)
        self.assertEqual((await left.wait())[0].routing_key, "telling.tell")

    async def test_acked_when_it_is_confirmed(self) -> None:
        """Once the broker takes what the method published, the request is acked."""
        container, queue = await self.told()
        host = brokers[self.config["AMQP_URI"].removeprefix("memory://")].vhosts["/"]
        host.delete_queue(host.queues[queue.name])
        await container.stop()
        await self.assert_empty("telling")


class Everybody:
    """Knows whom it calls only when it does."""

    name = "everybody"
    cluster = ClusterRpc(timeout=5)

    @rpc
    async def ask(self, service, value):
        return [await self.cluster[service].plain(value), await self.cluster.service.plain(value)]

    @rpc(blocking=True)
    def wait(self, service, value):
        return [self.cluster[service].plain(value), self.cluster.service.plain(value)]


class ClusterRpcTests(ServicesCase):
    """All services, injected."""

    async def test_any_service(self) -> None:
        """A service named at the call is called, by attribute or in brackets, in the reactor and in a thread."""
        await self.start(Service, Everybody)
        cluster = await self.cluster()
        self.assertEqual(await cluster.everybody.ask("service", 1), [1, 1])
        self.assertEqual(await cluster.everybody.wait("service", 2), [2, 2])

    async def test_nobody(self) -> None:
        """A service that there isn't is known by its error."""
        await self.start(Service, Everybody)
        error = await self.assertFailure((await self.cluster()).everybody.ask("nobody", 1), RemoteError)
        self.assertEqual(error.exc_type, "UnknownService")
        self.assertEqual(len(self.flushLoggedErrors(UnknownService)), 1)
