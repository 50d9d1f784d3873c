"""Proxies, by which a worker or a program calls other services: ``cluster.service.method(1)``.

Each attribute of a ``ClusterProxy`` is a ``ServiceProxy``, and each attribute of that a ``MethodProxy``. To call it
begins a call by the function that the proxies were made with: ``calls.Client.call``, on somebody's behalf.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextvars import copy_context
from typing import Any, Literal

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import Unpack

from txservices import configuration, constants
from txservices.amqp.options import Sending, WrittenOptions
from txservices.attempts import Protection
from txservices.awaited import Answer
from txservices.breakers import Breakers, CircuitBreaker
from txservices.exceptions import RpcConnectionError
from txservices.retry import Retry
from txservices.retry.policy import as_policy
from txservices.utils.waiting import Waiters

__all__ = ["CallOptions", "ClusterProxy", "MethodProxy", "RequestOptions", "RpcReply", "ServiceProxy"]

log = Logger()

# nameko's proxies accept these and ignore them: the client sets them
RESERVED_OPTIONS = frozenset(("exchange", "routing_key", "mandatory", "reply_to", "correlation_id", "declare", "delay"))
NAMES_MAX = 1_000  # services or methods that a proxy remembers: a program may take their names from a stranger


class RequestOptions(WrittenOptions, total=False):
    """How a proxy's requests are sent. The others are those of ``amqp.options.MessageOptions``.

    Attributes:
        persistent: whether request and reply survive a crash of the broker, ``RPC_PERSISTENT`` if it isn't given. If
            they need not, a call takes two thirds of the time. ``delivery_mode`` says the same.
        retry: a ``Retry``: a call that failed and whose method has certainly not run (the service is unknown, or too
            much waits for the broker) is made again, and after the errors that ``Retry(on=...)`` names. All attempts
            together end within the call's timeout. None or False for no further attempt; True is nameko's, ignored.
        breaker: a ``CircuitBreaker``: while too many calls of a service fail, further ones are not sent. False for
            none, ``CIRCUIT_BREAKER`` of the configuration if it isn't given.
    """

    persistent: bool
    retry: Retry | bool | None
    breaker: CircuitBreaker | Literal[False] | None


class CallOptions(RequestOptions, total=False):
    """How a proxy's calls are made.

    Attributes:
        timeout: seconds for the reply, ``RPC_TIMEOUT`` if it isn't given; None for ever. The broker drops a
            request that nobody has taken by then, unless an ``expiration`` says otherwise.
    """

    timeout: float | None


def call_options(base: Sending, options: Mapping[str, Any], of_call: bool = False) -> Sending:
    """How a proxy's calls are sent. The addresses of requests and replies are no options.

    The broker drops a request when its caller's time is up: no method runs for a caller who no longer waits.
    """
    if options.get("delay") is not None:
        raise TypeError(f"delay is {options['delay']!r}: a call can't have one, for its caller waits; an event can")
    given = {name: value for name, value in options.items() if name not in RESERVED_OPTIONS}
    base = evolve(base, protection=protection_of(base.protection, given))
    persistent = given.pop("persistent", None)
    if persistent is not None:
        if not isinstance(persistent, bool):
            raise TypeError(f"persistent is {persistent!r}: give True or False")
        given["delivery_mode"] = constants.PERSISTENT if persistent else constants.NON_PERSISTENT
    sending = base.merged(given, of_call)
    if "timeout" in given and "expiration" not in given:
        timeout = sending.timeout
        sending = sending.merged({"expiration": None if timeout is None else max(timeout, 0)})
    return sending


def protection_of(protection: Protection | None, options: dict[str, Any]) -> Protection | None:
    """With these options on top; they are taken out. ``retry=True``, which is nameko's, stays in, and is ignored."""
    retry, breakers = (None, None) if protection is None else (protection.retry, protection.breakers)
    if options.get("retry", True) is not True:
        retry = options.pop("retry")
        retry = None if retry is None or retry is False else as_policy(retry, "None for no further attempt")
    if "breaker" in options:
        breaker = options.pop("breaker")
        if breaker and not isinstance(breaker, CircuitBreaker):
            raise TypeError(f"breaker is {breaker!r}: give a CircuitBreaker, or False for none")
        breakers = Breakers(breaker) if breaker else None
    return None if retry is None and breakers is None else Protection(retry, breakers)


def default_options(config: Mapping[str, Any], options: Mapping[str, Any], timeout: float | None = None) -> Sending:
    """A proxy's options, on top of a timeout of its own or of ``RPC_TIMEOUT``."""
    if timeout is None:
        timeout = configuration.RPC_TIMEOUT.of(config)
    breakers = Breakers.written(configuration.CIRCUIT_BREAKER.of(config))
    base = Sending(protection=None if breakers is None else Protection(breakers=breakers))
    base = call_options(base, {"persistent": configuration.RPC_PERSISTENT.of(config)})
    return call_options(base, {"timeout": timeout, **options})


