"""A service that can take 50 calls a second, and callers who wait for 0.6 s: how many of them are answered in time.

    python -m benchmarks.peers.overload serve URI
    python -m benchmarks.peers.overload call URI SECONDS RATE    calls begun a second; 0 for 10 at a time

Ten workers take 0.2 s each. The proportions are those of a method of 2 s with callers who wait for 6 s.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater, react

from benchmarks.peers import contract
from txservices.exceptions import RpcTimeout, UnknownService
from txservices.rpc import rpc
from txservices.runners import run_services
from txservices.standalone.rpc import ClusterRpcProxy

WORKERS = 10
TAKES = 0.2  # seconds
WAITS = 0.6  # seconds


class Busy:
    name = contract.NAME

    @rpc
    async def echo(self, text: str) -> str:
        await deferLater(reactor, TAKES)
        return text


async def serve(uri: str) -> None:
    async with run_services({"AMQP_URI": uri, "max_workers": WORKERS, "SHUTDOWN_TIMEOUT": 0}, Busy) as runner:
        contract.ready()
        await runner.wait()


class Callers:
    """Calls that begin at a steady rate, or a number of them at a time, and how many were answered."""

    def __init__(self, echo: Any, seconds: float, rate: float) -> None:
        self.echo = echo
        self.seconds = seconds
        self.rate = rate
        self.answered = 0

    async def one(self) -> None:
        try:
            await self.echo(contract.TEXT)
            self.answered += 1
        except (RpcTimeout, UnknownService):
            pass

    async def at_a_rate(self) -> None:
        began, calls = time.perf_counter(), []
        for number in range(int(self.seconds * self.rate)):
            wait = began + number / self.rate - time.perf_counter()
            if wait > 0:
                await deferLater(reactor, wait)
            calls.append(Deferred.fromCoroutine(self.one()))
        await gatherResults(calls)

    async def at_a_time(self) -> None:
        end = time.perf_counter() + self.seconds

        async def again() -> None:
            while time.perf_counter() < end:
                await self.one()

        await gatherResults([Deferred.fromCoroutine(again()) for _ in range(WORKERS)])


async def call(uri: str, seconds: float, rate: float) -> None:
    async with ClusterRpcProxy({"AMQP_URI": uri}, timeout=WAITS) as cluster:
        callers = Callers(cluster[contract.NAME].echo, seconds, rate)
        await (callers.at_a_rate() if rate else callers.at_a_time())
        contract.figures(rate=callers.answered / seconds)


if __name__ == "__main__":
    action, uri, *numbers = sys.argv[1:]
    react(lambda _: Deferred.fromCoroutine(serve(uri) if action == "serve" else call(uri, *map(float, numbers))))
