"""The life of a worker: one call of one method of a service.

    Workers.spawn -> [waits while max_workers run] -> live -> done

``live`` is that life from beginning to end: service_cls(), get_dependency and worker_setup of every dependency, the
method, the entrypoint's handle_result, worker_result and worker_teardown of every dependency. It is a coroutine that
is stepped by hand: where nothing waits, it is over before spawn returns, and no Deferred was made.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import ContextVar, copy_context
from functools import partial
from types import CoroutineType
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from txservices.extensions import DependencyProvider, ExcInfo, WorkerContext
from txservices.threads import Threads

WAITS = (Deferred, CoroutineType)  # what a method or a hook gives to be waited for; anything else is a value

log = Logger()
this_worker: ContextVar[WorkerContext | None] = ContextVar("this_worker", default=None)  # for the log


class Workers:
    """The workers of one container.

    Attributes:
        running: how many there are, without those that wait for their turn.
        closed: no worker begins any more, and none's result is handled.
        abandoned: some were cancelled before they ended.
        on_ended: each is called with a worker, its result and its exc_info when all is over.
    """

    def __init__(self, service_cls: type[Any], max_workers: int) -> None:
        self.service_cls = service_cls
        self.max_workers = max_workers
        self.running = 0
        self.waiting: deque[WorkerContext] = deque()
        self.beginning_waiting = False
        self.pending: set[Deferred[None]] = set()  # the lives that wait for something
        self.threads = Threads()
        self.closed = self.abandoned = False
        self.idle: list[Deferred[None]] = []
        self.on_ended: list[Callable[[WorkerContext, Any, ExcInfo | None], None]] = []
        self.learn([])

    def learn(self, dependencies: list[DependencyProvider]) -> None:
        """Note which hooks there are to call: most dependencies have one or two of the four."""
        self.injections = [(each.attr_name, each.get_dependency) for each in dependencies]
        self.setups = [each.worker_setup for each in dependencies if has(each, "worker_setup")]
        # with how many dependencies must be injected for it to be called
        self.results = [(n, each.worker_result) for n, each in enumerate(dependencies, 1) if has(each, "worker_result")]
        self.teardowns = [
            (n, each.worker_teardown) for n, each in enumerate(dependencies, 1) if has(each, "worker_teardown")
        ]

    def spawn(self, worker: WorkerContext) -> None:
        """Begin a worker, now or when its turn comes."""
        if self.running < self.max_workers:
            self.begin(worker)
        else:
            self.waiting.append(worker)

    def begin(self, worker: WorkerContext) -> None:
        self.running += 1
        context = copy_context()  # a worker's context variables are its own
        life = self.live(worker)
        try:
            waits_for = context.run(life.send, None)
        except StopIteration:
            self.ended()
            return
        pending: Deferred[None] = context.run(Deferred.fromCoroutine, go_on(life, waits_for))
        self.pending.add(pending)
        pending.addBoth(self.pending_ended, pending)
        if self.closed:  # by what the method did before it waited
            pending.cancel()

    def pending_ended(self, result: Any, pending: Deferred[None]) -> None:
        self.pending.discard(pending)
        if isinstance(result, Failure):
            log.failure("in the life of a worker", result)
        self.ended()

    def ended(self) -> None:
        self.running -= 1
        if self.waiting and not self.beginning_waiting:
            self.begin_waiting()
        if self.idle and not self.running:
            idle, self.idle = self.idle, []
            for waiter in idle:
                waiter.callback(None)

    def begin_waiting(self) -> None:
        """In a loop, and not each at the end of the one before: a thousand that don't wait are no recursion."""
        self.beginning_waiting = True
        try:
            while self.waiting and self.running < self.max_workers:
                self.begin(self.waiting.popleft())
        finally:
            self.beginning_waiting = False

    async def live(self, worker: WorkerContext) -> None:
        """A worker from beginning to end. Raises nothing."""
        this_worker.set(worker)
        result = exc_info = None
        injected = 0
        try:
            worker.service = service = self.service_cls()
            for name, get_dependency in self.injections:
                dependency = get_dependency(worker)
                if isinstance(dependency, WAITS):
                    dependency = await dependency
                setattr(service, name, dependency)
                injected += 1
            for worker_setup in self.setups:
                done = worker_setup(worker)
                if isinstance(done, WAITS):
                    await done
            method = getattr(service, worker.entrypoint.method_name)
            if worker.blocking:
                result = await self.threads.run(method, worker.args, worker.kwargs)
            else:
                result = method(*worker.args, **worker.kwargs)
            if isinstance(result, WAITS):
                if isinstance(result, Deferred):
                    keep_context(result)
                result = await result
        except BaseException as error:  # SystemExit from a method ends the call, not the process
            result, exc_info = None, self.failed(worker, error)
        if not self.closed:
            if worker.handle_result is not None:
                try:
                    handled = worker.handle_result(worker, result, exc_info)
                    if isinstance(handled, WAITS):
                        handled = await handled
                    result, exc_info = handled
                except BaseException as error:
                    result, exc_info = None, self.hook_failed(worker, worker.handle_result, error)
            for needs, worker_result in self.results:
                if needs <= injected:
                    try:
                        done = worker_result(worker, result, exc_info)
                        if isinstance(done, WAITS):
                            await done
                    except BaseException as error:
                        self.hook_failed(worker, worker_result, error)
        for needs, worker_teardown in self.teardowns:
            if needs <= injected:
                try:
                    done = worker_teardown(worker)
                    if isinstance(done, WAITS):
                        await done
                except BaseException as error:
                    self.hook_failed(worker, worker_teardown, error)
        for call in self.on_ended:
            try:
                call(worker, result, exc_info)
            except BaseException as error:
                self.hook_failed(worker, call, error)
        exc_info = None  # its traceback holds this frame

    def failed(self, worker: WorkerContext, error: BaseException) -> ExcInfo:
        """Log that a worker failed, unless it was made to."""
        reraise_if_discarded(error)
        if self.closed and isinstance(error, CancelledError):
            pass
        elif isinstance(error, worker.entrypoint.expected_exceptions):
            log.warn("(expected) error handling worker {worker}: {error!r}", worker=worker, error=error)
        else:
            log.failure(
                "error handling worker {worker}: {error}",
                Failure(error, type(error), error.__traceback__),
                LogLevel.error,
                worker=worker,
                error=error,
            )
        return type(error), error, error.__traceback__

    def hook_failed(self, worker: WorkerContext, hook: Callable[..., Any], error: BaseException) -> ExcInfo:
        reraise_if_discarded(error)
        if not (self.closed and isinstance(error, CancelledError)):
            log.failure(
                "error in {hook} of worker {worker}: {error}",
                Failure(error, type(error), error.__traceback__),
                LogLevel.error,
                hook=getattr(hook, "__qualname__", hook),
                worker=worker,
                error=error,
            )
        return type(error), error, error.__traceback__

    # The end

    def when_idle(self) -> Deferred[None]:
        """Fires when no worker runs or waits for its turn."""
        waiter: Deferred[None] = Deferred(lambda cancelled: self.idle.remove(cancelled))
        if self.running or self.waiting:
            self.idle.append(waiter)
        else:
            waiter.callback(None)
        return waiter

    def close(self) -> None:
        """Begin no more, and tell no entrypoint of a result."""
        self.closed = self.threads.closed = True

    async def abandon(self) -> None:
        """Begin no more, cancel those that run, tell no entrypoint of a result. Their dependencies are torn down."""
        self.close()
        self.abandoned = True
        self.waiting.clear()
        told = self.threads.abandon()
        for each in list(self.pending):
            each.cancel()
        if told is not None:
            await told


