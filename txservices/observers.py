"""What happens in a process, told to those who want to know it: metrics, traces, the fleet, and a user's own observers.

    Workers, Client, Publisher, ... -> observers.tell(observers.worker_ended, ...) -> Observer.worker_ended(...)

Nothing else in txservices knows of metrics, traces or pages. An event that no observer has a method for costs one look
at an empty list: those who tell it ask first, as in ``if observers.worker_ended:``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

from twisted.logger import Logger

__all__ = ["CANCELLED", "ERROR", "EXPECTED", "OK", "TIMEOUT", "Observer", "Observers", "observers"]

OK = "ok"
ERROR = "error"
EXPECTED = "expected"  # an error of the entrypoint's ``expected_exceptions``, or its message was handled before
TIMEOUT = "timeout"  # its own limit of time, or its caller's deadline
CANCELLED = "cancelled"

FAILURES_EVERY = 60.0  # seconds between two log lines for one method of an observer that raises

log = Logger()


class Observer:
    """Is told what happens in the process that it is in.

    Override the methods for what you want to know. The others are never called, and cost nothing. Each is called in
    the reactor's thread, in the middle of the work that it hears of: it must be quick, and must not wait. An error that
    it raises is logged, and harms nothing else.

    Args:
        config: the configuration of the process.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config

    def stop(self) -> None:
        """The process ends: send what is still to be sent."""

    def worker_started(self, worker: Any) -> None:
        """A worker begins, a ``WorkerContext``. This runs in the worker's own context (``contextvars``).

        What is put into ``worker.data`` here travels on with the worker's calls, events and messages.
        """

    def worker_ended(
        self, worker: Any, outcome: str, waited: float, seconds: float, error: BaseException | None
    ) -> None:
        """A worker has ended, and its dependencies are torn down. This runs in the worker's own context.

        Args:
            outcome: OK, ERROR, EXPECTED, TIMEOUT or CANCELLED (by a stop, or because its caller has gone).
            waited: seconds that it had waited for its turn, and for its message's body if that is long.
            seconds: seconds that it ran.
            error: what the method, or the handling of its result, has raised. None if it has not.
        """

    def worker_failed(self, worker: Any, outcome: str, waited: float, seconds: float, error: BaseException) -> None:
        """A worker has ended with an error: as ``worker_ended``, for observers of failures alone.

        This costs a worker that succeeds nothing, not even a look at the clock. So unless another observer has
        ``worker_ended``, the seconds are those since the worker first waited for something; 0 if it never has.
        """

    def call_started(self, call: Any, context: Any, headers: dict[str, Any]) -> None:
        """A worker, or a standalone proxy, calls a method.

        Args:
            call: a ``calls.Call``, with ``service``, ``method`` and ``correlation_id``. It is the same object at its
                end, and an observer may keep something of its own for it, by its ``correlation_id``.
            context: whose call it is: a ``WorkerContext``, or that of a standalone proxy.
            headers: those of the request, which is not written yet. What is added here travels with it.

        A call that is made again (``retry``) begins and ends each time. One that is not sent does not begin: its
        arguments can't be written, its circuit is open, or its time was over before.
        """

    def call_ended(self, call: Any, outcome: str, seconds: float, error: BaseException | None) -> None:
        """A call has its answer (OK), failed (ERROR), got no answer in time (TIMEOUT), or its caller CANCELLED it."""

    def http_call_started(self, call: Any, context: Any, headers: dict[str, Any]) -> None:
        """A worker asks another HTTP server, by an ``HttpClient``.

        Args:
            call: an ``httpclient.HttpCall``, with ``service``, ``method``, ``url``, ``host`` and ``port``. It is the
                same object at its end. Each attempt and each redirect is one.
            context: the ``WorkerContext``.
            headers: those of the request. What is added here is sent with it.
        """

    def http_call_ended(self, call: Any, outcome: str, seconds: float, error: BaseException | None) -> None:
        """That request has its answer (OK, with its ``call.status``), ERROR, TIMEOUT, or its worker CANCELLED it."""

    def publish_started(self, publish: Any, context: Any, headers: dict[str, Any]) -> None:
        """A worker, a publisher or a standalone dispatcher publishes an event or another message; no call, no reply.

        Args:
            publish: has ``exchange`` and ``routing_key``. It is the same object at its end.
            context: whose message it is: a ``WorkerContext``, or any other object.
            headers: those of the message, which is not written yet. What is added here travels with it.
        """

    def publish_ended(self, publish: Any, error: BaseException | None) -> None:
        """The broker has that message, or can't have it (``error``)."""

    def event_dispatched(self, service: str, event_type: str) -> None:
        """An event of a service is published."""

    def message_published(self, exchange: str, routing_key: str, size: int) -> None:
        """A message of so many bytes is to be published. Requests, replies, events and copies to be parked are such.

        The bytes are those of its names, its properties and its body. Each has a ``message_confirmed`` later.
        """

    def message_confirmed(self, exchange: str, routing_key: str, seconds: float, error: BaseException | None) -> None:
        """The broker has taken a message, or never will (``error``), so many seconds after the publish."""

    def message_rejected(self, queue: str, requeued: bool) -> None:
        """A message was given back to the broker, which delivers it again if it is ``requeued``."""

    def message_retried(self, queue: str, attempt: int, delay: float, error: BaseException) -> None:
        """A message failed in that attempt, and comes again after so many seconds: the broker has it.

        ``queue`` is the one that it came from. For a broadcast's it is the name without the part that is new each time.
        """

    def message_parked(self, queue: str, reason: str) -> None:
        """A message of that queue was put into its parking queue. ``reason`` is the name of the error's class."""

    def connected(self, address: str, purpose: str) -> None:
        """A connection to the broker is there: its address without the password, and what it is for."""

    def disconnected(self, address: str, purpose: str, reason: str) -> None:
        """A connection that was there is lost or closed. If it was blocked, it no longer is."""

    def blocked(self, address: str, purpose: str, reason: str) -> None:
        """The broker takes no messages on a connection for now (a memory or disk alarm)."""

    def unblocked(self, address: str, purpose: str) -> None:
        """The broker takes messages again."""

    def consumer_started(self, queue: str) -> None:
        """The broker delivers from a queue to this process."""

    def consumer_ended(self, queue: str) -> None:
        """The broker no longer delivers from that queue, or nothing more is taken from it."""

    def request_ended(self, method: str, route: str | None, status: int, seconds: float, scheme: str) -> None:
        """An HTTP request is answered. ``route`` is the rule that it matched, as ``/get/<int:id>``; None without one.
        ``scheme`` is ``http`` or ``https``.

        A WebSocket's is answered (101) when it opens. If the client has left, that is when the answer is ready.
        ``method`` is whatever the client has written; empty if its request could not be read (400, 414, 431, 505), or
        was not read, as all connections were taken (503). The scheme is what its client has used, if a proxy of
        ``WEB_TRUSTED_PROXIES`` says it.
        """

    def circuit_changed(self, service: str, state: str) -> None:
        """The circuit breaker for calls of a service is now closed, open or half-open."""


