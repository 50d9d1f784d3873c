"""RPC on the wire: what others see of us, and what of others we take."""

from __future__ import annotations

import json
import uuid
from typing import Any

from tests.answering import MESSAGE, AnsweringCase, Custom, Other, Service
from tests.services import Recorded, ServicesCase, properties_of, without_deadline
from txservices.amqp.entities import Exchange, Queue
from txservices.contextdata import Language
from txservices.extensions import DependencyProvider
from txservices.rpc import RpcProxy, rpc
from txservices.testing.waiting import Heard


class WireTests(AnsweringCase):
    """Requests and replies, by hand."""

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
        await connections.publisher.publish("nameko-rpc", key, encoded, whole, mandatory=True)
        reply = (await replies.wait())[0]
        decoded = json.loads(reply.body)
        self.assertEqual(decoded.keys(), {"result", "error"})
        return decoded["error"] or decoded["result"]

    async def test_request_and_reply(self) -> None:
        """A call is nameko's to the byte: keys, properties, headers, bodies. Ours has a deadline, too."""
        await self.start(Service, Other)
        tap = await self.tap("nameko-rpc")
        cluster = await self.cluster({"language": "en", "user_id": 7, "d": {"a": 1}})
        await cluster.service.deferred("v")
        first, second, second_reply, first_reply = await tap.wait(4)
        for request, key in ((first, "service.deferred"), (second, "other.identify")):
            properties = properties_of(request)
            self.assertEqual((request.routing_key, request.body), (key, b'{"args": ["v"], "kwargs": {}}'))
            headers = without_deadline(properties.pop("headers"))
            stack = headers.pop("nameko.call_id_stack")
            self.assertEqual(headers, {"nameko.language": "en", "nameko.user_id": 7, "nameko.d": {"a": 1}})
            self.assertEqual(len(properties.pop("correlation_id")), 36)
            self.assertEqual(len(properties.pop("reply_to")), 36)
            self.assertTrue(8_000 < int(properties.pop("expiration")) <= 10_000)  # the second caller has no more
            self.assertEqual(properties, MESSAGE)
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
                "exc_path": f"{Custom.__module__}.Custom",
                "exc_args": ["a", "1"],
                "value": "('a', 1)",
            },
        )
        error = await self.request({"args": [], "kwargs": {}}, "service.nothing")
        self.assertEqual(error["exc_path"], "nameko.exceptions.MethodNotFound")
        self.flushLoggedErrors(Custom)

    async def test_requests_that_are_none(self) -> None:
        """A message that can't be taken as a request is answered with the reason, and the service goes on."""
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
            await connections.publisher.publish("nameko-rpc", "listening.method", body, properties, mandatory=True)
        self.assertEqual(await heard.wait(2), [1, 2])
        await container.stop()
        await self.assert_empty("listening")

    async def test_reply_speaks_as_its_request(self) -> None:
        """A service that accepts several formats answers each request in its own."""
        await self.start(Service, ACCEPT=["json", "pickle"])
        pickling = await self.process(serializer="pickle").cluster()
        jsoning = await self.cluster()
        tap = await self.tap("nameko-rpc")
        self.assertEqual(await pickling.service.plain((1, {2})), (1, {2}))
        self.assertEqual(await jsoning.service.plain((1, 2)), [1, 2])
        kinds = [message.properties["content_type"] for message in await tap.wait(4)]
        self.assertEqual(kinds, ["application/x-python-serialize"] * 2 + ["application/json"] * 2)

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


class PersistenceTests(ServicesCase):
    """Whether requests and replies survive a crash of the broker."""

    async def test_persistence(self) -> None:
        """The configuration says it for all calls, a proxy for its own, a call for itself; replies are alike."""

        class Middle:
            name = "middle"
            usual = RpcProxy("target")
            brief = RpcProxy("target", persistent=False)
            lasting = RpcProxy("target", persistent=True)
            by_mode = RpcProxy("target", delivery_mode=1)

            @rpc
            async def call(self):
                for proxy in (self.usual, self.brief, self.lasting, self.by_mode):
                    await proxy.get()
                await self.usual.get.options(persistent=False)()
                await self.brief.get.options(persistent=True)()

        class Target:
            name = "target"

            @rpc
            def get(self):
                return 1

        for configured, usual in ((True, 2), (False, 1)):
            stage = self.process(RPC_PERSISTENT=configured)
            await stage.start(Middle, Target)
            tapped = await self.tap("nameko-rpc")
            cluster = await stage.cluster()
            await cluster.middle.call()
            modes = [each.properties["delivery_mode"] for each in (await tapped.wait(14))[1:13]]
            wanted = (usual, 1, 2, 1, 1, 2)
            self.assertEqual(modes, [mode for each in wanted for mode in (each, each)])
            await stage.stop()
