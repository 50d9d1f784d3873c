"""Long computations, in a thread: one at a time, so that the reactor waits for the steps of one thread only."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.threads import deferToThreadPool

from txservices.utils import default_reactor

turns = DeferredLock()


def in_background(function: Callable[..., Any], *args: Any) -> Deferred[Any]:
    """Call a function in a thread of the reactor's pool when its turn comes. Fires with its result."""
    reactor = default_reactor()
    return turns.run(deferToThreadPool, reactor, reactor.getThreadPool(), function, *args)


def forked() -> None:
    """A child has neither the thread nor the reactor that would give its parent's turn back."""
    global turns
    turns = DeferredLock()


os.register_at_fork(after_in_child=forked)
