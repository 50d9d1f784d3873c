"""Taking leave of a broker: what a stop waits for, and for how long.

Each step of a stop asks the broker for something: to cancel a consumer, to confirm what was published, to close. One
that does not answer is waited for once, not in each step, and one that is away not even as long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, FirstError
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

if TYPE_CHECKING:
    from txservices.amqp.connections import Connections

log = Logger()

STOP_TIMEOUT = 5.0  # seconds that a stop waits for an answer; the first that does not come ends all its waiting
AWAY_TIMEOUT = 1.0  # seconds that a stop waits for a connection to come back
LOOK_AGAIN = 0.1  # seconds between two looks whether it has


class Leaving:
    """The stop of a process, as far as its connections go.

    Attributes:
        on_given_up: called when there is no broker to wait for.
    """

    def __init__(self, connections: Connections, clock: Any) -> None:
        self.connections = connections
        self.clock = clock
        self.on_given_up: list[Callable[[], None]] = []
        self.given_up = False
        self.away_since: float | None = None
        self.looking = LoopingCall(self.look)
        self.looking.clock = clock

    def begin(self) -> None:
        """From now on a broker that is away for AWAY_TIMEOUT is not waited for."""
        if not self.looking.running and not self.given_up:
            self.looking.start(LOOK_AGAIN)

    def end(self) -> None:
        if self.looking.running:
            self.looking.stop()

    def look(self) -> None:
        now = self.clock.seconds()
        if self.connections.connected:
            self.away_since = None
        elif self.away_since is None:
            self.away_since = now
        elif now - self.away_since >= AWAY_TIMEOUT:
            self.give_up()

    async def answered(self, waited: Deferred[Any]) -> bool:
        """Whether that came about within STOP_TIMEOUT, for what stops.

        If not, nobody is there, and both connections are dropped: whatever else waits for the broker ends with them,
        not each thing after a time of its own. Where the process goes on, other connections are made.
        """
        try:
            await waited.addTimeout(STOP_TIMEOUT, self.clock)
        except (DeferredTimeout, FirstError):  # the latter from gatherResults, when it is cancelled
            log.warn("the broker has not answered for {seconds} s: stopping without it", seconds=STOP_TIMEOUT)
            if self.looking.running:
                self.give_up()
            else:
                self.connections.drop()
            return False
        return True

    def give_up(self) -> None:
        """What waits for the broker fails."""
        self.given_up = True
        self.end()
        self.connections.give_up()
        for call in list(self.on_given_up):
            call()
