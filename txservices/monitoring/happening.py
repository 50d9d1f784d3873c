"""Tells what happens in a process to those who have asked, for as long as they go on asking.

Each has a lease. What happens is put down in it, up to its rate, and sent every quarter of a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from twisted.logger import Logger

from txservices.monitoring.answers import LEASE_MAX, Happened, Tail
from txservices.monitoring.failures import cut
from txservices.observers import OK, Observer, observers
from txservices.safe import name_of, safe_for_serialization

__all__ = ["Happening"]

LEASES_MAX = 10  # askers that one process tells what happens
SENT_EVERY = 0.25  # seconds
RATE_MAX = 1_000.0  # of what happens a second, whatever an asker wants
ERROR_BRIEF_MAX = 200  # characters of an error's class and text

log = Logger()

Send = Callable[[str, str, list[Happened], int], None]


class Lease:
    """The events for one asker.

    Attributes:
        reply_to: the queue that it is told by.
        until: the clock's time at which it ends.
        credit: how many it may be told until it earns more.
    """

    def __init__(self, reply_to: str, tail: Tail, now: float) -> None:
        self.happened: list[Happened] = []
        self.dropped = 0
        self.greeted = False
        self.renew(reply_to, tail, now)
        self.credit = max(self.rate, 1.0)

    def renew(self, reply_to: str, tail: Tail, now: float) -> None:
        self.reply_to = reply_to
        self.service = tail["service"]
        self.method = tail["method"]
        self.rate = min(max(tail["rate"], 0.0), RATE_MAX)
        self.until = now + min(max(tail["seconds"], 0.0), LEASE_MAX)

    def earn(self, seconds: float) -> None:
        self.credit = min(self.credit + self.rate * seconds, max(self.rate, 1.0))

    def wants(self, service: str, name: str) -> bool:
        return self.service in ("", service) and self.method in ("", name)


class Happening(Observer):
    """Observes while somebody has a lease.

    Args:
        config: that of the process.
        shared: what the services of that process share.
        connections: those by which they make their calls.
        clock: the reactor.
        send: is called with the queue and the correlation id of a lease, and what is to be told.
    """

    def __init__(self, config: Mapping[str, Any], shared: Any, connections: Any, clock: Any, send: Send) -> None:
        super().__init__(config)
        self.shared = shared
        self.connections = connections
        self.clock = clock
        self.send = send
        self.refusing = False  # whether that was said since there was room
        self.leases: dict[str, Lease] = {}  # by the correlation id of their asks
        self.sending: Any = None

    def lease(self, reply_to: str, correlation_id: str, tail: Tail) -> None:
        """Tell somebody what happens, or go on with it."""
        now = self.clock.seconds()
        lease = self.leases.get(correlation_id)
        if lease is not None:
            lease.renew(reply_to, tail, now)
        elif len(self.leases) < LEASES_MAX:
            if not self.leases:
                observers.add(self)
                self.sending = self.clock.callLater(SENT_EVERY, self.send_all)
            self.leases[correlation_id] = Lease(reply_to, tail, now)
        elif not self.refusing:
            self.refusing = True
            log.warn(
                "{number} ask already what happens here: whoever asks now is told nothing until one of them has left",
                number=LEASES_MAX,
            )

    def send_all(self) -> None:
        now = self.clock.seconds()
        for correlation_id, lease in list(self.leases.items()):
            if lease.happened or lease.dropped or not lease.greeted:
                happened, dropped = lease.happened, lease.dropped
                lease.happened, lease.dropped, lease.greeted = [], 0, True
                self.send(lease.reply_to, correlation_id, happened, dropped)
            lease.earn(SENT_EVERY)
            if now >= lease.until:
                del self.leases[correlation_id]
                self.refusing = False
        if self.leases:
            self.sending = self.clock.callLater(SENT_EVERY, self.send_all)
        else:
            observers.remove(self)

    def stop(self) -> None:
        """Tell nothing any more."""
        if self.leases:
            self.leases.clear()
            self.sending.cancel()
            observers.remove(self)

    def worker_ended(
        self, worker: Any, outcome: str, waited: float, seconds: float, error: BaseException | None
    ) -> None:
        """See ``Observer``."""
        if worker.container.shared is self.shared:
            name = worker.entrypoint.method_name
            self.tell("worker", worker.service_name, name, outcome, seconds, worker.call_id, error)

    def call_ended(self, call: Any, outcome: str, seconds: float, error: BaseException | None) -> None:
        """See ``Observer``."""
        if call.client.connections is self.connections:
            self.tell("call", call.client.name, call.name, outcome, seconds, "", error)

    def event_dispatched(self, service: str, event_type: str) -> None:
        """See ``Observer``."""
        if service in self.shared.containers:
            self.tell("event", service, event_type, OK, 0.0, "", None)

    def tell(
        self,
        kind: str,
        service: str,
        name: str,
        outcome: str,
        seconds: float,
        call_id: str,
        error: BaseException | None,
    ) -> None:
        happened: Happened | None = None
        for lease in self.leases.values():
            if not lease.wants(service, name):
                continue
            if lease.credit < 1.0:
                lease.dropped += 1
                continue
            lease.credit -= 1.0
            if happened is None:
                happened = {
                    "at": time.time(),
                    "kind": kind,
                    "service": service,
                    "name": name,
                    "outcome": outcome,
                    "seconds": seconds,
                    "call_id": call_id,
                    "error": "" if error is None else brief_error(error),
                }
            lease.happened.append(happened)


def brief_error(error: BaseException) -> str:
    """The class and the text of an error."""
    return cut(f"{name_of(type(error))}: {safe_for_serialization(error)}", ERROR_BRIEF_MAX)
