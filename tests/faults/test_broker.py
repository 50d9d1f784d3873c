"""A RabbitMQ that stops, dies and starves, and more work than a service can do. Numbers are the faults'."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList, gatherResults

from tests import rabbitmq
from tests.faults.growth import memory
from tests.faults.scene import BACK, FULL, Echo, FaultsCase, until
from tests.services import Recorded, client_of
from txservices.amqp.entities import Exchange, Queue
from txservices.events import event_handler
from txservices.exceptions import PublishTimeout, RemoteError, RpcTimeout
from txservices.rpc import RpcProxy, rpc
from txservices.testing.waiting import Heard

JSON = {"content_type": "application/json", "content_encoding": "utf-8", "delivery_mode": 2}
TELLS = Exchange("tells", type="topic")
LOST_AFTER = 8  # seconds that a call waits whose request is lost
HEARS = Queue("hears", TELLS, "#")


class Mortal(FaultsCase):
    """On a node that may be harmed."""

    timeout = 100

    def node(self) -> rabbitmq.Node:
        return rabbitmq.mortal()


class Restarts(Mortal):
    """The broker goes and comes back."""

    async def test_row_02_stopped_in_order(self) -> None:
        """Connections are closed with 320; when it is back so are consumers and callers, and nothing is lost."""
        forced = self.logged("CONNECTION_FORCED")
        await self.goes_and_comes(self.broker.stop_app, self.broker.start_app)
        self.assertTrue(forced.things)

    async def test_row_03_killed(self) -> None:
        """The same after kill -9: what was confirmed is on its disk."""

        async def kill() -> None:
            self.broker.kill()

        await self.goes_and_comes(kill, self.broker.restart)

    async def goes_and_comes(self, go: Any, come: Any) -> None:
        got: list[int] = []

        class Listener:
            name = "listener"

            @event_handler("teller", "told")
            def told(self, number: int) -> None:
                got.append(number)

        await self.start(Echo, Listener)
        cluster = await self.cluster()
        self.assertEqual(await cluster.echo.echo("before"), "before")
        teller = self.bare()
        publishing = [teller.publisher.publish("teller.events", "told", b"%d" % n, dict(JSON)) for n in range(20)]
        away = self.logged("no connection to the broker")
        await go()
        await away.wait()
        calls = [cluster.echo.echo(number) for number in range(20)]
        publishing += [teller.publisher.publish("teller.events", "told", b"%d" % n, dict(JSON)) for n in range(20, 40)]
        await come()
        began = reactor.seconds()
        self.assertEqual(await gatherResults(calls), list(range(20)))
        self.in_time(began, BACK)
        await gatherResults(publishing)
        await until(lambda: len(set(got)) == 40)
        self.assertEqual(await cluster.echo.echo("after"), "after")


class Transient(Mortal):
    """What ``persistent=False`` gives up."""

    async def test_row_03_transient_calls_under_way(self) -> None:
        """Transient calls whose requests were in the broker when it was killed end at their deadline, with
        ``RpcTimeout``. All else ends well: persistent calls, events, and the transient call whose method runs on."""
        events: list[int] = []
        runs: list[Any] = []
        begun, finish = Heard(), Deferred[None]()

        class Busy:
            name = "busy"

            @rpc
            async def work(self, value: Any) -> Any:
                runs.append(value)
                begun(value)
                await finish
                return value

            @event_handler("teller", "told")
            def told(self, number: int) -> None:
                events.append(number)

        self.config.update({"RPC_TIMEOUT": 60, "RPC_PERSISTENT": False})
        await self.start(Busy, max_workers=1, prefetch_count=1)
        cluster = await self.cluster()
        runs_on = cluster.busy.work("runs on")
        await begun.wait()
        began = reactor.seconds()
        transient = [cluster.busy.work.options(timeout=LOST_AFTER)(number) for number in range(10)]
        ended: list[float] = []
        for call in transient:
            call.addErrback(lambda failure: ended.append(reactor.seconds() - began) or failure)
        persistent = [cluster.busy.work.options(persistent=True)(number) for number in range(10, 20)]
        teller = self.bare().publisher
        await gatherResults([teller.publish("teller.events", "told", b"%d" % n, dict(JSON)) for n in range(20)])
        pending = client_of(cluster).pending
        await until(lambda: all(call.taken for call in pending.values()))
        self.assertEqual((await self.depth("rpc-busy"))[0], 20)
        self.broker.kill()
        await self.broker.restart()
        for call in transient:
            await self.assertFailure(call, RpcTimeout)
        self.assertTrue(all(LOST_AFTER <= seconds < LOST_AFTER + 1 for seconds in ended), ended)
        finish.callback(None)
        self.assertEqual(await runs_on, "runs on")
        self.assertEqual(await gatherResults(persistent), list(range(10, 20)))
        self.assertEqual(await cluster.busy.work("after"), "after")
        await until(lambda: len(set(events)) == 20)
        self.assertEqual([value for value in runs if value in range(10)], [])


class Alarm(Mortal):
    """The broker has no memory left."""

    async def test_row_19_memory_alarm(self) -> None:
        """Publishes fail typed at their deadlines, deliveries and acks go on, and both are said with the reason."""
        heard: list[Any] = []
        connections = self.bare()
        consumer = connections.consume(HEARS, heard.append, 1)
        await consumer.ready
        await gatherResults([connections.publisher.publish("tells", "k", b"%d" % n, dict(JSON)) for n in range(10)])
        await until(lambda: heard)
        blocked = self.logged("takes no messages .*memory")
        again = self.logged("takes messages again")
        await self.broker.ctl("set_vm_memory_high_watermark", "0.00001")
        try:
            late = connections.publisher.publish("tells", "k", b"late", dict(JSON), timeout=1)
            await blocked.wait()
            self.assertEqual(connections.publisher.connection.protocol.blocked, "low on memory")
            for count in range(1, 11):  # one at a time: each needs the ack of the one before
                await until(lambda: len(heard) >= count)  # noqa: B023
                heard[count - 1].ack()
            await self.assertFailure(late, PublishTimeout)
            waiting = connections.publisher.publish("tells", "k", b"waited", dict(JSON), timeout=30)
        finally:
            await self.broker.ctl("set_vm_memory_high_watermark", "0.4")
        await again.wait()
        await waiting
        await connections.publisher.publish("tells", "k", b"free", dict(JSON))

    async def test_row_19_what_expires_takes_no_memory(self) -> None:
        """However much is published in an alarm, only messages that can still be sent are kept, and arrive later."""
        connections = self.bare()
        publisher = connections.publisher
        recorded = Recorded()
        await self.past_the_proxy().consume(HEARS, recorded, 10).ready
        await publisher.declare(HEARS)
        headers = {"headers": {f"h{n}": "x" * 10_000 for n in range(10)}}
        self.addCleanup(self.broker.ctl, "set_vm_memory_high_watermark", "0.4")
        await self.broker.ctl("set_vm_memory_high_watermark", "0.00001")
        blocked = self.logged("takes no messages .*memory")
        sent = publisher.publish("tells", "k", b"sent", dict(JSON))
        await blocked.wait()
        before = memory(os.getpid())
        most = before
        for _ in range(10 if FULL else 4):
            late = [publisher.publish("tells", "k", bytes(1_000_000), dict(JSON), timeout=0.5) for _ in range(100)]
            late += [publisher.publish("tells", "k", b"x", {**JSON, **headers}, timeout=0.5) for _ in range(1000)]
            most = max(most, memory(os.getpid()))
            outcomes = await DeferredList(late, consumeErrors=True)
            self.assertEqual([each for succeeded, each in outcomes if succeeded], [])
            self.assertLess(publisher.unconfirmed_bytes, 1000)
        self.assertLess(most - before, 400)  # MiB; a round is 200
        waiting = publisher.publish("tells", "k", b"waited", dict(JSON))
        await self.broker.ctl("set_vm_memory_high_watermark", "0.4")
        await gatherResults([sent, waiting])
        await until(lambda: len(recorded.things) >= 2)
        self.assertEqual([message.body for message in recorded.things], [b"sent", b"waited"])


class Limits(Mortal):
    """The broker takes no message of that size."""

    async def test_row_24_reply_too_big(self) -> None:
        """The caller is told that the reply was refused; the method is not run again, and the next call is answered."""
        runs: list[int] = []

        class Big:
            name = "big"

            @rpc
            def give(self, size: int) -> str:
                runs.append(size)
                return "x" * size

        # what channels read is a term that RabbitMQ 3.10 makes of the setting whenever it is not there, and 4 only once
        set_limit = "application:set_env(rabbit, max_message_size, {0}), persistent_term:put(max_message_size, {0})."
        await self.broker.ctl("eval", set_limit.format(100_000))
        try:
            await self.start(Big)
            cluster = await self.cluster()
            error = await self.assertFailure(cluster.big.give(200_000), RemoteError)
            self.assertIn("larger than", str(error))
            self.assertEqual(await cluster.big.give(10), "x" * 10)
            self.assertEqual(runs, [200_000, 10])
        finally:
            await self.broker.ctl("eval", set_limit.format(134_217_728))


class Crowded(FaultsCase):
    """More work than workers."""

    async def test_row_27_more_deliveries_than_workers(self) -> None:
        """A prefetch above max_workers queues inside: each event is handled once, never more at once than may be."""
        running, most, done = 0, [0], Heard()

        class Listener:
            name = "listener"

            @event_handler("teller", "told", prefetch_count=50)
            async def told(self, number: int) -> None:
                nonlocal running
                running += 1
                most[0] = max(most[0], running)
                await next_turn()
                running -= 1
                done(number)

        await self.start(Listener, max_workers=3)
        connections = self.bare()
        await gatherResults(
            [connections.publisher.publish("teller.events", "told", b"%d" % n, dict(JSON)) for n in range(200)]
        )
        self.assertEqual(sorted(await done.wait(200)), list(range(200)))
        self.assertEqual(most, [3])

    async def test_row_27_workers_that_call_their_own_service(self) -> None:
        """All workers waiting for their own service: each call ends by its deadline, heartbeats flow, and the service
        answers again."""

        class Inward:
            name = "inward"
            inward = RpcProxy("inward", timeout=1)

            @rpc
            async def outer(self) -> Any:
                try:
                    return await self.inward.inner()
                except RpcTimeout:
                    return "timed out"

            @rpc
            def inner(self) -> str:
                return "inner"

        lost = self.logged("no connection to the broker")
        await self.start(Inward, max_workers=3, HEARTBEAT=1)
        cluster = await self.cluster()
        answers = await gatherResults([cluster.inward.outer() for _ in range(12)])
        self.assertLessEqual(set(answers), {"timed out", "inner"})
        self.assertEqual(await cluster.inward.inner(), "inner")
        self.assertEqual(lost.things, [])


def next_turn() -> Deferred[None]:
    turn: Deferred[None] = Deferred()
    reactor.callLater(0, turn.callback, None)
    return turn
