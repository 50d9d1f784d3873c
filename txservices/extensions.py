"""What a service is made of: entrypoints that call its methods, dependencies that its methods call.

    class Service:
        name = "service"
        greeting = Config()          # a DependencyProvider: a prototype, declared once on the class

        @rpc                         # an Entrypoint: noted on the function, which stays as it is
        def method(self): ...

An extension on a class is a prototype. A container *binds* it: it makes an instance of its own from the same arguments,
and likewise of the extensions inside it. So ``__init__`` only keeps its arguments, and work begins in ``setup``. A
subclass need not call ``super().__init__``.

    bind    each, while the container is made
    setup   all at once, when the container starts
    start   all at once, when all are set up
    stop    entrypoints first; dependencies when no worker is left; then the extensions inside them
    kill    in place of stop, when there is no time

For authors of extensions this page is the contract: ``Container`` and ``WorkerContext`` are what an extension gets,
``Extension`` and its subclasses are what it can be. The page is long because these classes name each other in their
types: in files of their own, the files would import each other in a circle.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping, Sized
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypedDict, cast, overload

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from typing_extensions import ParamSpec, Self, TypeVar

from txservices import constants
from txservices.deadlines import FOREVER, take_time_left, time_of_day
from txservices.decorators import decorate
from txservices.decorators import register_entrypoint as register_entrypoint  # here is where nameko has it
from txservices.exceptions import IncorrectSignature
from txservices.utils.ids import new_id
from txservices.utils.providers import ProviderCollector as ProviderCollector  # here is where nameko has it
from txservices.utils.signatures import acceptance_of, members
from txservices.utils.waiting import Unconfirmed

__all__ = [
    "Container",
    "ContextData",
    "DependencyProvider",
    "Entrypoint",
    "EntrypointOptions",
    "ExcInfo",
    "Extension",
    "HandleResult",
    "ProviderCollector",
    "SharedExtension",
    "WorkerContext",
    "is_dependency",
    "is_entrypoint",
    "is_extension",
    "iter_extensions",
    "new_call_id",
    "register_entrypoint",
]

Function = TypeVar("Function", bound=Callable[..., Any])
P = ParamSpec("P")

ExcInfo = tuple[type[BaseException], BaseException, "TracebackType | None"]
HandleResult = Callable[["WorkerContext", Any, "ExcInfo | None"], Any]

log = Logger()


class Turns(Protocol):
    """What an extension may ask of a container's workers.

    Attributes:
        running: how many run now.
        max_workers: how many may. A further one waits for its turn.
        cancelled: whether no more are taken: ``spawn_worker`` raises ``ContainerBeingKilled``.
        waiting: how many turns wait.
        on_none_queued: each is called when nothing waits any more.
        threads: those in which methods with ``blocking = True`` run: see ``threads.Threads``.
    """

    running: int
    max_workers: int
    cancelled: bool
    waiting: int
    on_none_queued: list[Callable[[], None]]

    @property
    def threads(self) -> Any: ...

    def leave(self, rest: Deferred[Any]) -> None:
        """Have a stop wait for what a worker has left to do, as the rest of a response. An abort cancels it."""

    def wait(
        self,
        entrypoint: Entrypoint,
        begin: Callable[[], None],
        patience: float = ...,
        give_up: Callable[[], None] | None = None,
    ) -> Any:
        """Call ``begin`` in its turn, when a worker of the entrypoint may begin. Gives the turn, for ``forget``.

        ``give_up`` is called in place of it if the worker would probably not end within ``patience`` seconds from now.
        """

    def forget(self, turn: Any) -> None:
        """Let a turn no longer wait."""

    def hold(self) -> float:
        """Take a worker's place, for a message whose body is being decoded. Gives since when that message waits."""

    def release(self, since: float, receive: Callable[[], None]) -> None:
        """Give a place back, and call ``receive``, which may begin a worker there: it has waited since then."""

    def abort_worker(self, worker: WorkerContext, error: Exception) -> bool:
        """End a worker that waits for something, with this error. False if it can't be: in a thread, or not begun."""


class Limit(Protocol):
    """The limit of one entrypoint: how many of its workers run, and what waits. See ``lines``.

    Attributes:
        running: how many of its workers run now.
        queued: the turns that wait for one of them to end.
    """

    running: int

    @property
    def queued(self) -> Sized: ...

    def begun(self) -> None:
        """One of its workers begins."""

    def ended(self) -> None:
        """One of its workers has ended."""

    def hold(self) -> float:
        """See ``Turns``."""

    def release(self, since: float, receive: Callable[[], None]) -> None:
        """See ``Turns``."""


