"""The life of a worker: one call of one method of a service.

    Workers.spawn -> [waits for a place: see ``lines``] -> begin -> live -> ended

``live`` is the whole of that life: service_cls(), get_dependency and worker_setup of every dependency, the method, the
entrypoint's handle_result, worker_result and worker_teardown of every dependency. It is a coroutine, and ``begin``
takes its first step by hand: if nothing waits, it is over before ``spawn`` returns, and no Deferred was made. Only a
life that waits becomes a Deferred.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from contextvars import copy_context
from functools import partial
from types import CoroutineType
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from txservices.busy import Busy, Running
from txservices.callids import on_behalf_of, this_worker
from txservices.deadlines import FOREVER
from txservices.exceptions import AlreadyHandled, CallerGone, NeedsAsyncio, WorkerTimeout
from txservices.extensions import DependencyProvider, ExcInfo, Limit, WorkerContext
from txservices.lines import Places
from txservices.observers import CANCELLED, ERROR, EXPECTED, OK, TIMEOUT, observers
from txservices.safe import shown, traceback_of
from txservices.threads import Threads
from txservices.utils import tasks
from txservices.utils.forks import end, owners

WAITS = (Deferred, CoroutineType)  # a result of these types is waited for; any other is a value
PLAIN = frozenset((str, int, float, bool, bytes, list, tuple, dict, type(None)))  # to ask a Deferred's ABC takes long

UNAWAITED_MAX = 100  # calls that are not awaited, and named once for each method that makes them
TASKS_TIMEOUT = 1.0  # seconds in which cancelled workers in Tasks may end before a stop goes on

log = Logger()


class Workers(Places):
    """The workers of one container, in their places.

    Args:
        slow: seconds after which a worker is slow, and told of when it ends; None for no such line.

    Attributes:
        pending: the lives that wait for something.
        overdue: workers that were cancelled, each with the error that this is to it.
        unawaited: methods, each with a call that it does not await and that the log has named.
        cancelled: whether no more workers are taken. The result of one that still ends is not handled.
        on_ended: each is called with a worker, its result and its exc_info when its dependencies are torn down.
    """

    threads_cls: type[Threads] = Threads

    def __init__(
        self, service_cls: type[Any], max_workers: int, clock: Any, slow: float | None = None, apart: int = 1
    ) -> None:
        self.pending: dict[Deferred[None], Running] = {}
        super().__init__(Busy(service_cls.name, slow, clock, self.pending), max_workers, clock, apart)
        self.service_cls = service_cls
        self.overdue: dict[WorkerContext, Exception] = {}
        self.unawaited: set[tuple[str, str]] = set()
        self.threads = self.threads_cls()
        self.cancelled = False
        self.on_ended: list[Callable[[WorkerContext, Any, ExcInfo | None], None]] = []
        self.learn([])
        owners.add(self)

    def learn(self, dependencies: list[DependencyProvider]) -> None:
        """Note the hooks to call: most dependencies have one or two of the four."""
        self.loop = tasks.asyncio_loop()
        self.injections = [(each.attr_name, each.get_dependency) for each in dependencies]
        self.setups = [each.worker_setup for each in dependencies if has(each, "worker_setup")]
        # each with the number of dependencies that must have been injected before it may be called
        self.results = [(n, each.worker_result) for n, each in enumerate(dependencies, 1) if has(each, "worker_result")]
        self.teardowns = [
            (n, each.worker_teardown) for n, each in enumerate(dependencies, 1) if has(each, "worker_teardown")
        ]

    def spawn(self, worker: WorkerContext) -> None:
        """Begin a worker, at once or when it is its turn."""
        entrypoint = worker.entrypoint
        if (self.running < self.max_workers or entrypoint.apart) and not entrypoint.full:
            self.begin(worker)
        else:
            self.wait(entrypoint, partial(self.begin, worker))

    def disown(self) -> None:
        """Called in a forked child: when the method returns, no hook is called, and the child ends."""
        self.cancelled = self.threads.cancelled = self.threads.disowned = True
        self.results = []
        self.teardowns = [(0, lambda worker_ctx: end())]

    def begin(self, worker: WorkerContext) -> None:
        self.running += 1
        limit = worker.entrypoint.limit
        if limit is not None:
            limit.begun()
        context = copy_context()  # a worker's context variables are its own
        waited, self.waited = self.waited, 0.0
        life = self.live(worker, waited)
        pending: Deferred[None]
        try:
            if self.loop is not None and self.loop.is_running():
                pending = tasks.begin(life, context, self.loop)
            else:
                waits_for = context.run(life.send, None)
                pending = Deferred.fromCoroutine(go_on(life, waits_for, context.run))
        except StopIteration:
            if limit is not None:
                limit.ended()
            self.ended()
            return
        seconds = worker.entrypoint.worker_timeout or None
        if worker.ends < FOREVER and worker.entrypoint.cancel_at_deadline:
            left = max(worker.ends - self.clock.seconds(), 0.0)
            seconds = left if seconds is None else min(seconds, left)
        timeout = None if seconds is None else self.clock.callLater(seconds, self.time_is_up, pending, worker, seconds)
        self.pending[pending] = Running(worker, self.clock.seconds(), waited, timeout)
        pending.addBoth(self.pending_ended, pending, limit)
        if self.cancelled:  # by what the method did before it waited
            pending.cancel()

    def pending_ended(self, result: Any, pending: Deferred[None], limit: Limit | None) -> None:
        running = self.pending.pop(pending, None)
        if running is not None:
            self.busy.ended(running)
            self.overdue.pop(running.worker, None)
            if running.timeout is not None and running.timeout.active():
                running.timeout.cancel()
        if isinstance(result, Failure):
            log.failure("in the life of a worker", result)
        if limit is not None:
            limit.ended()
        self.ended()

    async def live(self, worker: WorkerContext, waited: float) -> None:
        """A worker from its beginning to its end. Raises nothing."""
        this_worker.set(worker)
        began = self.clock.seconds() if observers.worker_ended else None
        if observers.worker_started:
            observers.tell(observers.worker_started, worker)
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
            if type(result) not in PLAIN and isinstance(result, WAITS):
                result = await result
            unconfirmed = worker.unconfirmed
            if unconfirmed is not None and unconfirmed.calls:
                await self.wait_for_calls(worker, list(unconfirmed.calls))
        except BaseException as error:  # a SystemExit in a method ends the call, not the process
            result, exc_info = None, self.failed(worker, error)
        dropped = self.cancelled
        if not dropped:
            if worker.handle_result is not None:
                try:
                    handled = worker.handle_result(worker, result, exc_info)
                    if type(handled) not in PLAIN and isinstance(handled, WAITS):
                        handled = await handled
                    result, exc_info = handled
                except BaseException as error:
                    result, exc_info = None, self.hook_failed(worker, worker.handle_result, error)
                    self.not_handled(worker, exc_info)
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
        if began is not None or (exc_info is not None and observers.worker_failed):
            self.tell_ended(worker, dropped, exc_info, waited, began)
        if self.on_ended:
            for call in list(self.on_ended):  # of which each may take itself out
                try:
                    call(worker, result, exc_info)
                except BaseException as error:
                    self.hook_failed(worker, call, error)
        worker.service = None  # what is injected there refers to the worker: a cycle, which kept long messages for long
        exc_info = None  # its traceback refers to this frame: a cycle that only the garbage collector ends

    async def wait_for_calls(self, worker: WorkerContext, calls: list[Any]) -> None:
        """Wait for the calls that the method has made and not looked at, and name them.

        Under nameko each has ended when the method has, and what it raised was raised there. Here its error is told.
        """
        method = f"{worker.service_name}.{worker.entrypoint.method_name}"
        for call in calls:
            if call.answer.callbacks or call.answer.called:
                continue  # somebody waits for it, as for that of call_async
            if (method, call.name) not in self.unawaited and len(self.unawaited) < UNAWAITED_MAX:
                self.unawaited.add((method, call.name))
                text = (
                    "{method} does not await its call of {call}: it ends when that has ended. Write `await` before it"
                )
                log.warn(text, method=method, call=call.name)
            ended: Deferred[None] = Deferred(partial(cancel, call.answer))
            call.answer.addBoth(pass_on, ended)
            await ended

    def tell_ended(
        self, worker: WorkerContext, dropped: bool, exc_info: ExcInfo | None, waited: float, began: float | None
    ) -> None:
        """Tell the observers how a worker has ended.

        Args:
            dropped: whether its result was not handled.
            began: the clock's time when it began, if that was asked for then.
        """
        error = None if exc_info is None else exc_info[1]
        if error is None:
            outcome = CANCELLED if dropped else OK
        elif error is self.overdue.get(worker):
            outcome = CANCELLED if isinstance(error, CallerGone) else TIMEOUT
        elif self.cancelled and tasks.is_cancel(error):
            outcome = CANCELLED
        else:
            is_expected = worker.entrypoint.expects(error) or type(error) is AlreadyHandled
            outcome = EXPECTED if is_expected else ERROR
        now = self.clock.seconds()
        if began is not None:
            observers.tell(observers.worker_ended, worker, outcome, waited, now - began, error)
        else:
            began = next((each.began for each in self.pending.values() if each.worker is worker), now)
        if error is not None:
            observers.tell(observers.worker_failed, worker, outcome, waited, now - began, error)

    def not_handled(self, worker: WorkerContext, exc_info: ExcInfo) -> None:
        """Have the entrypoint settle what its handle_result did not, unless we cancelled the worker."""
        if not self.cancelled:
            hook = worker.entrypoint.result_not_handled
            try:
                hook(worker, exc_info)
            except BaseException as error:
                self.hook_failed(worker, hook, error)

    def failed(self, worker: WorkerContext, error: BaseException) -> ExcInfo:
        """Log the error of a worker, unless we cancelled it."""
        reraise_if_discarded(error)
        if not worker.blocking:
            error = tasks.explained(error, f"{worker.service_name}.{worker.entrypoint.method_name}")
        kind = type(error)  # not isinstance, which asks the error
        if worker in self.overdue and tasks.is_cancel(error):
            error = self.overdue[worker]
        elif self.cancelled and tasks.is_cancel(error):
            pass
        elif kind is NeedsAsyncio:
            log.error("error handling worker {worker}: {error}", worker=worker, error=error)
        elif issubclass(kind, worker.entrypoint.expected_exceptions):
            log.warn("(expected) error handling worker {worker}: {error!r}", worker=worker, error=shown(error))
        elif not issubclass(kind, worker.entrypoint.told_exceptions):
            log.failure(
                "error handling worker {worker}: {error}",
                failure_of(error),
                LogLevel.error,
                worker=worker,
                error=shown(error),
            )
        return type(error), error, traceback_of(error)

    def hook_failed(self, worker: WorkerContext, hook: Callable[..., Any], error: BaseException) -> ExcInfo:
        """Log the error of a hook, unless we cancelled its worker."""
        reraise_if_discarded(error)
        error = tasks.explained(error, getattr(hook, "__qualname__", "a hook"))
        if type(error) is NeedsAsyncio:
            log.error("error in a hook of worker {worker}: {error}", worker=worker, error=error)
        elif not (self.cancelled and tasks.is_cancel(error)):
            log.failure(
                "error in {hook} of worker {worker}: {error}",
                failure_of(error),
                LogLevel.error,
                hook=getattr(hook, "__qualname__", hook),
                worker=worker,
                error=shown(error),
            )
        return type(error), error, traceback_of(error)

    def time_is_up(self, pending: Deferred[None], worker: WorkerContext, seconds: float) -> None:
        """Cancel a worker that has taken too long. A thread can't be ended: the log names it."""
        limit = "its limit" if seconds == worker.entrypoint.worker_timeout else "and its caller's time is up"
        seconds = round(seconds, 3)
        text = "{worker} has taken {seconds:g} s, {limit}: it runs in a thread, which can't be ended"
        if not worker.blocking:
            text = "{worker} has taken {seconds:g} s, {limit}: it is cancelled"
            self.overdue[worker] = WorkerTimeout(f"the method took longer than {seconds:g} s")
        on_behalf_of(worker, log.error, text, worker=worker, seconds=seconds, limit=limit)
        if not worker.blocking:
            pending.cancel()

    def abort_worker(self, worker: WorkerContext, error: Exception) -> bool:
        """See ``extensions.Turns``."""
        for pending, running in self.pending.items():
            if running.worker is worker and not worker.blocking:
                self.overdue[worker] = error
                pending.cancel()
                return True
        return False

    # The end

    def cancel(self) -> None:
        """Take no more workers, and handle no more results."""
        self.cancelled = self.threads.cancelled = True
        for line in self.lines.values():
            line.watch_no_more()
        for running in self.pending.values():
            if running.timeout is not None and running.timeout.active():
                running.timeout.cancel()

    async def abort(self) -> None:
        """Cancel the workers that run, and forget the queued ones. Their results are not handled.

        Dependencies are torn down even so. Ends when the workers in threads have been told, too, and when those in
        Tasks have ended, which hear of it in a later turn of the loop.
        """
        self.cancel()
        self.aborted = True
        self.waiting = 0
        for line in self.lines.values():
            line.queued.clear()
        told = self.threads.abort()
        for each in [*self.pending, *self.rests]:
            each.cancel()
        if told is not None:
            await told
        if self.under_way and self.loop is not None:
            await self.drain().addTimeout(TASKS_TIMEOUT, self.clock, lambda result, seconds: None)


