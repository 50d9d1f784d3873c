"""How things stand in this process now, asked of its containers when somebody scrapes: nothing is counted for it.

A container may be anywhere between its making and its end. Whatever it does not have yet, or no longer, is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from txservices import __version__
from txservices.monitoring.described import by_entrypoint
from txservices.monitoring.families import (
    BLOCKED,
    CIRCUIT,
    CONNECTION_UP,
    CONSUMERS_UP,
    CONSUMERS_WANTED,
    FAMILIES,
    INFO,
    PENDING,
    PREFETCH_MAX,
    PREFETCHED_BYTES,
    READY,
    RUNNING,
    SOCKETS,
    THREADS_BUSY,
    THREADS_MAX,
    UNACKED,
    UNCONFIRMED,
    UNCONFIRMED_BYTES,
    WAITING,
    WORKERS_MAX,
)
from txservices.monitoring.series import Counter, Family, SeriesOf

__all__ = ["standing"]

STANDING = tuple(each for each in FAMILIES if each.kind == "gauge")
STATES = ("closed", "open", "half-open")  # of a circuit

# Extensions that have something to show, by the classes that they are of, or are subclasses of.
SHOWN = {
    "txservices.consumers.QueueConsumer": "consumers",
    "txservices.rpc.ReplyListener": "calls",
    "txservices.web.websocket.WebSocketServer": "sockets",
}


def standing(containers: Iterable[Any], pool: Any) -> list[SeriesOf[Counter]]:
    """The numbers of now, for each of STANDING. ``pool`` is the reactor's pool of threads, None if it has none yet.

    Services of the same name are counted together: there may be two in a test.
    """
    now = Now()
    now.add(INFO, 1, __version__)
    now.add(THREADS_BUSY, 0 if pool is None else len(pool.working))
    now.add(THREADS_MAX, 0 if pool is None else pool.max)
    for each in (UNCONFIRMED, UNCONFIRMED_BYTES, SOCKETS):
        now.add(each, 0)
    seen: set[Any] = set()
    for container in list(containers):
        now.workers(container)
        now.extensions(container, seen)
        if container.shared not in seen:
            seen.add(container.shared)
            now.connections(container.shared.namedServices.get("amqp"))
    return list(now.series.values())


class Now:
    """Adds up the numbers of now."""

    def __init__(self) -> None:
        self.series: dict[Family, SeriesOf[Counter]] = {each: SeriesOf(each, Counter) for each in STANDING}

    def add(self, family: Family, number: float, *labels: object) -> None:
        self.series[family].add(labels, *labels).value += number

    def workers(self, container: Any) -> None:
        name, workers = container.service_name, container.workers
        self.add(WORKERS_MAX, workers.places, name)
        for each in container.entrypoints:
            self.add(RUNNING, 0, *labels_of(name, each))
            self.add(WAITING, 0, *labels_of(name, each))
        for family, found in zip((RUNNING, WAITING), by_entrypoint(workers), strict=True):
            for entrypoint, number in found.items():
                self.add(family, number, *labels_of(name, entrypoint))

    def extensions(self, container: Any, seen: set[Any]) -> None:
        for each in container.subextensions:
            kind = next(filter(None, (SHOWN.get(dotted(cls)) for cls in type(each).__mro__)), None)
            if kind == "consumers":
                self.consumers(container.service_name, each)
            elif kind == "calls" and each.client is not None:
                self.calls(container.service_name, each.client)
            elif kind == "sockets" and each.sockets is not None and each.sockets not in seen:
                seen.add(each.sockets)
                self.add(SOCKETS, len(each.sockets.connections))
        self.add(READY, not container.not_ready(), container.service_name)

    def consumers(self, name: str, queue_consumer: Any) -> None:
        wanted = [each for each in queue_consumer.opened if each.consuming]
        self.add(CONSUMERS_WANTED, len(wanted), name)
        self.add(CONSUMERS_UP, sum(each.active for each in wanted), name)
        self.add(UNACKED, sum(each.unsettled for each in queue_consumer.opened), name)
        self.add(PREFETCH_MAX, sum(each.prefetch_count * (1 + each.more) for each in wanted), name)
        for prefetched in {each.connection.prefetched for each in queue_consumer.opened} - {None}:
            self.add(PREFETCHED_BYTES, prefetched.bytes, name)

    def calls(self, name: str, client: Any) -> None:
        self.add(PENDING, len(client.pending), name)
        for circuit in client.circuits.circuits.values():
            for state in STATES:
                self.add(CIRCUIT, circuit.state == state, name, circuit.service, state)

    def connections(self, connections: Any) -> None:
        if connections is None:
            return
        for each in connections.in_use:
            self.add(CONNECTION_UP, each.protocol is not None, purpose_of(each))
            self.add(BLOCKED, each.protocol is not None and each.protocol.blocked is not None, purpose_of(each))
        publisher = vars(connections).get("publisher")  # made when it is first needed, and not by us
        if publisher is not None:
            self.add(UNCONFIRMED, len(publisher.unconfirmed))
            self.add(UNCONFIRMED_BYTES, publisher.unconfirmed_bytes)


def labels_of(service: str, entrypoint: Any) -> Iterator[object]:
    """Service, method and kind of an entrypoint."""
    return iter((service, getattr(entrypoint, "method_name", ""), type(entrypoint).__name__))


def purpose_of(connection: Any) -> str:
    """What a connection is for."""
    return str(connection.connection_name).removeprefix("txservices: ")


def dotted(cls: type[Any]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
