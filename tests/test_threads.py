"""Methods with ``blocking=True``: what runs in a thread, and how it asks the reactor."""

from __future__ import annotations

import sys
import threading
from typing import Any

from twisted.application.service import Service as TwistedService
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.recording import Case, variable
from txservices.containers import ServiceContainer, in_reactor
from txservices.exceptions import CallerGone, ContainerBeingKilled
from txservices.extensions import Entrypoint
from txservices.threads import OneThread


class Threads(Case):
    """Methods with ``blocking=True``."""

    def setUp(self) -> None:
        super().setUp()
        self.ended: Deferred[Any] = Deferred()
        self.container.on_worker_ended.append(lambda ctx, result, exc_info: self.ended.callback((result, exc_info)))

    async def test_thread(self) -> None:
        """The method runs in a thread; its dependencies and its entrypoint are called in the reactor's."""
        hooks: list[threading.Thread] = []
        worker_ctx = self.spawn(
            "block",
            lambda service: threading.current_thread(),
            setup_one=lambda: hooks.append(threading.current_thread()),
            teardown_one=lambda: hooks.append(threading.current_thread()),
        )
        self.assertTrue(worker_ctx.blocking)
        self.assertEqual(self.container.workers.running, 1)
        result, _ = await self.ended
        here = threading.current_thread()
        self.assertIsNot(result, here)
        self.assertEqual(hooks, [here, here])

    def test_method_of_that_name(self) -> None:
        """A method that is called ``blocking`` has none of the service's methods run in a thread."""

        class Service:
            name = "service"

            @Entrypoint.decorator
            def blocking(self) -> None:
                pass

        self.assertEqual([each.blocking for each in ServiceContainer(Service, {}).entrypoints], [False])

    async def test_in_reactor(self) -> None:
        """A thread that asks something of the reactor waits for it, and gets the answer."""

        async def ask(value: int, more: int) -> Any:
            return threading.current_thread(), value + more

        self.spawn("block", lambda service: in_reactor(ask, 1, more=2))
        result, _ = await self.ended
        self.assertEqual(result, (threading.current_thread(), 3))

    async def test_errors(self) -> None:
        """An error comes to the thread, and from the thread to the entrypoint; SystemExit is no exception."""
        for does, kind in (
            (lambda service: in_reactor(lambda: fail(KeyError("k"))), KeyError),
            (lambda service: sys.exit(1), SystemExit),
        ):
            self.spawn("block", does)
            _, exc_info = await self.ended
            self.assertEqual(exc_info[0], kind)
            self.assertEqual(len(self.flushLoggedErrors(kind)), 1)
            self.ended = Deferred()

    def test_elsewhere(self) -> None:
        """In the reactor's own thread waiting would be for ever, and is refused."""
        self.assertIn("blocking = True", str(self.assertRaises(RuntimeError, in_reactor, lambda: None)))

    async def test_context_variables(self) -> None:
        """The thread sees the worker's context variables."""
        self.spawn("block", lambda service: variable.get(), setup_one=lambda: variable.set("mine") and None)
        self.assertEqual((await self.ended)[0], "mine")

    async def test_aborted(self) -> None:
        """A thread that waits for the reactor gets an error when it is given up, and at every call from then on."""
        asked: Deferred[None] = Deferred()
        done: Deferred[list[Any]] = Deferred()

        def wait_for_ever() -> Deferred[Any]:
            asked.callback(None)
            return Deferred()

        def does(service: Any) -> None:
            from twisted.internet import reactor

            errors: list[Any] = []
            for call in (wait_for_ever, lambda: None):
                try:
                    in_reactor(call)
                except Exception as error:
                    errors.append(type(error))
            reactor.callFromThread(done.callback, errors)

        self.spawn("block", does)
        await asked
        await self.container.kill()
        self.assertEqual(await done, [CancelledError, ContainerBeingKilled])
        self.assertEqual(self.handled, [])

    def test_kill_waits(self) -> None:
        """A kill has ended when the threads have heard of it."""
        told: Deferred[None] = Deferred()
        self.patch(self.container.workers.threads, "abort", lambda: told)
        killing = self.container.kill()
        self.assertNoResult(killing)
        told.callback(None)
        self.successResultOf(killing)

    async def test_caller_gone(self) -> None:
        """A worker in a thread goes on although its caller has gone."""
        go = threading.Event()
        worker = self.spawn("block", lambda service: go.wait(5))
        self.assertFalse(self.container.workers.abort_worker(worker, CallerGone("its caller has gone")))
        go.set()
        self.assertEqual(await self.ended, (True, None))


class Pool(TestCase):
    """The reactor's threads."""

    def test_threads(self) -> None:
        """A service with blocking methods adds as many threads as it has workers, while it runs."""
        from twisted.internet import reactor

        class Blocking:
            name = "blocking"
            blocking = True

            @Entrypoint.decorator
            def method(self) -> None:
                in_reactor(lambda: None)

        pool = reactor.getThreadPool()
        before = pool.max
        container = ServiceContainer(Blocking, {"max_workers": 7})
        self.successResultOf(container.start())
        self.assertEqual(pool.max, before + 7)
        self.successResultOf(container.stop())
        self.assertEqual(pool.max, before)
        container = ServiceContainer(Blocking, {"max_workers": 7})
        closing: Deferred[None] = Deferred()
        slow: Any = TwistedService()
        slow.stopService = lambda: closing
        container.shared.get("slow", lambda: slow)
        self.successResultOf(container.start())
        container.stop()
        container.kill()
        closing.callback(None)
        self.assertEqual(pool.max, before)  # they are given back once

    def test_no_threads(self) -> None:
        """A service without blocking methods takes no thread from the others, and gives none back."""
        from twisted.internet import reactor

        pool = reactor.getThreadPool()
        before = pool.max
        for end in (ServiceContainer.stop, ServiceContainer.kill):
            container = ServiceContainer(type("Plain", (), {"name": "plain"}), {"max_workers": 7})
            self.successResultOf(container.start())
            self.successResultOf(end(container))
            self.assertEqual(pool.max, before)


class OneThreadForSeveral(TestCase):
    """``OneThread``."""

    async def test_in_turn(self) -> None:
        """What is given to it is called in one thread, in its order; an error ends only its own call."""
        one = OneThread()
        thread = threading.Thread(target=one.serve, daemon=True)
        calls = [one.run(each, (), {}) for each in (threading.get_ident, lambda: 1 // 0, threading.get_ident)]
        one.end()
        thread.start()
        first = await calls[0]
        await self.assertFailure(calls[1], ZeroDivisionError)
        self.assertEqual((first, await calls[2]), (one.ident, one.ident))
        self.assertNotEqual(first, threading.get_ident())
        await deferToThread(thread.join)
