"""Services on asyncio's reactor. `tests.test_asyncio` runs these, with `trial --reactor asyncio`."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol

from tests.on_asyncio import WAITS, both, deferred, fired, later, never, sleep, turns, variable, wrap
from tests.services import ServicesCase
from txservices import containers, workers
from txservices.containers import in_reactor
from txservices.events import EventDispatcher, event_handler
from txservices.exceptions import RemoteError, WorkerTimeout
from txservices.extensions import DependencyProvider
from txservices.rpc import RpcProxy, rpc
from txservices.testing.waiting import Heard
from txservices.timer import timer
from txservices.utils.retry import retry
from txservices.web.handlers import HttpRequestHandler, http


class Noting(DependencyProvider):
    """Waits for asyncio in each of its hooks, and notes them with the Task they are in."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.tasks: dict[Any, set[Any]] = {}

    async def note(self, name: str, worker_ctx: Any = None) -> None:
        await asyncio.sleep(0)
        self.calls.append(name)
        if worker_ctx is not None:
            self.tasks.setdefault(worker_ctx, set()).add(asyncio.current_task())

    async def setup(self) -> None:
        await self.note("setup")

    async def start(self) -> None:
        await self.note("start")

    async def stop(self) -> None:
        await self.note("stop")

    async def kill(self) -> None:
        await self.note("kill")

    async def get_dependency(self, worker_ctx: Any) -> Noting:
        await self.note("get", worker_ctx)
        return self

    async def worker_setup(self, worker_ctx: Any) -> None:
        await self.note("worker_setup", worker_ctx)

    async def worker_result(self, worker_ctx: Any, result: Any = None, exc_info: Any = None) -> None:
        await self.note("worker_result", worker_ctx)

    async def worker_teardown(self, worker_ctx: Any) -> None:
        await self.note("worker_teardown", worker_ctx)


class AsyncHandler(HttpRequestHandler):
    """Has an ``async`` method of its own around the worker."""

    async def handle_request(self, request: Any) -> Any:
        await asyncio.sleep(0)
        return await super().handle_request(request)


get = AsyncHandler.decorator


heard = Heard()


class Hears(Protocol):
    """Hears in which context the reactor calls it, and disconnects."""

    def __init__(self) -> None:
        self.made: Deferred[None] = Deferred()
        self.lost: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self.made.callback(None)

    def dataReceived(self, data: bytes) -> None:
        heard(f"read, {variable.get()}")
        self.transport.loseConnection()

    def connectionLost(self, reason: Any = None) -> None:
        self.lost.callback(None)


class Shop:
    name = "shop"

    noting = Noting()
    me = RpcProxy("shop")
    dispatch = EventDispatcher()
    left: Deferred[None] = Deferred()

    @rpc
    async def wait(self, index: int) -> Any:
        return await WAITS[index]()

    @rpc
    async def call(self) -> Any:
        await asyncio.sleep(0)
        one, two = await asyncio.gather(*(wrap(self.me.wait(index)) for index in range(2)))
        return [one, two, await self.me.wait(0)]

    @rpc
    def give(self) -> Any:
        return sleep()

    @rpc
    async def fail(self) -> None:
        await asyncio.sleep(0)
        raise KeyError("no such key")

    @rpc(worker_timeout=0.01)
    async def take_long(self, way: str) -> None:
        if way == "group":
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(60))
                await Deferred()
        await {"deferred": Deferred(), "future": asyncio.get_running_loop().create_future()}[way]

    @rpc
    async def leave_traces(self) -> str:
        """Begin what goes on after this worker, and say what the one before has left."""
        found = variable.get()
        variable.set("of a worker")
        reactor.callLater(0, lambda: heard(f"delayed, {variable.get()}"))
        protocol = Hears()
        port = reactor.listenTCP(0, Factory.forProtocol(lambda: protocol), interface="127.0.0.1")
        _, writer = await asyncio.open_connection("127.0.0.1", port.getHost().port)
        await protocol.made
        await later()
        writer.write(b"x")
        await protocol.lost
        writer.close()
        await port.stopListening()
        return found

    @rpc
    async def hang(self) -> None:
        heard("hangs")
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            heard("cancelled")

    @rpc
    async def stay(self) -> None:
        heard("stays")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            heard("cancelled")
        await self.left

    @rpc(blocking=True)
    def block(self) -> Any:
        return in_reactor(sleep), asyncio.run(sleep())

    @rpc
    async def tell(self) -> None:
        await self.dispatch("sold", "late")

    @event_handler("shop", "sold")
    async def sold(self, payload: str) -> None:
        await asyncio.sleep(0)
        heard(payload)

    @timer(interval=60, eager=True)
    async def tick(self) -> None:
        await asyncio.sleep(0)
        heard("tick")

    @http("GET", "/plain")
    async def plain(self, request: Any) -> str:
        return str(await sleep())

    @get("GET", "/own")
    async def own(self, request: Any) -> str:
        return str(await sleep())


