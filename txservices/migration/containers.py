"""Containers for services that were written for nameko: each worker is wholly in one thread, hooks included.

In nameko a worker is a green thread: the hooks of its dependencies, its method and what these put in a thread's locals
are all there. So it is here, with a real thread:

    live (in the reactor)  ->  WorkerThread: get_dependency, worker_setup, method, handle_result, worker_result, …

Extensions of ours are called in the reactor, as ever. An extension that builds on nothing of ours but the base classes
is somebody else's, and may wait anywhere: all of it is called in threads, from which it may call its container.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from functools import partial
from typing import Any, Generic

from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import blockingCallFromThread
from twisted.logger import Logger
from twisted.python import threadable
from twisted.python.failure import Failure

from txservices import containers, extensions
from txservices.containers import get_service_name as get_service_name
from txservices.exceptions import ContainerBeingKilled
from txservices.extensions import (
    DependencyProvider,
    Entrypoint,
    ExcInfo,
    Extension,
    HandleResult,
    SharedExtension,
    iter_extensions,
)
from txservices.extensions import WorkerContext as WorkerContext
from txservices.extensions import new_call_id as new_call_id
from txservices.migration.extensions import ProviderCollector
from txservices.migration.green import thread as green
from txservices.migration.green import timeout as green_timeout
from txservices.migration.settings import config as process_config
from txservices.migration.waiting import in_reactor, waits
from txservices.migration.workerthreads import WorkerPool, WorkerThread
from txservices.shared import SharedServices
from txservices.threads import Threads
from txservices.utils import default_reactor, tasks
from txservices.workers import Workers

__all__ = ["ServiceContainer", "WorkerContext", "get_container_cls", "get_service_name", "new_call_id"]

BASES = (
    Extension,
    SharedExtension,
    DependencyProvider,
    Entrypoint,
    extensions.ProviderCollector,
    ProviderCollector,
    Generic,
    object,
)

log = Logger()

worker_thread: ContextVar[WorkerThread | None] = ContextVar("worker_thread", default=None)


def is_foreign(thing: Any) -> bool:
    """Whether an extension builds on nothing of ours but the base classes, or a function is not one of ours."""
    if inspect.isfunction(thing):
        return not is_of_ours(thing)
    return all(cls in BASES or not is_of_ours(cls) for cls in type(thing).__mro__)


def is_of_ours(thing: Any) -> bool:
    """Whether we have written a function or a class."""
    return str(thing.__module__).startswith("txservices.")


def holds_ours(extension: Extension) -> bool:
    """Whether there is an extension of ours inside it, which only the reactor's thread may touch."""
    return any(not is_foreign(inner) for inner in iter_extensions(extension))