def keep_context(returned: Deferred[Any]) -> None:
    """Have the callbacks that a method has put on its Deferred run in the worker's context: what they log bears its id.

    Twisted runs them in the context of whoever fires it, and promises no name for their list: ``_callbacks`` since
    25.5, ``callbacks`` before.
    """
    attributes = vars(returned)
    chain: list[Any] = attributes.get("_callbacks") or attributes.get("callbacks") or []
    if chain:
        run = copy_context().run
        chain[:] = [tuple(run_in(run, *each) for each in pair) for pair in chain]


def run_in(run: Callable[..., Any], callback: Any, *arguments: Any) -> tuple[Any, ...]:
    if not callable(callback):  # a mark of Twisted's own: another Deferred waits for this one
        return callback, *arguments
    return partial(run, callback), *arguments


def go_on(life: Coroutine[Any, Any, None], waits_for: Any) -> Generator[Any, Any, None]:
    """The rest of a coroutine that was begun by hand and now waits."""
    try:
        while True:
            try:
                value = yield waits_for
            except GeneratorExit:
                life.close()
                raise
            except BaseException as error:
                waits_for = life.throw(error)
            else:
                waits_for = life.send(value)
    except StopIteration:
        return


def reraise_if_discarded(error: BaseException) -> None:
    """A coroutine that Python throws away must not go on. The traceback tells it from a method's own GeneratorExit."""
    traceback = error.__traceback__
    if type(error) is GeneratorExit and traceback is not None and traceback.tb_next is None:
        raise error


def has(dependency: DependencyProvider, hook: str) -> bool:
    """Whether a dependency does something in a hook."""
    return getattr(getattr(dependency, hook), "__func__", None) is not getattr(DependencyProvider, hook)
