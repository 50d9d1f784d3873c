"""Series as text, in Prometheus's format. Pure.

    # HELP txservices_workers_running Workers that run now.
    # TYPE txservices_workers_running gauge
    txservices_workers_running{service_name="shop",method="sell",entrypoint="Rpc"} 3

prometheus-client writes the same from its own objects, and takes many times as long. The reactor waits meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from txservices.monitoring.series import Family, Histogram, SeriesOf

__all__ = ["lines"]

ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", '"': '\\"'})


def lines(series: SeriesOf[Any]) -> Iterator[str]:
    """The lines of one metric, each with its end."""
    family = series.family
    yield f"# HELP {family.name} {family.meaning}\n# TYPE {family.name} {family.kind}\n"
    for values, each in series.all.items():
        labels = series.written.get(values)
        if labels is None:
            labels = series.written[values] = labels_of(family, values)
        if isinstance(each, Histogram):
            yield from of_histogram(family.name, labels, each)
        else:
            yield f"{family.name}{{{labels}}} {each.value}\n"


def of_histogram(name: str, labels: str, histogram: Histogram) -> Iterator[str]:
    start = f"{name}_bucket{{{labels}{',' if labels else ''}le="
    count = 0
    for bound, count in histogram.buckets():
        yield f'{start}"{bound}"}} {count}\n'
    yield f"{name}_count{{{labels}}} {count}\n{name}_sum{{{labels}}} {histogram.sum}\n"


def labels_of(family: Family, values: tuple[str, ...]) -> str:
    """The labels of a series, without those that are empty: to Prometheus that is the same."""
    named: Mapping[str, str] = {**dict(family.fixed), **dict(zip(family.labels, values, strict=True))}
    return ",".join(f'{name}="{value.translate(ESCAPES)}"' for name, value in named.items() if value)
