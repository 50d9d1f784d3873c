"""A checker of promises: it counts numbered events and calls, each step of each a line in a log.

    checker = Checker(path)
    checker.event(1, dispatch("source", "told", 1))
    checker.call(1, cluster.echo.echo(1), deadline=10)
    ...
    print(checker.check())      # attempted, acknowledged, handled, lost, duplicated, unanswered

The log is a file that any process may append to. Whoever handles a message calls ``note(path, kind, "handled",
number)`` before anything else, so that what a kill interrupted is counted all the same.

An event that the broker has confirmed and that was neither handled nor parked is lost, and so is a call that was
answered and never ran. A call that has neither an answer nor an error when its deadline is over is unanswered. Either
fails the check; what was handled or parked more than once is counted, for at-least-once allows it.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

from attrs import frozen
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

EVENT = "event"
CALL = "call"
GRACE = 1.0  # seconds past a deadline that a busy machine may take to tell of it


def note(path: str, kind: str, step: str, number: int) -> None:
    """Append a line: one write, which no other process's can split, and which outlives this process."""
    line = f"{kind} {step} {number}\n".encode()
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, line)
    finally:
        os.close(file)


@frozen
class Report:
    """The counts, and the numbers of what should not be. A message that was also handled does not count as parked."""

    attempted: int
    acknowledged: int
    failed: int
    handled: int
    parked: int
    lost: list[tuple[str, int]]
    duplicated: int
    unanswered: list[int]

    def __str__(self) -> str:
        parked = f", parked {self.parked}" if self.parked else ""
        return (
            f"attempted {self.attempted}, acknowledged {self.acknowledged}, failed {self.failed}, handled"
            f" {self.handled}{parked}, lost {len(self.lost)}, duplicated {self.duplicated}, unanswered"
            f" {len(self.unanswered)}"
        )


class Checker:
    """The books of one test."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.pending: set[Deferred[Any]] = set()
        self.late: list[int] = []  # calls that ended, after their deadline
        self.errors: Counter[str] = Counter()

    def note(self, kind: str, step: str, number: int) -> None:
        note(self.path, kind, step, number)

    def event(self, number: int, confirmed: Deferred[Any]) -> None:
        """An event was published; ``confirmed`` is what the publisher was given."""
        self.watch(EVENT, number, confirmed)

    def call(self, number: int, answer: Deferred[Any], deadline: float) -> None:
        """A call was made, which has to end within so many seconds."""
        due = reactor.seconds() + deadline + GRACE

        def ended(result: Any) -> Any:
            if reactor.seconds() > due:
                self.late.append(number)
            return result

        self.watch(CALL, number, answer.addBoth(ended))

    def watch(self, kind: str, number: int, outcome: Deferred[Any]) -> None:
        self.note(kind, "attempted", number)
        self.pending.add(outcome)

        def ended(result: Any) -> None:
            self.pending.discard(outcome)
            if isinstance(result, Failure):
                self.errors[type(result.value).__name__] += 1
                self.note(kind, "failed", number)
            else:
                self.note(kind, "acknowledged", number)

        outcome.addBoth(ended)

    def ended(self) -> Deferred[Any]:
        """Fires when every event and call that there is has ended, one way or the other."""
        return DeferredList(list(self.pending))

    def steps(self) -> dict[str, Counter[tuple[str, int]]]:
        """How often each event and call was attempted, acknowledged, failed, handled, parked."""
        steps: dict[str, Counter[tuple[str, int]]] = {
            step: Counter() for step in ("attempted", "acknowledged", "failed", "handled", "parked")
        }
        if os.path.exists(self.path):
            with open(self.path, encoding="ascii") as file:
                for line in file:
                    kind, step, number = line.split()
                    steps[step][kind, int(number)] += 1
        return steps

    def missing(self, step: str = "acknowledged") -> list[tuple[str, int]]:
        """The events and calls that are acknowledged, or whatever the step is, and not handled or parked so far."""
        steps = self.steps()
        return sorted(set(steps[step]) - set(steps["handled"]) - set(steps["parked"]))

    def report(self) -> Report:
        steps = self.steps()
        open_calls = {
            number
            for kind, number in steps["attempted"]
            if kind == CALL and (kind, number) not in steps["acknowledged"] and (kind, number) not in steps["failed"]
        }
        return Report(
            attempted=len(steps["attempted"]),
            acknowledged=len(steps["acknowledged"]),
            failed=len(steps["failed"]),
            handled=len(steps["handled"]),
            parked=len(set(steps["parked"]) - set(steps["handled"])),
            lost=sorted(set(steps["acknowledged"]) - set(steps["handled"]) - set(steps["parked"])),
            duplicated=sum(count - 1 for count in (steps["handled"] + steps["parked"]).values()),
            unanswered=sorted(open_calls | set(self.late)),
        )

    def check(self) -> Report:
        """The report; ``AssertionError`` if anything acknowledged was lost, or a call did not end in time."""
        report = self.report()
        if report.lost or report.unanswered:
            raise AssertionError(f"{report}: lost {report.lost[:10]}, unanswered {report.unanswered[:10]}")
        return report
