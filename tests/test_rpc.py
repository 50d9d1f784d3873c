"""RPC from request to reply: what is on the wire, what each side's errors become, and that every call ends."""

from __future__ import annotations

import json
import uuid
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults, inlineCallbacks

from tests.services import Heard, Recorded, ServicesCase, properties_of
from txservices.amqp.entities import Exchange, Queue
from txservices.containers import ServiceContainer
from txservices.contextdata import Language
from txservices.dependency_providers import Config
from txservices.events import EventDispatcher
from txservices.exceptions import (
    DecodeError,
    EncodeError,
    IncorrectSignature,
    MalformedRequest,
    MethodNotFound,
    RemoteError,
    ReplyQueueExpiredWithPendingReplies,
    RpcConnectionError,
    RpcTimeout,
    UnknownService,
    deserialize_to_instance,
    registry,
)
from txservices.extensions import DependencyProvider
from txservices.rpc import ClusterRpc, Rpc, RpcProxy, rpc

MESSAGE = {"content_type": "application/json", "content_encoding": "utf-8", "delivery_mode": 2, "priority": 0}


class Custom(Exception):
    """An application's own error."""


class Unprintable:
    def __repr__(self) -> str:
        raise ValueError("no")


class Service:
    """What the tests call."""

    name = "service"

    other = RpcProxy("other")
    config = Config()

    @rpc
    def echo(self, *args, **kwargs):
        return [list(args), kwargs]

    @rpc
    def plain(self, value):
        return value

    @rpc
    async def coroutine(self, value):
        return await self.other.identify(value)

    @rpc
    @inlineCallbacks
    def generator(self, value):
        result = yield self.other.identify(value)
        return result

    @rpc
    def deferred(self, value):
        return self.other.identify(value)

    @rpc
    def fail(self):
        raise Custom("a", 1)

    @rpc(expected_exceptions=Custom)
    def fail_expectedly(self):
        raise Custom("expected")

    @rpc
    def fail_there(self):
        return self.other.fail()

    @rpc
    def unserializable(self):
        return {1, 2}.__iter__()

    @rpc
    def unprintable(self):
        return Unprintable()

    @rpc
    def leave(self):
        raise SystemExit(3)

    @rpc
    def two(self, a, b=1):
        return [a, b]

    @rpc
    def named(self, a, *, b):
        return [a, b]


class Other:
    """Whom Service calls."""

    name = "other"

    @rpc
    def identify(self, value):
        return f"other {value}"

    @rpc
    def fail(self):
        raise Custom("there")


class CallTests(ServicesCase):
    """From call to value or error."""

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

    async def test_call_async(self) -> None:
        """``call_async`` does not wait; ``result()`` gives the value as often as asked, in any order."""
        await self.start(Service)
        service = (await self.cluster()).service
        first, second = service.plain.call_async(1), service.plain.call_async(2)
        self.assertEqual(await second.result(), 2)
        early = [first.result(), first.result()]
        self.assertEqual([await each for each in early], [1, 1])
        self.assertEqual(await first.result(), 1)

    async def test_call_async_error(self) -> None:
        """An error is raised by each ``result()``; one that nobody asks for is a line in the log."""
        cluster = await self.cluster()
        reply = cluster.nobody.method.call_async()
        for _ in range(2):
            with self.assertRaises(UnknownService):
                await reply.result()
        dropped = cluster.nobody.method.call_async()
        arrived: Deferred[Any] = Deferred()
        dropped.waiting.append(arrived)
        arrived.addErrback(lambda failure: failure.trap(UnknownService))
        await arrived

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
        self.addCleanup(registry.pop, f"{__name__}.Custom")
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

    async def test_unserializable_arguments(self) -> None:
        """Arguments that can't be written raise before anything is sent, and the proxy goes on."""
        await self.start(Service)
        cluster = await self.cluster()
        for unserializable in (object(), {1}):
            with self.assertRaises(EncodeError):
                cluster.service.plain(unserializable)
        self.assertEqual(cluster._client.pending, {})
        self.assertEqual(await cluster.service.plain(1), 1)

    async def test_header_that_cannot_be_carried(self) -> None:
        """A header value that AMQP has no type for raises, leaves nothing behind, and the proxy goes on."""
        await self.start(Service)
        cluster = await self.cluster()
        with self.assertRaises(ValueError):
            cluster.service.plain.options(headers={"x": object()})(1)
        self.assertEqual(cluster._client.pending, {})
        self.assertEqual(await cluster.service.plain(1), 1)

    async def test_names_that_are_no_names(self) -> None:
        """Services are had by attribute and by item; private names of Python's are no methods."""
        cluster = await self.cluster()
        self.assertEqual(repr(cluster["a-b"].method), "<proxy method: a-b.method>")
        self.assertEqual(repr(cluster.a), "<proxy service: a>")
        self.assertFalse(hasattr(cluster.a, "__wrapped__"))

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

    async def test_blocking_worker(self) -> None:
        """In a blocking service, calls, replies and dispatches wait in the thread and give values."""
        heard = await self.tap("blocking.events")

        class Blocking:
            name = "blocking"
            blocking = True
            other = RpcProxy("other")
            dispatch = EventDispatcher()

            @rpc
            def method(self, value):
                told = self.dispatch("type", value)
                reply = self.other.identify.call_async(value)
                try:
                    self.other.fail()
                except RemoteError as error:
                    return [self.other.identify(value), reply.result(), str(error), told]

        await self.start(Blocking, Other)
        value = await (await self.cluster()).blocking.method(1)
        self.assertEqual(value, ["other 1", "other 1", "Custom there", None])
        self.assertEqual([message.body for message in await heard.wait()], [b"1"])
        self.flushLoggedErrors(Custom)


