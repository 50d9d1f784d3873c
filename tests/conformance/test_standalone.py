"""Standalone clients: line 63."""

from __future__ import annotations

import signal
from typing import Any

from twisted.internet.defer import Deferred

from tests import processes
from tests.conformance.cases import JSON, Case, Waiting
from tests.services import client_of, overdue
from txservices.contextdata import Language
from txservices.exceptions import RpcConnectionError, RpcTimeout
from txservices.rpc import rpc
from txservices.standalone.rpc import ClusterRpcProxy, ServiceRpcProxy

INTERRUPTED = """
import sys
from txservices.standalone.blocking import ClusterRpcProxy

with ClusterRpcProxy({"AMQP_URI": sys.argv[1]}) as rpc:
    try:
        rpc.waiting.method()
    except KeyboardInterrupt:
        print("interrupted", rpc["far-away"].echo("usable"))
"""


class FarAway:
    """The service that the proxies call. Its name is no identifier in Python."""

    name = "far-away"
    lang = Language()

    @rpc
    def echo(self, value):
        return value

    @rpc
    def language(self):
        return self.lang


class Proxies(Case):
    """``ClusterRpcProxy`` and ``ServiceRpcProxy``. They give Deferreds; ``standalone.blocking`` has those that wait."""

    async def test_line_63_context_data(self) -> None:
        """Context data goes along with each call."""
        await self.start(FarAway)
        async with ServiceRpcProxy("far-away", self.config, {"language": "da"}) as far:
            self.assertEqual(await far.language(), "da")

    async def test_line_63_start_and_stop(self) -> None:
        """By hand in place of ``async with``; used after its stop, or before its start, it says so."""
        await self.start(FarAway)
        proxy = ClusterRpcProxy(self.config)
        cluster = await proxy.start()
        self.assertEqual(await cluster["far-away"].echo(1), 1)
        await proxy.stop()
        with self.assertRaises(RuntimeError) as raised:
            cluster["far-away"].echo(1)
        self.assertIn("stopped", str(raised.exception))
        with self.assertRaises(RuntimeError):
            await proxy.start()

    async def test_line_63_several(self) -> None:
        """Several proxies at once have their own replies, in any order."""
        await self.start(FarAway)
        proxies = [await self.cluster() for _ in range(3)]
        replies = [proxy["far-away"].echo.call_async(n) for n, proxy in enumerate(proxies)]
        self.assertEqual([await reply.result() for reply in reversed(replies)], [2, 1, 0])

    async def test_line_63_timeout_then_reuse(self) -> None:
        """A call that is late fails, with ``call_async`` too, and the proxy goes on; the late reply is acked.

        The time is each call's own, from its beginning; nameko's starts again with whatever arrives, and keeps late
        replies for ever.
        """
        waiting = Waiting()
        await self.start(waiting.service, FarAway)
        cluster = await self.cluster(timeout=60)
        calls = (cluster.waiting.method.call_async().result(), cluster.waiting.method())
        await waiting.called(2)
        await overdue(cluster)
        for call in calls:
            with self.assertRaises(RpcTimeout) as raised:
                await call
            self.assertEqual(raised.exception.args, (60,))
        late = await self.tap("nameko-rpc", client_of(cluster).replies.reply_to)
        for answer in waiting.answers:
            answer.callback("late")
        await late.wait(2)
        self.assertEqual(await cluster["far-away"].echo(1), 1)
        client = client_of(cluster)
        assert client.replies.consumer is not None
        self.assertEqual((client.replies.consumer.unsettled, client.pending), (0, {}))

    async def test_line_63_calls_under_way(self) -> None:
        """A proxy that is stopped with a call under way fails it."""
        waiting = Waiting()
        await self.start(waiting.service)
        cluster = await self.cluster()
        call = cluster.waiting.method()
        await waiting.called()
        await self.stage.stops[-1]()
        with self.assertRaises(RpcConnectionError):
            await call
        waiting.answers[0].callback("nobody takes it")

    async def test_line_63_unexpected_reply(self) -> None:
        """A reply that nobody waits for is dropped, and acked."""
        await self.start(FarAway)
        cluster = await self.cluster()
        for properties in ({"correlation_id": "nobody's"}, {}):
            await self.bare.publisher.publish(
                "nameko-rpc",
                client_of(cluster).replies.reply_to,
                b'{"result": 1, "error": null}',
                {**JSON, **properties},
                True,
            )
        self.assertEqual(await cluster["far-away"].echo(1), 1)
        queue = client_of(cluster).replies.queue.name
        await self.stage.stops[-1]()
        self.assertEqual(self.left_in(queue), 0)

    async def test_line_63_connection_lost(self) -> None:
        """A proxy that lost its connections while it waited for a reply has it when it is back."""
        waiting = Waiting()
        await self.start(waiting.service)
        cluster = await self.cluster()
        call = cluster.waiting.method()
        await waiting.called()
        await self.bare.publisher.publish("", "nobody", b"", {})
        self.cut(client_of(cluster).connections)
        waiting.answers[0].callback("after all")
        self.assertEqual(await call, "after all")


class Blocking(Case):
    """The one that waits, in a process of its own: there is a reactor here."""

    async def test_line_63_keyboard_interrupt(self) -> None:
        """Ctrl-C in a call ends the wait and not the proxy."""
        self.config["AMQP_URI"] = await self.stage.listen()
        waiting = Waiting()
        await self.start(waiting.service, FarAway)
        program = processes.python(self, "-c", INTERRUPTED, self.config["AMQP_URI"])
        await waiting.called()
        program.signal(signal.SIGINT.name.removeprefix("SIG"))
        await program.line("^interrupted usable$")
        self.assertEqual(await program.exit(), 0, str(program))
        unanswered: Deferred[Any] = waiting.answers[0]
        unanswered.callback(None)
