"""Several instances of several services, as real processes: who runs a call, who hears an event, and what a kill costs.

The processes tell a service of the test's own what they did, so that everything is counted and nothing slept for.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

from twisted.internet.defer import gatherResults
from twisted.trial.unittest import TestCase

from tests import processes, rabbitmq
from txservices.amqp.entities import Queue
from txservices.containers import ServiceContainer
from txservices.events import BROADCAST, SINGLETON
from txservices.messaging import amqp
from txservices.rpc import rpc
from txservices.standalone.events import event_dispatcher
from txservices.standalone.rpc import ClusterRpcProxy
from txservices.testing.waiting import Heard

APP = f"""
import os
from twisted.internet.defer import Deferred
from txservices.events import BROADCAST, SINGLETON, event_handler
from txservices.rpc import RpcProxy, rpc

class Worker:
    name = "worker"
    witness = RpcProxy("witness")

    @rpc
    async def work(self, number):
        await self.witness.tell("work", os.getpid(), number)
        return [number, os.getpid()]

    @rpc
    async def work_until_killed(self, first):
        if await self.witness.tell("begun", os.getpid(), first) == 0:
            await Deferred()  # only a kill ends this one
        return os.getpid()

class Listener:
    witness = RpcProxy("witness")

    @event_handler("source", "told")
    async def pool(self, number):
        await self.witness.tell("pool " + self.name, os.getpid(), number)

    @event_handler("source", "told", handler_type=BROADCAST, reliable_delivery=False)
    async def all(self, number):
        await self.witness.tell("{BROADCAST} " + self.name, os.getpid(), number)

    @event_handler("source", "told", handler_type=SINGLETON)
    async def one(self, number):
        await self.witness.tell("{SINGLETON}", os.getpid(), number)

class One(Listener):
    name = "one"

class Two(Listener):
    name = "two"
