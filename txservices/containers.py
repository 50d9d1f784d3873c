"""The life of a service: its extensions set up, started and stopped around its workers.

    start   setup of every extension at once; when all are set up, start of every extension at once
    stop    entrypoints take nothing new; workers finish, up to SHUTDOWN_TIMEOUT; dependencies stop; then the
            extensions inside them; then what the process shares
    kill    as stop, but workers are cancelled and everything ends at once

A worker that does not finish in time is cancelled. Its result is not handled, so its message stays unacked and goes to
another instance. An extension that does not end in time is left as it is: every stop ends. An error inside a worker
kills nothing. An error in an extension's background work (``spawn_managed``) kills the container, and the runner then
stops the process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.logger import Logger
from twisted.python.failure import Failure

from txservices import configuration
from txservices.authoring import check_class, get_service_name
from txservices.binding import bound
from txservices.exceptions import ConfigurationError, ContainerBeingKilled
from txservices.extensions import (
    Entrypoint,
    ExcInfo,
    Extension,
    HandleResult,
    SharedExtension,
    WorkerContext,
    iter_extensions,
    new_call_id,
)
from txservices.observers import observers
from txservices.safe import brief
from txservices.shared import SharedServices, observer_classes
from txservices.threads import grow_pool, in_reactor
from txservices.utils import default_reactor, import_from_path, tasks
from txservices.utils.life import ENDING, Life, State
from txservices.utils.waiting import Waiters, call_all
from txservices.workers import TASKS_TIMEOUT, Workers

__all__ = [
    "ExcInfo",
    "HandleResult",
    "ServiceContainer",
    "WorkerContext",
    "get_container_cls",
    "get_service_name",
    "in_reactor",
    "new_call_id",
]

EXTENSION_TIMEOUT = 10.0  # seconds that an extension may take for its stop
KILL_TIMEOUT = 1.0  # seconds that it may take for its kill; a second Ctrl-C leaves 3 s for all of them

NOT_RUNNING = {
    State.NEW: "it has not begun to start",
    State.STARTING: "it is starting",
    State.STOPPING: "it is stopping",
    State.KILLED: "it is ending at once",
    State.ENDED: "it has ended",
}

log = Logger()


def get_container_cls(config: Mapping[str, Any]) -> type[ServiceContainer]:
    """``ServiceContainer``, or the class that ``SERVICE_CONTAINER_CLS`` names in its place."""
    key = configuration.SERVICE_CONTAINER_CLS
    try:
        return import_from_path(key.of(config)) or ServiceContainer
    except ImportError as error:
        raise ConfigurationError(f"{key.name}: {error}: write the dotted path of a class") from error


def make_container(
    cls: type[ServiceContainer], service_cls: type[Any], config: Mapping[str, Any], shared: SharedServices, clock: Any
) -> ServiceContainer:
    """A container of that class, whose ``__init__`` may be one with nameko's two arguments."""
    container = cls.__new__(cls)
    container.given = shared, clock
    container.__init__(service_cls, config)  # type: ignore[misc]  # its class may be a user's
    return container