class Container(Protocol):
    """What an extension may ask of the container that it is bound to.

    Attributes:
        service_cls: the class of the service; each worker has an instance of it.
        config: the configuration, read when the process began.
        clock: the reactor, or a test's clock.
        shared: what the process has once, however many services run in it: see ``shared.SharedServices``.
        shared_extensions: the shared extensions of this container, by their ``sharing_key``.
        max_workers: how many workers run at a time.
        workers: those that run and that wait.
        parent_calls_tracked: how many call ids are sent along with a call, besides its own.
        workers_aborted: whether workers may have been cancelled before they ended. Their messages go back.
    """

    service_cls: type[Any]
    service_name: str
    config: Mapping[str, Any]
    clock: Any
    shared: Any
    shared_extensions: dict[Any, SharedExtension]
    max_workers: int
    parent_calls_tracked: int

    @property
    def workers(self) -> Turns: ...

    @property
    def workers_aborted(self) -> bool: ...

    def spawn_worker(
        self,
        entrypoint: Entrypoint,
        args: Iterable[Any],
        kwargs: Mapping[str, Any],
        context_data: dict[str, Any] | None = None,
        handle_result: HandleResult | None = None,
    ) -> WorkerContext:
        """Call the entrypoint's method on a new instance of the service, once fewer than ``max_workers`` run.

        ``context_data`` becomes the worker's ``data``. ``handle_result(worker_ctx, result, exc_info)`` is called when
        the method has returned or raised. It returns ``(result, exc_info)``, or a Deferred of them, for dependencies
        to see, and may change both. It is not called if the worker is cancelled. Raises ``ContainerBeingKilled`` when
        the service takes no more work, but never an error of the worker.
        """

    def spawn_managed(self, function: Callable[[], Any], identifier: str | None = None) -> Deferred[None]:
        """Run an extension's work in the background: ``function`` is ``async`` or returns a Deferred.

        An error in it kills the container; ``identifier`` names the work in the log. The work is cancelled when the
        container ends. Fires when the work is over, and never fails.
        """


def new_call_id() -> str:
    """The part of a call id that no other call has."""
    return new_id()


class ContextData(ChainMap[str, Any]):
    """A worker's data and its call id stack. The data comes first, as in nameko's headers."""

    def __iter__(self) -> Iterator[str]:
        data, stack = self.maps
        return iter({**data, **stack})


