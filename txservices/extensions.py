"""What a service is made of: entrypoints that call its methods, dependencies that its methods call.

    class Service:
        name = "service"
        greeting = Config()          # a DependencyProvider: a prototype, declared once on the class

        @rpc                         # an Entrypoint: noted on the function, which stays as it is
        def method(self): ...

What stands on a class is a prototype. A container *binds* it: makes its own instance from the same arguments, and of
the extensions inside it likewise. So ``__init__`` only keeps its arguments; work begins in ``setup``. A subclass need
not call ``super().__init__``.

    bind    for each, while the container is made
    setup   for all at once, when it starts; then, when all are done,
    start   for all at once
    stop    entrypoints; then, with no worker left, dependencies; then the extensions inside them
    kill    in place of stop, when there is no time
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, MutableMapping
from types import FunctionType, TracebackType
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypedDict, cast, overload

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from typing_extensions import ParamSpec, Self, TypeVar

from txservices import constants
from txservices.constants import ENTRYPOINTS_ATTRIBUTE
from txservices.exceptions import ConfigurationError, IncorrectSignature
from txservices.utils.ids import new_id
from txservices.utils.signatures import acceptance_of, members
from txservices.utils.waiting import Unconfirmed, Waiters

Function = TypeVar("Function", bound=Callable[..., Any])
P = ParamSpec("P")

ExcInfo = tuple[type[BaseException], BaseException, "TracebackType | None"]
HandleResult = Callable[["WorkerContext", Any, "ExcInfo | None"], Any]

log = Logger()


class Container(Protocol):
    """What an extension may ask of the container that it is bound to.

    Attributes:
        service_cls: the class of the service; each worker has an instance of it.
        config: the configuration, read when the process began.
        clock: the reactor, or a test's clock.
        shared: what the process has once, however many services run in it: see ``containers.SharedServices``.
        shared_extensions: the shared extensions of this container, by their ``sharing_key``.
        max_workers: how many workers run at a time.
        parent_calls_tracked: how many call ids are sent along with a call, besides its own.
        workers_aborted: whether workers may have been cancelled before they ended. They ack nothing then.
    """

    @property
    def service_cls(self) -> type[Any]: ...
    @property
    def service_name(self) -> str: ...
    @property
    def config(self) -> Mapping[str, Any]: ...
    @property
    def clock(self) -> Any: ...
    @property
    def shared(self) -> Any: ...
    @property
    def shared_extensions(self) -> dict[Any, SharedExtension]: ...
    @property
    def extensions(self) -> Collection[Extension]: ...
    @property
    def entrypoints(self) -> Collection[Entrypoint]: ...
    @property
    def max_workers(self) -> int: ...
    @property
    def parent_calls_tracked(self) -> int: ...
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
        """Call a method of the service: see ``ServiceContainer.spawn_worker``."""

    def spawn_managed(self, function: Callable[[], Any], identifier: str | None = None) -> Deferred[None]:
        """Run work in the background, as long as the container runs: see ``ServiceContainer.spawn_managed``."""


def new_call_id() -> str:
    """What makes one call's id differ from any other's."""
    return new_id()


class ContextData(ChainMap[str, Any]):
    """A worker's data and its call id stack, in this order, which is that of nameko's headers."""

    def __iter__(self) -> Iterator[str]:
        data, stack = self.maps
        return iter({**data, **stack})


class WorkerContext:
    """One worker: what called it, with what, and what travels with the call.

    Attributes:
        data: the caller's context data, without the call id stack. What is set here goes on to whom is called.
        blocking: whether the method runs in a thread, so that what is injected has to wait there: ``in_reactor``.
        unconfirmed: what it has published and the broker has not confirmed; None until the first message.
    """

    __slots__ = (
        "__weakref__",
        "_call_id",
        "args",
        "blocking",
        "container",
        "data",
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
        if data is None:
            self.data: dict[str, Any] = {}
            return
        self.data = data
        if constants.CALL_ID_STACK_CONTEXT_KEY in data:
            stack = data.pop(constants.CALL_ID_STACK_CONTEXT_KEY)
            if isinstance(stack, (list, tuple)):
                self.parent_call_ids = stack
            else:  # a stranger's header of that name must not keep the message from being handled
                log.debug("{worker}: a call id stack that is no list, ignored: {stack!r}", worker=self, stack=stack)

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
        """The ids of the calls that led here, and this one's last; only the ``parent_calls_tracked`` before it."""
        return [*self.parent_call_ids, self.call_id][-self.container.parent_calls_tracked - 1 :]

    @property
    def context_data(self) -> MutableMapping[str, Any]:
        """What travels with the calls that this worker makes: ``data``, which is changed by what is set here, and the
        call id stack."""
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
    """Something with a life inside a container. Each of the four methods may give a Deferred, or be ``async``."""

    container: Container
    _made_with: tuple[tuple[Any, ...], dict[str, Any]]
    _bound = False

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Keeps the arguments, so that ``bind`` can make another."""
        made = super().__new__(cls)
        made._made_with = args, kwargs
        return made

    def setup(self) -> Any:
        """Get ready, before any extension of the container starts."""

    def start(self) -> Any:
        """Begin. Every extension of the container is set up by now."""

    def stop(self) -> Any:
        """End in order. The container goes on when what is given back has fired."""

    def kill(self) -> Any:
        """End now; may be called after ``stop``, or without ``setup``. An error is logged and stops nothing."""

    def bind(self, container: Container, name: str | None = None) -> Any:
        """The instance of this prototype that belongs to ``container``.

        ``name`` is that of the method or attribute it was declared on, for entrypoints and dependencies.
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
        of = f" of {self.container.service_name}" if self._bound else ""
        return f"<{type(self).__name__}{of} at {id(self):#x}>"


