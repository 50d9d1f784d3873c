"""A process that is forked in the middle of a service, by ``os.fork`` in a method: it says nothing for its parent.

The child has copies of the parent's sockets, and the rest of the parent's method before it: it would answer the call
once more, on the same connection. So a child's copies are closed, and whatever it still writes there goes nowhere. A
child that comes back from the method to the service ends. One that does its work inside of the method, as those of
``multiprocessing`` do, or that becomes another program, notices nothing.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Protocol
from weakref import WeakSet

from twisted.logger import Logger

REACTOR = "twisted.internet.reactor"

log = Logger()


class Owner(Protocol):
    """Something that a child must not use."""

    def disown(self) -> None:
        """Called in a child: whatever is still done must have no effect on the parent."""


owners: WeakSet[Owner] = WeakSet()


class Nowhere:
    """The transport of a child: it takes everything, and nothing goes out."""

    def __getattr__(self, name: str) -> Any:
        return ignore


def ignore(*args: Any, **kwargs: Any) -> None:
    """Does nothing."""


def leave(transport: Any) -> Any:
    """Close this process's copy of a transport's socket, and give the transport to use in its place."""
    socket = getattr(transport, "socket", None)
    if socket is not None and not isinstance(transport, Nowhere):  # else it is a child of a child
        socket.close()  # closes this process's number alone: nothing goes out, and the parent's stays open
    return Nowhere()


def end() -> None:
    """End a child that has come back to the service."""
    log.error(
        "process {pid} was forked in a method and has come back to the service, where its parent goes on: it ends here."
        " End a child inside of the method, by os._exit()",
        pid=os.getpid(),
    )
    os._exit(1)


def forked() -> None:
    reactor: Any = sys.modules.get(REACTOR)
    if reactor is None or not reactor.running:
        return
    for owner in list(owners):
        owner.disown()
    reactor.callLater(0, end)


os.register_at_fork(after_in_child=forked)