# Begins a call of a service's method with arguments, in the reactor: ``Client.call`` on somebody's behalf.
Begin = Callable[[str, str, tuple[Any, ...], dict[str, Any], Sending], Deferred[Any]]
# Runs a function with arguments in the reactor. In the reactor's own thread that is a plain call; from another thread
# it waits for the Deferred, and gives its value or raises its error.
Run = Callable[..., Any]


def run_here(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function in this thread, which is the reactor's."""
    return function(*args)


class ServiceProxy:
    """Another service: each attribute is one of its methods. Only a call shows whether the service has that method."""

    def __init__(self, begin: Begin, service: str, sending: Sending, run: Run = run_here) -> None:
        self._begin = begin
        self._service = service
        self._sending = sending
        self._run = run

    def __getattr__(self, method: str) -> MethodProxy:
        if method.startswith("__"):  # what copy, mock and inspect look for
            raise AttributeError(method)
        proxy = MethodProxy(self._begin, self._service, method, self._sending, self._run)
        remember(self, method, proxy)
        return proxy

    def __repr__(self) -> str:
        return f"<proxy service: {self._service}>"


class ClusterProxy:
    """All services: ``cluster.service_x.method()``, or ``cluster["service-x"]`` for a name that Python can't have."""

    def __init__(self, begin: Begin, sending: Sending, run: Run = run_here) -> None:
        self._begin = begin
        self._sending = sending
        self._run = run

    def __getitem__(self, service: str) -> ServiceProxy:
        return ServiceProxy(self._begin, service, self._sending, self._run)

    def __getattr__(self, service: str) -> ServiceProxy:
        if service.startswith("__"):  # what copy, mock and inspect look for
            raise AttributeError(service)
        proxy = self[service]
        remember(self, service, proxy)
        return proxy


def remember(proxy: ServiceProxy | ClusterProxy, name: str, found: Any) -> None:
    """Make a proxy an attribute, so that Python finds it there the next time."""
    if len(vars(proxy)) < NAMES_MAX:
        vars(proxy)[name] = found


class MethodProxy:
    """A method of another service, to be called."""

    __slots__ = ("begin", "method", "run", "sending", "service")

    def __init__(self, begin: Begin, service: str, method: str, sending: Sending, run: Run = run_here) -> None:
        self.begin = begin
        self.service = service
        self.method = method
        self.sending = sending
        self.run = run

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call it. In the reactor this gives a Deferred that fires with what the method returned; elsewhere it waits.

        The errors are those of ``Client.call``.
        """
        if self.run is run_here:
            return self.begin(self.service, self.method, args, kwargs, self.sending)
        return self.run(self.begin, self.service, self.method, args, kwargs, self.sending)

    def call_async(self, /, *args: Any, **kwargs: Any) -> RpcReply:
        """Call it and go on. The reply's ``result()`` can be asked for later, and more than once.

        Arguments that can't be written raise ``EncodeError`` here.
        """
        reply: RpcReply = self.run(self.begin_async, args, kwargs)
        return reply

    def begin_async(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> RpcReply:
        return RpcReply(self.begin(self.service, self.method, args, kwargs, self.sending), self.name, self.run)

    @property
    def name(self) -> str:
        """``service.method``."""
        return f"{self.service}.{self.method}"

    def options(self, **options: Unpack[CallOptions]) -> MethodProxy:
        """The same method with other options: ``self.y.method.options(timeout=5, priority=3)(1)``."""
        return MethodProxy(self.begin, self.service, self.method, call_options(self.sending, options, True), self.run)

    def __repr__(self) -> str:
        return f"<proxy method: {self.service}.{self.method}>"


class RpcReply:
    """The outcome of one call, which can be asked for as often as one likes, from any thread."""

    __slots__ = ("asked", "call", "context", "outcome", "process", "run", "waiting")

    def __init__(self, answer: Deferred[Any], call: str, run: Run = run_here) -> None:
        self.call = call
        self.run = run
        self.context = copy_context()  # in it log lines bear the caller's call id
        self.process = os.getpid()
        self.asked = False
        self.outcome: Any = None
        self.waiting: Waiters[Any] | None = Waiters()  # None once there is an outcome
        answer.addBoth(self.arrived)

    def arrived(self, outcome: Any) -> None:
        waiting, self.waiting, self.outcome = self.waiting, None, outcome
        if waiting is not None:
            waiting.fire(outcome)

    def result(self) -> Any:
        """The method's result, or the call's error: a new Deferred of it each time; outside the reactor it waits.

        In a process that was forked after the call, a reply that had not arrived by then is an ``RpcConnectionError``.
        """
        self.asked = True
        return self.run(self.ask)

    def ask(self) -> Deferred[Any]:
        if self.waiting is None:
            asked: Deferred[Any] = Deferred()
            asked.callback(self.outcome)  # also a Failure, and more than once
            return Answer(self.call, asked)
        if self.process != os.getpid():
            raise RpcConnectionError(f"{self.call} was called before this process was forked: its parent has the reply")
        return Answer(self.call, self.waiting.wait())

    def __del__(self) -> None:
        if not self.asked and isinstance(self.outcome, Failure):
            self.context.run(
                log.error, "{call} failed, and nobody asked: {error}", call=self.call, error=self.outcome.value
            )
