"""A call's result or error, and the queue that it comes to: lines 12 and 15 to 20."""

from __future__ import annotations

import pickle
from typing import Any

from tests.conformance.cases import JSON, Case
from tests.conformance.maths import Broken, Maths
from tests.services import OnRabbitMQ, client_of, properties_of
from txservices import constants
from txservices.amqp.entities import Queue
from txservices.exceptions import (
    EncodeError,
    MalformedRequest,
    RemoteError,
    UndeliverableMessage,
    deserialize,
    deserialize_to_instance,
    get_module_path,
    registry,
    safe_for_serialization,
    serialize,
)
from txservices.extensions import DependencyProvider
from txservices.rpc import Rpc, rpc
from txservices.testing.waiting import Heard

EMPTY: dict[str, Any] = {"args": [], "kwargs": {}}


class Result(DependencyProvider):
    """Tells what the dependencies are told of each worker."""

    def __init__(self, heard: Heard) -> None:
        self.heard = heard

    def worker_result(self, worker_ctx: Any, result: Any = None, exc_info: Any = None) -> None:
        self.heard((result, exc_info and exc_info[0]))


class Unpicklable:
    """Gives what pickle can't write."""

    name = "unpicklable"

    @rpc
    def give(self):
        return lambda: None


class ReplyQueues(Case):
    """Line 12."""

    async def test_line_12_reply_queue_expires(self) -> None:
        """A reply queue expires once it was unused for so long, and not while it is consumed."""
        self.patch(constants, "RPC_REPLY_QUEUE_TTL", 200)
        await self.start(Maths)
        cluster = await self.cluster()
        client = client_of(cluster)
        clock, began = client.clock, client.clock.seconds()
        while clock.seconds() < began + 0.5:
            self.assertEqual(await cluster.maths.give(1), 1)
        assert client.replies.consumer is not None
        await client.replies.consumer.close()  # to stop the proxy takes the queue away at once
        published = 0
        with self.assertRaises(UndeliverableMessage):
            while clock.seconds() < began + 10:  # publishing to a queue is no use of it
                await self.bare.publisher.publish("nameko-rpc", client.replies.reply_to, b"", {}, mandatory=True)
                published += 1
        self.assertGreater(published, 0)  # it has outlived its consumer

    async def test_line_12_five_minutes(self) -> None:
        """Its name and its arguments are nameko's."""
        cluster = await self.cluster()
        client = client_of(cluster)
        await self.bare.publisher.declare(
            Queue(f"rpc.reply-standalone_rpc_proxy-{client.replies.reply_to}", arguments={"x-expires": 300_000})
        )


class ReplyQueuesOnRabbitMQ(OnRabbitMQ, ReplyQueues):
    """The same where it is RabbitMQ's to do."""