class WorkerContext:
    """One worker: its entrypoint and arguments, and the context data that travels with the call.

    Attributes:
        data: the caller's context data, without the call id stack. A value that is set here travels on with its calls.
        blocking: whether the method runs in a thread, where its dependencies have to wait with ``in_reactor``.
        unconfirmed: the messages it has published that the broker has not confirmed; None until the first message.
        ends: when its caller gives up, by the container's clock; infinite if that is not known.
    """

    __slots__ = (
        "__weakref__",
        "_call_id",
        "args",
        "blocking",
        "container",
        "data",
        "ends",
        "entrypoint",
        "handle_result",
        "kwargs",
        "parent_call_ids",
        "service",
        "unconfirmed",
    )

    def __init__(
        self,
        container: Container,
        service: Any,
        entrypoint: Entrypoint,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        data: dict[str, Any] | None = None,
        handle_result: HandleResult | None = None,
    ) -> None:
        self.container = container
        self.service = service
        self.entrypoint = entrypoint
        self.args = args or ()
        self.kwargs = kwargs or {}
        self.handle_result = handle_result
        self.blocking = entrypoint.blocking
        self._call_id: str | None = None
        self.parent_call_ids: list[str] | tuple[str, ...] = ()
        self.unconfirmed: Unconfirmed | None = None
        self.ends = FOREVER
        if data is None:
            self.data: dict[str, Any] = {}
            return
        self.data = data
        # not ``in``: a hook may have given a Deferred for the context, and on one ``in`` never ends
        stack = data.pop(constants.CALL_ID_STACK_CONTEXT_KEY, ())
        if isinstance(stack, (list, tuple)):
            self.parent_call_ids = stack
        else:  # the message is handled, whatever a stranger has put into that header
            log.debug("{worker}: a call id stack that is not a list, ignored: {stack!r}", worker=self, stack=stack)
        left = take_time_left(data)
        if left is not None:
            self.ends = container.clock.seconds() + left

    @property
    def deadline(self) -> float | None:
        """The time of day at which its caller gives up, in seconds since 1970. None if that is not known."""
        left = self.time_left()
        return None if left is None else time_of_day(left)

    def time_left(self) -> float | None:
        """Seconds until its caller gives up; 0 or less if it has. None if that is not known.

        Calls that the worker makes end by then, too. Where clocks differ it may be too much, by 5 s at most.
        """
        return None if self.ends == FOREVER else self.ends - self.container.clock.seconds()

    @property
    def message(self) -> Any:
        """The ``Message`` that it handles, None if it handles no message."""
        bound = getattr(self.handle_result, "args", ())  # its ``handle_result`` is bound to that
        return bound[0] if bound and hasattr(bound[0], "delivery_tag") else None

    @property
    def attempt(self) -> int:
        """The number of this attempt to handle its message, from 1: see ``retry.Retry``."""
        attempt = getattr(self.message, "headers", {}).get(constants.ATTEMPT_HEADER, 1)
        return attempt if isinstance(attempt, int) else 1

    @property
    def first_failed(self) -> str | None:
        """When the first attempt to handle its message failed, as ISO 8601 in UTC. None if this is the first."""
        first = getattr(self.message, "headers", {}).get(constants.FIRST_FAILED_HEADER)
        return first if isinstance(first, str) else None

    @property
    def config(self) -> Any:
        return self.container.config

    @property
    def service_name(self) -> str:
        return self.container.service_name

    @property
    def call_id(self) -> str:
        """This call's id, ``service.method.id``."""
        if self._call_id is None:
            self._call_id = f"{self.container.service_name}.{self.entrypoint.method_name}.{new_call_id()}"
        return self._call_id

    @property
    def call_id_stack(self) -> list[str]:
        """The ids of the last ``parent_calls_tracked`` calls that led here, and then this call's id."""
        return [*self.parent_call_ids, self.call_id][-self.container.parent_calls_tracked - 1 :]

    @property
    def context_data(self) -> MutableMapping[str, Any]:
        """The context of this worker's calls: its call id stack and ``data``. A key set here is set in ``data``."""
        return ContextData(self.data, {constants.CALL_ID_STACK_CONTEXT_KEY: self.call_id_stack})

    @property
    def origin_call_id(self) -> str | None:
        """The first of the calls that led here, as far back as they are tracked."""
        return self.parent_call_ids[0] if self.parent_call_ids else None

    @property
    def immediate_parent_call_id(self) -> str | None:
        """The call that made this one."""
        return self.parent_call_ids[-1] if self.parent_call_ids else None

    def __repr__(self) -> str:
        where = f"{self.container.service_name}.{self.entrypoint.method_name}"
        return f"<WorkerContext [{where}] at {id(self):#x}>"


class Extension:
    """Something with a life inside a container. Each of the four methods may return a Deferred, or be ``async``."""

    container: Container = None  # type: ignore[assignment]  # it has one once it is bound
    _made_with: tuple[tuple[Any, ...], dict[str, Any]]
    _bound = False

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Keeps the arguments, so that ``bind`` can make another instance."""
        made = super().__new__(cls)
        made._made_with = args, kwargs
        return made

    def setup(self) -> Any:
        """Get ready, before any extension of the container starts."""

    def start(self) -> Any:
        """Begin. Every extension of the container is set up by now."""

    def stop(self) -> Any:
        """End in order. The container goes on to its next step when the Deferred has fired."""

    def kill(self) -> Any:
        """End now. It may be called after ``stop``, or without ``setup``. An error is logged, and stops nothing."""

    def not_ready(self) -> Iterable[str]:
        """Why it can't do its part now, a line for each reason; empty if it can.

        Asked at any time between ``setup`` and ``stop``, for those who watch the process (``/readyz``). Must not wait.
        """
        return ()

    def bind(self, container: Container, name: str | None = None) -> Any:
        """Make the instance of this prototype that belongs to ``container``.

        ``name`` is that of the method or attribute where an entrypoint or a dependency was declared.
        """
        if self._bound:
            raise RuntimeError("Cannot `bind` a bound extension.")
        args, kwargs = self._made_with
        bound = type(self)(*args, **kwargs)
        bound._bound = True
        bound.container = container
        for attribute, inner in inner_extensions(bound):
            setattr(bound, attribute, inner.bind(container))
        return bound

    def is_bound(self) -> bool:
        """Whether this is a container's, rather than a prototype."""
        return self._bound

    def __repr__(self) -> str:
        """As nameko's: with the service and the attribute or method where it was declared, once it is bound."""
        where = getattr(self, "method_name", None) or getattr(self, "attr_name", None)
        if not self._bound:
            return f"<{type(self).__name__} [unbound] at {id(self):#x}>"
        declared = f" [{self.container.service_name}.{where}]" if where else ""
        return f"<{type(self).__name__}{declared} at {id(self):#x}>"


