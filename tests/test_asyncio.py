"""asyncio's libraries in services: on its reactor, in a process of trial's own, and what is said on another reactor."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from typing import Any

import httpx
import redis.asyncio as redis
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import TestCase

from tests import on_asyncio, processes
from tests.services import ServicesCase
from txservices.exceptions import NeedsAsyncio, RemoteError
from txservices.extensions import DependencyProvider
from txservices.rpc import rpc
from txservices.utils import tasks

WITHOUT_ASYNCIO = {
    on_asyncio.next_turn,
    on_asyncio.deferred,
    on_asyncio.fired,
    on_asyncio.failed,
    on_asyncio.failing,
}
SERVICES = ["tests.on_asyncio_services", "tests.on_asyncio_streaming", "tests.on_asyncio_libraries"]
TRACES = ["tests.monitoring.test_traces.Across", "tests.monitoring.test_traces_current"]


class OnAsyncio(TestCase):
    """The tests that need asyncio's reactor."""

    timeout = 120

    async def test_on_asyncio(self) -> None:
        """All of `tests.on_asyncio…` pass, and traces. Nothing is left of them for asyncio to complain about."""
        folder = os.path.abspath(self.mktemp())
        trial = ["-m", "twisted.trial", "--reactor", "asyncio", "--temp-directory", folder]
        # started: asyncio complains as objects go, which a forked process does not wait for
        running = processes.start(self, [sys.executable, *trial, "tests.on_asyncio", *SERVICES, *TRACES])
        self.assertEqual(await running.exit(), 0, str(running))
        self.assertRegex(running.stdout, r"PASSED \(successes=\d\d\)")
        self.assertNotRegex(running.stdout + running.stderr, "was destroyed|never (awaited|retrieved)|Traceback")


async def httpx_get() -> Any:
    async with httpx.AsyncClient() as client:
        return await client.get("http://127.0.0.1:1/")


async def redis_get() -> Any:
    return await redis.Redis(port=1, protocol=2).get("key")


async def future_of_another_loop() -> Any:
    loop = asyncio.new_event_loop()
    try:
        await loop.create_future()
    finally:
        loop.close()


# In some versions of Python these begin a Task in a loop that never runs.
BEGIN_TASKS = {on_asyncio.gathered, on_asyncio.shielded}
MISTAKEN = [each for each in on_asyncio.WAITS if each not in WITHOUT_ASYNCIO | BEGIN_TASKS]
MISTAKEN += [future_of_another_loop, httpx_get, redis_get]
SAYS = (
    r"^{} awaits something of asyncio's \(.*\), but the reactor here is \w+Reactor: write"
    " `txservices run --reactor asyncio`, or `twistd --reactor asyncio`$"
)


class Setup(DependencyProvider):
    async def setup(self) -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(1)


class NeverStarts:
    name = "never"
    it = Setup()


class Hook(DependencyProvider):
    async def worker_teardown(self, worker_ctx: Any) -> None:
        await asyncio.sleep(1)


class Shop:
    name = "shop"

    hook = Hook()

    @rpc
    async def wait(self, index: int) -> Any:
        return await on_asyncio.WAITS[index]()

    @rpc(expected_exceptions=RuntimeError)
    async def sleep(self) -> None:
        await asyncio.sleep(1)

    @rpc(blocking=True)
    def block(self) -> Any:
        return asyncio.get_running_loop()

    @rpc(blocking=True)
    def run(self) -> Any:
        return asyncio.run(on_asyncio.sleep())


class OnAnotherReactor(ServicesCase):
    """What needs asyncio's reactor says so in one line."""

    async def test_every_way(self) -> None:
        """Whatever of asyncio's is awaited, also deep in a library, the error says what to write."""
        for each in MISTAKEN:
            error = await self.assertFailure(tasks.run(each()), NeedsAsyncio)
            self.assertRegex(str(error), SAYS.format(each.__name__))
        for works in WITHOUT_ASYNCIO:
            self.assertEqual(await tasks.run(works()), "late")

    async def test_other_errors(self) -> None:
        """An error of another kind is left as it is."""

        async def raises() -> None:
            raise RuntimeError("no running water")

        async def handles() -> None:
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                raise KeyError("another")  # noqa: B904  # what Python notes by itself is no cause

        await self.assertFailure(tasks.run(raises()), RuntimeError)
        await self.assertFailure(tasks.run(handles()), KeyError)

    async def test_methods(self) -> None:
        """The caller gets that error, which names the method, and the log has it in a line without a traceback."""
        await self.start(Shop)
        shop = (await self.cluster()).shop
        for call in (shop.sleep, lambda: shop.wait(0)):
            with capturedLogs() as events, self.assertRaises(RemoteError) as raised:
                await call()
            lines = [formatEvent(each) for each in events if each["log_level"].name == "error"]
            self.assertEqual(raised.exception.exc_type, "NeedsAsyncio")
            self.assertRegex(raised.exception.value, SAYS.format(r"shop\.(sleep|wait)"))
            self.assertEqual(len(lines), 2)
            self.assertRegex(lines[0], r"^error handling worker .*: shop\.(sleep|wait) awaits something of asyncio's")
            self.assertRegex(lines[1], r"^error in a hook of worker .*: Hook.worker_teardown awaits something of")
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_threads(self) -> None:
        """A blocking method may run a loop of its own; without one its error is asyncio's."""
        await self.start(Shop)
        shop = (await self.cluster()).shop
        self.assertEqual(await shop.run(), "late")
        with self.assertRaises(RemoteError) as raised:
            await shop.block()
        self.assertEqual((raised.exception.exc_type, raised.exception.value), ("RuntimeError", "no running event loop"))
        self.assertEqual([failure.type for failure in self.flushLoggedErrors()], [RuntimeError])

    async def test_start(self) -> None:
        """A start fails with it."""
        error = await self.assertFailure(self.container(NeverStarts).start(), NeedsAsyncio)
        self.assertTrue(re.search(SAYS.format("Setup.setup"), str(error)), error)
