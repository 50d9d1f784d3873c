"""The helpers for one container."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.trial.unittest import SynchronousTestCase

from txservices.events import EventDispatcher, event_handler
from txservices.exceptions import ContainerBeingKilled, ExtensionNotFound
from txservices.extensions import DependencyProvider
from txservices.messaging import Publisher
from txservices.rpc import ReplyListener, RpcConsumer, RpcProxy, rpc
from txservices.testing import TestCase
from txservices.testing.services import (
    dummy,
    entrypoint_hook,
    entrypoint_waiter,
    once,
    replace_dependencies,
    restrict_entrypoints,
    worker_factory,
)
from txservices.testing.utils import get_extension
from txservices.testing.waiting import WaitResult


class Journal(DependencyProvider):
    """Keeps what happens to workers."""

    def __init__(self) -> None:
        self.lines: list[Any] = []

    def get_dependency(self, worker_ctx: Any) -> Any:
        return self.lines.append

    def worker_result(self, worker_ctx: Any, result: Any = None, exc_info: Any = None) -> None:
        self.lines.append(("result", result))

    def worker_teardown(self, worker_ctx: Any) -> None:
        self.lines.append("teardown")


class Service:
    name = "service"
    other = RpcProxy("other")
    dispatch = EventDispatcher()
    journal = Journal()

    @rpc
    def add(self, a: int, b: int) -> int:
        return a + b

    @rpc
    async def ask(self, value: Any) -> Any:
        return await self.other.answer(value)

    @rpc
    def fail(self) -> None:
        raise ValueError("no")

    @dummy
    def hang(self) -> Any:
        return Deferred()

    @event_handler("source", "type")
    def handle(self, data: Any) -> Any:
        if data == "bad":
            raise ValueError(data)
        return data


class Other:
    name = "other"

    @rpc
    def answer(self, value: Any) -> Any:
        return [value]


class HookTests(TestCase):
    """``entrypoint_hook``."""

    async def test_value(self) -> None:
        """The hook gives the very object that the method returned, when the worker is over."""
        (container, _) = await self.start(Service, Other)
        with entrypoint_hook(container, "add") as add:
            self.assertEqual(await add(1, b=2), 3)
        self.assertEqual(get_extension(container, Journal).lines, [("result", 3), "teardown"])
        with entrypoint_hook(container, "ask") as ask:
            self.assertEqual(await ask(1), [1])

    async def test_error(self) -> None:
        """The method's own exception is raised; arguments are Python's to check."""
        (container,) = await self.start(Service)
        with entrypoint_hook(container, "fail") as fail:
            await self.assertFailure(fail(), ValueError)
        with entrypoint_hook(container, "add") as add:
            await self.assertFailure(add(1), TypeError)
        self.assertEqual(len(self.flushLoggedErrors(ValueError, TypeError)), 2)

    async def test_context_data(self) -> None:
        """Context data is the worker's, and the hook's own is not changed."""
        (container,) = await self.start(Service)
        seen: list[Any] = []
        container.on_worker_ended.append(lambda worker, result, exc_info: seen.append(worker.data))
        context = {"language": "en", "call_id_stack": ["a"]}
        with entrypoint_hook(container, "add", context_data=context) as add:
            await add(1, 2)
        self.assertEqual(seen, [{"language": "en"}])
        self.assertEqual(context, {"language": "en", "call_id_stack": ["a"]})

    async def test_unknown(self) -> None:
        """A method that is no entrypoint is not found."""
        container = self.container(Service)
        with self.assertRaises(ExtensionNotFound), entrypoint_hook(container, "nothing"):
            pass

    async def test_timeout(self) -> None:
        """A waiter that waits in vain says for what; nothing of the hook stays with the container."""
        (container,) = await self.start(Service)
        with entrypoint_hook(container, "hang", timeout=0.01) as hang:
            error = await self.assertFailure(hang(), entrypoint_waiter.Timeout)
        self.assertEqual(str(error), "Timeout on service.hang after 0.01 seconds")
        self.assertEqual((container.on_worker_ended, len(container.life.waiting)), ([], 0))
        await container.kill()

    async def test_container_dies(self) -> None:
        """The hook fails with what the container died of; one that has ended takes no more."""
        (container,) = await self.start(Service)
        with entrypoint_hook(container, "hang") as hang:
            waiting = hang()
            await container.kill(KeyError("dead"))
            await self.assertFailure(waiting, KeyError)
            await self.assertFailure(hang(), ContainerBeingKilled)


class WaiterTests(TestCase):
    """``entrypoint_waiter``."""

    async def test_result(self) -> None:
        """The block ends when a worker is torn down, and then the result is there."""
        (container,) = await self.start(Service)
        async with entrypoint_waiter(container, "handle") as waited:
            self.assertRaises(WaitResult.NotReady, waited.get)
            await self.dispatch("source", "type", 1)
        self.assertEqual(waited.get(), 1)
        self.assertEqual(get_extension(container, Journal).lines[-1], "teardown")
        self.assertEqual((container.on_worker_ended, len(container.life.waiting)), ([], 0))

    async def test_error(self) -> None:
        """``get`` raises what the method did."""
        (container,) = await self.start(Service)
        async with entrypoint_waiter(container, "handle") as waited:
            await self.dispatch("source", "type", "bad")
        self.assertRaises(ValueError, waited.get)
        self.flushLoggedErrors(ValueError)

    async def test_callback(self) -> None:
        """With a callback it waits for the worker that the callback wants."""
        (container,) = await self.start(Service)

        async with entrypoint_waiter(
            container, "handle", callback=lambda worker, result, exc_info: result == 3
        ) as waited:
            for data in range(5):
                await self.dispatch("source", "type", data)
        self.assertEqual(waited.get(), 3)

    async def test_callback_fails(self) -> None:
        """An error that the callback raises is raised at the end of the block."""
        (container,) = await self.start(Service)
        with self.assertRaises(ZeroDivisionError):
            async with entrypoint_waiter(container, "handle", callback=lambda *args: 1 / 0):
                await self.dispatch("source", "type", 1)

    async def test_one_worker(self) -> None:
        """All that wait for one worker hear of it: waiters of the same method, and a hook inside them."""
        (container,) = await self.start(Service)
        async with entrypoint_waiter(container, "add", 60) as outer, entrypoint_waiter(container, "add", 60) as inner:
            with entrypoint_hook(container, "add", timeout=60) as add:
                self.assertEqual(await add(1, 2), 3)
        self.assertEqual((outer.get(), inner.get()), (3, 3))

    async def test_nested(self) -> None:
        """Blocks may be nested, each for its own method."""
        (container,) = await self.start(Service)
        cluster = await self.cluster()
        async with entrypoint_waiter(container, "add") as added, entrypoint_waiter(container, "handle") as handled:
            await self.dispatch("source", "type", "data")
            await cluster.service.add(1, 2)
        self.assertEqual((added.get(), handled.get()), (3, "data"))

    async def test_timeout(self) -> None:
        """Waiting in vain ends with nameko's words."""
        (container,) = await self.start(Service)
        with self.assertRaises(entrypoint_waiter.Timeout) as caught:
            async with entrypoint_waiter(container, "handle", timeout=0.01):
                pass
        self.assertEqual(str(caught.exception), "Timeout on service.handle after 0.01 seconds")

    async def test_block_fails(self) -> None:
        """An error in the block is raised at once."""
        (container,) = await self.start(Service)
        with self.assertRaises(KeyError):
            async with entrypoint_waiter(container, "handle"):
                raise KeyError
        self.assertEqual((container.on_worker_ended, len(container.life.waiting)), ([], 0))

    async def test_container_dies(self) -> None:
        """The block ends with what the container died of."""
        (container,) = await self.start(Service)
        with self.assertRaises(KeyError):
            async with entrypoint_waiter(container, "handle"):
                await container.kill(KeyError("dead"))

    def test_unknown(self) -> None:
        """A method that is no entrypoint is an error at once."""
        self.assertRaises(RuntimeError, entrypoint_waiter, self.container(Service), "nothing")