class WireTests(ServicesCase):
    """What others see of us, and what of others we take."""

    async def request(self, body: Any, key: str = "service.plain", **properties: Any) -> Any:
        """Publish a request by hand; the error of its reply, or its result."""
        connections = self.connections()
        reply_to = str(uuid.uuid4())
        replies = Recorded()
        exchange = Exchange("nameko-rpc", type="topic")
        await connections.consume(Queue(f"raw-{reply_to}", exchange, reply_to, auto_delete=True), replies, 10).ready
        encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
        whole = {**MESSAGE, "headers": {}, "reply_to": reply_to, "correlation_id": "c", **properties}
        whole = {name: value for name, value in whole.items() if value is not None}
        await connections.publish("nameko-rpc", key, encoded, whole, mandatory=True)
        reply = (await replies.wait())[0]
        decoded = json.loads(reply.body)
        self.assertEqual(decoded.keys(), {"result", "error"})
        return decoded["error"] or decoded["result"]

    async def test_request_and_reply(self) -> None:
        """A call is nameko's to the byte: keys, properties, headers, bodies."""
        await self.start(Service, Other)
        tap = await self.tap("nameko-rpc")
        cluster = await self.cluster({"language": "en", "user_id": 7, "d": {"a": 1}})
        await cluster.service.deferred("v")
        first, second, second_reply, first_reply = await tap.wait(4)
        for request, key in ((first, "service.deferred"), (second, "other.identify")):
            properties = properties_of(request)
            self.assertEqual((request.routing_key, request.body), (key, b'{"args": ["v"], "kwargs": {}}'))
            headers = properties.pop("headers")
            stack = headers.pop("nameko.call_id_stack")
            self.assertEqual(headers, {"nameko.language": "en", "nameko.user_id": 7, "nameko.d": {"a": 1}})
            self.assertEqual(len(properties.pop("correlation_id")), 36)
            self.assertEqual(len(properties.pop("reply_to")), 36)
            self.assertEqual(properties, {**MESSAGE, "expiration": "10000"})
        self.assertEqual([each.rpartition(".")[0] for each in stack], ["standalone_rpc_proxy.call", "service.deferred"])
        for request, reply in ((first, first_reply), (second, second_reply)):
            self.assertEqual(reply.routing_key, request.properties["reply_to"])
            self.assertEqual(
                properties_of(reply),
                {**MESSAGE, "headers": {}, "correlation_id": request.properties["correlation_id"]},
            )
            self.assertEqual(reply.body, b'{"result": "other v", "error": null}')

    async def test_error_on_the_wire(self) -> None:
        """An error's four fields are nameko's, its own errors under its own paths."""
        await self.start(Service)
        self.assertEqual(
            await self.request({"args": [], "kwargs": {}}, "service.fail"),
            {
                "exc_type": "Custom",
                "exc_path": f"{__name__}.Custom",
                "exc_args": ["a", "1"],
                "value": "('a', 1)",
            },
        )
        error = await self.request({"args": [], "kwargs": {}}, "service.nothing")
        self.assertEqual(error["exc_path"], "nameko.exceptions.MethodNotFound")
        self.flushLoggedErrors(Custom)

    async def test_requests_that_are_none(self) -> None:
        """What can't be taken as a request is answered with why, and the service goes on."""
        await self.start(Service)
        good = {"args": [1], "kwargs": {}}
        table: list[tuple[Any, dict[str, Any], str, str]] = [
            ({"kwargs": {}}, {}, "MalformedRequest", "Message missing `args` or `kwargs`"),
            ({"args": []}, {}, "MalformedRequest", "Message missing `args` or `kwargs`"),
            ([1], {}, "TypeError", ""),
            (None, {}, "TypeError", ""),
            ("text", {}, "TypeError", ""),
            (b"{", {}, "MalformedRequest", "can't be read"),
            (b"", {}, "MalformedRequest", "can't be read"),
            (good, {"content_type": None}, "MalformedRequest", "content type None is not accepted here"),
            (good, {"content_type": "text/plain"}, "MalformedRequest", "'text/plain' is not accepted"),
            (good, {"content_type": "application/data"}, "MalformedRequest", "is not accepted"),
            (good, {"content_type": "application/x-python-serialize"}, "MalformedRequest", "is not accepted"),
            ({"args": None, "kwargs": {}}, {}, "IncorrectSignature", ""),
            ({"args": 3, "kwargs": {}}, {}, "IncorrectSignature", ""),
            ({"args": [1], "kwargs": None}, {}, "IncorrectSignature", ""),
            ({"args": [1], "kwargs": []}, {}, "IncorrectSignature", ""),
            (good, {"headers": {"compression": "application/x-gzip"}}, "MalformedRequest", "can't be read"),
        ]
        for body, properties, exc_type, text in table:
            if properties.get("content_type") == "application/x-python-serialize":
                continue  # its reply is a pickle as well: see test_reply_speaks_as_its_request
            error = await self.request(body, **properties)
            self.assertEqual(error["exc_type"], exc_type, body)
            self.assertIn(text, error["value"])
        self.assertEqual(await self.request(good), 1)

    async def test_empty_method(self) -> None:
        """A key that ends after the service's name asks for a method without a name."""
        await self.start(Service)
        error = await self.request({"args": [], "kwargs": {}}, "service.")
        self.assertEqual((error["exc_type"], error["exc_args"]), ("MethodNotFound", [""]))

    async def test_requests_that_are_taken(self) -> None:
        """More than nameko sends is taken: other keys, text for args, raw UTF-8, no correlation id, odd headers."""
        await self.start(Service)
        self.assertEqual(await self.request({"args": [1], "kwargs": {}, "more": 1}), 1)
        self.assertEqual(await self.request({"args": "a", "kwargs": {}}), "a")
        self.assertEqual(await self.request('{"args": ["ø"], "kwargs": {}}'.encode(), content_encoding=None), "ø")
        self.assertEqual(await self.request({"args": [1], "kwargs": {}}, correlation_id=None), 1)
        self.assertEqual(await self.request({"args": [1], "kwargs": {}}, headers=None), 1)
        for stack in ("text", 3, None, [1, None]):
            headers = {"nameko.call_id_stack": stack, "foo": "bar"}
            self.assertEqual(await self.request({"args": [1], "kwargs": {}}, headers=headers), 1)

    async def test_no_reply_to(self) -> None:
        """Without a reply address the method runs, nothing is answered, and the request is done with."""
        heard = Heard()

        class Listening:
            name = "listening"

            @rpc
            def method(self, value):
                heard(value)

        (container,) = await self.start(Listening)
        connections = self.connections()
        for body in (b'{"args": [1], "kwargs": {}}', b"{", b'{"args": [2], "kwargs": {}}'):
            properties = {**MESSAGE, "headers": {}}
            await connections.publish("nameko-rpc", "listening.method", body, properties, mandatory=True)
        self.assertEqual(await heard.wait(2), [1, 2])
        await container.stop()
        again = Recorded()
        queue = Queue("rpc-listening", Exchange("nameko-rpc", type="topic"), "listening.*")
        await connections.consume(queue, again, 10).ready
        await connections.publish("nameko-rpc", "listening.last", b"", {}, mandatory=True)
        self.assertEqual([message.routing_key for message in await again.wait()], ["listening.last"])

    async def test_reply_speaks_as_its_request(self) -> None:
        """A service that accepts several formats answers each request in its own."""
        await self.start(Service, ACCEPT=["json", "pickle"])
        pickling = await self.cluster(config={"serializer": "pickle"})
        jsoning = await self.cluster()
        tap = await self.tap("nameko-rpc")
        self.assertEqual(await pickling.service.plain((1, {2})), (1, {2}))
        self.assertEqual(await jsoning.service.plain((1, 2)), [1, 2])
        kinds = [message.properties["content_type"] for message in await tap.wait(4)]
        self.assertEqual(kinds, ["application/x-python-serialize"] * 2 + ["application/json"] * 2)

    async def test_options(self) -> None:
        """A proxy's options are on its messages; where they go and are answered to can't be changed by them."""

        class Optional:
            name = "optional"
            service = RpcProxy(
                "service", priority=3, headers={"h": 1}, exchange="x", routing_key="x", mandatory=False, reply_to="x",
                correlation_id="x", timeout=5,
            )  # fmt: skip

            @rpc
            def method(self):
                return self.service.plain.options(priority=4, timeout=None)(1)

            @rpc
            def method_with_less(self):
                return self.service.plain(1)

        await self.start(Service, Optional)
        tap = await self.tap("nameko-rpc", "service.plain")
        cluster = await self.cluster()
        self.assertEqual([await cluster.optional.method(), await cluster.optional.method_with_less()], [1, 1])
        first, second = [message.properties for message in await tap.wait(2)]
        self.assertEqual((first["priority"], first.get("expiration"), first["headers"]["h"]), (4, None, 1))
        self.assertEqual((second["priority"], second["expiration"], second["headers"]["h"]), (3, "5000", 1))

    async def test_unknown_option(self) -> None:
        """An option that means nothing is refused when the service starts, with those there are."""

        class Wrong:
            name = "wrong"
            service = RpcProxy("service", prioritty=3)

            @rpc
            def method(self):
                pass

        with self.assertRaises(TypeError) as raised:
            await self.start(Wrong)
        self.assertIn("no option 'prioritty'", str(raised.exception))

    async def test_call_id_stack(self) -> None:
        """The stack grows by one with each service, and keeps the last parent_calls_tracked + 1."""
        stacks = []

        class Stacking:
            name = "stacking"
            again = RpcProxy("stacking")
            language = Language()

            @rpc
            def method(self, depth):
                if depth:
                    return self.again.method(depth - 1)
                return self.language

        class Seeing(DependencyProvider):
            def get_dependency(self, worker_ctx):
                stacks.append(worker_ctx.call_id_stack)

        Stacking.seeing = Seeing()
        await self.start(Stacking, parent_calls_tracked=2)
        cluster = await self.cluster({"language": "da"})
        self.assertEqual(await cluster.stacking.method(4), "da")
        self.assertEqual([len(stack) for stack in stacks], [2, 3, 3, 3, 3])
        self.assertEqual(stacks[-1][:2], stacks[-2][1:])