class Observers:
    """The observers of this process.

    Attributes:
        containers: the services that run in this process, for those who ask how things stand and not what happens.
        held: observers that several may have asked for, by name, each with how many have.
        worker_started, and so on: for each event the methods of those observers that have one.
    """

    def __init__(self) -> None:
        self.all: list[Observer] = []
        self.containers: list[Any] = []
        self.held: dict[str, tuple[Observer, int]] = {}
        self.failed: dict[Callable[..., None], float] = {}
        self.worker_started: list[Callable[..., None]] = []
        self.worker_ended: list[Callable[..., None]] = []
        self.worker_failed: list[Callable[..., None]] = []
        self.call_started: list[Callable[..., None]] = []
        self.call_ended: list[Callable[..., None]] = []
        self.http_call_started: list[Callable[..., None]] = []
        self.http_call_ended: list[Callable[..., None]] = []
        self.publish_started: list[Callable[..., None]] = []
        self.publish_ended: list[Callable[..., None]] = []
        self.event_dispatched: list[Callable[..., None]] = []
        self.message_published: list[Callable[..., None]] = []
        self.message_confirmed: list[Callable[..., None]] = []
        self.message_rejected: list[Callable[..., None]] = []
        self.message_retried: list[Callable[..., None]] = []
        self.message_parked: list[Callable[..., None]] = []
        self.connected: list[Callable[..., None]] = []
        self.disconnected: list[Callable[..., None]] = []
        self.blocked: list[Callable[..., None]] = []
        self.unblocked: list[Callable[..., None]] = []
        self.consumer_started: list[Callable[..., None]] = []
        self.consumer_ended: list[Callable[..., None]] = []
        self.request_ended: list[Callable[..., None]] = []
        self.circuit_changed: list[Callable[..., None]] = []

    def add(self, observer: Observer) -> None:
        """Tell an observer what happens from now on."""
        self.all.append(observer)
        for event, methods in self.events():
            method = getattr(observer, event)
            if method.__func__ is not getattr(Observer, event):
                setattr(self, event, [*methods, method])  # a new list, as somebody may walk over the old one

    def remove(self, observer: Observer) -> None:
        """Tell an observer no more."""
        self.all.remove(observer)
        for event, methods in self.events():
            method = getattr(observer, event)
            if method in methods:
                setattr(self, event, [each for each in methods if each != method])
                self.failed.pop(method, None)

    def hold(self, name: str, make: Callable[[], Observer]) -> None:
        """Have the observer of that name. The first who asks for it makes and adds it."""
        observer, count = self.held.get(name) or (make(), 0)
        if not count:
            self.add(observer)
        self.held[name] = observer, count + 1

    def release(self, name: str) -> None:
        """Need the observer of that name no more. Whoever is the last stops and removes it."""
        observer, count = self.held.pop(name)
        if count > 1:
            self.held[name] = observer, count - 1
            return
        self.remove(observer)
        self.tell([observer.stop])
        self.failed.pop(observer.stop, None)

    def events(self) -> list[tuple[str, list[Callable[..., None]]]]:
        return [(name, methods) for name, methods in vars(self).items() if name in vars(Observer)]

    def tell(self, methods: list[Callable[..., None]], *args: Any) -> None:
        """Call the methods of those who want to know an event. Raises nothing."""
        for method in methods:
            try:
                method(*args)
            except BaseException:  # a SystemExit in an observer ends nothing, as one in a method
                self.method_failed(method)

    def method_failed(self, method: Callable[..., None]) -> None:
        now = monotonic()
        if now - self.failed.get(method, -FAILURES_EVERY) >= FAILURES_EVERY:
            self.failed[method] = now
            log.failure(
                "{method} of an observer failed; its further errors are not logged for {seconds:g} s",
                method=getattr(method, "__qualname__", method),
                seconds=FAILURES_EVERY,
            )


observers = Observers()