class Works(ServicesCase):
    """A service whose methods and dependencies wait for asyncio."""

    async def begin(self, **config: Any) -> Any:
        heard.things.clear()
        (self.shop,) = await self.start(Shop, **config)
        await heard.wait()
        (self.noting,) = [each for each in self.shop.dependencies if isinstance(each, Noting)]
        return (await self.cluster()).shop

    async def test_methods(self) -> None:
        """Methods wait for all that asyncio has, and for calls of services; a plain one may give its coroutine."""
        shop = await self.begin()
        for index, each in enumerate(WAITS):
            self.assertEqual(await shop.wait(index), "late", each)
        self.assertEqual(await shop.call(), ["late"] * 3)
        self.assertEqual(await shop.give(), "late")
        with self.assertRaises(RemoteError) as raised:
            await shop.fail()
        self.assertEqual(raised.exception.exc_type, "KeyError")
        self.assertEqual([failure.type for failure in self.flushLoggedErrors()], [KeyError])

    async def test_hooks(self) -> None:
        """So do hooks of dependencies; those of one worker and its method are in one Task."""
        shop = await self.begin()
        await shop.wait(0)
        await self.shop.stop()
        workers = self.noting.tasks
        one_life = ["get", "worker_setup", "worker_result", "worker_teardown"]
        self.assertEqual(self.noting.calls, ["setup", "start", *one_life * len(workers), "stop"])
        self.assertEqual([len(found) for found in workers.values()], [1] * len(workers))

    async def test_other_entrypoints(self) -> None:
        """So do the methods of timers, events and HTTP, a handler's own ``async`` method, and ``in_reactor``."""
        shop = await self.begin()
        self.assertEqual(heard.things, ["tick"])
        await shop.tell()
        self.assertEqual(await heard.wait(2), ["tick", "late"])
        for path in ("/plain", "/own"):
            response = await self.web_session().get(path)
            self.assertEqual(await response.text(), "late")
        self.assertEqual(await shop.block(), ["late", "late"])

    async def test_extensions(self) -> None:
        """So do an extension's background work, and a function that is tried again."""
        await self.begin()
        noted: list[str] = []

        @retry(for_exceptions=ConnectionError, delay=0)
        async def tries() -> None:
            await asyncio.sleep(0)
            noted.append("tried")
            if len(noted) < 3:
                raise ConnectionError

        await self.shop.spawn_managed(tries)
        self.assertEqual(noted, ["tried"] * 3)

    async def test_end_of_background_work(self) -> None:
        """Background work is cancelled at the end, and the stop waits for what it does then, but not for long."""
        for end in ("stop", "kill"):
            await self.begin()

            async def goes_on() -> None:
                try:
                    await asyncio.sleep(60)
                finally:
                    await asyncio.sleep(0)
                    heard("cleared up")

            self.shop.spawn_managed(goes_on)
            await getattr(self.shop, end)()
            self.assertEqual(heard.things, ["tick", "cleared up"])
        self.patch(containers, "TASKS_TIMEOUT", 0.01)
        await self.begin()
        stays: Deferred[None] = Deferred()

        async def stubborn() -> None:
            try:
                await never()
            finally:
                await stays

        self.shop.spawn_managed(stubborn)
        await self.shop.stop()
        self.assertEqual(len(self.shop.managed), 1)
        stays.callback(None)
        await turns()
        self.assertEqual(len(self.shop.managed), 0)

    async def test_time_is_up(self) -> None:
        """A worker that takes too long is cancelled, whatever it waits for, and its caller gets WorkerTimeout."""
        shop = await self.begin()
        for way in ("deferred", "future", *(["group"] if hasattr(asyncio, "TaskGroup") else [])):
            with self.assertRaises(WorkerTimeout):
                await shop.take_long(way)
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_freed(self) -> None:
        """A worker that has ended is freed at once, and not by the garbage collector: nothing of its Task is left."""
        shop = await self.begin()
        services: list[weakref.ref[Any]] = []
        self.shop.on_worker_ended.append(lambda ctx, result, exc_info: services.append(weakref.ref(ctx)))
        gc.disable()
        self.addCleanup(gc.enable)
        for index in (WAITS.index(sleep), WAITS.index(deferred), WAITS.index(both), WAITS.index(fired)):
            await shop.wait(index)
        self.noting.tasks.clear()
        await turns()
        self.assertEqual([each() for each in services], [None] * 4)

    async def test_contexts(self) -> None:
        """A connection and a delayed call that one worker has begun do not carry its context to another worker."""
        shop = await self.begin()
        variable_seen = await shop.leave_traces()
        await heard.wait(3)
        self.assertEqual((variable_seen, heard.things[1:]), ("unset", ["delayed, unset", "read, unset"]))
        self.assertEqual(await shop.leave_traces(), "unset")

    async def test_stop(self) -> None:
        """A stop that does not wait any longer cancels a worker's Task, lets it end, and then stops dependencies."""
        for end in ("stop", "kill"):
            shop = await self.begin(SHUTDOWN_TIMEOUT=0.01)
            calling = shop.hang()
            await heard.wait(2)
            before = len(self.noting.calls)
            await getattr(self.shop, end)()
            self.assertEqual(heard.things[1:], ["hangs", "cancelled"])
            self.assertEqual(self.noting.calls[before:], ["worker_teardown", end])
            self.assertEqual(self.flushLoggedErrors(), [])
            calling.addErrback(lambda failure: None).cancel()

    async def test_stop_ends(self) -> None:
        """A Task that goes on when it is cancelled holds up a stop for a second, and no longer."""
        shop = await self.begin(SHUTDOWN_TIMEOUT=0.01)
        self.patch(workers, "TASKS_TIMEOUT", 0.01)
        self.patch(Shop, "left", Deferred())
        shop.stay().addErrback(lambda failure: None)
        await heard.wait(2)
        await self.shop.stop()
        self.assertEqual((heard.things[1:], self.shop.workers.running), (["stays", "cancelled"], 1))
        Shop.left.callback(None)
        await turns()
        self.assertEqual(self.shop.workers.running, 0)