class Replies(Case):
    """Lines 15 to 20: what becomes of results and errors."""

    async def test_line_15_responder(self) -> None:
        """Results, errors, what JSON or pickle can't write, and what has no text: each is one reply to read."""
        await self.start(Maths, ACCEPT=["json", "pickle"])
        reply = await self.request("maths.give", {"args": [1], "kwargs": {}})
        self.assertEqual(properties_of(reply), {**JSON, "headers": {}, "correlation_id": "c"})
        self.assertEqual(reply.body, b'{"result": 1, "error": null}')
        errors = [
            ("maths.fail", ["a"], "ValueError", ["a"], "a"),
            ("maths.not_shown", [], "UnserializableValueError", [], "Unserializable value: `[__repr__ failed]`"),
            ("maths.break_down", [], "Broken", ["text", "[__unicode__ failed]"], "[__unicode__ failed]"),
        ]
        for key, args, exc_type, exc_args, value in errors:
            error = await self.error_of(key, {"args": args, "kwargs": {}})
            self.assertEqual((error["exc_type"], error["exc_args"], error["value"]), (exc_type, exc_args, value))
        await self.start(Unpicklable, ACCEPT=["json", "pickle"])
        pickled = await self.request(
            "unpicklable.give", pickle.dumps(EMPTY), content_type="application/x-python-serialize"
        )
        self.assertEqual(pickled.properties["content_type"], "application/x-python-serialize")
        self.assertEqual(pickle.loads(pickled.body)["error"]["exc_type"], "UnserializableValueError")
        self.assertEqual(len(self.flushLoggedErrors()), 2)  # of fail and of break_down, which is logged under its name

    def test_line_16_exception_without_text(self) -> None:
        """An exception whose ``__str__`` fails has a text that says so."""
        self.assertEqual(serialize(Broken("a"))["value"], "[__unicode__ failed]")

    def test_line_17_safe_for_serialization(self) -> None:
        """Dicts with any keys, sets, tuples and None become what every serializer can write."""
        table: list[tuple[Any, Any]] = [
            ({1: {None: (2, "x")}}, {"1": {"None": ["2", "x"]}}),
            ({"a"}, ["a"]),
            ((1, None), ["1", "None"]),
            (None, "None"),
            ("text", "text"),
            (b"a", ["97"]),
            (Broken(), "[__unicode__ failed]"),
        ]
        for value, expected in table:
            self.assertEqual(safe_for_serialization(value), expected)

    async def test_line_18_matched_by_path(self) -> None:
        """An application's own MethodNotFound does not become nameko's at the caller."""

        class Own:
            name = "own"

            @rpc
            def method(self):
                raise type("MethodNotFound", (Exception,), {"__module__": "app"})("mine")

        await self.start(Own)
        lines = self.lines()
        with self.assertRaises(RemoteError) as raised:
            await (await self.cluster()).own.method()
        self.assertEqual((raised.exception.exc_type, raised.exception.value), ("MethodNotFound", "mine"))
        self.assertEqual(len(lines.things), 1)
        self.flushLoggedErrors()

    async def test_line_19_deserialize_to_instance(self) -> None:
        """A registered class comes back as itself; missing keys and old nameko's traceback do no harm."""

        @deserialize_to_instance
        class Refused(Exception):
            pass

        path = get_module_path(Refused)
        self.addCleanup(registry.pop, path)

        class Refusing:
            name = "refusing"

            @rpc(expected_exceptions=Refused)
            def method(self):
                raise Refused("why", 1)

        await self.start(Refusing)
        with self.assertRaises(Refused) as raised:
            await (await self.cluster()).refusing.method()
        self.assertEqual(raised.exception.args, ("why", "1"))
        for data, expected in (
            ({"exc_type": "Refused", "value": "v"}, "RemoteError('Refused v')"),
            ({"exc_type": "Refused", "exc_path": path, "traceback": "old"}, "Refused()"),
            ({"exc_type": "T", "exc_path": "x.T", "exc_args": [], "value": "v", "traceback": ""}, "RemoteError('T v')"),
        ):
            self.assertEqual(repr(deserialize(data)), expected)

    async def test_line_20_handle_result_changes_outcome(self) -> None:
        """The caller and ``worker_result`` both get the result or error that the entrypoint has changed."""

        class Changing(Rpc):
            def handle_result(self, message, worker_ctx, result, exc_info):
                if exc_info is not None:
                    return super().handle_result(message, worker_ctx, "mended", None)
                if result == "bad":
                    error = MalformedRequest("made bad")
                    return super().handle_result(message, worker_ctx, None, (type(error), error, None))
                return super().handle_result(message, worker_ctx, [result], exc_info)

        heard = Heard()

        class Changed:
            name = "changed"
            seen = Result(heard)

            @Changing.decorator(expected_exceptions=ValueError)
            def method(self, value):
                if value == "raise":
                    raise ValueError
                return value

            @rpc
            def unserializable(self):
                return object()

        await self.start(Changed)
        changed = (await self.cluster()).changed
        self.assertEqual([await changed.method("good"), await changed.method("raise")], [["good"], "mended"])
        with self.assertRaises(MalformedRequest):
            await changed.method("bad")
        with self.assertRaises(RemoteError):
            await changed.unserializable()
        self.assertEqual(
            heard.things, [(["good"], None), ("mended", None), (None, MalformedRequest), (None, EncodeError)]
        )
