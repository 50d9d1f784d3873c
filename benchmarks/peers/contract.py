"""The command line of all peers, and their stopwatch.

    python -m benchmarks.peers.PEER serve WORK URI [--port P]     stays up; prints `ready` when it can be used
    python -m benchmarks.peers.PEER call WORK URI AMOUNT IN_FLIGHT    prints one JSON line and ends

WORK is rpc, events, http or http-rpc. AMOUNT is a number of turns, or of seconds: `3s`. A caller warms up first. The
process that handles events prints a JSON line once it has had all of them: the last event's payload is their number.

Standard library only: this is imported in every environment.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from statistics import quantiles
from typing import Any

TEXT = "hello"
NAME = "benchmark"
WARM_UP = 0.3  # seconds
PIECE = bytes(64 * 1024)  # of a download
FILE = "file.bin"  # of 100 KB


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=["serve", "call"])
    parser.add_argument("work", choices=["rpc", "events", "http", "http-rpc"])
    parser.add_argument("uri")
    parser.add_argument("amount", nargs="?", default="1s", type=amount)
    parser.add_argument("in_flight", nargs="?", default=1, type=int)
    parser.add_argument("--port", type=int, default=0, help="of HTTP, and of the embedded broker")
    parser.add_argument("--size", type=int, default=len(TEXT), help="bytes of an RPC's one argument")
    parser.add_argument("--methods", type=int, default=1, help="called in turn")
    parser.add_argument("--services", type=int, default=1, help="called in turn")
    parser.add_argument("--transient", action="store_true", help="RPC whose messages are not on the broker's disk")
    parser.add_argument("--observed", choices=["metrics", "traces"], help="RPC with metrics; with these and traces")
    parser.add_argument("--stack", type=int, default=1, help="entries of the header's call id stack")
    return parser.parse_args()


def ready() -> None:
    print("ready", flush=True)


def figures(**values: Any) -> None:
    print(json.dumps(values), flush=True)


def amount(text: str) -> Callable[[], Iterator[None]]:
    """A function whose turns last for so many times or for so long. Each call of it begins anew."""

    def for_so_long() -> Iterator[None]:
        end = time.perf_counter() + float(text[:-1])
        while time.perf_counter() < end:
            yield

    def so_often() -> Iterator[None]:
        for _ in range(int(text)):
            yield

    return for_so_long if text.endswith("s") else so_often


class Times:
    """The moment when the turns began, and how long each took."""

    def __init__(self) -> None:
        self.took: list[float] = []
        self.began = time.perf_counter()

    def figures(self) -> None:
        seconds = time.perf_counter() - self.began
        cuts = quantiles(self.took, n=100) if len(self.took) > 1 else self.took * 99
        figures(
            rate=len(self.took) / seconds, turns=len(self.took), p50=cuts[49] * 1e3, p99=cuts[98] * 1e3, seconds=seconds
        )


async def one_after_another(
    call: Callable[[], Awaitable[Any]], turns: Iterator[None], took: Callable[[float], None]
) -> None:
    """Take turns until there are no more; others take from the same turns. For asyncio and Twisted."""
    clock = time.perf_counter
    for _ in turns:
        before = clock()
        await call()
        took(clock() - before)


async def timed(
    call: Callable[[], Awaitable[Any]],
    amount: Callable[[], Iterator[None]],
    in_flight: int,
    gather: Callable[..., Awaitable[Any]],
) -> None:
    """Take so many turns, so many at a time, and print their figures. `gather` is asyncio's or one like it."""
    clock, warm_until = time.perf_counter, time.perf_counter() + WARM_UP
    while clock() < warm_until:
        await call()
    times, turns = Times(), amount()
    await gather(*(one_after_another(call, turns, times.took.append) for _ in range(in_flight)))
    times.figures()


class Dispatched:
    """For a dispatcher: numbers the events, and remembers when the first that counts was sent.

    It is `time.time`, since another process takes the end of the interval.
    """

    def __init__(self) -> None:
        self.sent = 0
        self.began = 0.0

    def begin(self) -> None:
        self.warm_up, self.began = self.sent, time.time()

    def figures(self) -> None:
        figures(began=self.began, confirmed=time.time(), turns=self.sent - self.warm_up)


async def dispatched(
    dispatch: Callable[[int], Awaitable[Any]],
    amount: Callable[[], Iterator[None]],
    in_flight: int,
    gather: Callable[..., Awaitable[Any]],
) -> None:
    """Dispatch so many events, so many unconfirmed at a time; the last is the only one whose payload is not 0."""
    count = Dispatched()

    async def one() -> None:
        count.sent += 1
        await dispatch(0)

    warm_until = time.perf_counter() + WARM_UP
    while time.perf_counter() < warm_until:
        await one()
    count.begin()
    turns = amount()
    await gather(*(one_after_another(one, turns, lambda took: None) for _ in range(in_flight)))
    count.sent += 1
    await dispatch(count.sent)
    count.figures()


class Handled:
    """For a handler of events: says when it has had all of them."""

    def __init__(self) -> None:
        self.number = 0
        self.first = 0.0
        self.total = 0

    def __call__(self, payload: int) -> None:
        if self.number == 0:
            self.first = time.time()
        self.number += 1
        self.total = payload or self.total
        if self.number == self.total:
            figures(handled=self.number, first=self.first, last=time.time())
            self.number = self.total = 0


def assets() -> str:
    """A folder with ``FILE``, until the process ends."""
    folder = tempfile.TemporaryDirectory(prefix="txservices-benchmark-")
    atexit.register(folder.cleanup)
    with open(os.path.join(folder.name, FILE), "wb") as file:
        file.write(bytes(100_000))
    return folder.name
