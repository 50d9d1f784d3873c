"""How much is done in one turn of the reactor, so that everything else has its turn: timers and other clients.

A client may send in one piece what takes seconds to handle: a thousand requests, or ten thousand frames. So a
connection handles what has come in steps, and asks the ``Turn`` of its address to call them. A few are called at once.
Then the connection waits behind others that wait, and each of them has one step after the other. All steps together
take about ``TURN`` seconds of a turn of the reactor, and are ``STEPS_A_TURN`` at most.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

TURN = 0.02  # seconds of a reactor's turn that all steps together may take; the last one may end later
STEPS_A_TURN = 500  # of them all; more would take longer than TURN
STEPS_AT_ONCE = 20  # of a connection, before it waits behind the others

Step = Callable[[], bool]  # does a little; gives whether there is more to do now

log = Logger()


class Turn:
    """The work of the reactor's present turn.

    Attributes:
        waiting: steps that are for the next turn.
    """

    # A turn of the reactor has no end that one could be told of, and a delayed call in each turn would cost something
    # in each. So a turn is taken to have ended if nothing was done here for as long as TURN; or, if something waits,
    # when the reactor calls us.

    def __init__(self, clock: Any) -> None:
        self.clock = clock
        self.waiting: deque[Step] = deque()
        self.next: IDelayedCall | None = None
        self.began = self.worked = float("-inf")

    def work(self, step: Step) -> None:
        """Call a step until it gives False: some times now, and again in the next turns."""
        if not self.waiting:
            now = self.clock.seconds()
            if now - self.worked > TURN:
                self.began = now
            ends = self.began + TURN
            left = STEPS_AT_ONCE
            while left and now < ends:
                more = step()
                now = self.clock.seconds()
                if not more:
                    self.worked = now
                    return
                left -= 1
            self.worked = now
        self.waiting.append(step)
        if self.next is None:
            self.next = self.clock.callLater(0, self.go_on)

    def go_on(self) -> None:
        """Call the waiting steps, one of each after the other, for as long as a turn may take."""
        waiting = self.waiting
        left = STEPS_A_TURN
        self.began = now = self.clock.seconds()
        while waiting and left and now - self.began < TURN:
            left -= 1
            step = waiting[0]
            try:
                more = step()
            except Exception:
                log.failure("while {step} had its turn", step=step)
                more = False
            waiting.rotate(-1)
            if not more:
                waiting.pop()
            now = self.clock.seconds()
        self.worked = now
        self.next = self.clock.callLater(0, self.go_on) if waiting else None
