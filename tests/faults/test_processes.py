"""Processes that die or are asked to go, at either end of a call, a link, a request. Numbers are the faults'."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol

from tests import processes
from tests.faults.load import LoadCase
from tests.faults.scene import Echo, until
from tests.rabbitmq import free_port
from txservices.containers import ServiceContainer
from txservices.rpc import rpc
from txservices.standalone.events import event_dispatcher
from txservices.testing.waiting import Heard
from txservices.web.handlers import http

CALLER = """
import sys
from twisted.internet import reactor
from txservices.standalone.rpc import ClusterRpcProxy

async def call():
    cluster = await ClusterRpcProxy({"AMQP_URI": sys.argv[1]}).start()
    await cluster.slow.work(int(sys.argv[2]))

from twisted.internet.defer import Deferred
reactor.callWhenRunning(lambda: Deferred.fromCoroutine(call()))
reactor.run()
"""

WITNESSED = """
import os
from twisted.internet.defer import Deferred
from txservices.rpc import RpcProxy, rpc

class Worker:
    name = "worker"
    witness = RpcProxy("witness")

    @rpc
    async def work(self, number):
        if await self.witness.tell(os.getpid(), number) == 0:
            await Deferred()  # only a kill ends this one
        return os.getpid()
"""


WAITS_FOR_BROKER = """
from twisted.internet import reactor
from twisted.internet.task import deferLater
from txservices.events import EventDispatcher, event_handler
from txservices.rpc import RpcProxy

class Worker:
    name = "worker"
    dispatch = EventDispatcher()
    slow = RpcProxy("slow")

    @event_handler("source", "told")
    async def told(self, number):
        print("told", number, flush=True)
        await deferLater(reactor, 1)
        print("publishing", flush=True)
        await self.dispatch("thought", number)

    @event_handler("source", "asked")
    async def asked(self, number):
        await self.slow.work(number)
