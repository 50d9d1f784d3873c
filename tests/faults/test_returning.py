"""Brokers that are not there: at the start, later, again and again, and for 200 at once. Numbers are the faults'."""

from __future__ import annotations

import gc
import os
from collections import Counter
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, gatherResults
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock

from tests.faults.growth import Growth, files, held_by, memory
from tests.faults.scene import BACK, FULL, Echo, FaultsCase, until
from tests.rabbitmq import free_port
from txservices.amqp import connection as connection_module
from txservices.amqp.connections import Connections
from txservices.amqp.endpoints import endpoint_for
from txservices.broker.memory import brokers
from txservices.broker.server import Broker
from txservices.exceptions import BrokerUnreachable
from txservices.web.handlers import http

RECONNECTS = 1000 if FULL else 60
WARM_UP = 100 if FULL else 20  # losses before the first count
HERD = 200  # services that lose their broker at once
AWAY = 600  # attempts of the herd while the broker is away: three of each, more or less

# What there may be more of after all losses; of the rest, nothing. Python takes memory by the MiB, and this is one KiB
# for each connection of the long form: one that was kept would hold 13 and more, in some 30 objects of ours.
GROWTH = {"memory, MiB": 4, "objects": 25, "calls": 2}


class Returning(FaultsCase):
    """Services wait for a broker, and come back to it."""

    timeout = 300 if FULL else 60

    async def test_row_01_absent_at_start(self) -> None:
        """A service waits for its broker, says why and until when for each attempt, and is up when there is one."""
        attempts = self.logged("no connection to the broker")
        await self.proxy.shut()
        container = self.stage.container(Echo)
        starting = container.start()
        lines = await attempts.wait(3)
        for line in lines:
            self.assertRegex(line, r"guest:\*+@127\.0\.0\.1:\d+/.*refused.*Trying again in \d+\.\d s")
        self.assertNoResult(starting)
        starting_up, queue, broker = container.shared.not_ready()
        self.assertEqual(starting_up, "echo: it is starting")
        self.assertEqual(queue, "echo: not consumed: queue rpc-echo: there is no connection to the broker")
        self.assertRegex(
            broker, r"^no connection to the broker at amqp://guest:\*+@127\.0\.0\.1:\d+/.*refused.*consumes"
        )
        await self.proxy.listen()
        began = reactor.seconds()
        await starting
        self.in_time(began, BACK)
        self.assertEqual(container.shared.not_ready(), [])
        self.assertEqual(await (await self.cluster()).echo.echo(1), 1)

    async def test_row_01_away_and_back(self) -> None:
        """While the broker is away the process is not ready, and says why; it is again when its queues are consumed."""

        class Page(Echo):
            @http("GET", "/page")
            def page(self, request: Any) -> str:
                return "served"

        async def readyz() -> tuple[int, str]:
            response = await session.get("/readyz")
            return response.code, await response.text()

        self.config["WEB_HEALTH"] = True
        away, back = self.logged("no connection to the broker"), self.logged("connected to the broker")
        [container] = await self.start(Page)
        session = self.web_session()
        self.assertEqual(await readyz(), (200, "ready\n"))
        await self.proxy.shut()
        await away.wait()
        status, text = await readyz()
        self.assertEqual(status, 503)
        self.assertRegex(text, r"echo: not consumed: queue rpc-echo: there is no connection to the broker\n")
        self.assertRegex(text, r"no connection to the broker at amqp://guest:\*+@127\.0\.0\.1:\d+/.*: .*echo consumes")
        self.assertEqual((await session.get("/healthz")).code, 200)
        self.assertEqual(await (await session.get("/page")).text(), "served")
        back.things.clear()
        await self.proxy.listen()
        await back.wait()
        began = reactor.seconds()
        await until(lambda: not container.shared.not_ready())
        self.in_time(began, BACK)
        self.assertEqual(await readyz(), (200, "ready\n"))

    async def test_row_01_absent_at_start_and_not_waited_for(self) -> None:
        """With BROKER_START_TIMEOUT a service fails to start when that is over, and says what it missed where."""
        await self.proxy.shut()
        for timeout in (0, 0.5):
            began = reactor.seconds()
            starting = Deferred.fromCoroutine(self.process(BROKER_START_TIMEOUT=timeout).start(Echo))
            error = await self.assertFailure(starting, BrokerUnreachable)
            self.assertRegex(str(error), rf"no broker at amqp://guest:\*+@127\.0\.0\.1:\d+/.*refused.*{timeout}")
            self.in_time(began, timeout + BACK)

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
        self.in_time(began, BACK)

    async def test_row_33_reconnects_leave_nothing(self) -> None:
        """After many losses there are as many files, delayed calls and objects of ours as before, and as much memory;
        and on the broker as many connections, channels, queues and consumers."""
        self.patch(connection_module, "RETRY_FIRST", 0.01)
        self.patch(connection_module, "LIVED", 0)  # they die young on purpose
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
                self.proxy.linked.things.clear()  # the proxy's own memory

        async def count() -> dict[str, float]:
            await until(lambda: len(self.proxy.links) == 4)
            await cluster.echo.echo("settled")
            gc.collect()
            kinds = Counter(str(type(thing).__module__).split(".")[0] for thing in gc.get_objects())
            held = {
                "files": files(os.getpid()),
                "memory, MiB": memory(os.getpid()),
                "calls": len(reactor.getDelayedCalls()),
                "objects": kinds["txservices"] + kinds["txamqp"],
            }
            return {**held, **await held_by(self.broker)}

        await lose(WARM_UP)
        before = await count()
        await lose(RECONNECTS)
        after = await count()
        grown = [Growth(what, before[what], after[what], GROWTH.get(what, 0)) for what in before]
        print(f"\n{self.id()}: {RECONNECTS} losses of four connections: " + "; ".join(map(str, grown)))
        self.assertEqual([str(each) for each in grown if not each.flat], [])

    async def test_row_34_each_attempt_is_logged(self) -> None:
        """200 services that lose RabbitMQ at once say for each attempt why it failed and when the next one is, without
        a password; they all come back within two seconds, and not in one moment."""
        fleet = [self.bare().consuming for _ in range(HERD)]
        await gatherResults([each.when_connected() for each in fleet])
        attempts: list[float] = []
        back: list[float] = []

        def endpoint(address: Any, tls: Any, clock: Any) -> Any:
            attempts.append(reactor.seconds())
            return endpoint_for(address, tls, clock)

        self.patch(connection_module, "endpoint_for", endpoint)
        for each in fleet:
            each.on_connected.append(lambda _: back.append(reactor.seconds()))
        lines = self.logged("no connection to the broker")
        await self.proxy.shut()
        await lines.wait(HERD + AWAY)
        await self.proxy.listen()
        began = reactor.seconds()
        attempts.clear()
        await until(lambda: len(back) == HERD)
        took = [moment - began for moment in back]
        crowd = max(Counter(int((moment - began) * 10) for moment in attempts).values())
        print(
            f"\n{self.id()}: {HERD} connections, {len(lines.things)} failed attempts; "
            f"back {took[0]:.2f} to {took[-1]:.2f} s after their broker, at most {crowd} attempts within 0.1 s"
        )
        for line in lines.things:
            self.assertRegex(line, r"at amqp://guest:\*+@127\.0\.0\.1:\d+/.*: .+\. Trying again in \d+\.\d s$")
        self.in_time(began, BACK)
        self.assertLess(crowd, HERD / 2)

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
        fleet = [Connections.from_config({"AMQP_URI": f"memory://{name}"}, clock) for _ in range(HERD)]
        for each in fleet:
            each.startService()
            each.publisher.publish("", "q", b"", {}, timeout=None)
        clock.pump([0.01] * 10)
        self.assertEqual(len(broker.sessions), HERD)
        lines = self.logged("Trying again in")
        absent.append(True)
        for session in list(broker.sessions):
            session.transport.abortConnection()
        clock.pump([0.005] * 1000)
        self.assertGreaterEqual(len(lines.things), len(attempts))
        first, later = Counter(int(at * 100) for at in attempts[:HERD]), attempts[AWAY:]
        self.assertLess(max(first.values()), 40)
        self.assertLess(max(Counter(int(at * 100) for at in later).values()), 20)
        self.assertGreater(len(attempts), AWAY)
        absent.clear()
        clock.pump([0.01] * 200)
        self.assertTrue(all(each.connected for each in fleet))
        ended = [each.stopService() for each in fleet]
        clock.pump([0.01] * 300)
        self.assertTrue(all(each.called for each in ended))
        self.successResultOf(broker.close())
        self.assertEqual(clock.getDelayedCalls(), [])
