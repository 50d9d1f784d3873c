"""Brokers that are not there: at the start, later, again and again, and for 200 at once. Numbers are the faults'."""

from __future__ import annotations

import gc
import os
from collections import Counter
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock

from tests.faults.scene import BACK, FULL, SOCKET, Echo, FaultsCase, until
from tests.rabbitmq import free_port
from txservices.amqp import connection as connection_module
from txservices.amqp.connection import Connections
from txservices.amqp.endpoints import endpoint_for
from txservices.broker.broker import Broker
from txservices.broker.memory import brokers

RECONNECTS = 1000 if FULL else 60


class Returning(FaultsCase):
    """Services wait for a broker, and come back to it."""

    async def test_row_01_absent_at_start(self) -> None:
        """A service waits for its broker, says why and until when for each attempt, and is up when there is one."""
        attempts = self.logged("no connection to the broker")
        await self.proxy.shut()
        starting = Deferred.fromCoroutine(self.start(Echo))
        lines = await attempts.wait(3)
        for line in lines:
            self.assertRegex(line, r"guest:\*+@127\.0\.0\.1:\d+/.*refused.*Trying again in \d\.\d s")
        self.assertNoResult(starting)
        await self.proxy.listen()
        began = reactor.seconds()
        await starting
        self.assertLess(reactor.seconds() - began, BACK + SOCKET)
        self.assertEqual(await (await self.cluster()).echo.echo(1), 1)

    async def test_row_30_first_host_dead(self) -> None:
        """Of two hosts, the one that answers is used: at the start, and when the other dies later."""
        self.config["AMQP_URI"] = [f"amqp://guest:guest@127.0.0.1:{free_port()}/", self.config["AMQP_URI"]]
        await self.start(Echo)
        cluster = await self.cluster()
        self.assertEqual(await cluster.echo.echo(1), 1)

    async def test_row_30_host_dies_later(self) -> None:
        """A host that dies under its clients costs them a reconnect to the next one."""
        self.config["AMQP_URI"] = [self.config["AMQP_URI"], self.direct["AMQP_URI"]]
        await self.start(Echo)
        cluster = await self.cluster()
        self.assertEqual(await cluster.echo.echo(1), 1)
        await self.proxy.shut()
        began = reactor.seconds()
        self.assertEqual(await cluster.echo.echo(2), 2)
        self.assertLess(reactor.seconds() - began, BACK + SOCKET)

    async def test_row_33_reconnects_leave_nothing(self) -> None:
        """After many losses there are as many files, delayed calls, objects of ours and consumers as before."""
        self.patch(connection_module, "RETRY_FIRST", 0.01)
        await self.start(Echo)
        cluster = await self.cluster()

        async def lose(times: int) -> None:
            for number in range(times):
                answer = cluster.echo.echo(number)
                if number % 2:
                    await answer
                self.proxy.cut(reset=number % 3 == 0)
                self.assertEqual(await answer, number)
                self.assertEqual(await cluster.echo.echo(number), number)

        async def count() -> dict[str, int]:
            await until(lambda: len(self.proxy.links) == 4)
            await cluster.echo.echo("settled")
            gc.collect()
            kinds = Counter(str(type(thing).__module__).split(".")[0] for thing in gc.get_objects())
            queues = (await self.depth("rpc-echo"))[1]
            return {
                "files": len(os.listdir("/proc/self/fd")),
                "calls": len(reactor.getDelayedCalls()),
                "objects": kinds["txservices"] + kinds["txamqp"],
                "consumers": queues,
            }

        await lose(10)
        before = await count()
        await lose(RECONNECTS)
        after = await count()
        for what, number in before.items():
            # one look at the queue costs a connection; one reconnect, were it kept, some thirty objects
            self.assertLessEqual(after[what], number + 25, (what, before, after))

    def test_row_34_they_come_back_spread_out(self) -> None:
        """Of 200 services that lose their broker at once, no 10 ms see more than a fifth come back; the longer it is
        away, the wider they spread."""
        clock, attempts = Clock(), []
        absent: list[bool] = []

        class Absent:
            def connect(self, factory: Any) -> Deferred[Any]:
                attempts.append(clock.seconds())
                return fail(ConnectionRefusedError())

        def endpoint(address: Any, tls: Any, clock: Any) -> Any:
            return Absent() if absent else endpoint_for(address, tls, clock)

        self.patch(connection_module, "endpoint_for", endpoint)
        name = self.id()
        broker = brokers[name] = Broker(name, clock=clock)
        self.addCleanup(brokers.pop, name)
        fleet = [Connections.from_config({"AMQP_URI": f"memory://{name}"}, clock) for _ in range(200)]
        for each in fleet:
            each.startService()
            each.publish("", "q", b"", {}, timeout=None)
        clock.pump([0.01] * 10)
        self.assertEqual(len(broker.sessions), 200)
        lines = self.logged("Trying again in")
        absent.append(True)
        for session in list(broker.sessions):
            session.transport.abortConnection()
        clock.pump([0.005] * 1000)
        self.assertGreaterEqual(len(lines.things), len(attempts))
        first, later = Counter(int(at * 100) for at in attempts[:200]), attempts[600:]
        self.assertLess(max(first.values()), 40)
        self.assertLess(max(Counter(int(at * 100) for at in later).values()), 20)
        self.assertGreater(len(attempts), 600)
        absent.clear()
        clock.pump([0.01] * 200)
        self.assertTrue(all(each.connected for each in fleet))
        ended = [each.stopService() for each in fleet]
        clock.pump([0.01] * 300)
        self.assertTrue(all(each.called for each in ended))
        self.successResultOf(broker.stop())
        self.assertEqual(clock.getDelayedCalls(), [])
