"""Containers of services that were written for nameko: what packages find in them, and in which thread it runs."""

from __future__ import annotations

import threading
import traceback
from functools import partial
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.python import threadable

from tests.services import ServicesCase
from txservices.events import EventDispatcher, event_handler
from txservices.exceptions import ContainerBeingKilled
from txservices.extensions import Container, DependencyProvider, WorkerContext
from txservices.migration.containers import ServiceContainer
from txservices.rpc import rpc
from txservices.testing.services import dummy
from txservices.testing.waiting import Heard

OURS = "txservices.migration.containers.ServiceContainer"


class Log(EventDispatcher):
    """An extension that builds on one of ours, and dispatches from its hooks."""

    def worker_setup(self, worker_ctx: WorkerContext) -> None:
        self.get_dependency(worker_ctx)("begins", threadable.isInIOThread())

    async def worker_teardown(self, worker_ctx: WorkerContext) -> None:
        worker_ctx.service.torn_down.callback(threadable.isInIOThread())


class Torn(DependencyProvider[threading.Event]):
    """Notes the services whose workers were torn down."""

    def __init__(self) -> None:
        self.entered: Deferred[None] = Deferred()
        self.torn: Deferred[Any] = Deferred()
        self.gate = threading.Event()

    def get_dependency(self, worker_ctx: WorkerContext) -> Any:
        return self

    def worker_teardown(self, worker_ctx: WorkerContext) -> None:
        reactor.callFromThread(self.torn.callback, worker_ctx.service)


class Adds(DependencyProvider[None]):
    """Gives the class a method with an entrypoint."""

    def bind(self, container: Container, name: str | None = None) -> Any:
        def added(service: Any) -> str:
            return f"added by {name}"

        container.service_cls.added = rpc(added)
        return super().bind(container, name)


class Containers(ServicesCase):
    """In a test's own process."""

    async def container(self, service_cls: type) -> ServiceContainer:
        (container,) = await self.start(service_cls, SERVICE_CONTAINER_CLS=OURS)
        assert isinstance(container, ServiceContainer)
        return container

    async def test_hooks_of_subclasses(self) -> None:
        """A hook of a worker that a subclass of ours overrides may wait, for it runs in the worker's thread."""
        torn_down: Deferred[bool] = Deferred()
        done = torn_down

        class Service:
            name = "service"
            log = Log()
            torn_down = done

            @rpc
            def work(self) -> bool:
                return bool(threadable.isInIOThread())

        heard = Heard()

        class Listener:
            name = "listener"

            @event_handler("service", "begins")
            def hear(self, in_reactor: bool) -> None:
                heard(in_reactor)

        await self.start(Listener)
        await self.container(Service)
        cluster = await self.cluster()
        self.assertFalse(await cluster.service.work())
        self.assertEqual(await heard.wait(), [False])
        self.assertTrue(await torn_down)  # it is async, so the reactor runs it

    async def test_killed_in_a_method(self) -> None:
        """A worker that is killed while its method waits is torn down when that has ended, with its service."""

        class Service:
            name = "service"
            torn = Torn()

            @rpc
            def work(self) -> None:
                reactor.callFromThread(self.torn.entered.callback, None)
                self.torn.gate.wait()

        container = await self.container(Service)
        cluster = await self.cluster()
        call = cluster.service.work()
        (torn,) = container.dependencies
        self.addCleanup(torn.gate.set)  # whatever fails, the thread ends
        await torn.entered
        (worker,) = container._worker_threads
        service = worker.service
        killed = container.kill()
        torn.gate.set()
        self.assertIs(await torn.torn, service)
        self.assertIsInstance(service, Service)
        await killed
        call.addErrback(lambda _: None)

    async def test_pool(self) -> None:
        """``_worker_pool`` counts the workers, and ``_worker_threads`` has the thread of each, and what that runs."""

        class Service:
            name = "service"
            torn = Torn()

            @rpc
            def work(self) -> None:
                reactor.callFromThread(self.torn.entered.callback, None)
                self.torn.gate.wait()

        container = await self.container(Service)
        pool = container._worker_pool
        self.assertEqual((pool.size, pool.running(), pool.free(), pool.waiting()), (10, 0, 10, 0))
        cluster = await self.cluster()
        call = cluster.service.work()
        (torn,) = container.dependencies
        self.addCleanup(torn.gate.set)  # whatever fails, the thread ends
        await torn.entered
        self.assertEqual((pool.running(), pool.free()), (1, 9))
        ((worker, thread),) = container._worker_threads.items()
        self.assertEqual(worker.entrypoint.method_name, "work")
        self.assertIn(" in work", "".join(traceback.format_stack(thread.gr_frame)))
        torn.gate.set()
        await call
        await container.stop()
        self.assertIsNone(thread.gr_frame)
        self.assertFalse(container._worker_threads)

    async def test_added_methods(self) -> None:
        """A dependency may add methods to the class as it is bound, whatever the order of its attributes."""

        class Service:
            name = "service"
            adds = Adds()

        await self.start(Service)
        cluster = await self.cluster()
        self.assertEqual(await cluster.service.added(), "added by adds")


class Spawning(ServicesCase):
    """``spawn_worker`` from outside the reactor's thread."""

    async def test_in_turn(self) -> None:
        """It returns when the worker has begun: at once while there is a place, else after those that wait already."""
        turns: list[Deferred[None]] = [Deferred() for _ in range(4)]
        begun: list[int] = []

        class Service:
            name = "service"
            blocking = False

            @dummy
            def wait(self, number: int) -> Deferred[None]:
                begun.append(number)
                return turns[number]

        threadable.registerAsIOThread()  # as the reactor does when it runs, which it may not have by now
        container = ServiceContainer(Service, {**self.config, "max_workers": 1})
        self.addCleanup(container.kill)
        await container.start()
        (entrypoint,) = container.entrypoints

        def spawn(number: int) -> WorkerContext:
            return super(ServiceContainer, container).spawn_worker(entrypoint, (number,), {})

        def spawn_in_turn(number: int) -> Deferred[WorkerContext]:
            return container.spawn_in_turn(entrypoint, partial(spawn, number))

        first: Any = await deferToThread(container.spawn_worker, entrypoint, (0,), {})
        self.assertEqual((first.args, begun), ((0,), [0]))
        spawn(1)
        waiting = [spawn_in_turn(2), spawn_in_turn(3)]
        for number in (0, 1):
            self.assertNoResult(waiting[0])
            turns[number].callback(None)
        self.assertEqual(self.successResultOf(waiting[0]).args, (2,))
        self.assertNoResult(waiting[1])
        turns[2].callback(None)
        self.successResultOf(waiting[1])
        turns[3].callback(None)
        self.assertEqual((begun, container.workers.running), ([0, 1, 2, 3], 0))
        container.workers.cancel()
        self.assertRaises(ContainerBeingKilled, spawn_in_turn, 0)