def go_on(life: Coroutine[Any, Any, None], waits_for: Any, run: Callable[..., Any]) -> Generator[Any, Any, None]:
    """Run the rest of a coroutine that waits after its first step, which was taken by hand.

    Each step is taken by ``run``, in the context of the first one. Twisted would take them in a copy of it, and there
    no context variable can be reset that was set before the coroutine waited.
    """
    try:
        while True:
            try:
                value = yield waits_for
            except GeneratorExit:
                run(life.close)
                raise
            except BaseException as error:
                waits_for = run(life.throw, error)
            else:
                waits_for = run(life.send, value)
    except StopIteration:
        return


def failure_of(error: BaseException) -> Failure:
    """The failure for a log line: of the error, or of what ``shown`` has in its place."""
    safe = shown(error)
    return Failure(safe, type(safe), traceback_of(error))


def reraise_if_discarded(error: BaseException) -> None:
    """Raise the error with which Python throws a coroutine away: it must not go on then.

    A GeneratorExit that a method has raised itself has a longer traceback.
    """
    traceback = traceback_of(error)
    if type(error) is GeneratorExit and traceback is not None and traceback.tb_next is None:
        raise error


def cancel(answer: Deferred[Any], ended: Deferred[None]) -> None:
    """The worker that waits is cancelled: so is the call, of which nobody is to hear any more."""
    ended.errback(CancelledError())
    answer.addErrback(lambda _: None)
    answer.cancel()


def pass_on(outcome: Any, ended: Deferred[None]) -> Any:
    """Tell that there is an outcome, and leave it where it is: an error that nobody looks at is told."""
    if not ended.called:
        ended.callback(None)
    return outcome


def has(dependency: DependencyProvider, hook: str) -> bool:
    """Whether a dependency's class has overridden a hook."""
    return getattr(getattr(dependency, hook), "__func__", None) is not getattr(DependencyProvider, hook)
