"""Calls, and the queue of requests: lines 1 to 11, 13 and 14."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from tests.conformance.cases import RPC, Case, Waiting
from tests.conformance.maths import Maths
from tests.services import without_deadline
from txservices.amqp.entities import Queue
from txservices.exceptions import (
    IncorrectSignature,
    MethodNotFound,
    RemoteError,
    UnknownService,
)
from txservices.extensions import DependencyProvider, Entrypoint
from txservices.rpc import Rpc, RpcConsumer, RpcProxy, rpc
from txservices.standalone.rpc import ServiceRpcProxy
from txservices.testing.waiting import Heard

EMPTY: dict[str, Any] = {"args": [], "kwargs": {}}
# method, args, kwargs, whether the method takes them
SIGNATURES: list[tuple[str, tuple[Any, ...], dict[str, Any], bool]] = [
    ("no_arguments", (), {}, True),
    ("no_arguments", (1,), {}, False),
    ("no_arguments", (), {"a": 1}, False),
    ("positional", (), {}, False),
    ("positional", (1,), {}, False),
    ("positional", (1, 2), {}, True),
    ("positional", (1,), {"b": 2}, True),
    ("positional", (), {"a": 1, "b": 2}, True),
    ("positional", (1, 2, 3), {}, False),
    ("positional", (1, 2), {"b": 2}, False),
    ("default", (), {}, False),
    ("default", (1,), {}, True),
    ("default", (1, 2), {}, True),
    ("default", (1,), {"b": 2}, True),
    ("default", (1,), {"c": 3}, False),
    ("star", (), {}, False),
    ("star", (1, 2, 3), {}, True),
    ("star", (1,), {"b": 2}, False),
    ("double_star", (1,), {"b": 2}, True),
    ("double_star", (1, 2), {}, False),
]


class Calls(Case):
    """Lines 1 to 8: from call to value or error."""

    async def test_line_01_args_and_kwargs_round_trip(self) -> None:
        """Positional and keyword arguments arrive as given, and are ``args`` and ``kwargs`` on the wire."""
        await self.start(Maths)
        tap = await self.tap("nameko-rpc", "maths.*")
        maths = (await self.cluster()).maths
        for args, kwargs in (((), {}), ((1, "ø"), {}), ((), {"x": None}), (([1],), {"args": 2, "kwargs": 3})):
            self.assertEqual(await maths.echo(*args, **kwargs), [list(args), kwargs])
            body = json.loads((await tap.wait(len(tap.things)))[-1].body)
            self.assertEqual(body, {"args": list(args), "kwargs": kwargs})

    async def test_line_02_headers_are_context_and_stack(self) -> None:
        """A request's headers are the context data and the call id stack with the prefix; ours has a deadline, too."""

        class Relay:
            name = "relay"
            maths = RpcProxy("maths")

            @rpc
            def give(self):
                return self.maths.give(1)

        await self.start(Maths, Relay)
        tap = await self.tap("nameko-rpc", "maths.*")
        await (await self.cluster({"language": "en", "d": {"a": [1]}})).relay.give()
        (request,) = await tap.wait()
        headers = without_deadline(request.headers)
        stack = headers.pop("nameko.call_id_stack")
        self.assertEqual(headers, {"nameko.language": "en", "nameko.d": {"a": [1]}})
        self.assertEqual([each.rpartition(".")[0] for each in stack], ["standalone_rpc_proxy.call", "relay.give"])

    async def test_line_03_call_async(self) -> None:
        """``call_async`` gives a reply before there is a result, which can be asked for later and repeatedly."""
        waiting = Waiting()
        await self.start(waiting.service)
        reply = (await self.cluster()).waiting.method.call_async()
        await waiting.called()
        result = reply.result()
        self.assertNoResult(result)
        waiting.answers[0].callback("late")
        self.assertEqual([await result, await reply.result(), await reply.result()], ["late"] * 3)

    async def test_line_04_signatures(self) -> None:
        """Twenty combinations are taken, or refused as IncorrectSignature with Python's words, before any worker."""
        await self.start(Maths)
        maths = (await self.cluster()).maths
        for method, args, kwargs, accepted in SIGNATURES:
            call = getattr(maths, method)(*args, **kwargs)
            if accepted:
                self.assertEqual(await call, "ok", (method, args, kwargs))
            else:
                with self.assertRaises(IncorrectSignature, msg=(method, args, kwargs)) as raised:
                    await call
                self.assertIn(f"{method}() ", str(raised.exception))

    async def test_line_05_method_not_found(self) -> None:
        """A method that isn't there is MethodNotFound with its name."""
        await self.start(Maths)
        with self.assertRaises(MethodNotFound) as raised:
            await (await self.cluster()).maths.nothing()
        self.assertEqual(
            (raised.exception.args, str(raised.exception)), (("nothing",), "nothing (call of maths.nothing)")
        )

    async def test_line_06_malformed_request(self) -> None:
        """A body without ``args`` or ``kwargs`` is a MalformedRequest under nameko's path."""
        await self.start(Maths)
        bodies: tuple[dict[str, Any], ...] = ({"args": []}, {"kwargs": {}}, {})
        for body in bodies:
            error = await self.error_of("maths.echo", body)
            self.assertEqual(error["exc_path"], "nameko.exceptions.MalformedRequest")
            self.assertEqual(error["value"], "Message missing `args` or `kwargs`")

    async def test_line_07_error_of_the_method(self) -> None:
        """A method's error is a RemoteError with its type's name and its text."""
        await self.start(Maths)
        with self.assertRaises(RemoteError) as raised:
            await (await self.cluster()).maths.fail("why")
        error = raised.exception
        self.assertEqual((error.exc_type, error.value, str(error)), ("ValueError", "why", "ValueError why"))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    async def test_line_08_unknown_service(self) -> None:
        """A service that has never run is UnknownService, from a worker and from both standalone proxies."""
        await self.start(Maths)
        cluster = await self.cluster()
        self.assertEqual(
            await cluster.maths.try_nobody(), ["Unknown service `nobody` (call of nobody.method)", ["nobody"]]
        )
        async with ServiceRpcProxy("nobody", self.config) as nobody:
            for method in (nobody.method, cluster.nobody.method):
                with self.assertRaises(UnknownService):
                    await method()


