"""Which tests take longest, by the clock and by the processor: `python -m tests.slowest tests.broker`, in one process.

Processor time is that of this process, and of the processes that a test has started or forked and waited for; not that
of a RabbitMQ, which outlives its test. Where the clock says much more than the processor on a machine that does nothing
else, the test waits: for a timeout that a Clock could tell, or for another program.
"""

from __future__ import annotations

import os
import sys
import time
from operator import itemgetter
from typing import Any

from attrs import frozen
from twisted.trial.reporter import TextReporter
from twisted.trial.runner import TestLoader, TrialRunner

from tests import forked

SHOWN = 30


@frozen
class Spent:
    """Seconds that were spent on a test: by the clock, and by the processor here and in other processes."""

    wall: float
    own: float
    others: float


def clocks() -> tuple[float, float, float]:
    times = os.times()
    others = times.children_user + times.children_system + forks()
    return time.monotonic(), times.user + times.system, others


def forks() -> float:
    """Seconds of the Python that forks processes for tests, and of those that have ended."""
    if not forked.server.cache_info().currsize:
        return 0.0
    with open(f"/proc/{forked.server().python.pid}/stat", encoding="utf-8") as file:
        numbers = file.read().rpartition(")")[2].split()
    return sum(map(int, numbers[11:15])) / os.sysconf("SC_CLK_TCK")


class Timing(TextReporter):
    """Notes what was spent on each test, until its cleanups have ended."""

    tests: dict[str, Spent] = {}

    def startTest(self, test: Any) -> None:
        self.began = clocks()
        super().startTest(test)

    def stopTest(self, test: Any) -> None:
        super().stopTest(test)
        self.tests[test.id()] = Spent(*(now - then for now, then in zip(clocks(), self.began, strict=True)))


def main() -> None:
    result: Any = TrialRunner(Timing).run(TestLoader().loadByNames(sys.argv[1:], recurse=True))
    processor = {name: spent.own + spent.others for name, spent in Timing.tests.items()}
    for title, table in (
        ("by the clock", {name: spent.wall for name, spent in Timing.tests.items()}),
        ("by the processor", processor),
    ):
        print(f"\n{title}: {sum(table.values()):.1f} s in {len(table)} tests")
        print("  clock   own  others")
        for name, _ in sorted(table.items(), key=itemgetter(1), reverse=True)[:SHOWN]:
            spent = Timing.tests[name]
            print(f"{spent.wall:7.2f} {spent.own:5.2f} {spent.others:7.2f}  {name}")
    sys.exit(not result.wasSuccessful())


if __name__ == "__main__":
    main()
