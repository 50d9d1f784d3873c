"""Choose the next consumer of a queue, if its consumers don't simply take turns. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from txservices.broker.deliveries import Consumer


class ByPriority(deque[Consumer]):
    """The turn of consumers of different priorities: the highest first, those of one priority each in turn."""

    def append(self, consumer: Consumer) -> None:
        place = len(self)
        while place and self[place - 1].priority < consumer.priority:
            place -= 1
        self.insert(place, consumer)

    def rotate(self, n: int = -1) -> None:
        """Put the first one behind the others of its priority."""
        self.append(self.popleft())


class SingleActive:
    """The one consumer that a queue delivers to, until it is gone; then that of the highest priority, or the oldest.

    Args:
        takes_over: a consumer of higher priority does not wait until the active one is gone, but only until that has
            settled its deliveries. It gets no more meanwhile.
    """

    def __init__(self, takes_over: bool) -> None:
        self.takes_over = takes_over
        self.active: Consumer | None = None

    def choose(self, consumers: Mapping[Consumer, None]) -> Consumer | None:
        """The consumer that may be delivered to now, or None. ``consumers`` has the oldest first."""
        best = max(consumers, key=lambda consumer: consumer.priority, default=None)
        active = self.active
        if active is not None and active in consumers:
            if not self.takes_over or best is None or best.priority <= active.priority:
                return active
            if active.unacked:
                return None
        self.active = best
        return best