class SharedExtension(Extension):
    """An extension that a container has once, however many others hold it."""

    @property
    def sharing_key(self) -> Any:
        """Those with the same key are the same one."""
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

    Each of the four hooks may give a Deferred, or be ``async``: the worker then waits for it. What is left as it is
    here costs nothing. An error in a hook is that worker's error.

    Attributes:
        attr_name: the attribute's name.
    """

    attr_name: str

    def bind(self, container: Container, name: str | None = None) -> Any:
        bound = super().bind(container, name)
        bound.attr_name = name
        return bound

    if TYPE_CHECKING:  # a worker's attribute is set: here a type checker learns to what

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
        """Called with what the method gave, or raised, after the entrypoint was told."""

    def worker_teardown(self, worker_ctx: WorkerContext) -> Any:
        """Called last, for every worker that ``get_dependency`` gave something to, whatever happened since."""


class EntrypointOptions(TypedDict, total=False):
    """Options that every entrypoint takes: see ``Entrypoint``."""

    expected_exceptions: type[BaseException] | Iterable[type[BaseException]]
    sensitive_arguments: str | Iterable[str]
    sensitive_variables: str | Iterable[str]
    blocking: bool | None


class Entrypoint(Extension):
    """Calls a method of the service when something happens: see ``Container.spawn_worker``.

    A subclass offers itself to authors of services by ``name = Subclass.decorator``.

    Attributes:
        method_name: the method's name.
        expected_exceptions: those that the method may raise on a bad request; they are no fault of the service.
        sensitive_arguments: what not to show of the arguments, see ``utils.get_redacted_args``.
        blocking: whether the method runs in a thread; if it isn't given, as the service class says.
    """

    method_name: str
    accepts: Callable[..., None]
    expected_exceptions: tuple[type[BaseException], ...] = ()
    sensitive_arguments: str | Iterable[str] = ()
    blocking: bool | None = None

    def __init__(
        self,
        expected_exceptions: type[BaseException] | Iterable[type[BaseException]] = (),
        sensitive_arguments: str | Iterable[str] = (),
        blocking: bool | None = None,
        sensitive_variables: str | Iterable[str] = (),
    ) -> None:
        self.expected_exceptions = as_tuple(expected_exceptions)
        self.sensitive_arguments = sensitive_arguments or sensitive_variables  # its name of old
        self.blocking = blocking

    def bind(self, container: Container, name: str | None = None) -> Any:
        bound = super().bind(container, name)
        bound.method_name = name
        bound.expected_exceptions = as_tuple(bound.expected_exceptions)
        bound.accepts = acceptance_of(getattr(container.service_cls, str(name)))
        if bound.blocking is None:
            bound.blocking = bool(getattr(container.service_cls, "blocking", False))
        return bound

    def check_signature(self, args: Any, kwargs: Any) -> None:
        """``IncorrectSignature`` if the method can't be called with these. They may be anything a message holds."""
        try:
            self.accepts(None, *args, **kwargs)
        except TypeError as error:
            raise IncorrectSignature(str(error)) from None

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
        if len(args) == 1 and not kwargs and isinstance(args[0], FunctionType):
            return register_entrypoint(args[0], cls())

        def declare(function: Function) -> Function:
            return register_entrypoint(function, cls(*args, **kwargs))

        return declare


def register_entrypoint(function: Function, entrypoint: Entrypoint) -> Function:
    """Note the entrypoint on the function, where the container finds it."""
    if not isinstance(function, FunctionType):
        raise ConfigurationError(
            f"{type(entrypoint).__name__} is declared on {function!r}, which is no function: put it above the `def`,"
            " inside staticmethod, classmethod or property"
        )
    declared: list[Entrypoint] | None = function.__dict__.get(ENTRYPOINTS_ATTRIBUTE)
    if declared is None:
        declared = []
        setattr(function, ENTRYPOINTS_ATTRIBUTE, declared)
    declared.append(entrypoint)
    return function


class ProviderCollector:
    """Mixin for an extension shared by several others, its providers: it ends when the last of them has."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._providers: dict[Any, None] = {}  # in order
        self._left: Waiters[None] = Waiters()

    def register_provider(self, provider: Any) -> None:
        """Called by a provider in its ``setup``."""
        self._providers[provider] = None

    def unregister_provider(self, provider: Any) -> Deferred[None] | None:
        """Called by a provider in its ``stop``. A subclass may give a Deferred, for the provider to wait for."""
        self._providers.pop(provider, None)
        if not self._providers:
            self._left.fire(None)
        return None

    def wait_for_providers(self) -> Deferred[None]:
        """Fires when no provider is left; at once if there never was one."""
        return self._left.wait() if self._providers else succeed(None)

    def stop(self) -> Deferred[None]:
        """See ``Extension.stop``."""
        return self.wait_for_providers()


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
