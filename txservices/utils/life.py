"""The life of something that starts once and ends once: of a service's container, and of a process's runner.

    new -> starting -> running -> stopping -> ended
    new, starting -> stopping                          it may be stopped before it runs
    new, starting, running, stopping -> killed -> ended

Starting, stopping and killing are lists of steps, taken one after the other. A life that goes over to another state
cancels the step under way and takes no further step of the state before.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from enum import Enum
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, maybeDeferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from txservices.utils.waiting import Waiters

Step = Callable[[], Any]  # it may be ``async``, or return a Deferred

log = Logger()


class State(Enum):
    """Where a life is."""

    NEW = "new"
    STARTING = "starting"  # also after a start that failed, until somebody stops or kills it
    RUNNING = "running"
    STOPPING = "stopping"
    KILLED = "killed"
    ENDED = "ended"


NEXT = {
    State.NEW: {State.STARTING, State.STOPPING, State.KILLED},
    State.STARTING: {State.RUNNING, State.STOPPING, State.KILLED},
    State.RUNNING: {State.STOPPING, State.KILLED},
    State.STOPPING: {State.KILLED, State.ENDED},
    State.KILLED: {State.ENDED},
    State.ENDED: set(),
}

ENDING = {State.STOPPING, State.KILLED, State.ENDED}


class Life:
    """One life, and who waits for its end.

    Args:
        owner: whose life it is, for the log.
        start, stop, kill: the steps of each. An error in a step of ``start`` ends the start. One in a step of ``stop``
            or ``kill`` is logged and the next step is taken, for everything has to end.

    Attributes:
        failure: the error that it died of, if it did.
    """

    def __init__(self, owner: Any, start: Sequence[Step], stop: Sequence[Step], kill: Sequence[Step]) -> None:
        self.owner = owner
        self.steps = {State.STARTING: start, State.STOPPING: stop, State.KILLED: kill}
        self.state = State.NEW
        self.failure: Failure | None = None
        self.under_way: Deferred[None] | None = None  # the steps of this state, while they are taken
        self.waiting: Waiters[None] = Waiters()  # for the end, and the error
        self.ending: Waiters[None] = Waiters()  # for the end alone

    def may(self, state: State) -> bool:
        """Whether that state can be the next."""
        return state in NEXT[self.state]

    def start(self) -> Deferred[None]:
        """Take the steps of the start. Fires when it runs.

        Fails with the error of a step. If it ends first, also before this call, it fails with the error that it died
        of, or with ``CancelledError`` if there is none. ``RuntimeError`` for a second start.
        """
        if self.state in ENDING:
            return fail(self.failure or CancelledError())
        return self.go(State.STARTING, self.begin).addErrback(self.start_failed)

    def start_failed(self, failure: Failure) -> Failure:
        # whoever starts it must not take a death for a stop that somebody asked for
        return self.failure if self.failure and failure.check(CancelledError) else failure

    def stop(self) -> Deferred[None]:
        """Take the steps of the stop, unless it ends already. Fires when it has ended, and never fails."""
        if self.may(State.STOPPING):
            self.go(State.STOPPING, self.end)
        return self.ended()

    def kill(self, failure: Failure | None = None) -> Deferred[None]:
        """Take the steps of the kill, also in the middle of a stop. Fires when it has ended, and never fails.

        ``failure`` is why. It changes nothing if there was another before, or if this was killed before.
        """
        if self.may(State.KILLED):
            self.failure = self.failure or failure
            self.go(State.KILLED, self.end)
        return self.ended()

    def wait(self) -> Deferred[None]:
        """Fires when it has ended; fails with the error that it died of."""
        if self.state is not State.ENDED:
            return self.waiting.wait()
        return succeed(None) if self.failure is None else fail(self.failure)

    def ended(self) -> Deferred[None]:
        """Fires when it has ended, for whatever reason."""
        return succeed(None) if self.state is State.ENDED else self.ending.wait()

    # From state to state

    def become(self, state: State) -> None:
        if not self.may(state):
            raise RuntimeError(f"{self.owner} is {self.state.value} and can't be {state.value} next")
        self.state = state

    def go(self, state: State, walk: Callable[[State], Coroutine[Any, Any, None]]) -> Deferred[None]:
        self.become(state)
        before, self.under_way = self.under_way, None
        if before is not None:
            before.cancel()
        walking = Deferred.fromCoroutine(walk(state))
        if self.state is state:
            self.under_way = walking
        else:  # a step has led on to another state, before there was anything to cancel
            walking.cancel()
        return walking

    async def begin(self, state: State) -> None:
        for step in self.steps[state]:
            await maybeDeferred(step)
            if self.state is not state:
                raise CancelledError()
        self.become(State.RUNNING)

    async def end(self, state: State) -> None:
        for step in self.steps[state]:
            if self.state is not state:
                return
            await maybeDeferred(step).addErrback(self.step_failed, state)
        if self.state is state:
            self.become(State.ENDED)
            self.tell()

    def step_failed(self, failure: Failure, state: State) -> None:
        if self.state is state:  # else it was cancelled
            log.failure("while {owner} ended", failure, owner=self.owner)

    def tell(self) -> None:
        if self.failure is None:
            self.waiting.fire(None)
        elif self.waiting:
            self.waiting.fail(self.failure)
        else:
            log.failure("{owner} died", self.failure, owner=self.owner)
        self.ending.fire(None)