class ServiceContainer(Service):
    """Runs a service class: its extensions, and a worker for each call.

    Attributes:
        shared: what the process has once. If it was not given, it is this container's own, and stops with it.
        subextensions: the extensions inside dependencies and entrypoints, each shared one once.
        life: where it is between its start and its end.
        gave_up: whether a stop or a kill has gone on without a worker or an extension that did not end in time.
    """

    workers_cls: type[Workers] = Workers
    given: tuple[SharedServices | None, Any] = (None, None)  # what a runner gives besides the arguments of nameko's
    service_cls: Any = None  # these two are here for Mock(spec=ServiceContainer), which has what the class has
    clock: Any = None

    def __init__(
        self,
        service_cls: type[Any],
        config: Mapping[str, Any],
        shared: SharedServices | None = None,
        clock: Any = None,
    ) -> None:
        given_shared, given_clock = self.given
        shared = given_shared if shared is None else shared
        clock = given_clock if clock is None else clock
        configuration.check(config)
        if shared is None:  # else the runner that made it has warned
            configuration.warn_of_unknown(config)
        self.service_cls = service_cls
        self.service_name = get_service_name(service_cls)
        check_class(service_cls)
        observer_classes(config)  # to tell mistakes now, and not at the start
        self.config = config
        self.clock = default_reactor(clock)
        self.owns_shared = shared is None
        self.shared = SharedServices() if shared is None else shared
        self.shared.containers[self.service_name] = self
        self.max_workers = configuration.MAX_WORKERS.of(config) or configuration.MAX_WORKERS.default
        self.web_max_workers = configuration.WEB_MAX_WORKERS.of(config)
        self.parent_calls_tracked = configuration.PARENT_CALLS_TRACKED.of(config)
        self.shared_extensions: dict[Any, SharedExtension] = {}
        self.dependencies, self.entrypoints = bound(self)
        inner = (each for outer in (*self.dependencies, *self.entrypoints) for each in iter_extensions(outer))
        self.subextensions: list[Extension] = list(dict.fromkeys(inner))
        slow = configuration.SLOW_WORKER.of(config)
        self.workers = self.workers_cls(service_cls, self.max_workers, self.clock, slow, self.web_max_workers)
        self.workers.learn(self.dependencies)
        for each in self.entrypoints:
            if each.max_workers is not None:
                self.workers.limit(each, each.max_workers)
            if each.apart:
                self.workers.have_apart(each)

        self.managed: set[Deferred[Any]] = set()
        self.none_managed: Waiters[None] = Waiters()
        self.gave_up = False
        self.threads = 0  # by which the reactor's pool has grown
        self.life = Life(
            self,
            start=[
                self.open,
                lambda: call_all([partial(self.begin, each, "setup") for each in self.extensions]),
                lambda: call_all([partial(self.begin, each, "start") for each in self.extensions]),
            ],
            stop=[
                self.tell_shared,
                lambda: self.call_each("stop", self.entrypoints),
                self.drain,
                lambda: self.call_each("stop", self.dependencies),
                lambda: self.call_each("stop", self.subextensions),
                self.close,
            ],
            kill=[
                self.tell_cancelled,
                self.workers.cancel,
                lambda: self.call_each("kill", self.entrypoints),
                self.workers.abort,
                lambda: self.call_each("kill", [*self.dependencies, *self.subextensions]),
                self.kill_shared,
                self.close,
            ],
        )

    @property
    def extensions(self) -> list[Extension]:
        """All extensions: those inside others first, then dependencies and entrypoints."""
        return [*self.subextensions, *self.dependencies, *self.entrypoints]

    @property
    def interface(self) -> ServiceContainer:
        """The container that extensions are bound to: this one, unless a subclass gives them another."""
        return self

    @property
    def serializer(self) -> str:
        """The name of the serializer that writes, unless an extension has one of its own."""
        return configuration.SERIALIZER.of(self.config)

    @property
    def accept(self) -> list[str]:
        """The names of the serializers that are read."""
        return list(configuration.ACCEPT.of(self.config) or [self.serializer])

    @property
    def workers_aborted(self) -> bool:
        """See ``extensions.Container``."""
        return self.workers.aborted

    @property
    def on_worker_ended(self) -> list[Callable[[WorkerContext, Any, ExcInfo | None], None]]:
        """Functions that are called with each worker, its result and its exc_info when its life is over."""
        return self.workers.on_ended

    # Workers

    def spawn_worker(
        self,
        entrypoint: Entrypoint,
        args: Iterable[Any],
        kwargs: Mapping[str, Any],
        context_data: dict[str, Any] | None = None,
        handle_result: HandleResult | None = None,
    ) -> WorkerContext:
        """See ``extensions.Container``."""
        workers = self.workers
        if workers.cancelled:
            raise ContainerBeingKilled()
        worker = WorkerContext(self, None, entrypoint, args, kwargs, context_data, handle_result)
        workers.spawn(worker)
        return worker

    def spawn_managed(self, function: Callable[[], Any], identifier: str | None = None) -> Deferred[None]:
        """See ``extensions.Container``."""
        managed = tasks.call(function)
        self.managed.add(managed)

        def ended(result: Any) -> None:
            self.managed.discard(managed)
            if not self.managed:
                self.none_managed.fire(None)
            if isinstance(result, Failure) and not (self.life.state in ENDING and result.check(CancelledError)):
                log.error(
                    "{work} of {service} failed: {error!r}",
                    work=identifier or getattr(function, "__qualname__", function),
                    service=self.service_name,
                    error=result.value,
                )
                self.kill(result)

        return managed.addBoth(ended)

    spawn_managed_thread = spawn_managed  # nameko's name: threads there were green

    # Beginning

    @property
    def started(self) -> bool:
        """Whether its start has begun."""
        return self.life.state is not State.NEW

    def start(self) -> Deferred[None]:
        """Start every extension. Fires when all have started.

        Fails with the first error of an extension, or with ``CancelledError`` if the container is stopped first. After
        an error it has to be stopped or killed: some extensions may have started.
        """
        self.running = 1
        self.workers.learn(self.dependencies)  # tests replace some
        return self.life.start()

    def open(self) -> None:
        in_threads = {entrypoint.apart for entrypoint in self.entrypoints if entrypoint.blocking}
        self.threads = sum(self.web_max_workers if apart else self.max_workers for apart in in_threads)
        grow_pool(self.threads)
        self.shared.observe(self.config)
        observers.containers.append(self)
        if self.owns_shared:
            self.shared.startService()

    def begin(self, extension: Extension, method: str) -> Deferred[Any]:
        """Call ``setup`` or ``start`` of an extension. If that fails, the log says whose it was."""

        def failed(failure: Failure) -> Failure:
            if not failure.check(CancelledError, ConfigurationError):  # which say it themselves
                text = "{service}: {extension}: its {method} has failed: {error!r}"
                log.error(text, service=self.service_name, extension=extension, method=method, error=failure.value)
            return failure

        return self.call_extension(extension, method).addErrback(failed)

    def call_extension(self, extension: Extension, method: str) -> Deferred[Any]:
        """Call ``setup``, ``start``, ``stop`` or ``kill`` of an extension. Fires when it is done."""
        return tasks.call(getattr(extension, method))

    def startService(self) -> None:
        """``start``, for an application of twistd without a runner. If the start fails, the container kills itself."""
        self.start().addErrback(self.start_failed)

    def start_failed(self, failure: Failure) -> None:
        if self.life.state is State.STARTING:
            self.kill(failure)

    def not_ready(self) -> list[str]:
        """Why the service can't do its work now, a line for each reason. Empty if it can."""
        state = self.life.state
        lines = [] if state is State.RUNNING else [NOT_RUNNING[state]]
        for each in self.extensions if state in (State.STARTING, State.RUNNING) else ():
            try:
                found = each.not_ready()
                lines.extend([found] if isinstance(found, str) else map(str, found))
            except BaseException as error:  # of somebody's extension, which may not be set up yet
                if state is State.RUNNING:
                    lines.append(f"{each} can't say whether it is ready: {brief(error)}")
        return [f"{self.service_name}: {line}" for line in lines]

    # Ending

    def wait(self) -> Deferred[None]:
        """Fires when it has stopped or was killed; fails with the error that it died of."""
        return self.life.wait()

    def stop(self) -> Deferred[None]:
        """Stop in order. Fires when all has stopped, also for a second call, and never fails."""
        return self.life.stop()

    def kill(self, failure: Failure | BaseException | None = None) -> Deferred[None]:
        """End now, also in the middle of stopping; ``wait`` then fails with ``failure``. Fires when all has ended."""
        return self.life.kill(Failure(failure) if isinstance(failure, BaseException) else failure)

    def stopService(self) -> Deferred[None]:
        """``stop``."""
        return self.stop()

    def tell_shared(self) -> None:
        if self.owns_shared:
            self.shared.stopping()

    def kill_shared(self) -> None:
        if self.owns_shared:
            self.shared.killing()

    def tell_cancelled(self) -> None:
        if self.workers.under_way:
            log.warn(
                "{service} is killed: {running} workers were running and {waiting} waiting and are cancelled, and their"
                " messages go back to their queues. Running were {holders}",
                service=self.service_name,
                running=self.workers.under_way,
                waiting=self.workers.waiting,
                holders=self.workers.busy.holders(),
            )

    async def drain(self) -> None:
        """Let workers finish, the queued ones too, for up to SHUTDOWN_TIMEOUT; then take no more."""
        timeout = configuration.SHUTDOWN_TIMEOUT.of(self.config)
        drained = self.workers.drain()
        if timeout is not None:
            drained.addTimeout(timeout, self.clock)
        try:
            await drained
        except DeferredTimeout:
            self.gave_up = True
            log.warn(
                "{service}: {running} workers were running and {waiting} waiting after {timeout} s and are given up:"
                " their messages go back to their queues.{sending} Running were {holders}{stacks}",
                service=self.service_name,
                sending=f" {len(self.workers.rests)} responses were not sent to their end." * bool(self.workers.rests),
                running=self.workers.under_way,
                waiting=self.workers.waiting,
                timeout=timeout,
                holders=self.workers.busy.holders(),
                stacks=self.workers.threads.stacks(),
            )
            await self.workers.abort()
        self.workers.cancel()

    async def call_each(self, method: str, extensions: Iterable[Extension]) -> None:
        """Call ``stop`` or ``kill`` of all at once. Errors are logged: the others have to end as well."""
        state = self.life.state
        timeout = KILL_TIMEOUT if state is State.KILLED else EXTENSION_TIMEOUT

        def call(extension: Extension) -> Deferred[Any]:
            def too_late(result: Any, seconds: float) -> None:
                self.gave_up = True
                log.error(
                    "{service}: {extension} has not ended {seconds:g} s after its {method} was called: going on without"
                    " it",
                    service=self.service_name,
                    extension=extension,
                    seconds=seconds,
                    method=method,
                )

            def failed(failure: Failure) -> None:
                if self.life.state is state:  # else it was cancelled by a kill
                    text = "{service}: error in {method} of {extension}"
                    log.failure(text, failure, service=self.service_name, method=method, extension=extension)

            ending = self.call_extension(extension, method)
            return ending.addTimeout(timeout, self.clock, too_late).addErrback(failed)

        await gatherResults([call(each) for each in extensions])

    async def close(self) -> None:
        """End what is left when the extensions have ended: background work, threads, and what the process shares."""
        for managed in list(self.managed):
            managed.cancel()
        if self.managed and tasks.asyncio_loop() is not None:  # Tasks hear of it in a later turn of the loop
            await self.none_managed.wait().addTimeout(TASKS_TIMEOUT, self.clock, lambda result, seconds: None)
        self.running = 0
        if self in observers.containers:  # it may have been stopped before it started
            observers.containers.remove(self)
        grow_pool(-self.threads)
        self.threads = 0
        if self.owns_shared:
            await self.shared.stopService()

    def __repr__(self) -> str:
        return f"<ServiceContainer [{self.service_name}] at {id(self):#x}>"
