"""Heartbeats, the same for a client and a server. Pure: the clock is given.

A frame goes out each half interval in which nothing was written; a peer is dead after two intervals without a byte.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

SILENT_INTERVALS = 2  # heartbeat intervals without a byte after which a peer is dead (AMQP 0-9-1, 4.2.7)
EXTRA_TURNS = 2  # turns of the reactor in which a byte may still come when the time is over


class Heartbeat:
    """The heartbeat of one connection, which notes here when it reads and writes.

    Args:
        clock: the reactor, or a test's clock.
        send: called when it is time to write a heartbeat frame. It must not stop the heartbeat.
        give_up: called once when the peer has been silent for two intervals; the heartbeat has stopped by then.

    Attributes:
        interval: seconds; 0 while stopped.
        read_at: the clock's time when bytes came last. The connection sets it.
        reading: whether the connection reads. While it doesn't, nobody is given up. The connection sets it.
        wrote: whether anything was written since the last half interval. The connection sets it.
    """

    __slots__ = ("beating", "clock", "give_up", "interval", "looking", "read_at", "reading", "send", "turns", "wrote")

    def __init__(self, clock: Any, send: Callable[[], None], give_up: Callable[[], None]) -> None:
        self.clock = clock
        self.send = send
        self.give_up = give_up
        self.interval: float = 0
        self.read_at: float = clock.seconds()
        self.reading = True
        self.wrote = False
        self.beating: Any = None  # the delayed calls
        self.looking: Any = None
        self.turns = EXTRA_TURNS  # left

    def start(self, interval: float) -> None:
        """Begin anew with an interval of that many seconds; 0 is no heartbeat."""
        self.stop()
        if interval:
            self.interval = interval
            self.turns = EXTRA_TURNS
            self.read_at = self.clock.seconds()
            self.beating = self.clock.callLater(interval / 2, self.beat)
            self.looking = self.clock.callLater(SILENT_INTERVALS * interval, self.look)

    def stop(self) -> None:
        """Send nothing more, and give nobody up."""
        if self.interval:
            self.interval = 0
            self.beating.cancel()
            self.looking.cancel()

    def beat(self) -> None:
        self.beating = self.clock.callLater(self.interval / 2, self.beat)
        if not self.wrote:
            self.send()
        self.wrote = False

    def look(self) -> None:
        """Give the peer up if its time is over.

        When this process was held up, bytes may have come that are not read yet. The reactor reads those of a socket
        in the next turn. A peer in this process was held up as well: both write now, and read in the two turns to come.
        """
        if not self.reading:
            self.read_at = self.clock.seconds()
        left = self.read_at + SILENT_INTERVALS * self.interval - self.clock.seconds()
        if left > 0:
            self.turns = EXTRA_TURNS
            self.looking = self.clock.callLater(left, self.look)
        elif self.turns:
            self.turns -= 1
            self.send()  # whether or not anything was written: this process may have been held up since
            self.looking = self.clock.callLater(0, self.look)
        else:
            self.interval = 0
            self.beating.cancel()
            self.give_up()
