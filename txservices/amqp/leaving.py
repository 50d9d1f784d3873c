"""The stop of a process, as far as the broker goes: what it waits for, and for how long.

Each step of a stop asks the broker for something: to cancel a consumer, to confirm what was published, to close. A
broker that does not answer is waited for once, not in each step; one that can't be reached not even as long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, FirstError
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

log = Logger()

STOP_TIMEOUT = 5.0  # seconds that a stop waits for an answer; after the first that does not come it waits for no other
AWAY_TIMEOUT = 1.0  # seconds that a stop waits for a lost connection to come back


class Leaving:
    """Decides when a stop waits for the broker no longer.

    Args:
        connected: whether every connection in use is open now; ``look`` is called when that may have changed.
        abort: ends everything that waits for the broker.
        reconnect: aborts the connections, so that others are made.

    Attributes:
        on_aborted: called when the broker is waited for no longer.
    """

    def __init__(
        self, connected: Callable[[], bool], abort: Callable[[], None], reconnect: Callable[[], None], clock: Any
    ) -> None:
        self.connected = connected
        self.abort_connections = abort
        self.reconnect = reconnect
        self.clock = clock
        self.on_aborted: list[Callable[[], None]] = []
        self.begun = self.aborted = False
        self.away: IDelayedCall | None = None

    def begin(self) -> None:
        """The process stops: from now on a lost connection is waited for no longer than AWAY_TIMEOUT."""
        if not self.aborted:
            self.begun = True
            self.look()

    def end(self) -> None:
        """Everything was waited for."""
        self.begun = False
        self.look()

    def look(self) -> None:
        """See whether the connections are there, and begin to wait for one that is not."""
        waits = self.begun and not self.connected()
        if waits and self.away is None:
            self.away = self.clock.callLater(AWAY_TIMEOUT, self.abort)
        elif not waits and self.away is not None:
            away, self.away = self.away, None
            if away.active():  # else it has called abort()
                away.cancel()

    async def answered(self, waited: Deferred[Any]) -> bool:
        """Wait for a Deferred, at most STOP_TIMEOUT, and give whether it fired.

        If it did not, the broker does not answer, and all connections are aborted: everything else that waits for the
        broker ends with them, and not each after a timeout of its own. If the process goes on, other connections are
        made.
        """
        try:
            await waited.addTimeout(STOP_TIMEOUT, self.clock)
        except (DeferredTimeout, FirstError):  # the latter from gatherResults, when it is cancelled
            log.warn("the broker has not answered for {seconds} s: stopping without it", seconds=STOP_TIMEOUT)
            if self.begun:
                self.abort()
            else:
                self.reconnect()
            return False
        return True

    def abort(self) -> None:
        """Wait for the broker no longer: whatever waits for it fails."""
        self.aborted = True
        self.end()
        self.abort_connections()
        for call in list(self.on_aborted):
            call()
