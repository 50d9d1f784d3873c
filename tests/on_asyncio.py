"""Services on asyncio's reactor. `tests.test_asyncio` runs these, with `trial --reactor asyncio tests.on_asyncio`."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import anyio
import httpx
import redis.asyncio as redis
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, fail, gatherResults, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.protocols.basic import LineReceiver
from twisted.trial.unittest import TestCase

from tests.services import ServicesCase
from tests.web.peer import Conversation
from txservices import containers, workers
from txservices.containers import ServiceContainer, in_reactor
from txservices.events import EventDispatcher, event_handler
from txservices.exceptions import RemoteError, WorkerTimeout
from txservices.extensions import DependencyProvider
from txservices.rpc import RpcProxy, rpc
from txservices.runners import run_services
from txservices.testing.waiting import Heard
from txservices.timer import timer
from txservices.utils import tasks
from txservices.utils.retry import retry
from txservices.web.eventstream import EventStream
from txservices.web.handlers import HttpRequestHandler, http

variable: ContextVar[str] = ContextVar("variable", default="unset")


async def turns() -> None:
    """Some turns of the loop."""
    for _ in range(5):
        await tasks.run(asyncio.sleep(0))


def later(seconds: float = 0.001, value: Any = "late") -> Deferred[Any]:
    return deferLater(reactor, seconds, lambda: value)


# What methods wait for -----------------------------------------------------------------------------------------------


async def sleep() -> Any:
    return await asyncio.sleep(0.001, "late")


async def next_turn() -> Any:
    await asyncio.sleep(0)
    return "late"


async def future() -> Any:
    loop = asyncio.get_running_loop()
    made = loop.create_future()
    loop.call_soon(made.set_result, "late")
    return await made


async def task() -> Any:
    return await asyncio.create_task(sleep())


async def failing_task() -> Any:
    try:
        await asyncio.create_task(raising())
    except KeyError as error:
        return error.args[0]


async def raising() -> None:
    await asyncio.sleep(0)
    raise KeyError("late")


async def gathered() -> Any:
    return (await asyncio.gather(sleep(), future()))[1]


async def wait_for() -> Any:
    return await asyncio.wait_for(sleep(), 5)


async def wait_for_too_long() -> Any:
    try:
        await asyncio.wait_for(asyncio.sleep(60), 0.001)
    except asyncio.TimeoutError:
        return "late"


async def shielded() -> Any:
    return await asyncio.shield(sleep())


async def event() -> Any:
    made = asyncio.Event()
    asyncio.get_running_loop().call_soon(made.set)
    await made.wait()
    return "late"


async def lock() -> Any:
    made = asyncio.Lock()
    await made.acquire()
    asyncio.get_running_loop().call_soon(made.release)
    async with made:
        return "late"


async def queue() -> Any:
    made: asyncio.Queue[str] = asyncio.Queue()
    asyncio.get_running_loop().call_soon(made.put_nowait, "late")
    return await made.get()


async def thread() -> Any:
    return await asyncio.to_thread(lambda: "late")


async def subprocess() -> Any:
    made = await asyncio.create_subprocess_exec(
        sys.executable, "-S", "-c", "print('late', end='')", stdout=asyncio.subprocess.PIPE
    )
    output, _ = await made.communicate()
    return output.decode()


async def streams() -> Any:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"late\n")
        line = await reader.readline()
        writer.close()
        await writer.wait_closed()
        return line.decode().strip()


async def async_generator() -> Any:
    async def each() -> Any:
        await asyncio.sleep(0.001)
        yield "late"
        await later()

    async for value in each():
        return value


async def anyio_scope() -> Any:
    with anyio.move_on_after(0.001) as scope:
        await anyio.sleep(60)
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep, 0)
    return "late" if scope.cancelled_caught else "early"


async def anyio_scope_and_deferred() -> Any:
    with anyio.move_on_after(0.001) as scope:
        await later(60)
    return "late" if scope.cancelled_caught else "early"


async def deferred() -> Any:
    return await later()


async def fired() -> Any:
    return await succeed("late")


async def failed() -> Any:
    try:
        await fail(KeyError("late"))
    except KeyError as error:
        return error.args[0]


async def failing() -> Any:
    try:
        await later().addCallback(lambda value: {}[value])
    except KeyError as error:
        return error.args[0]


async def both() -> Any:
    await asyncio.sleep(0)
    await later()
    await asyncio.create_task(asyncio.sleep(0))
    return await later()


async def deferred_in_task() -> Any:
    """A Deferred is asyncio's own to await only as a future."""
    return await asyncio.create_task(wrap(later()))


async def wrap(waits: Deferred[Any]) -> Any:
    return await waits.asFuture(asyncio.get_running_loop())


WAITS: list[Callable[[], Awaitable[Any]]] = [
    sleep, next_turn, future, task, failing_task, gathered, wait_for, wait_for_too_long, shielded, event, lock, queue,
    thread, subprocess, streams, async_generator, anyio_scope, anyio_scope_and_deferred, deferred, fired, failed,
    failing, both, deferred_in_task,
]  # fmt: skip

