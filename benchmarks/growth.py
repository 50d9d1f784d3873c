"""How the cost of txservices grows: with payload, methods, services, calls waiting, backlog, and headers.

The same rows as beside the peers, but the entries are sizes of one thing, and ours is the largest: it is compared with
the smaller ones, and a ratio of 1 is a flat cost.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks import measure
from benchmarks.measure import Bench, Figures
from benchmarks.rows import Measure, Row

FLAT = 0.8  # as much as runs of the same thing differ on a machine that does other work too
LABELS = {"metrics": "with metrics", "traces": "and traces, one in ten"}
GOODPUT = 0.9  # of what is answered without overload
SIZES = {"10 B": 10, "1 KB": 10**3, "10 KB": 10**4, "100 KB": 10**5, "1 MB": 10**6, "16 MB": 16 * 10**6}
PAYLOADS_IN_FLIGHT = 4  # the same for all sizes; fifty of the largest would be a gigabyte


def payload(size: int) -> Measure:
    def run(bench: Bench) -> Figures:
        found = measure.rpc(bench, "txservices", PAYLOADS_IN_FLIGHT, f"--size={size}")
        return {**found, "bytes": found["rate"] * size / 1e6}

    return run


def many(option: str) -> Callable[[int], Measure]:
    return lambda number: lambda bench: measure.rpc(bench, "txservices", 50, f"--{option}={number}")


def waiting(number: int) -> Measure:
    """Make enough calls, so that all of them wait for most of the time."""

    def run(bench: Bench) -> Figures:
        count = bench.number(40_000)
        return measure.rpc(bench, "txservices", min(number, count), amount=str(count))

    return run


def backlog(number: int) -> Measure:
    return lambda bench: measure.backlog(bench, number)


def overload(rate: float) -> Measure:
    return lambda bench: measure.overload(bench, rate)


def headers(number: int) -> Measure:
    """The ceiling's caller makes the calls: a longer header costs it nothing."""
    return lambda bench: measure.rpc(bench, "txservices", 50, f"--stack={number}", caller="ceiling")


def row(name: str, title: str, unit: str, entries: dict[str, Measure], flat_to: str, figure: str = "rate") -> Row:
    """The last entry is compared with the one named `flat_to`."""
    also = {"rate": "calls/s"} if figure != "rate" else {}
    return Row(
        name, title, unit, entries, {flat_to: FLAT}, ours=list(entries)[-1], figure=figure, also=also, grows=True
    )


def sizes(measured: Callable[[int], Measure], what: str, *numbers: int) -> dict[str, Measure]:
    return {f"{number:,} {what}{'s' if number > 1 else ''}": measured(number) for number in numbers}


def observed(*by: str) -> dict[str, Measure]:
    """Calls with these observers at both ends, and calls without any."""
    with_them = {
        LABELS[each]: lambda bench, each=each: measure.rpc(bench, "txservices", 50, f"--observed={each}") for each in by
    }
    return {"plain": lambda bench: measure.rpc(bench, "txservices", 50), **with_them}


GROWTH = [
    row(
        "payload",
        f"RPC that echoes so much, {PAYLOADS_IN_FLIGHT} in flight",
        "MB/s each way",
        {label: payload(size) for label, size in SIZES.items()},
        "100 KB",
        "bytes",
    ),
    row(
        "methods", "Methods of one service, called in turn, 50 in flight", "calls/s",
        sizes(many("methods"), "method", 1, 100, 1_000), "1 method",
    ),
    row(
        "services", "Services in one process, called in turn, 50 in flight", "calls/s",
        sizes(many("services"), "service", 1, 10, 100), "1 service",
    ),
    row(
        "waiting", "Calls waiting at once", "calls/s",
        sizes(waiting, "call", 50, 1_000, 10_000), "50 calls",
    ),
    row(
        "backlog", "Events that were waiting when the service started", "events/s",
        sizes(backlog, "event", 10_000, 100_000), "10,000 events",
    ),
    row(
        "headers", "Entries of the call id stack in each request, 50 in flight", "calls/s",
        {"1 entry": headers(1), "10 entries": headers(10)}, "1 entry",
    ),
    Row(
        "overload", "Calls answered in time, with no more than the workers can take and with twice as many", "calls/s",
        {"as many as can be taken": overload(0), "twice as many": overload(100)},
        {"as many as can be taken": GOODPUT}, ours="twice as many", grows=True,
    ),
    Row(
        "rpc-metrics", "RPC with metrics at both ends, 50 in flight", "calls/s",
        observed("metrics"), {"plain": 0.95}, ours="with metrics", grows=True,
    ),
    Row(
        "rpc-traces", "RPC with metrics and traces at both ends, one trace in ten sampled, 50 in flight", "calls/s",
        observed("metrics", "traces"), {"plain": 0.9}, ours="and traces, one in ten", grows=True,
    ),
]  # fmt: skip