class FactoryTests(SynchronousTestCase):
    """``worker_factory``, and the doubles that it makes."""

    def test_doubles(self) -> None:
        """Dependencies that aren't given are doubles, whose calls give Deferreds where the real ones do."""
        service = worker_factory(Service)
        service.other.answer.return_value = 3
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(service.ask(1))), 3)
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(service.ask(1))), 3)
        service.other.answer.assert_called_with(1)
        self.assertIsInstance(service.dispatch("type", 1), Deferred)
        self.assertNotIsInstance(service.journal("line"), Deferred)
        self.assertEqual(service.add(1, 2), 3)

    def test_double_raises(self) -> None:
        """A side effect that is an exception is the failure of the Deferred; a Deferred stays what it is."""
        service = worker_factory(Service)
        service.other.answer.side_effect = ValueError
        self.failureResultOf(service.other.answer(1), ValueError)
        given = succeed(4)
        service.other.answer.side_effect = lambda value: given
        self.assertIs(service.other.answer(1), given)

    def test_call_async(self) -> None:
        """A double's ``call_async`` gives a reply at once, not a Deferred."""
        service = worker_factory(Service)
        service.other.answer.call_async.return_value.result.return_value = succeed(5)
        self.assertEqual(self.successResultOf(service.other.answer.call_async(1).result()), 5)

    def test_options(self) -> None:
        """A method with options is that method, and its double tells with which; also where calls wait in a thread."""

        class Blocking(Service):
            blocking = True

        for service_cls, value in ((Service, self.successResultOf), (Blocking, lambda result: result)):
            service = worker_factory(service_cls)
            service.other.answer.return_value = 3
            self.assertEqual(value(service.other.answer.options(timeout=5)(1)), 3)
            service.other.answer.assert_called_once_with(1)
            service.other.answer.options.assert_called_once_with(timeout=5)
            service.other.options.return_value = 4  # a method of that name
            self.assertEqual(value(service.other.options(1)), 4)

    def test_inline_callbacks(self) -> None:
        """A method written with ``inlineCallbacks`` gets values from doubles, too."""

        class Old:
            name = "old"
            publish = Publisher()

            @rpc
            @inlineCallbacks
            def method(self) -> Any:
                value = yield self.publish(1)
                return [value]

        service = worker_factory(Old)
        service.publish.return_value = "sent"
        self.assertEqual(self.successResultOf(service.method()), ["sent"])

    def test_blocking(self) -> None:
        """In a blocking service doubles give values, as dependencies do there."""

        class Blocking(Service):
            blocking = True

        service = worker_factory(Blocking)
        service.other.answer.return_value = 3
        self.assertEqual(service.other.answer(1), 3)

    def test_given(self) -> None:
        """Given values are injected, None as well; a name that is no dependency is not found."""
        self.assertEqual(worker_factory(Service, other=7).other, 7)
        self.assertIsNone(worker_factory(Service, other=None).other)
        self.assertRaises(ExtensionNotFound, worker_factory, Service, nothing=1)