class OneThreadEach(Threads):
    """The threads of a container's workers. A method runs in that of its worker.

    What a worker leaves behind, as the body of a response, runs in any thread.
    """

    def run(self, method: Callable[..., Any], args: Any, kwargs: Any) -> Deferred[Any]:
        thread = worker_thread.get()
        if thread is None or thread.ended:
            return super().run(method, args, kwargs)
        return thread.call(method, *args, **kwargs)

    def wait(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return green_timeout.in_time(
            lambda give_up: blockingCallFromThread(
                default_reactor(), lambda: give_up(self.call(function, args, kwargs))
            )
        )


class WorkersInThreads(Workers):
    """The workers of one container, each in a thread of its own with its foreign hooks."""

    threads_cls = OneThreadEach
    container: ServiceContainer

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.by_worker: dict[WorkerContext, WorkerThread] = {}

    def learn(self, dependencies: list[DependencyProvider]) -> None:
        super().learn(dependencies)
        foreign = {each.attr_name for each in dependencies if is_foreign(each)}
        self.injections = [
            (name, partial(self.in_thread, hook) if name in foreign else hook) for name, hook in self.injections
        ]
        self.setups = [lambda worker_ctx: self.in_thread(self.container._worker_setup, worker_ctx)]
        self.results = [(0, lambda *outcome: self.in_thread(self.container._worker_result, *outcome))]
        self.teardowns = [(0, lambda worker_ctx: self.in_thread(self.container._worker_teardown, worker_ctx))]

    def in_thread(self, hook: Callable[..., Any], worker: WorkerContext, *args: Any) -> Any:
        """Call a hook in the worker's thread. One that runs in the reactor calls all its hooks there."""
        thread = worker_thread.get()
        if thread is None:
            return hook(worker, *args)
        if not self.cancelled:
            return thread.call(hook, worker, *args)
        # a killed worker's method may still hold the thread: nobody waits for what comes after it
        thread.call(with_service, worker, worker.service, hook, *args).addErrback(hook_of_killed_failed, worker)
        return None

    async def live(self, worker: WorkerContext, waited: float) -> None:
        if not worker.blocking:
            await super().live(worker, waited)
            return
        self.by_worker[worker] = thread = WorkerThread(self.threads)
        worker_thread.set(thread)
        try:
            await super().live(worker, waited)
        finally:
            del self.by_worker[worker]
            thread.end()


class ServiceContainer(containers.ServiceContainer):
    """nameko's: a service whose class doesn't say ``blocking`` is blocking, and what gives Deferreds in the reactor
    waits in every other thread."""

    workers_cls = WorkersInThreads
    workers: WorkersInThreads

    def __init__(
        self,
        service_cls: type[Any],
        config: Mapping[str, Any] | None = None,
        shared: SharedServices | None = None,
        clock: Any = None,
    ) -> None:
        block_by_default(service_cls)
        super().__init__(service_cls, process_config if config is None else config, shared, clock)
        self.workers.container = self
        self.hooks = OneThreadEach()  # the threads of extensions; they may call the reactor until all has ended

    start = waits(containers.ServiceContainer.start)
    stop = waits(containers.ServiceContainer.stop)
    wait = waits(containers.ServiceContainer.wait)

    def kill(self, failure: Any = None) -> Any:
        """nameko's ``kill(exc_info)``, or ours with a failure."""
        if isinstance(failure, tuple):
            failure = failure[1]
        return in_reactor(super().kill, failure)

    def spawn_worker(
        self,
        entrypoint: Entrypoint,
        args: Iterable[Any],
        kwargs: Mapping[str, Any],
        context_data: dict[str, Any] | None = None,
        handle_result: HandleResult | None = None,
    ) -> WorkerContext:
        """See ``extensions.Container``. Outside the reactor it returns when the worker has begun."""
        if handle_result is not None and entrypoint.blocking and is_foreign(owner_of(handle_result)):
            handle_result = partial(self.workers.in_thread, returns_both(handle_result))
        spawn = partial(super().spawn_worker, entrypoint, args, kwargs, context_data, handle_result)
        if threadable.isInIOThread():
            return spawn()
        spawned: WorkerContext = in_reactor(self.spawn_in_turn, entrypoint, spawn)
        return spawned

    def spawn_in_turn(self, entrypoint: Entrypoint, spawn: Callable[[], WorkerContext]) -> Deferred[WorkerContext]:
        """Fires with the worker when it has begun, which is now if there is a place for it."""
        if self.workers.cancelled:
            raise ContainerBeingKilled()
        spawned: Deferred[WorkerContext] = Deferred()
        self.workers.wait(entrypoint, lambda: spawned.callback(spawn()))
        self.workers.begin_queued()
        return spawned

    def spawn_managed_thread(self, function: Callable[[], Any], identifier: str | None = None) -> Any:
        """nameko's: run a plain function in a thread. Gives a ``green.thread.GreenThread``.

        An error in it kills the container. When the container ends, the thread gets ``GreenletExit`` where it waits for
        something of eventlet's; else it is left alone, and Python doesn't wait for it.
        """
        if inspect.iscoroutinefunction(function) or (not is_foreign(owner_of(function)) and threadable.isInIOThread()):
            return self.spawn_managed(function, identifier)
        thread = green.GreenThread(function, (), {}, self.hooks, name=identifier)
        ended: Deferred[Any] = Deferred(lambda _: thread.kill())
        in_reactor(self.manage, ended, identifier)
        thread.link(lambda _: default_reactor().callFromThread(fire, ended, thread.outcome()))
        thread.begin()
        return thread

    def manage(self, ended: Deferred[Any], identifier: str | None) -> None:
        self.spawn_managed(lambda: ended, identifier)

    def call_extension(self, extension: Extension, method: str) -> Deferred[Any]:
        if not is_foreign(extension) or holds_ours(extension):
            return super().call_extension(extension, method)
        hook = getattr(extension, method)
        if getattr(hook, "__func__", None) in (getattr(base, method, None) for base in BASES):
            return succeed(None)  # it has none of its own
        return self.hooks.run(hook, (), {}).addCallback(awaited)

    async def close(self) -> None:
        self.hooks.cancelled = True
        self.hooks.abort()
        await super().close()

    # What runs in a worker's thread

    def _worker_setup(self, worker_ctx: WorkerContext) -> None:
        """Call ``worker_setup`` of each dependency. Packages that instrument nameko wrap this."""
        for each in self.dependencies:
            self.call_hook(each, each.worker_setup, worker_ctx)

    def _worker_result(self, worker_ctx: WorkerContext, result: Any = None, exc_info: ExcInfo | None = None) -> None:
        """Call ``worker_result`` of each dependency. Packages that instrument nameko wrap this."""
        for each in self.dependencies:
            if was_injected(each, worker_ctx):
                self.call_hook(each, each.worker_result, worker_ctx, result, exc_info, safely=True)

    def _worker_teardown(self, worker_ctx: WorkerContext) -> None:
        """Call ``worker_teardown`` of each dependency."""
        for each in self.dependencies:
            if was_injected(each, worker_ctx):
                self.call_hook(each, each.worker_teardown, worker_ctx, safely=True)

    @property
    def _worker_pool(self) -> WorkerPool:
        return WorkerPool(self.workers)

    @property
    def _worker_threads(self) -> Mapping[WorkerContext, WorkerThread]:
        return dict(self.workers.by_worker)  # of this moment: it is read in other threads

    @property
    def extensions(self) -> Any:
        """All extensions, as a set that keeps their order."""
        return dict.fromkeys(super().extensions).keys()

    def call_hook(
        self,
        extension: DependencyProvider,
        hook: Callable[..., Any],
        worker_ctx: WorkerContext,
        *args: Any,
        safely: bool = False,
    ) -> None:
        try:
            if not is_foreign(extension) and ours_has(extension, hook.__name__):
                in_reactor(hook, worker_ctx, *args)
                return
            result = hook(worker_ctx, *args)
            if inspect.isawaitable(result):
                in_reactor(awaited, result)
        except BaseException as error:
            if not safely:
                raise
            in_reactor(self.workers.hook_failed, worker_ctx, hook, error)


def ours_has(extension: Extension, hook: str) -> bool:
    """Whether a class of ours below the base classes has that hook, which then only the reactor's thread may call."""
    return any(hook in vars(cls) for cls in type(extension).__mro__ if cls not in BASES and is_of_ours(cls))


def fire(deferred: Deferred[Any], outcome: Any) -> None:
    if not deferred.called:
        deferred.callback(outcome)


def awaited(result: Any) -> Any:
    """The result of a foreign hook, waited for if it is a coroutine or a Deferred."""
    return tasks.run(result) if inspect.iscoroutine(result) else result


def with_service(worker_ctx: WorkerContext, service: Any, hook: Callable[..., Any], *args: Any) -> None:
    """Call a hook of a worker that has been killed, and has let go of its service since."""
    worker_ctx.service = service
    try:
        hook(worker_ctx, *args)
    finally:
        worker_ctx.service = None


def hook_of_killed_failed(failure: Failure, worker_ctx: WorkerContext) -> None:
    if not failure.check(ContainerBeingKilled):  # it wanted something of the reactor, too late
        log.failure("error in a hook of {worker}, which was killed", failure, worker=worker_ctx)


def was_injected(provider: DependencyProvider, worker_ctx: WorkerContext) -> bool:
    return provider.attr_name in vars(worker_ctx.service)


def owner_of(function: Any) -> Any:
    """The object that a function is a method of; the function itself if it is no method."""
    while isinstance(function, partial):
        function = function.func
    return getattr(function, "__self__", function)


def returns_both(handle_result: HandleResult) -> HandleResult:
    """nameko takes a ``handle_result`` that returns nothing to have changed nothing."""

    def handle(worker_ctx: WorkerContext, result: Any = None, exc_info: ExcInfo | None = None) -> Any:
        handled = handle_result(worker_ctx, result, exc_info)
        return (result, exc_info) if handled is None else handled

    return handle


def block_by_default(service_cls: type[Any]) -> None:
    """Have the class run in threads if neither it nor a base says anything of that."""
    if not hasattr(service_cls, "blocking"):
        service_cls.blocking = True


def get_container_cls(config: Mapping[str, Any] | None = None) -> type[Any]:
    """``ServiceContainer``, or the class that ``SERVICE_CONTAINER_CLS`` names in its place."""
    found = containers.get_container_cls(process_config if config is None else config)
    return ServiceContainer if found is containers.ServiceContainer else found
