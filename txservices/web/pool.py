"""Requests that wait because all workers of HTTP are taken: so many at a time, and each for so long. Then it is 503.

Call.begin_later -> Queue.add -> [a worker ends] -> Queue.done -> its worker begins
                              -> [time is up]    -> give_up
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from werkzeug.wrappers import Response

from txservices.web.messages import RETRY_AFTER
from txservices.web.problems import error_response

REQUESTS_WAITING_MAX = 1_000  # of one service
REQUEST_WAIT_MAX = 10.0  # seconds
BUSY_TOLD_EVERY = 60.0  # seconds between two lines of the log

log = Logger()


class Queue:
    """Counts the requests of a service that wait, and ends the wait of each.

    Attributes:
        waiting: how many wait.
    """

    def __init__(self, clock: Any, service: str, max_workers: int) -> None:
        self.clock = clock
        self.service = service
        self.max_workers = max_workers
        self.waiting = 0
        self.tell_at = 0.0

    @property
    def full(self) -> bool:
        return self.waiting >= REQUESTS_WAITING_MAX

    def add(self, give_up: Callable[[], None]) -> IDelayedCall:
        """A request begins to wait. ``give_up`` is called when it has waited for too long."""
        self.waiting += 1
        timer: IDelayedCall = self.clock.callLater(REQUEST_WAIT_MAX, give_up)
        return timer

    def done(self, timer: IDelayedCall) -> None:
        """It waits no longer."""
        self.waiting -= 1
        if timer.active():
            timer.cancel()

    def busy(self, as_problem: bool) -> Response:
        """The answer to a request that can't wait, or has waited for too long."""
        now = self.clock.seconds()
        if now >= self.tell_at:
            self.tell_at = now + BUSY_TOLD_EVERY
            log.warn(
                "requests are answered 503: all {most} workers of {service} over HTTP (WEB_MAX_WORKERS, or max_workers"
                " of a method) are taken, {waiting} requests wait",
                most=self.max_workers,
                service=self.service,
                waiting=self.waiting,
            )
        return error_response("all workers are taken, try again", 503, as_problem, {"Retry-After": str(RETRY_AFTER)})