class EndTests(ServicesCase):
    """Every call ends, and no request is lost."""

    async def waiting_service(self) -> tuple[Any, Heard, list[Deferred[Any]]]:
        """A service whose method waits for the test."""
        heard, answers = Heard(), []

        class Waiting:
            name = "waiting"

            @rpc
            def method(self):
                answer: Deferred[Any] = Deferred()
                answers.append(answer)
                heard(answer)
                return answer

        (container,) = await self.start(Waiting)
        return container, heard, answers

    async def test_timeout(self) -> None:
        """A call whose time is up fails; its late reply is dropped and the proxy goes on."""
        _, heard, answers = await self.waiting_service()
        cluster = await self.cluster(timeout=0.2)
        with self.assertRaises(RpcTimeout) as raised:
            await cluster.waiting.method()
        self.assertEqual(raised.exception.args, (0.2,))
        tap = await self.tap("nameko-rpc", cluster._client.reply_to)
        answers[0].callback("late")
        await tap.wait()
        call = cluster.waiting.method.options(timeout=10)()
        await heard.wait(2)
        answers[1].callback("in time")
        self.assertEqual(await call, "in time")
        self.assertEqual(cluster._client.pending, {})

    async def test_cancel(self) -> None:
        """A cancelled call is forgotten; the method runs nevertheless."""
        _, heard, answers = await self.waiting_service()
        cluster = await self.cluster()
        call = cluster.waiting.method()
        await heard.wait()
        call.cancel()
        with self.assertRaises(CancelledError):
            await call
        self.assertEqual(cluster._client.pending, {})
        answers[0].callback(None)

    async def test_stopped_proxy(self) -> None:
        """Calls under way fail when their proxy stops, and later ones are refused."""
        _, heard, answers = await self.waiting_service()
        cluster = await self.cluster()
        call = cluster.waiting.method()
        await heard.wait()
        await self.stops[-1]()
        with self.assertRaises(RpcConnectionError):
            await call
        with self.assertRaises(RuntimeError):
            cluster.waiting.method()
        answers[0].callback(None)

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

    async def test_expired_reply_queue(self) -> None:
        """Calls fail at once when their reply queue is gone, and new ones have one of the same name."""
        _, heard, answers = await self.waiting_service()
        cluster = await self.cluster()
        call = cluster.waiting.method()
        await heard.wait()
        protocol = await self.connections().consuming.when_connected()
        channel = await protocol.open_channel()
        await channel.queue_delete(queue=cluster._client.queue.name)
        with self.assertRaises(ReplyQueueExpiredWithPendingReplies):
            await call
        answers[0].callback("nobody takes it")
        again = cluster.waiting.method()
        await heard.wait(2)
        answers[1].callback(2)
        self.assertEqual(await again, 2)

    async def test_stop_without_a_broker(self) -> None:
        """A service that waits for its broker stops at once."""
        container = ServiceContainer(Service, {"AMQP_URI": "amqp://localhost:1/"})
        starting = container.start()
        await container.stop()
        with self.assertRaises(CancelledError):
            await starting

    async def test_lost_connections(self) -> None:
        """A call survives the loss of its caller's connections: the reply waits in the queue."""
        heard, answer = Heard(), Deferred[str]()

        class Once:
            name = "once"

            @rpc
            def method(self):
                heard()
                return answer if len(heard.things) == 1 else "of a request that was sent again"

        await self.start(Once)
        cluster = await self.cluster()
        call = cluster.once.method()
        await heard.wait()
        connections = cluster._client.publish_then.__self__
        for connection in (connections.consuming, connections.publisher.connection):
            connection.protocol.abort()
        answer.callback("after all")
        self.assertIn(await call, ("after all", "of a request that was sent again"))

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

    async def assert_empty(self, service: str) -> None:
        """No request is left in a service's queue: the first out of it is the one put in now."""
        connections = self.connections()
        left = Recorded()
        queue = Queue(f"rpc-{service}", Exchange("nameko-rpc", type="topic"), f"{service}.*")
        await connections.consume(queue, left, 10).ready
        await connections.publish("nameko-rpc", f"{service}.last", b"", {}, mandatory=True)
        self.assertEqual([message.routing_key for message in await left.wait()], [f"{service}.last"])

    async def test_refused_reply(self) -> None:
        """A reply that the broker refuses is answered with an error, once, and the request is done with."""
        container, heard, answers = await self.waiting_service()
        cluster = await self.cluster()
        responder = next(iter(container.entrypoints)).rpc_consumer.responder
        publish_then = responder.publish_then

        def refusing(exchange, *args):
            publish_then("no-such-exchange" if refused.things == [] else exchange, *args)
            refused()

        refused = Heard()
        responder.publish_then = refusing
        call = cluster.waiting.method()
        await heard.wait()
        answers[0].callback("x")
        with self.assertRaises(RemoteError) as raised:
            await call
        self.assertEqual(raised.exception.exc_type, "ChannelClosedByBroker")
        await container.stop()
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

    async def test_replies_that_are_none(self) -> None:
        """A reply that can't be read fails its call, and it alone."""
        _, heard, answers = await self.waiting_service()
        cluster = await self.cluster()
        client = cluster._client
        connections = self.connections()
        table: list[tuple[bytes, dict[str, Any]]] = [
            (b"{}", {}),
            (b"{", {}),
            (b"[]", {}),
            (b"{}", {"content_type": "text/plain"}),
        ]
        for count, (body, properties) in enumerate(table, 1):
            call = cluster.waiting.method()
            await heard.wait(count)
            (correlation_id,) = client.pending
            whole = {**MESSAGE, "headers": {}, "correlation_id": correlation_id, **properties}
            await connections.publish("nameko-rpc", client.reply_to, body, whole, mandatory=True)
            with self.assertRaises(DecodeError):
                await call
        for answer in answers:
            answer.callback(None)

    async def test_unknown_content(self) -> None:
        """MalformedRequest arrives as itself at a caller whose format the service does not accept."""
        await self.start(Service)
        cluster = await self.cluster(config={"serializer": "pickle", "ACCEPT": ["pickle", "json"]})
        with self.assertRaises(MalformedRequest):
            await cluster.service.plain(1)


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