if sys.version_info >= (3, 11):

    async def timeout_of_a_deferred() -> Any:
        waits: Deferred[Any] = Deferred()
        try:
            async with asyncio.timeout(0.001):
                await waits
        except TimeoutError:
            current: Any = asyncio.current_task()
            return "late" if waits.called and not current.cancelling() else "early"

    async def timeout_of_a_future() -> Any:
        try:
            async with asyncio.timeout(0.001):
                await asyncio.get_running_loop().create_future()
        except TimeoutError:
            return "late"

    async def in_time() -> Any:
        async with asyncio.timeout(60):
            return await later()

    async def group() -> Any:
        async with asyncio.TaskGroup() as made:
            made.create_task(asyncio.sleep(0))
            one = made.create_task(sleep())
            await later()
        return one.result()

    async def failing_group() -> Any:
        waits: Deferred[Any] = Deferred()
        try:
            async with asyncio.TaskGroup() as made:
                made.create_task(raising())
                await waits
        except Exception as raised:
            if type(raised).__name__ != "ExceptionGroup":
                raise
            return "late" if waits.called else "early"

    WAITS += [timeout_of_a_deferred, timeout_of_a_future, in_time, group, failing_group]


class Runs(TestCase):
    """``tasks.run``, by which all coroutines of users are run, and methods."""

    async def test_what_is_waited_for(self) -> None:
        """A coroutine may wait for all that asyncio has, and for Deferreds, in any order."""
        await later()
        for each in WAITS:
            self.assertEqual(await tasks.run(each()), "late", each)

    async def test_reactor_does_not_run_yet(self) -> None:
        """What is run before the loop is waits for its first turn: also what is cancelled by then."""
        self.assertFalse(reactor._asyncioEventloop.is_running())
        before = [tasks.run(each()) for each in WAITS]
        never = tasks.run(sleep())
        never.cancel()
        self.assertEqual([await each for each in before], ["late"] * len(WAITS))
        await self.assertFailure(never, CancelledError)

    async def test_at_once(self) -> None:
        """What waits for nothing is over when the call returns, with its value or its error."""
        await later()

        async def adds(a: int, b: int) -> int:
            return await succeed(a + b)

        self.assertEqual(self.successResultOf(tasks.call(adds, 1, b=2)), 3)
        self.failureResultOf(tasks.call(adds, 1, b=""), TypeError)
        self.assertEqual(self.successResultOf(tasks.call(lambda: 3)), 3)

    async def test_task(self) -> None:
        """It is one Task from the first step to the last, which libraries find; a call inside is another one."""
        await later()
        found: list[Any] = []

        async def inner() -> None:
            found.append(asyncio.current_task())

        async def outer() -> None:
            found.append(asyncio.current_task())
            self.assertEqual(anyio.get_current_task().id, id(asyncio.current_task()))
            tasks.run(inner())
            found.append(asyncio.current_task())
            await asyncio.sleep(0)
            found.append(asyncio.current_task())
            await later()
            found.append(asyncio.current_task())

        await tasks.run(outer())
        first, inside, *others = found
        self.assertIsInstance(first, asyncio.Task)
        self.assertIsNot(first, inside)
        self.assertEqual(others, [first] * 3)
        await turns()
        self.assertEqual((first.done(), inside.done()), (True, True))
        self.assertIsNone(asyncio.current_task())

    async def test_context(self) -> None:
        """A coroutine's context variables are its own, in each of its steps and in Tasks that it makes."""
        await later()

        async def sets(name: str) -> list[str]:
            found = [variable.get()]
            variable.set(name)
            for waits in (asyncio.sleep(0), later(), asyncio.create_task(asyncio.sleep(0))):
                await waits
                found.append(variable.get())
            return found

        one, two = tasks.run(sets("one")), tasks.run(sets("two"))
        self.assertEqual((await one, await two), (["unset", *["one"] * 3], ["unset", *["two"] * 3]))
        self.assertEqual(variable.get(), "unset")

    async def test_exits(self) -> None:
        """A SystemExit in a coroutine is its error, and does not end the loop."""
        await later()

        async def leaves() -> None:
            await asyncio.sleep(0)
            raise SystemExit(3)

        await self.assertFailure(tasks.run(leaves()), SystemExit)


def never(cancel: Any = None) -> Any:
    """A Deferred that nobody fires."""
    return Deferred(cancel)


