"""The numbers behind the metrics: counters and histograms, with a bound for how many series a metric may have. Pure.

    Metrics.worker_ended -> one dict look-up -> Histogram.observe -> [a scrape] -> Histogram.buckets

They are plain integers, for prometheus-client's own take a lock for each event, and several times as long.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Iterator
from typing import Generic

from attrs import frozen
from typing_extensions import TypeVar

from txservices.utils.printable import printable

__all__ = ["BOUNDS", "OTHER", "Counter", "Family", "Histogram", "SeriesOf", "label_of"]

SERIES_MAX = 500  # series of a metric; those of further names are counted together, as OTHER
LABEL_MAX = 200  # characters of a label's value; the rest is left out

OTHER = "other"

# Upper ends of the buckets in seconds: OpenTelemetry's advice for the durations of HTTP, RPC and messaging.
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)


@frozen(eq=False)
class Family:
    """A metric: what it is called, what its labels are, and what it means.

    Attributes:
        name: as Prometheus has it.
        kind: ``counter``, ``gauge`` or ``histogram``.
        unit: of its values, in words.
        labels: their names.
        meaning: one sentence, for the scrape and for docs/operating.md.
        open: labels whose values may come from a stranger: they are OTHER for what is beyond SERIES_MAX.
        fixed: labels that are the same in all of its series.
    """

    name: str
    kind: str
    unit: str
    labels: tuple[str, ...]
    meaning: str
    open: tuple[str, ...] = ()
    fixed: tuple[tuple[str, str], ...] = ()

    def with_other(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        """The labels of the series that such a one is counted in if there are too many."""
        return tuple(OTHER if name in self.open else value for name, value in zip(self.labels, labels, strict=True))


class Counter:
    """How much there was since the process began."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0


class Histogram:
    """How many took how long: ``counts`` has a number for each bucket, the last for what is beyond all of them."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum += seconds

    def buckets(self) -> Iterator[tuple[str, int]]:
        """The upper end of each bucket, and how many were not above it."""
        count = 0
        for bound, number in zip((*map(str, BOUNDS), "+Inf"), self.counts, strict=True):
            count += number
            yield bound, count


Series = TypeVar("Series", Counter, Histogram)


class SeriesOf(Generic[Series]):
    """The series of one metric.

    Attributes:
        known: those that were used before, by whatever whoever counts knows them by: ``known.get(key)`` is all that
            an event costs. ``add`` fills it.
        all: by the values of their labels.
        written: the labels of each as they stand in the text of a scrape.
    """

    def __init__(self, family: Family, make: type[Series]) -> None:
        self.family = family
        self.make: type[Series] = make
        self.known: dict[Hashable, Series] = {}
        self.all: dict[tuple[str, ...], Series] = {}
        self.written: dict[tuple[str, ...], str] = {}

    def add(self, key: Hashable, *labels: object) -> Series:
        """The series with these labels, which is known by that key from now on."""
        values = tuple(map(label_of, labels))
        if values not in self.all and len(self.all) >= SERIES_MAX:
            values = self.family.with_other(values)
        series = self.all.get(values)
        if series is None:
            series = self.all[values] = self.make()
        if len(self.known) >= SERIES_MAX:  # keys of services that have ended, or of strangers' names
            self.known.clear()
        self.known[key] = series
        return series


def label_of(value: object) -> str:
    """A label's value: text that can be written and shown, and that is not long."""
    return printable(str(value))[:LABEL_MAX]
