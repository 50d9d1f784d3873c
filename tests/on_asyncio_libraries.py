"""Libraries of asyncio's in services, on its reactor. `tests.test_asyncio` runs these."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import redis.asyncio as redis
from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineReceiver

from tests.services import ServicesCase
from txservices.containers import ServiceContainer
from txservices.exceptions import WorkerTimeout
from txservices.extensions import DependencyProvider
from txservices.rpc import rpc
from txservices.web.handlers import http


class Web:
    name = "web"

    @http("POST", "/items/<int:number>")
    async def item(self, request: Any, number: int) -> str:
        await asyncio.sleep(0)
        return f"{number} {request.get_data(as_text=True)}"


class Server(LineReceiver):
    """As much of Redis as its client needs for SET, GET and BLPOP that waits."""

    values: dict[bytes, bytes] = {}

    def connectionMade(self) -> None:
        self.words: list[bytes] = []
        self.left = 0

    def lineReceived(self, line: bytes) -> None:
        if line.startswith(b"*"):
            self.left, self.words = int(line[1:]), []
        elif not line.startswith(b"$"):
            self.words.append(line)
            if len(self.words) == self.left:
                self.answer(*self.words)

    def answer(self, command: bytes, *words: bytes) -> None:
        if command == b"GET":
            value = self.values.get(words[0])
            self.transport.write(b"$-1\r\n" if value is None else b"$%d\r\n%s\r\n" % (len(value), value))
        elif command == b"SET":
            self.values[words[0]] = words[1]
            self.transport.write(b"+OK\r\n")
        elif command != b"BLPOP":  # which waits for ever
            self.transport.write(b"+OK\r\n")


class Library(DependencyProvider):
    """A client that is made in the reactor, shared by all workers, and closed with the service."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make

    async def setup(self) -> None:
        self.client = self.make()
        await self.client.__aenter__()

    async def stop(self) -> None:
        await self.client.__aexit__(None, None, None)

    def get_dependency(self, worker_ctx: Any) -> Any:
        return self.client


class Front:
    name = "front"

    cache_port = web_port = 0
    web = Library(httpx.AsyncClient)
    cache = Library(lambda: redis.Redis(port=Front.cache_port, protocol=2))

    @rpc
    async def get(self, number: int) -> Any:
        found = await self.cache.get(f"item:{number}")
        if found is None:
            response = await self.web.post(f"http://127.0.0.1:{self.web_port}/items/{number}", content="hello")
            found = response.text.encode()
            await self.cache.set(f"item:{number}", found)
            return ["fetched", found.decode()]
        return ["cached", found.decode()]

    @rpc(worker_timeout=0.05)
    async def wait(self) -> Any:
        return await self.cache.blpop("never")


class Libraries(ServicesCase):
    """httpx and redis, in one method."""

    async def test_libraries(self) -> None:
        """A method that asks a cache and then a web server gives what they answer, for any number of calls at once."""
        web = ServiceContainer(Web, {"WEB_SERVER_ADDRESS": "127.0.0.1:0"})
        self.addCleanup(web.stop)
        await web.start()
        cache = reactor.listenTCP(0, Factory.forProtocol(Server), interface="127.0.0.1")
        self.addCleanup(cache.stopListening)
        self.patch(Front, "web_port", web.entrypoints[0].server.port)
        self.patch(Front, "cache_port", cache.getHost().port)
        await self.start(Front)
        front = (await self.cluster()).front
        self.assertEqual(
            await gatherResults([front.get(number) for number in range(20)]),
            [["fetched", f"{number} hello"] for number in range(20)],
        )
        self.assertEqual(await front.get(7), ["cached", "7 hello"])
        with self.assertRaises(WorkerTimeout):
            await front.wait()
        self.assertEqual(await front.get(8), ["cached", "8 hello"])