"""


class Instances:
    """The tests for either broker; ``uri`` is where it is."""

    uri: str
    timeout = 100

    async def witness(self) -> Heard:
        """Hear the processes tell (what, pid, number). The answer is how many have told the same before."""
        heard = Heard()

        class Witness:
            name = "witness"

            @rpc
            def tell(self, what: str, pid: int, number: int) -> int:
                heard((what, pid, number))
                return sum(1 for thing in heard.things if thing[0] == what and thing[2] == number) - 1

        container = ServiceContainer(Witness, {"AMQP_URI": self.uri, "max_workers": 100})
        await container.start()
        self.addCleanup(container.stop)
        return heard

    async def run_instances(self, *services: str) -> list[processes.Process]:
        """A process for each: one of those services, and a worker; all are started."""
        folder = os.path.abspath(self.mktemp())
        os.makedirs(folder)
        with open(os.path.join(folder, "app.py"), "w", encoding="utf-8") as file:
            file.write(APP)
        running = [
            processes.txservices(self, "run", "--broker", self.uri, "app:Worker", f"app:{each}", cwd=folder)
            for each in services
        ]
        await gatherResults([process.line("^running: ") for process in running])
        return running

    async def test_three_processes(self) -> None:
        """Calls are shared, each event reaches whom it must, and a call outlives the process that runs it."""
        heard = await self.witness()
        running = await self.run_instances("One", "One", "Two")
        everyone = {process.pid for process in running}
        await self.calls_are_shared_in_turn(heard, everyone)
        heard.things.clear()
        await self.each_event_reaches_whom_it_must(heard, everyone)
        heard.things.clear()
        victim = await self.killed_in_the_middle_of_a_call(heard, running)
        await processes.stopped(*(process for process in running if process is not victim))

    async def calls_are_shared_in_turn(self, heard: Heard, everyone: set[int]) -> None:
        """Three instances share the calls of a service evenly, and each call runs in exactly one of them."""
        async with ClusterRpcProxy({"AMQP_URI": self.uri}) as cluster:
            answers = await gatherResults([cluster.worker.work(number) for number in range(90)])
        self.assertEqual([number for number, _ in answers], list(range(90)))
        self.assertEqual(sorted(number for _, _, number in heard.things), list(range(90)))
        shares = Counter(pid for _, pid in answers)
        self.assertEqual(set(shares), everyone)
        self.assertGreaterEqual(min(shares.values()), 20, shares)

    async def each_event_reaches_whom_it_must(self, heard: Heard, everyone: set[int]) -> None:
        """Of two instances of one service and one of another: a pool is one per service, a broadcast all of them,
        a singleton one of all; for each of 30 events."""
        dispatch = event_dispatcher({"AMQP_URI": self.uri})
        self.addCleanup(dispatch.stop)
        await gatherResults([dispatch("source", "told", number) for number in range(30)])
        await heard.wait(30 * (2 + 3 + 1))
        events: dict[str, Any] = {}
        for what, pid, number in heard.things:
            events.setdefault(what, []).append((number, pid))
        for what in ("pool one", "pool two", SINGLETON):
            self.assertEqual(sorted(number for number, _ in events[what]), list(range(30)), what)
        self.assertEqual(len({pid for _, pid in events["pool one"]}), 2)
        broadcast = events[f"{BROADCAST} one"] + events[f"{BROADCAST} two"]
        self.assertEqual(sorted(broadcast), sorted((number, pid) for number in range(30) for pid in everyone))
        self.assertEqual(len(heard.things), 180)

    async def killed_in_the_middle_of_a_call(self, heard: Heard, running: list[processes.Process]) -> processes.Process:
        """A call whose process dies by kill -9 is run by another, and its caller gets one answer. Gives the dead."""
        async with ClusterRpcProxy({"AMQP_URI": self.uri}) as cluster:
            answer = cluster.worker.work_until_killed(7)
            ((_, victim, _),) = await heard.wait(1)
            (process,) = [process for process in running if process.pid == victim]
            await process.end("KILL")
            survivor = await answer
        self.assertIn(survivor, {process.pid for process in running} - {victim})
        self.assertEqual([pid for _, pid, _ in heard.things], [victim, survivor])
        return process


class InstancesOnRabbitMQ(Instances, TestCase):
    """On RabbitMQ."""

    skip = rabbitmq.skip

    def setUp(self) -> None:
        node = rabbitmq.node()
        self.uri = node.uri(node.new_vhost())


class InstancesOnTheEmbeddedBroker(Instances, TestCase):
    """On the embedded broker, which runs by itself: `txservices broker`."""

    async def setUp(self) -> None:
        port = rabbitmq.free_port()
        broker = processes.txservices(self, "broker", "--port", str(port))
        await broker.line(str(port))
        self.uri = f"amqp://guest:guest@127.0.0.1:{port}/"


class BrokerRestarts(TestCase):
    """RabbitMQ goes and comes back under services, callers and publishers. This shows the node of the tests as well."""

    skip = rabbitmq.skip
    timeout = 240

    async def test_all_are_back_by_themselves(self) -> None:
        """Consumers, reply queue and publishers work again, and what was published meanwhile arrives.

        After kill -9 a restart brings back what is durable, on the same port; stop_app
        closes the port, and Erlang stays.
        """
        node = rabbitmq.mortal()
        vhost, port = node.new_vhost(), node.port
        config = {"AMQP_URI": node.uri(vhost), "RPC_TIMEOUT": 60}

        class Echo:
            name = "echo"

            @rpc
            def echo(self, value: str) -> str:
                return value

        container = ServiceContainer(Echo, config)
        await container.start()
        self.addCleanup(container.stop)
        proxy = ClusterRpcProxy(config)
        cluster = await proxy.start()
        self.addCleanup(proxy.stop)
        self.assertEqual(await cluster.echo.echo("before"), "before")
        await amqp(container).publisher.declare(Queue("kept"))
        node.evaluate("mnesia:sync_log().")  # a declaration is answered before it is on disk
        for kill in (False, True):
            if kill:
                node.kill()
            else:
                await node.stop_app()
            self.assertEqual((node.answers(), node.running), (False, not kill))
            meanwhile = [cluster.echo.echo(f"while it was away {number}") for number in range(20)]
            await (node.restart() if kill else node.start_app())
            self.assertEqual((node.answers(), node.port), (True, port))
            self.assertEqual(await gatherResults(meanwhile), [f"while it was away {number}" for number in range(20)])
            self.assertEqual(await cluster.echo.echo("after"), "after")
        await amqp(container).publisher.declare(Queue("kept", passive=True))
