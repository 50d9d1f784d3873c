"""Asks for the state while anybody looks at it, about once a second. Nothing is asked while nobody looks."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.task import deferLater
from twisted.logger import Logger

from txservices.utils.waiting import Waiters

EVERY = 1.0  # seconds from one question to the next
LOOKED = 5.0  # seconds that a page counts as looking after its last request
WAIT = 20.0  # seconds that a request waits for the next state

log = Logger()


class Watch:
    """The last state, as JSON, and those who wait for the next one.

    Args:
        ask: gives the state. Its errors are logged, and the next one is asked for.

    Attributes:
        number: of the last state.
    """

    def __init__(self, ask: Callable[[], Awaitable[Mapping[str, Any]]], clock: Any) -> None:
        self.ask = ask
        self.clock = clock
        self.number = 0
        self.text = b""
        self.waiters: Waiters[bytes] = Waiters()
        self.looked = 0.0
        self.asking: Deferred[None] | None = None
        self.cancelled = False

    def next(self, after: int) -> Deferred[bytes]:
        """Fires with the first state after that number; empty if no new state comes within ``WAIT``.

        A number that this process has not reached yet is an earlier process's: it counts as 0.
        """
        self.looked = self.clock.seconds()
        if self.asking is not None and (self.number > after or after > self.number > 0):
            return succeed(self.text)
        waiting = self.waiters.wait().addTimeout(WAIT, self.clock).addErrback(nothing)
        if self.asking is None:
            self.asking = Deferred.fromCoroutine(self.keep_asking())
        return waiting

    async def keep_asking(self) -> None:
        try:
            while not self.cancelled and (self.waiters or self.clock.seconds() - self.looked < LOOKED):
                begun = self.clock.seconds()
                try:
                    state = await self.ask()
                except CancelledError:
                    raise
                except Exception:
                    log.failure("the page could not ask for the state")
                else:
                    self.number += 1
                    self.text = json.dumps({"number": self.number, **state}, default=str).encode()
                    self.waiters.fire(self.text)
                await deferLater(self.clock, max(0.0, begun + EVERY - self.clock.seconds()))
        except CancelledError:
            pass
        finally:
            self.asking = None

    def cancel(self) -> None:
        """Ask no more. Those who wait have no state."""
        self.cancelled = True  # not every question can be cancelled
        if self.asking is not None:
            self.asking.cancel()
        self.waiters.fire(b"")


def nothing(failure: Any) -> bytes:
    failure.trap(DeferredTimeout)
    return b""