class Cancels(TestCase):
    """From Twisted's side and from asyncio's."""

    def setUp(self) -> None:
        self.noted: list[Any] = []

    async def note(self, waits: Any) -> str:
        try:
            await waits
        except BaseException as error:
            self.noted.append(type(error))
            raise
        finally:
            await asyncio.sleep(0)
            self.noted.append("end")
        return "value"

    async def test_of_a_deferred(self) -> None:
        """The wait for a Deferred gets Twisted's error, the wait for anything else asyncio's; the caller Twisted's."""
        await later()
        for waits, error in ((never(), CancelledError), (asyncio.sleep(60), asyncio.CancelledError)):
            self.noted.clear()
            running = tasks.run(self.note(waits))
            running.cancel()
            await self.assertFailure(running, CancelledError)
            self.assertEqual(self.noted, [error, "end"])

    async def test_in_a_later_step(self) -> None:
        """Likewise when it has waited before."""

        async def waits_twice(waits: Any) -> str:
            await asyncio.sleep(0)
            return await self.note(waits)

        for waits, error in ((never(), CancelledError), (asyncio.sleep(60), asyncio.CancelledError)):
            self.noted.clear()
            running = tasks.run(waits_twice(waits))
            await turns()
            running.cancel()
            await self.assertFailure(running, CancelledError)
            self.assertEqual(self.noted, [error, "end"])

    async def test_again(self) -> None:
        """A second cancel reaches what is waited for after the first."""
        await later()

        async def stubborn() -> str:
            for waits in (never(), asyncio.sleep(60), never()):
                try:
                    await waits
                except (CancelledError, asyncio.CancelledError) as error:
                    self.noted.append(type(error))
            return "end"

        running = tasks.run(stubborn())
        for _ in range(3):
            running.cancel()
            await turns()
        self.assertEqual(await running, "end")
        self.assertEqual(self.noted, [CancelledError, asyncio.CancelledError, CancelledError])

    async def test_by_asyncio(self) -> None:
        """A Task that somebody cancels gets asyncio's error, and the Deferred it waits for is cancelled."""
        for early in (True, False):
            for waits in (never(), never(lambda cancelled: cancelled.callback("anyway")), asyncio.sleep(60)):
                await later()
                self.noted.clear()
                before = asyncio.all_tasks()
                running = tasks.run(self.note(waits))
                if not early:
                    await turns()
                (task,) = asyncio.all_tasks() - before
                task.cancel()
                await self.assertFailure(running, CancelledError)
                self.assertEqual(self.noted, [asyncio.CancelledError, "end"])
                if isinstance(waits, Deferred):
                    self.assertTrue(waits.called)
                    waits.addErrback(lambda failure: failure.trap(CancelledError))

    async def test_of_itself(self) -> None:
        """A coroutine that cancels its own Task gets the error where it waits next, if it does."""
        await later()

        async def cancels(waits: Any = None) -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            if waits is not None:
                await self.note(waits)

        for waits in (never(), asyncio.sleep(60), asyncio.sleep(0)):
            self.noted.clear()
            await self.assertFailure(tasks.run(cancels(waits)), CancelledError)
            self.assertEqual(self.noted, [asyncio.CancelledError, "end"])
        await tasks.run(cancels())

    async def test_as_it_fires(self) -> None:
        """A cancel after the Deferred has fired and before the step that gets its value is no lost one."""
        await later()
        waits: Deferred[None] = Deferred()
        running = tasks.run(self.note(waits))
        await turns()
        waits.callback(None)
        running.cancel()
        await self.assertFailure(running, CancelledError)
        self.assertEqual(self.noted, [asyncio.CancelledError, "end"])


# Services -------------------------------------------------------------------------------------------------------------


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


class Streams:
    """Bodies that wait for asyncio, both ways."""

    name = "streams"

    @http("GET", "/pieces")
    async def pieces(self, request: Any) -> Any:
        for number in range(3):
            await asyncio.sleep(0)
            yield f"{number}"
            await later()

    @http("GET", "/fails")
    async def fails(self, request: Any) -> Any:
        await asyncio.sleep(0)
        raise KeyError("before the head")
        yield "never"

    @http("GET", "/events")
    async def events(self, request: Any) -> Any:
        async def silent() -> Any:
            try:
                await asyncio.sleep(60)
                yield "never"
            finally:
                await asyncio.sleep(0)
                heard("ended")

        return EventStream(silent())

    @http("POST", "/upload", stream=True)
    async def upload(self, request: Any) -> str:
        size = 0
        async for piece in request.stream:
            await asyncio.sleep(0)
            size += len(piece)
        return str(size)


class Streaming(ServicesCase):
    """What ``web.bodies`` and ``web.uploads`` send and read."""

    async def test_streams(self) -> None:
        """Pieces may wait for asyncio's futures and for Deferreds, and an error before the first is a 500."""
        await self.start(Streams)
        session = self.web_session()
        self.assertEqual(await (await session.get("/pieces")).text(), "012")
        self.assertEqual((await session.get("/fails")).code, 500)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.assertEqual(await (await session.post("/upload", data=b"x" * 300_000)).text(), "300000")

    async def test_ended(self) -> None:
        """An iterator that waits is cancelled when its client leaves, and when the service stops."""
        heard.things.clear()
        async with run_services({"WEB_SERVER_ADDRESS": "0"}, Streams) as runner:
            for end in ("leave", "stop"):
                talk = Conversation(b"GET /events HTTP/1.1\r\nHost: h\r\n\r\n")
                port = runner.containers[0].entrypoints[0].server.port
                await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), talk)
                await talk.begun
                if end == "leave":
                    talk.transport.loseConnection()
                else:
                    await runner.stop()
                self.assertEqual(await heard.wait(), ["ended"])
                heard.things.clear()
                await talk.closed


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


# Libraries ------------------------------------------------------------------------------------------------------------


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