class Consuming(Case):
    """Lines 9 to 14: the queue of requests, the queue of replies, and their options."""

    async def test_line_09_requeued_while_killed(self) -> None:
        """A request that comes while the container is being killed goes back to the queue; another one answers it."""
        ran, ending = Heard(), Deferred[None]()

        class Telling(Rpc):
            def handle_result(self, message, worker_ctx, result, exc_info):
                ran((worker_ctx.container, message.redelivered))
                return super().handle_result(message, worker_ctx, result, exc_info)

        class Slow(Entrypoint):
            def kill(self):
                return ending

        class Service:
            name = "service"

            @Slow.decorator
            @Telling.decorator
            def method(self):
                return "done"

        (killed,) = await self.start(Service)
        killing = killed.kill()
        call = (await self.cluster()).service.method()
        (other,) = await self.start(Service)
        self.assertEqual(await call, "done")
        self.assertEqual(len(self.vhost.queues["rpc-service"].consumers), 2)
        ending.callback(None)
        await killing
        self.assertEqual(ran.things, [(other, True)])

    async def test_line_10_one_consumer_for_many_methods(self) -> None:
        """Many methods share one consumer, and the first entrypoint that stops ends it for all.

        nameko waits for the last of them; either way no call is answered MethodNotFound meanwhile: it waits in the
        queue for the next instance.
        """
        (container,) = await self.start(Maths)
        self.assertEqual(len(self.vhost.queues["rpc-maths"].consumers), 1)
        entrypoints = {each.method_name: each for each in container.entrypoints}
        await entrypoints["give"].stop()
        call = (await self.cluster()).maths.give(1)
        await self.bare.publisher.publish("", "nobody", b"", {})
        self.assertNoResult(call)
        await container.stop()
        await self.start(Maths)
        self.assertEqual(await call, 1)

    async def test_line_11_consumer_without_methods(self) -> None:
        """An rpc consumer whose service has no method left starts, consumes nothing, and stops."""

        class Without(DependencyProvider):
            rpc_consumer = RpcConsumer()

        class Service:
            name = "without"
            without = Without()

        (container,) = await self.start(Service)
        await container.stop()
        with self.assertRaises(UnknownService):
            await (await self.cluster()).without.method()
        self.assertNotIn("rpc-without", self.vhost.queues)

    async def test_line_13_throughput_with_one_worker(self) -> None:
        """Five calls of a service with one worker take less than a second."""
        await self.start(Maths, max_workers=1)
        maths = (await self.cluster()).maths
        clock = self.broker.clock
        began = clock.seconds()
        self.assertEqual(await gatherResults([maths.give(n) for n in range(5)]), list(range(5)))
        self.assertLess(clock.seconds() - began, 1)

    async def test_line_14_options_that_are_reserved(self) -> None:
        """A proxy has no options for the address of a call, for ``mandatory``, or for the address of its reply."""
        reserved = {"exchange": "x", "routing_key": "x", "mandatory": False, "reply_to": "x", "correlation_id": "x"}

        class Asking:
            name = "asking"
            maths = RpcProxy("maths", **reserved)
            nobody = RpcProxy("nobody", **reserved)

            @rpc
            def ask(self):
                return self.maths.give.options(**reserved)(1)

            @rpc
            def ask_nobody(self):
                return self.nobody.method()

        await self.start(Maths, Asking)
        tap = await self.tap("nameko-rpc", "maths.give")
        cluster = await self.cluster()
        self.assertEqual(await cluster.asking.ask(), 1)
        (request,) = tap.things
        self.assertEqual((request.exchange, request.routing_key), ("nameko-rpc", "maths.give"))
        self.assertNotIn("x", (request.properties["reply_to"], request.properties["correlation_id"]))
        with self.assertRaises(RemoteError) as raised:
            await cluster.asking.ask_nobody()
        self.assertEqual(raised.exception.exc_type, "UnknownService")
        self.flushLoggedErrors(UnknownService)


class Topology(Case):
    """Behind lines 9 to 12."""

    async def test_line_10_request_queue(self) -> None:
        """The queue of requests has nameko's name, flags and binding, so that both share it."""
        await self.start(Maths)
        await self.bare.publisher.declare(Queue("rpc-maths", RPC, "maths.*"))
        queue = self.vhost.queues["rpc-maths"]
        self.assertEqual((queue.durable, queue.auto_delete, queue.owner, queue.arguments), (True, False, None, {}))
        self.assertEqual({each.source: each.key for each in queue.incoming}["nameko-rpc"], "maths.*")
