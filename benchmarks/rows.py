"""The table of the benchmark: the rows, the peers in each, and the targets.

Each row measures its entries in turn. `ours` is compared with the others, and with an entry in `required` the ratio has
to be at least so much. A ratio above 1 is always to our credit: a higher rate, or less time or memory. A row is added
by adding an entry here or in `growth`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from benchmarks import load, measure
from benchmarks.measure import FILE, GET, POST, Bench, Figures

Measure = Callable[[Bench], Figures]


@dataclass(frozen=True)
class Row:
    """One kind of work.

    Attributes:
        figure: the name of the figure that is compared.
        more: whether more of it is better.
        also: names of further figures, each with its heading in the table.
        grows: whether the entries are sizes of one thing of ours, and not peers.
        ours: the entry that the others are compared with.
    """

    name: str
    title: str
    unit: str
    entries: dict[str, Measure]
    required: dict[str, float] = field(default_factory=dict)
    ours: str = "txservices"
    figure: str = "rate"
    more: bool = True
    also: dict[str, str] = field(default_factory=dict)
    grows: bool = False

    def ratio(self, ours: float, theirs: float) -> float:
        return ours / theirs if self.more else theirs / ours


def of(function: Callable[..., Figures], *peers: str, **options: object) -> dict[str, Measure]:
    """A measurement for each of these peers."""
    return {peer: bound(function, peer, options) for peer in peers}


def bound(function: Callable[..., Figures], peer: str, options: dict[str, object]) -> Measure:
    return lambda bench: function(bench, peer, **options)


def transient(in_flight: int) -> dict[str, Measure]:
    """Calls whose messages are not on the broker's disk. Those of aio-pika never are."""
    peers = ("txservices", "aio-pika", "ceiling")
    return {peer: lambda bench, peer=peer: measure.rpc(bench, peer, in_flight, "--transient") for peer in peers}


RPC = ["txservices", "nameko", "aio-pika", "faststream", "txamqp", "ceiling"]
IN_FLIGHT = {"nameko": 10.0, "aio-pika": 2.5, "faststream": 8.0, "ceiling": 0.5}

BESIDE = [
    Row(
        "rpc-1",
        "RPC, one call at a time: how long it takes",
        "ms",
        of(measure.rpc, *RPC, in_flight=1),
        {"nameko": 2.5, "aio-pika": 1.0, "ceiling": 1 / 1.5},
        figure="p50",
        more=False,
        also={"p99": "p99, ms"},
    ),
    Row("rpc-50", "RPC, 50 in flight", "calls/s", of(measure.rpc, *RPC, in_flight=50), IN_FLIGHT),
    Row("rpc-200", "RPC, 200 in flight", "calls/s", of(measure.rpc, *RPC, in_flight=200)),
    Row(
        "rpc-transient-1",
        "RPC with transient messages, one call at a time: how long it takes",
        "ms",
        transient(1),
        {"aio-pika": 2.0},
        figure="p50",
        more=False,
        also={"p99": "p99, ms"},
    ),
    Row("rpc-transient-50", "RPC with transient messages, 50 in flight", "calls/s", transient(50)),
    Row(
        "events",
        "Events dispatched, confirmed, handled and acked",
        "events/s",
        of(measure.events, "txservices", "nameko", "aio-pika", "faststream", "ceiling", in_flight=50),
        {"nameko": 8.0, "faststream": 2.0},
    ),
    Row(
        "http-get",
        "HTTP GET with a converter, answered with JSON",
        "requests/s",
        of(measure.http, "txservices", "nameko", "fastapi", request=GET),
        {"nameko": 4.5, "fastapi": 1.7},
        also={"processor": "processor, us"},
    ),
    Row(
        "http-post",
        "HTTP POST of 1 KB of JSON",
        "requests/s",
        of(measure.http, "txservices", "nameko", "fastapi", request=POST),
        {"fastapi": 1.8},
        also={"processor": "processor, us"},
    ),
    Row(
        "http-static",
        "HTTP GET of a static file of 100 KB",
        "requests/s",
        of(measure.http, "txservices", "fastapi", request=FILE),
        {"fastapi": 1.0},
        also={"processor": "processor, us"},
    ),
    Row(
        "http-upload",
        "HTTP POST of 100 MB that is read as it comes: processor time of the service",
        "ms",
        of(measure.transfer, "txservices", "fastapi", send=load.upload),
        {"fastapi": 1.0},
        figure="processor",
        more=False,
        also={"rate": "MB/s", "megabytes": "most memory, MB"},
    ),
    Row(
        "http-download",
        "HTTP GET of 100 MB that is made while it is sent: processor time of the service",
        "ms",
        of(measure.transfer, "txservices", "fastapi", send=load.download),
        {"fastapi": 1.0},
        figure="processor",
        more=False,
        also={"rate": "MB/s", "megabytes": "most memory, MB"},
    ),
    Row(
        "http-idle",
        "An HTTP connection that is kept open, of 5,000",
        "KiB",
        of(measure.idle, "txservices", "fastapi", connections=5_000),
        {"fastapi": 1.0},
        figure="kibibytes",
        more=False,
    ),
    Row(
        "http-rpc",
        "HTTP that makes one RPC",
        "requests/s",
        {
            **of(measure.http_rpc, "txservices", "nameko"),
            "fastapi + aio-pika": lambda bench: measure.http_rpc(bench, "fastapi", "aio-pika"),
        },
        {"nameko": 5.0},
    ),
    Row(
        "start",
        "From the start of the process to the first answered call",
        "s",
        of(measure.start, "txservices", "nameko"),
        {"nameko": 1.0},
        figure="seconds",
        more=False,
    ),
    Row(
        "memory",
        "Memory of an idle service",
        "MB",
        of(measure.start, "txservices", "nameko"),
        {"nameko": 1.0},
        figure="megabytes",
        more=False,
    ),
    Row(
        "embedded-rpc",
        "RPC through the embedded broker, 50 in flight, everything in two processes",
        "calls/s",
        {
            "txservices, embedded": partial(measure.embedded_rpc, in_flight=50),
            **of(measure.rpc, "nameko", in_flight=50),
        },
        {"nameko": 3.0},
        ours="txservices, embedded",
    ),
    Row(
        "embedded-events",
        "Events through the embedded broker, everything in two processes",
        "events/s",
        {
            "txservices, embedded": partial(measure.embedded_events, in_flight=50),
            **of(measure.events, "nameko", in_flight=50),
        },
        ours="txservices, embedded",
    ),
]
