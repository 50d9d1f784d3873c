"""Metrics for Prometheus: what has happened is counted here, how things stand is asked at the scrape.

    observers -> Metrics.worker_ended, ... -> series
    GET /metrics -> exposition -> Metrics.lines -> series, and standing(observers.containers)

What a service counts itself by prometheus-client goes along, for it is in that library's own registry.

This module needs prometheus-client: ``pip install 'txservices[metrics]'``.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

try:
    from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
    from prometheus_client.core import Metric
    from prometheus_client.registry import Collector
except ImportError as error:
    raise ImportError(f"metrics need prometheus-client: pip install 'txservices[metrics]' ({error})") from error

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from txservices.monitoring import families
from txservices.monitoring.exposition import lines
from txservices.monitoring.families import FAMILIES
from txservices.monitoring.series import BOUNDS, Counter, Family, Histogram, SeriesOf
from txservices.monitoring.standing import dotted, labels_of, standing
from txservices.observers import ERROR, TIMEOUT, Observer, observers
from txservices.utils import default_reactor

__all__ = ["Metrics", "exposition"]

LOOK_EVERY = 0.25  # seconds between two looks at how late a timer of the reactor fires

FAILED = (ERROR, TIMEOUT)

# HTTP's methods by RFC 9110, and PATCH. All that clients make up are OTHER_METHOD, as OpenTelemetry has it.
HTTP_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
OTHER_METHOD = "_OTHER"

# The metric of an entrypoint's workers, by the class that it is of, or is a subclass of. WORKER is for all others.
WORKERS = {"txservices.rpc.Rpc": families.RPC_SERVER, "txservices.messaging.Consumer": families.PROCESS}

# The ids in the names of queues that are an instance's own, for replies and broadcasts: each start has others.
ID = re.compile(r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}")

# A metric of the same name would make the whole scrape unreadable. The client has counters without their ending.
OURS = frozenset(each.name.removesuffix("_total") for each in FAMILIES)

log = Logger()


class Metrics(Observer):
    """Counts what happens in the process.

    Args:
        clock: the reactor, or a test's clock.
    """

    def __init__(self, config: Mapping[str, Any], clock: Any = None) -> None:
        super().__init__(config)
        self.histograms = {each: SeriesOf(each, Histogram) for each in FAMILIES if each.kind == "histogram"}
        self.counters = {each: SeriesOf(each, Counter) for each in FAMILIES if each.kind == "counter"}
        self.workers = self.histograms[families.WORKER].known  # of each entrypoint and outcome, in whatever metric
        self.waited = self.counters[families.WAITED]
        self.calls = self.histograms[families.RPC_CLIENT]
        self.published = self.histograms[families.PUBLISHED]
        self.lost: set[str] = set()
        self.clock = default_reactor(clock)
        self.delay = self.histograms[families.REACTOR_DELAY].add(())
        self.looking = LoopingCall(self.look)
        self.looking.clock = self.clock
        self.due = self.clock.seconds() + LOOK_EVERY
        self.looking.start(LOOK_EVERY, now=False)

    def stop(self) -> None:
        """Look no more at the reactor."""
        self.looking.stop()

    def look(self) -> None:
        """Note how late this is called."""
        now = self.clock.seconds()
        self.delay.observe(max(0.0, now - self.due))
        self.due = now + LOOK_EVERY - (now - self.looking.starttime) % LOOK_EVERY  # as LoopingCall reckons

    # What happens. The first three are on the way of each RPC.

    def worker_ended(
        self, worker: Any, outcome: str, waited: float, seconds: float, error: BaseException | None
    ) -> None:
        entrypoint = worker.entrypoint
        series = self.workers.get((entrypoint, outcome))
        if series is None:
            series = self.workers_of(entrypoint, outcome)
        series.counts[bisect_left(BOUNDS, seconds)] += 1
        series.sum += seconds
        if waited:
            counter = self.waited.known.get(entrypoint)
            if counter is None:
                counter = self.waited.add(entrypoint, *labels_of(worker.service_name, entrypoint))
            counter.value += waited

    def call_ended(self, call: Any, outcome: str, seconds: float, error: BaseException | None) -> None:
        key = call.client.name, call.name, outcome
        series = self.calls.known.get(key)
        if series is None:
            labels = call.client.name, call.service, call.name, outcome, outcome if outcome in FAILED else ""
            series = self.calls.add(key, *labels)
        series.counts[bisect_left(BOUNDS, seconds)] += 1
        series.sum += seconds

    def http_call_ended(self, call: Any, outcome: str, seconds: float, error: BaseException | None) -> None:
        status = call.status
        if error is not None:
            fault = type(error).__name__ if outcome == ERROR else outcome
        else:
            fault = str(status) if status >= 400 else ""
        key = call.service, call.method, call.host, status, fault
        series = self.histograms[families.HTTP_CLIENT].known.get(key)
        if series is None:
            method = call.method if call.method in HTTP_METHODS else OTHER_METHOD
            labels = call.service, method, call.host, "" if status is None else status, fault
            series = self.histograms[families.HTTP_CLIENT].add(key, *labels)
        series.observe(seconds)

    def message_confirmed(self, exchange: str, routing_key: str, seconds: float, error: BaseException | None) -> None:
        key = exchange if error is None else (exchange, type(error))
        series = self.published.known.get(key)
        if series is None:
            series = self.published.add(key, exchange, "" if error is None else type(error).__name__)
        series.counts[bisect_left(BOUNDS, seconds)] += 1
        series.sum += seconds

    def workers_of(self, entrypoint: Any, outcome: str) -> Histogram:
        """The series of an entrypoint's workers with that outcome."""
        service = entrypoint.container.service_name
        kinds = (WORKERS.get(dotted(cls)) for cls in type(entrypoint).__mro__)
        family = next(filter(None, kinds), families.WORKER)
        labels = [*labels_of(service, entrypoint), outcome, outcome if outcome in FAILED else ""]
        if family is families.RPC_SERVER:
            labels.insert(4, f"{service}.{entrypoint.method_name}")
        series = self.histograms[family].add((entrypoint, outcome), *labels)
        self.workers[entrypoint, outcome] = series
        return series

    def count(self, family: Family, number: float, *labels: object) -> None:
        counters = self.counters[family]
        counter = counters.known.get(labels)
        if counter is None:
            counter = counters.add(labels, *labels)
        counter.value += number

    def event_dispatched(self, service: str, event_type: str) -> None:
        self.count(families.EVENTS, 1, service, event_type)

    def message_rejected(self, queue: str, requeued: bool) -> None:
        self.count(families.REJECTED, 1, ID.sub("*", queue), str(requeued).lower())

    def message_retried(self, queue: str, attempt: int, delay: float, error: BaseException) -> None:
        self.count(families.RETRIED, 1, ID.sub("*", queue))

    def message_parked(self, queue: str, reason: str) -> None:
        self.count(families.PARKED, 1, ID.sub("*", queue), reason)

    def connected(self, address: str, purpose: str) -> None:
        back = purpose in self.lost
        self.lost.discard(purpose)
        self.count(families.RECONNECTS, back, purpose)

    def disconnected(self, address: str, purpose: str, reason: str) -> None:
        self.lost.add(purpose)

    def request_ended(self, method: str, route: str | None, status: int, seconds: float, scheme: str) -> None:
        key = method, route, status, scheme
        requests = self.histograms[families.HTTP]
        series = requests.known.get(key)
        if series is None:
            known = method if method in HTTP_METHODS else OTHER_METHOD
            series = requests.add(key, known, route or "", status, status if status >= 500 else "", scheme)
        series.observe(seconds)

    def lines(self) -> Iterator[str]:
        """Every metric as text."""
        pool = getattr(self.clock, "threadpool", None)
        all_series: Iterable[SeriesOf[Any]] = (
            *self.histograms.values(),
            *self.counters.values(),
            *standing(observers.containers, pool),
        )
        for series in all_series:
            yield from lines(series)


class Others(Collector):
    """What prometheus-client's own registry has: the process's memory and files, and what a service counts itself."""

    def collect(self) -> Iterator[Metric]:
        try:
            yield from (each for each in REGISTRY.collect() if each.name not in OURS)
        except Exception:  # of a service's collector: everything else is told even so
            log.failure("a collector of prometheus-client's registry failed: its metrics, and others, are left out")


def exposition() -> tuple[bytes, str]:
    """The metrics of this process in Prometheus's text format, and the content type of that."""
    ours = "".join(line for each in observers.all if isinstance(each, Metrics) for line in each.lines())
    return ours.encode() + generate_latest(Others()), CONTENT_TYPE_LATEST
