"""How long the reactor is held: the processor time of its longest turn, while something happens in it or in threads."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.trial.unittest import TestCase

# Coverage makes a line of Python take several times as long. Where it is measured, as by .ci/run, a turn may take that
# much longer; `make test` holds it to 0.1 s.
TRACED = 5
TURN_MAX = 0.1 * (TRACED if "coverage" in sys.modules else 1)  # seconds


TRIES = 10  # other processes on this processor only add to a time: the least counts


YARDSTICK = 0.0012  # seconds that it takes where a turn is held to 0.1 s


def slowness() -> float:
    """How many times as long as there something takes here and now; 1 on a machine that is as quick, or quicker."""
    times = []
    for _ in range(3):
        began = time.process_time()
        for number in range(15_000):
            str(number)
        times.append(time.process_time() - began)
    return max(1.0, min(times) / YARDSTICK)


async def least(measured: Callable[[], Any]) -> float:
    """The least of several measurements of seconds, as on the machine that TURN_MAX is for.

    No more are made once one is within that. How slow this machine is now is asked only for one that is not.
    """
    found = float("inf")
    for _ in range(TRIES):
        seconds: float = await measured()
        found = min(found, seconds if seconds <= TURN_MAX else seconds / slowness())
        if found <= TURN_MAX:
            break
    return found


class TurnsCase(TestCase):
    """A test that measures turns."""

    timeout = 900  # trial's; a slow machine takes minutes for the longest bodies under coverage

    def setUp(self) -> None:
        gc.collect()
        gc.freeze()  # what the tests before this one have left is not walked by the garbage collector
        self.addCleanup(gc.unfreeze)

    async def longest_turn(self, happening: Deferred[Any]) -> float:
        """Seconds of the reactor's longest turn until the Deferred fires."""
        # Processor time of this process with all its threads, so that other processes of the machine do not count.
        longest, last = 0.0, time.process_time()

        def turn() -> None:
            nonlocal longest, last
            now = time.process_time()
            longest, last = max(longest, now - last), now

        # with an interval of 0 the reactor would take half of the time from a thread
        turns = LoopingCall(turn)
        turns.start(0.001)
        await happening
        turns.stop()
        turn()
        return longest
