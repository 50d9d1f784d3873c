"""What a process has once, however many services run in it: its connections, its HTTP port."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from txservices.utils.waiting import Waiters

__all__ = ["SharedServices"]


class SharedServices(MultiService):
    """The Twisted services that all services of a process share. A stop stops all of them, the newest first.

    Attributes:
        service_names: of the services.
        on_stopping: each is called when the services begin to stop, before any of them has.
        on_killing: each is called when the services have been killed, before any of this stops.
    """

    def __init__(self) -> None:
        super().__init__()
        self.service_names: list[str] = []
        self.on_stopping: list[Callable[[], None]] = []
        self.on_killing: list[Callable[[], None]] = []
        self.closing = False
        self.stopped: Waiters[None] = Waiters()

    def get(self, key: str, make: Callable[[], IService]) -> Any:
        """The Twisted service of that key. The first to ask makes it. It is started with this, or at once."""
        found = self.namedServices.get(key)
        if found is None:
            found = make()
            found.setName(key)
            found.setServiceParent(self)
        return found

    def stopping(self) -> None:
        if not self.closing:
            for call in self.on_stopping:
                call()

    def killing(self) -> None:
        for call in self.on_killing:
            call()

    def stopService(self) -> Deferred[None]:
        """Stop every service. Fires when all have stopped; so does that of a second call.

        To cancel it ends that wait alone: a kill must not interrupt services that close, and stop them once more.
        """
        stopped = self.stopped.wait()
        if not self.closing:
            self.closing = True
            maybeDeferred(super().stopService).addBoth(self.closed)
        return stopped

    def closed(self, result: Any) -> None:
        self.closing = False
        if isinstance(result, Failure):
            self.stopped.fail(result)
        else:
            self.stopped.fire(None)
