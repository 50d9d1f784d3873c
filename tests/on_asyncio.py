"""What a method may await on asyncio's reactor, and what a cancel does to it.

`tests.test_asyncio` runs these, with `trial --reactor asyncio tests.on_asyncio`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import anyio
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from txservices.utils import tasks

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