class SharedExtension(Extension):
    """An extension that a container has once, however many other extensions hold it."""

    @property
    def sharing_key(self) -> Any:
        """Prototypes with the same key become one and the same extension."""
        return type(self)

    def bind(self, container: Container, name: str | None = None) -> Any:
        shared = container.shared_extensions
        key = self.sharing_key
        if key not in shared:
            shared[key] = super().bind(container, name)
        return shared[key]


Injected = TypeVar("Injected", default=Any)  # what a worker finds under the attribute


class DependencyProvider(Extension, Generic[Injected]):
    """Gives each worker something under the attribute that it was declared as.

    ``class Database(DependencyProvider[Session])`` tells a type checker what that is.

    Each of the four hooks may return a Deferred, or be ``async``: the worker then waits for it. A hook that is not
    overridden costs nothing. An error in a hook is that worker's error.

    Attributes:
        attr_name: the attribute's name. The prototype on the class has it, too, once a container has bound it.
    """

    attr_name: str = None  # type: ignore[assignment]  # it has one once it is bound

    def bind(self, container: Container, name: str | None = None) -> Any:
        bound = super().bind(container, name)
        bound.attr_name = name
        self.attr_name = bound.attr_name  # the prototype's, too: what it decorates finds by it what is injected
        return bound

    if TYPE_CHECKING:  # tells a type checker what a worker finds under the attribute

        @overload
        def __get__(self, instance: None, owner: type[Any]) -> Self: ...
        @overload
        def __get__(self, instance: object, owner: type[Any]) -> Injected: ...
        def __get__(self, instance: object, owner: type[Any]) -> Any: ...

    def get_dependency(self, worker_ctx: WorkerContext) -> Injected | Awaitable[Injected]:
        """What the worker finds under the attribute."""
        return cast(Injected, None)

    def worker_setup(self, worker_ctx: WorkerContext) -> Any:
        """Called when all dependencies are injected, before the method."""

    def worker_result(self, worker_ctx: WorkerContext, result: Any = None, exc_info: ExcInfo | None = None) -> Any:
        """Called with the result or the error of the method, after the entrypoint's ``handle_result``."""

    def worker_teardown(self, worker_ctx: WorkerContext) -> Any:
        """Called last, for every worker whose ``get_dependency`` succeeded, whatever happened since."""


class EntrypointOptions(TypedDict, total=False):
    """Options that every entrypoint takes: see ``Entrypoint``."""

    expected_exceptions: type[BaseException] | Iterable[type[BaseException]]
    sensitive_arguments: str | Iterable[str]
    sensitive_variables: str | Iterable[str]
    blocking: bool | None
    worker_timeout: float | None
    cancel_at_deadline: bool | None
    max_workers: int | None