class ReplaceTests(TestCase):
    """``replace_dependencies``."""

    async def test_one(self) -> None:
        """One name gives its double; what was inside the dependency is not started."""
        container = self.container(Service)
        other = replace_dependencies(container, "other")
        other.answer.return_value = "double"
        await container.start()
        with entrypoint_hook(container, "ask") as ask:
            self.assertEqual(await ask(1), "double")
        other.answer.assert_called_once_with(1)
        self.assertIsNone(get_extension(container, ReplyListener))
        self.assertIsNotNone(get_extension(container, RpcConsumer))

    def test_several(self) -> None:
        """Several names give their doubles in order."""
        other, journal = replace_dependencies(self.container(Service), "other", "journal")
        self.assertIsInstance(other("x"), Deferred)
        self.assertIsInstance(journal, MagicMock)

    async def test_given(self) -> None:
        """A keyword's value is what workers find, with no hooks of the replaced one."""
        lines: list[Any] = []
        container = self.container(Service)
        replace_dependencies(container, journal=lines.append)
        await container.start()
        with entrypoint_hook(container, "add") as add:
            await add(1, 2)
        self.assertEqual(lines, [])

    async def test_mistakes(self) -> None:
        """The same name twice, an unknown one, and a container that has started are refused."""
        container = self.container(Service)
        self.assertRaises(RuntimeError, replace_dependencies, container, "other", "other")
        self.assertRaises(RuntimeError, replace_dependencies, container, "other", other=1)
        self.assertRaises(ExtensionNotFound, replace_dependencies, container, "nothing")
        await container.start()
        self.assertRaises(RuntimeError, replace_dependencies, container, "other")


class RestrictTests(TestCase):
    """``restrict_entrypoints``."""

    async def test_left(self) -> None:
        """Only the named methods are called; a queue that only others had is not there."""
        container = self.container(Service)
        restrict_entrypoints(container, "handle")
        await container.start()
        self.assertEqual([each.method_name for each in container.entrypoints], ["handle"])
        self.assertIsNone(get_extension(container, RpcConsumer))
        async with entrypoint_waiter(container, "handle") as waited:
            await self.dispatch("source", "type", 1)
        self.assertEqual(waited.get(), 1)

    async def test_mistakes(self) -> None:
        """An unknown method and a container that has started are refused."""
        container = self.container(Service)
        self.assertRaises(ExtensionNotFound, restrict_entrypoints, container, "nothing")
        await container.start()
        self.assertRaises(RuntimeError, restrict_entrypoints, container, "add")


class OnceTests(TestCase):
    """``once`` and ``dummy``."""

    async def test_once(self) -> None:
        """``once`` calls the method at the start, with its arguments; bare, with none. ``dummy`` never does."""
        calls: list[Any] = []

        class Starter:
            name = "starter"

            @once(1, b=2, expected_exceptions=ValueError)
            def with_arguments(self, a: int, b: int) -> None:
                calls.append((a, b))
                raise ValueError

            @once
            def bare(self) -> None:
                calls.append("bare")

            @dummy
            def never(self) -> None:
                calls.append("never")

        await self.start(Starter)
        self.assertEqual(calls, [(1, 2), "bare"])