"""

# the broker's answer, workers, an extension
IN_VAIN = r"has not answered for|are given up|has not ended .* s after"


class Deaths(LoadCase):
    """kill -9 in the middle of a call."""

    async def test_row_13_the_caller_dies(self) -> None:
        """The method runs once, its reply goes nowhere without a word, the request is acked, the service lives."""
        begun, finish = Heard(), Deferred[Any]()

        class Slow:
            name = "slow"

            @rpc
            async def work(self, number: int) -> int:
                begun(number)
                if number == 7:
                    await finish
                return number

        (container,) = await self.start(Slow)
        complaints = self.logged("(?i)error|reject|goes back")
        caller = processes.python(self, "-c", CALLER, self.config["AMQP_URI"], "7")
        await begun.wait()
        await caller.end("KILL")
        finish.callback(None)
        (consumer,) = next(each for each in container.subextensions if hasattr(each, "opened")).opened
        await consumer.drain()
        self.assertEqual(await (await self.cluster()).slow.work(8), 8)
        self.assertEqual((begun.things, complaints.things), ([7, 8], []))
        self.assertEqual((await self.depth("rpc-slow"))[0], 0)

    async def test_row_14_the_service_dies(self) -> None:
        """The call is run again by a peer, and the caller has one answer."""
        told: list[tuple[int, int]] = []
        begun = Heard()

        class Witness:
            name = "witness"

            @rpc
            def tell(self, pid: int, number: int) -> int:
                told.append((pid, number))
                begun(pid)
                return len(told) - 1

        await self.start(Witness)
        self.write(WITNESSED)
        running = list(await gatherResults([Deferred.fromCoroutine(self.instance()) for _ in range(2)]))
        answer = (await self.cluster()).worker.work(1)
        (victim,) = await begun.wait()
        (process,) = [each for each in running if each.pid == victim]
        await process.end("KILL")
        survivor = await answer
        self.assertEqual({victim, survivor}, {each.pid for each in running})
        self.assertEqual(told, [(victim, 1), (survivor, 1)])


class Goodbyes(LoadCase):
    """SIGTERM where there is nobody to say goodbye to."""

    async def goes(self, process: processes.Process, waits: int = 0) -> None:
        """Assert that it exits with 0, and that so many of its waits were in vain.

        Each wait of a stop that is in vain has a line in the log. Seconds would be those of a busy machine, too: how
        many pass is tested by a Clock, in tests/amqp/test_leaving.
        """
        began = reactor.seconds()
        self.assertEqual(await process.end("TERM"), 0)
        self.in_time(began, 5)
        self.assertEqual(len(re.findall(IN_VAIN, process.stdout + process.stderr)), waits, process)

    async def test_row_29_while_disconnected(self) -> None:
        """A service whose broker is gone, or never was there, exits with 0, and waits for nothing in vain."""
        running = await self.instance()
        await self.proxy.shut()
        waiting = self.spawn()
        await waiting.line("Trying again in")
        await running.line("Trying again in")
        for process in (running, waiting):
            await self.goes(process)

    async def test_row_29_while_disconnected_at_work(self) -> None:
        """So does one whose workers wait for the broker, for confirms and for a reply; what it could not publish is in
        its log, and the events that were under way come again to another."""
        called, over = Heard(), Deferred[Any]()

        class Slow:
            name = "slow"

            @rpc
            async def work(self, number: int) -> None:
                called(number)
                await over

        await self.start(Slow, **self.direct)
        self.addCleanup(lambda: over.callback(None) or succeed(None))
        self.write(WAITS_FOR_BROKER)
        process = await self.instance()
        dispatch = event_dispatcher(self.direct)
        self.addCleanup(dispatch.stop)
        await dispatch("source", "asked", 3)
        await called.wait()
        for number in range(3):
            await dispatch("source", "told", number)
        await process.line("told 2")
        await self.proxy.shut()
        for _ in range(2):  # each of its connections
            await process.line("Trying again in")
        await until(lambda: process.stdout.count("publishing") + process.stderr.count("publishing") >= 3)
        await self.goes(process)
        # four, where the confirm of the call was still on its way
        self.assertRegex(
            process.stdout, "did not confirm [34] messages before the stop.* 3 to 'worker.events' as 'thought'"
        )
        self.assertEqual(await self.depth("evt-source-told--worker.told"), (3, 0))
        self.assertEqual(await self.depth("evt-source-asked--worker.asked"), (1, 0))

    async def test_row_29_while_the_link_is_frozen(self) -> None:
        """A service that is connected to what does not answer waits for it once, and exits with 0."""
        running = await self.instance()
        self.proxy.freeze()
        await self.goes(running, waits=1)
        self.assertIn("has not answered for 5.0 s", running.stdout + running.stderr)


class Client(Protocol):
    """A browser."""

    def __init__(self) -> None:
        self.data = b""

    def dataReceived(self, data: bytes) -> None:
        self.data += data


class Web(LoadCase):
    """HTTP clients that leave."""

    async def test_row_35_the_client_leaves_in_the_middle_of_a_post(self) -> None:
        """The worker goes on to its end and nothing is logged; half a body that never came whole runs nothing."""
        begun, finish, done = Heard(), Deferred[Any](), Heard()

        class Site:
            name = "site"

            @http("POST", "/work")
            async def work(self, request: Any) -> str:
                begun(request.get_data(as_text=True))
                await finish
                done("worked")
                return "done"

        port = free_port()
        for service in (Site, Echo):  # not on the stage, whose HTTP has no port
            container = ServiceContainer(service, {**self.config, "WEB_SERVER_ADDRESS": f"127.0.0.1:{port}"})
            self.addCleanup(container.stop)
            await container.start()
        complaints = self.logged("(?i)error|traceback|exception")
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        head = b"POST /work HTTP/1.1\r\nHost: here\r\nContent-Length: 4\r\n\r\n"
        halfway = await endpoint.connect(Factory.forProtocol(Client))
        halfway.transport.write(head + b"bo")
        whole = await endpoint.connect(Factory.forProtocol(Client))
        whole.transport.write(head + b"body")
        await begun.wait()
        for client in (halfway, whole):
            client.transport.abortConnection()
        third = await endpoint.connect(Factory.forProtocol(Client))
        third.transport.write(head + b"more")
        await begun.wait(2)
        finish.callback(None)
        await done.wait(2)
        await until(lambda: b"done" in third.data)
        third.transport.loseConnection()
        self.assertEqual((begun.things, complaints.things), (["body", "more"], []))