class Entrypoint(Extension):
    """Calls a method of the service when something happens: see ``Container.spawn_worker``.

    A subclass offers itself to authors of services by ``name = Subclass.decorator``. One that calls no method, as
    ``web.static.Static``, is an attribute of the service; ``method_name`` is the attribute's name then.

    Attributes:
        method_name: the method's name.
        expected_exceptions: those that the method may raise on a bad request; they are no fault of the service.
        told_exceptions: those that the worker does not log, for ``handle_result`` does.
        may_yield: whether its method may be a generator, which runs only if somebody takes what it yields.
        sensitive_arguments: what not to show of the arguments, see ``utils.get_redacted_args``.
        blocking: whether the method runs in a thread; if it isn't given, as the service class says.
        worker_timeout: seconds that a worker may take, ``WORKER_TIMEOUT`` if it isn't given; 0 for no limit.
        cancel_at_deadline: whether a worker that waits is cancelled when its caller gives up, or cancels the call;
            ``CANCEL_AT_DEADLINE`` if it isn't given. One in a thread can't be.
        max_workers: how many of its workers run at a time in one instance of the service, which is at most the
            service's ``max_workers``; that many if it isn't given. Calls that wait for these hold up no others.
        limit: counts them; None without ``max_workers``.
        full: whether that many run, so that the next one has to wait.
        apart: whether its workers run beside the service's others, in places of their own: ``WEB_MAX_WORKERS``.
    """

    method_name: str = None  # type: ignore[assignment]  # it has one once it is bound
    accepts: Callable[..., None]
    expected_exceptions: tuple[type[BaseException], ...] = ()
    told_exceptions: tuple[type[BaseException], ...] = ()
    may_yield = True
    sensitive_arguments: str | Iterable[str] = ()
    blocking: bool | None = None
    worker_timeout: float | None = None
    cancel_at_deadline: bool | None = None
    max_workers: int | None = None
    limit: Limit | None = None
    full = False
    apart = False

    def __init__(
        self,
        expected_exceptions: type[BaseException] | Iterable[type[BaseException]] = (),
        sensitive_arguments: str | Iterable[str] = (),
        blocking: bool | None = None,
        sensitive_variables: str | Iterable[str] = (),
        worker_timeout: float | None = None,
        cancel_at_deadline: bool | None = None,
        max_workers: int | None = None,
    ) -> None:
        self.expected_exceptions = as_tuple(expected_exceptions)
        self.sensitive_arguments = sensitive_arguments or sensitive_variables  # its name of old
        self.blocking = blocking
        self.worker_timeout = worker_timeout
        self.cancel_at_deadline = cancel_at_deadline
        self.max_workers = max_workers

    def bind(self, container: Container, name: str | None = None) -> Any:
        bound = super().bind(container, name)
        bound.method_name = name
        bound.expected_exceptions = as_tuple(bound.expected_exceptions)
        bound.accepts = acceptance_of(getattr(container.service_cls, str(name)))
        if bound.blocking is None:
            blocking = getattr(container.service_cls, "blocking", False)
            bound.blocking = bool(blocking) and not callable(blocking)  # a method may have that name
        return bound

    def check_signature(self, args: Any, kwargs: Any) -> None:
        """``IncorrectSignature`` if the method can't be called with these. They may be anything a message holds."""
        try:
            self.accepts(None, *args, **kwargs)
        except TypeError as error:
            raise IncorrectSignature(str(error)) from None

    def expects(self, error: BaseException) -> bool:
        """Whether an error of its worker is no fault of the service."""
        return issubclass(type(error), self.expected_exceptions)  # not isinstance, which asks the error

    def result_not_handled(self, worker_ctx: WorkerContext, exc_info: ExcInfo) -> None:
        """Called if the worker's ``handle_result`` has raised, with its error.

        An entrypoint that answers for messages or requests settles them here, if that is not done yet.
        """

    @overload
    @classmethod
    def decorator(cls, function: Function, /) -> Function: ...
    @overload
    @classmethod
    def decorator(cls: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> Callable[[Function], Function]: ...
    @classmethod
    def decorator(cls: Any, *args: Any, **kwargs: Any) -> Any:
        """Declare an entrypoint on a method: ``@name`` or ``@name(options)``, options being those of the class.

        The method stays what it is, for Python and for a type checker.
        """
        return decorate(cls, args, kwargs)


def as_tuple(classes: type[BaseException] | Iterable[type[BaseException]]) -> tuple[type[BaseException], ...]:
    return (classes,) if isinstance(classes, type) else tuple(classes)


def inner_extensions(extension: Extension) -> Iterator[tuple[str, Extension]]:
    """The extensions that are attributes of this one, with their names."""
    for name, value in {**members(type(extension)), **vars(extension)}.items():
        if isinstance(value, Extension):
            yield name, value


def iter_extensions(extension: Extension) -> Iterator[Extension]:
    """The extensions inside this one, and inside those, innermost first."""
    for _, inner in inner_extensions(extension):
        yield from iter_extensions(inner)
        yield inner


def is_extension(thing: Any) -> bool:
    """Whether it is an extension of any kind."""
    return isinstance(thing, Extension)


def is_dependency(thing: Any) -> bool:
    """Whether it is a dependency."""
    return isinstance(thing, DependencyProvider)


def is_entrypoint(thing: Any) -> bool:
    """Whether it is an entrypoint."""
    return isinstance(thing, Entrypoint)
