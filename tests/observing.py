"""An observer for tests: it writes down what it is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from txservices.observers import Observer, observers
from txservices.testing.waiting import Heard

EVENTS = [name for name in vars(Observer) if not name.startswith("_") and name != "stop"]


class Told(Observer):
    """Writes down the events that it hears of: their names and arguments, in order."""

    def __init__(self) -> None:
        super().__init__({})
        self.told: list[tuple[Any, ...]] = []
        self.heard = {event: Heard() for event in EVENTS}

    def of(self, *events: str) -> list[tuple[Any, ...]]:
        """What was told of these events."""
        return [each for each in self.told if each[0] in events]

    def wait(self, event: str, count: int = 1) -> Deferred[list[Any]]:
        """Fires with all arguments of an event, once it was told of so often."""
        return self.heard[event].wait(count)


def noting(event: str) -> Callable[..., None]:
    def note(self: Told, *args: Any) -> None:
        self.told.append((event, *args))
        self.heard[event](args)

    return note


def raising(event: str) -> Callable[..., None]:
    def fail(self: Observer, *args: Any) -> None:
        raise SystemExit(event)

    return fail


def hearing(case: SynchronousTestCase, *events: str) -> Told:
    """An observer of these events, of all if none are named, until the test ends."""
    observer: Told = type("Hearing", (Told,), {event: noting(event) for event in events or EVENTS})()
    observers.add(observer)
    case.addCleanup(observers.remove, observer)
    return observer


def failing(case: SynchronousTestCase) -> None:
    """An observer that raises whatever it is told, until the test ends."""
    observer: Observer = type("Failing", (Observer,), {event: raising(event) for event in EVENTS})({})
    observers.add(observer)
    case.addCleanup(observers.remove, observer)
