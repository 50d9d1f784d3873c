"""Processes that are forked in the middle of a service: they do not answer for it, and those that are meant work."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from typing import Any

from twisted.internet.utils import getProcessOutput
from twisted.trial.unittest import TestCase

from tests.services import OnRabbitMQ, ServicesCase
from tests.web.peer import converse, text
from txservices.events import EventDispatcher, event_handler
from txservices.rpc import RpcProxy, rpc
from txservices.runners import run_services
from txservices.web.handlers import http


class Other:
    """Whom a child may try to call."""

    name = "other"

    @rpc
    def echo(self, value: Any) -> Any:
        return value


def double(value: int, queue: Any) -> None:
    queue.put(2 * value)


class Forking:
    """Methods that fork, each in its way. The child's return is a mistake."""

    name = "forking"
    other = RpcProxy("other")
    dispatch = EventDispatcher()
    children: list[int] = []
    heard: list[Any] = []

    def fork(self) -> bool:
        """Whether this is the child."""
        pid = os.fork()
        if pid:
            self.children.append(pid)
        return not pid

    @rpc
    def returns(self) -> str:
        return "child" if self.fork() else "parent"

    @rpc
    def raises(self) -> str:
        if self.fork():
            raise ValueError("child")
        return "parent"

    @rpc
    def dispatches(self) -> Any:
        child = self.fork()
        dispatched = self.dispatch("told", "child" if child else "parent")
        return "child" if child else dispatched.addCallback(lambda _: "parent")

    @rpc
    async def awaits(self) -> str:
        child = self.fork()
        await self.other.echo("child" if child else "parent")
        return "child" if child else "parent"

    @rpc(blocking=True)
    def in_a_thread(self) -> str:
        return "child" if self.fork() else "parent"

    @rpc(blocking=True)
    def calls_in_a_thread(self) -> Any:
        child = self.fork()
        return self.other.echo("child" if child else "parent")

    @rpc
    def exits(self) -> str:
        if self.fork():
            os._exit(7)
        return "parent"

    @rpc
    def by_multiprocessing(self) -> int:
        context = multiprocessing.get_context("fork")
        queue = context.SimpleQueue()
        process = context.Process(target=double, args=(21, queue))
        process.start()
        result: int = queue.get()
        process.join()
        assert process.exitcode == 0
        return result

    @rpc
    def by_subprocess(self) -> str:
        return subprocess.run([sys.executable, "-c", "print(42)"], check=True, capture_output=True, text=True).stdout

    @rpc
    async def by_the_reactor(self) -> str:
        output: bytes = await getProcessOutput(sys.executable, ["-c", "print(42)"])
        return output.decode()

    @event_handler("forking", "told")
    def hear(self, data: Any) -> None:
        self.heard.append(data)


MISTAKES = ("returns", "raises", "dispatches", "awaits", "in_a_thread", "calls_in_a_thread")


class Page:
    """A page whose method forks."""

    name = "page"
    children: list[int] = []

    @http("GET", "/fork")
    def fork(self, request: Any) -> str:
        pid = os.fork()
        self.children.append(pid)
        return "parent" if pid else "child"


class HttpTests(TestCase):
    """Over TCP."""

    async def test_http(self) -> None:
        """A request is answered once, and the connection stays for the next one."""
        request = b"GET /fork HTTP/1.1\r\nHost: h\r\n\r\nGET /fork HTTP/1.0\r\n\r\n"
        async with run_services({"WEB_SERVER_ADDRESS": "0"}, Page) as runner:
            answer = await converse(runner.containers[0].entrypoints[0].server.port, request)
        self.assertEqual(answer, text("200 OK", "parent") + text("200 OK", "parent", after="Connection: close"))
        self.assertEqual([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in Page.children], [1, 1])


class ForkTests(ServicesCase):
    """In this process, on the embedded broker."""

    def setUp(self) -> None:
        super().setUp()
        Forking.children.clear()
        Forking.heard.clear()

    def ended(self) -> list[int]:
        """The exit codes of the children."""
        children, codes = list(Forking.children), []
        Forking.children.clear()
        for pid in children:
            codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        return codes

    async def test_children_that_come_back(self) -> None:
        """However a method forks, its parent alone answers, once; the child ends, and the connections go on."""
        (container, _) = await self.start(Forking, Other)
        connections = container.shared.namedServices["amqp"]
        protocols = [each.protocol for each in connections.in_use]
        replies = await self.tap("nameko-rpc")
        cluster = await self.cluster()
        for method in MISTAKES:
            self.assertEqual(await getattr(cluster.forking, method)(), "parent")
            self.assertEqual(self.ended(), [1], method)
            self.assertEqual(await cluster.other.echo(method), method)
        texts = [message.body for message in replies.things if message.properties.get("reply_to") is None]
        self.assertEqual([text for text in texts if b"child" in text], [])
        self.assertEqual(sum(b'"parent"' in text for text in texts), len(MISTAKES) + 2)  # two of them have called
        self.assertEqual(set(Forking.heard), {"parent"})
        self.assertEqual([each.protocol for each in connections.in_use], protocols)

    async def test_children_that_are_meant(self) -> None:
        """Processes that do their work and end, or become another program, work as ever."""
        (container, _) = await self.start(Forking, Other)
        connections = container.shared.namedServices["amqp"]
        protocols = [each.protocol for each in connections.in_use]
        cluster = await self.cluster()
        self.assertEqual(await cluster.forking.exits(), "parent")
        self.assertEqual(self.ended(), [7])
        self.assertEqual(await cluster.forking.by_multiprocessing(), 42)
        self.assertEqual(await cluster.forking.by_subprocess(), "42\n")
        self.assertEqual(await cluster.forking.by_the_reactor(), "42\n")
        self.assertEqual([each.protocol for each in connections.in_use], protocols)


class ForkTestsOnRabbitMQ(OnRabbitMQ, ForkTests):
    """The same with sockets."""
