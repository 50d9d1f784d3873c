"""Circuit breakers: while a service fails too often, calls of it fail at once and are not sent.

- closed: calls go through and are counted. Too many failures in the window open it.
- open: a call is ``CircuitOpen`` at once. After ``open_for`` seconds one call goes through, as a probe: if it succeeds,
  the circuit is closed, and if it fails, it is open for as long again.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from typing import Any

from attrs import evolve, field, frozen
from twisted.logger import Logger

from txservices.exceptions import CircuitOpen, ConfigurationError, RpcConnectionError, RpcTimeout, UnknownService
from txservices.kinds import SECONDS_MAX, named
from txservices.observers import observers
from txservices.retry.configured import error_classes
from txservices.retry.policy import ErrorClasses, check, classes

__all__ = ["Breakers", "Circuit", "CircuitBreaker", "Circuits"]

log = Logger()

MINIMUM_MAX = 1_000_000  # calls in a window: a larger number is taken for a mistake
CIRCUITS_MAX = 1_000  # services whose calls a client counts: their names may come from a stranger
PARTS = 10  # of a window: calls are forgotten by a tenth of it

CLOSED = "closed"
OPEN = "open"
HALF_OPEN = "half-open"  # a probe is under way

FAILURES = (RpcTimeout, UnknownService, RpcConnectionError)


def on_classes(given: ErrorClasses) -> tuple[type[BaseException], ...]:
    return classes("on", given, "CircuitBreaker")


@frozen
class CircuitBreaker:
    """When calls of a service fail at once, because too many before them have failed.

        payments = RpcProxy("payments", breaker=CircuitBreaker(failures=0.5, window=10, minimum=20, open_for=5))

    Each service that is called is counted by itself. ``CIRCUIT_BREAKER`` of the configuration has the same arguments.
    Raises ``ConfigurationError`` for values that can't be.

    Attributes:
        failures: the part of the calls that must fail for it to open, above 0 up to 1.
        window: seconds; calls that ended longer ago do not count.
        minimum: calls in the window, from 1. It stays closed while there are fewer.
        open_for: seconds that calls fail at once. Then one is let through, which shows whether it closes.
        on: classes of errors that are failures. Other errors are answers of the service.
    """

    failures: float = 0.5
    window: float = 10.0
    minimum: int = 20
    open_for: float = 5.0
    on: tuple[type[BaseException], ...] = field(default=FAILURES, converter=on_classes)

    def __attrs_post_init__(self) -> None:
        of = "CircuitBreaker"
        check("failures", self.failures, 0, 1, of=of)
        check("window", self.window, 0, SECONDS_MAX, of=of)
        check("minimum", self.minimum, 1, MINIMUM_MAX, whole=True, of=of)
        check("open_for", self.open_for, 0, SECONDS_MAX, of=of)
        for name in ("failures", "window", "open_for", "on"):
            if not getattr(self, name):
                raise ConfigurationError(f"{of}({name}={getattr(self, name)!r}): give more than nothing")


@frozen
class Breakers:
    """The policies of a proxy, by the service that is called.

    Attributes:
        general: of the services that are not in ``services``; None for no breaker.
        services: of single services.
    """

    general: CircuitBreaker | None
    services: Mapping[str, CircuitBreaker | None] = {}

    def of(self, service: str) -> CircuitBreaker | None:
        return self.services.get(service, self.general)

    @classmethod
    def written(cls, written: Mapping[str, Any] | None) -> Breakers | None:
        """Those that a configuration has under ``CIRCUIT_BREAKER``. ``ConfigurationError`` for a missing exception.

        It is a mapping of ``CircuitBreaker``'s arguments for all services, and under ``services`` there is one for each
        service that has others, or false for no breaker.
        """
        if not written:
            return None
        general = {name: value for name, value in written.items() if name != "services"}
        services = written.get("services") or {}
        of_all = made(general) if general else None
        return cls(
            of_all,
            {
                str(name): None if own is False or own is None else made(own, of_all or CircuitBreaker())
                for name, own in services.items()
            },
        )


def made(written: Mapping[Any, Any], base: CircuitBreaker | None = None) -> CircuitBreaker:
    options = named(written)
    if "on" in options:
        options["on"] = error_classes(options["on"], "CIRCUIT_BREAKER")
    return evolve(base or CircuitBreaker(), **options)


class Circuit:
    """The calls of one service, and whether further ones may be made. Times are seconds of any steady clock.

    Attributes:
        next_probe: when a call may be made again; None while it is closed.
        state: CLOSED, OPEN or HALF_OPEN.
        turn: how often it has opened or closed. A call that began in another turn says nothing any more.
    """

    __slots__ = ("counts", "next_probe", "opened", "policy", "service", "state", "turn")

    def __init__(self, service: str, policy: CircuitBreaker) -> None:
        self.service = service
        self.policy = policy
        self.counts: deque[list[int]] = deque()  # a part of the window: its number, calls, failed calls
        self.next_probe: float | None = None
        self.state = CLOSED
        self.opened = 0.0
        self.turn = 0

    def begin(self, now: float) -> int:
        """A call is to be made: gives the turn that it belongs to, or raises ``CircuitOpen``."""
        if self.next_probe is not None:
            if now < self.next_probe:
                raise CircuitOpen(self.service, round(self.next_probe - now, 3))
            self.become(HALF_OPEN)
            self.next_probe = now + self.policy.open_for  # for another, should this one have no end
        return self.turn

    def ended(self, turn: int, error: BaseException | None, now: float) -> None:
        """A call has ended, with its error or None."""
        if turn != self.turn:
            return
        failed = isinstance(error, self.policy.on)
        if self.next_probe is None:
            self.count(failed, now)
        elif failed:
            self.turn += 1
            self.next_probe = now + self.policy.open_for
            self.become(OPEN)
        else:
            self.close(now)

    def unknown(self, turn: int, now: float) -> None:
        """A call has ended in a way that says nothing about the service: another may be the probe."""
        if turn == self.turn and self.next_probe is not None:
            self.next_probe = now

    def count(self, failed: bool, now: float) -> None:
        counts = self.counts
        part = int(now * PARTS / self.policy.window)
        if not counts or counts[-1][0] != part:
            counts.append([part, 0, 0])
            while counts[0][0] <= part - PARTS:
                counts.popleft()
        counts[-1][1] += 1
        if failed:
            counts[-1][2] += 1
            calls, failures = (sum(each[column] for each in counts) for column in (1, 2))
            if calls >= self.policy.minimum and failures >= self.policy.failures * calls:
                self.open(calls, failures, now)

    def open(self, calls: int, failures: int, now: float) -> None:
        self.turn += 1
        self.counts.clear()
        self.opened = now
        self.next_probe = now + self.policy.open_for
        self.become(OPEN)
        log.warn(
            "{failures} of the last {calls} calls of {service!r} have failed: from now on they fail at once, except"
            " for one every {open_for:g} s",
            failures=failures,
            calls=calls,
            service=self.service,
            open_for=self.policy.open_for,
        )

    def become(self, state: str) -> None:
        """Tell the observers, if that is another state."""
        if state != self.state:
            self.state = state
            observers.tell(observers.circuit_changed, self.service, state)

    def close(self, now: float) -> None:
        self.turn += 1
        self.next_probe = None
        self.become(CLOSED)
        text = "{service!r} has answered after {seconds:g} s: it is called again"
        log.warn(text, service=self.service, seconds=round(now - self.opened, 3))


class Circuits:
    """The circuits of a client, one for each service and policy. Those least recently used are forgotten."""

    def __init__(self) -> None:
        self.circuits: OrderedDict[tuple[str, CircuitBreaker], Circuit] = OrderedDict()

    def of(self, service: str, policy: CircuitBreaker) -> Circuit:
        key = (service, policy)
        circuit = self.circuits.get(key)
        if circuit is None:
            circuit = self.circuits[key] = Circuit(service, policy)
            if len(self.circuits) > CIRCUITS_MAX:
                self.circuits.popitem(last=False)
        else:
            self.circuits.move_to_end(key)
        return circuit
