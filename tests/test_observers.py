"""Who wants to know what happens in a process is told, and can't do harm to what it hears of."""

from __future__ import annotations

import os
from inspect import getdoc, signature
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.observing import EVENTS
from tests.processes import ROOT
from txservices import observers
from txservices.observers import FAILURES_EVERY, Observer, Observers


class Heard(Observer):
    """Writes down the calls that it hears of."""

    def __init__(self) -> None:
        super().__init__({})
        self.heard: list[tuple[Any, ...]] = []

    def call_ended(self, *args: Any) -> None:
        self.heard.append(args)


class Broken(Observer):
    def call_ended(self, *args: Any) -> None:
        raise ValueError("no disk")


class Telling(SynchronousTestCase):
    """Observers of one process."""

    def setUp(self) -> None:
        self.observers = Observers()

    def test_has_a_list_for_each_event(self) -> None:
        """Each method of an Observer but ``stop`` is an event that can be told."""
        events = {name for name in vars(Observer) if not name.startswith("_") and name != "stop"}
        self.assertEqual({name for name, _ in self.observers.events()}, events)

    def test_page(self) -> None:
        """docs/observers.md has a row for each event: its arguments, and the first paragraph of its docstring."""
        rows = []
        for event in EVENTS:
            method = getattr(Observer, event)
            arguments = ", ".join(list(signature(method).parameters)[1:])
            text = " ".join((getdoc(method) or "").partition("\n\n")[0].split()).replace("``", "`")
            rows.append(f"| `{event}({arguments})` | {text} |")
        with open(os.path.join(ROOT, "docs", "observers.md"), encoding="utf-8") as page:
            lines = page.read().splitlines()
        self.assertEqual([line for line in lines if line.startswith("| `")], rows)

    def test_several_ask(self) -> None:
        """One that several have asked for is made and added once, and stopped and removed with the last of them."""
        stopped: list[str] = []
        observer = Heard()
        self.patch(observer, "stop", lambda: stopped.append("stopped"))
        for _ in range(2):
            self.observers.hold("heard", lambda: observer)
        self.assertEqual(self.observers.all, [observer])
        self.observers.release("heard")
        self.assertEqual((self.observers.all, stopped), ([observer], []))
        self.observers.release("heard")
        self.assertEqual((self.observers.all, self.observers.held, stopped), ([], {}, ["stopped"]))

    def test_only_what_is_overridden(self) -> None:
        """An observer hears of the events that it has a method for, until it is removed; others have no list."""
        observer = Heard()
        self.observers.add(observer)
        self.assertEqual([name for name, methods in self.observers.events() if methods], ["call_ended"])
        self.observers.tell(self.observers.call_ended, "call", "ok", 0.5, None)
        self.observers.remove(observer)
        self.observers.tell(self.observers.call_ended, "another", "ok", 0.5, None)
        self.assertEqual(observer.heard, [("call", "ok", 0.5, None)])
        self.assertEqual(self.observers.all, [])

    def test_one_that_fails(self) -> None:
        """Its error is logged once in ``FAILURES_EVERY`` seconds, and the others are told all the same."""
        now = 100.0
        observer = Heard()
        self.observers.add(Broken({}))
        self.observers.add(observer)
        self.patch(observers, "monotonic", lambda: now)
        for _ in range(3):
            self.observers.tell(self.observers.call_ended, "call")
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        now += FAILURES_EVERY
        self.observers.tell(self.observers.call_ended, "call")
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(len(observer.heard), 4)
