"""`txservices bench`: calls a method again and again, and prints how often and how quickly that goes."""

from __future__ import annotations

import sys
from collections import Counter as Tally
from contextlib import ExitStack
from typing import Any

import click
from twisted.internet.defer import Deferred, gatherResults

from txservices.command import exits
from txservices.command.arguments import method_of, read_arguments
from txservices.command.client import as_client
from txservices.command.fleet import interruptible
from txservices.command.options import Given, configured
from txservices.command.tables import rate, seconds
from txservices.monitoring.counters import Counter, quantile, window_of
from txservices.utils.printable import in_one_line

SHOWN_EVERY = 1.0  # seconds between two lines, or two looks of the bar
KINDS_SHOWN = 10  # kinds of errors that are told, the most frequent
IN_FLIGHT_MAX = 10_000  # calls at once
QUANTILES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999))


class Run:
    """The calls of one bench.

    Attributes:
        steps: how many took how long, by the number of a range of times.
        errors: how many failed, by the class and the first line of the error.
    """

    def __init__(self, clock: Any) -> None:
        self.clock = clock
        self.began = clock.seconds()
        self.latest = Counter(self.began)
        self.steps: dict[int, int] = {}
        self.longest = 0.0
        self.errors: Tally[str] = Tally()
        self.over = False

    async def call(self, call: Any) -> None:
        """Call until it is over. An error is counted."""
        while not self.over:
            began = self.clock.seconds()
            failed = False
            try:
                await call()
            except Exception as error:
                failed = True
                self.errors[f"{type(error).__name__}: {exits.one_line(error)}"[:200]] += 1
            now = self.clock.seconds()
            step = self.latest.add(now, now - began, failed)
            self.steps[step] = self.steps.get(step, 0) + 1
            self.longest = max(self.longest, now - began)

    def now(self) -> str:
        """The latest seconds in a line."""
        now = self.clock.seconds()
        counts = self.latest.counts(now, window_of(self.began, now))
        took = f"p50 {seconds(counts['p50'])}, p99 {seconds(counts['p99'])}"
        return f"{now - self.began:4.0f} s  {rate(counts['rate'])} calls/s  {took}  {counts['errors']:,} errors"

    def summary(self) -> list[str]:
        """All of it, in some lines."""
        took = self.clock.seconds() - self.began
        count = self.latest.count
        lines = [f"{count:,} calls in {took:.1f} s: {rate(count / took if took else 0.0)} calls/s"]
        times = [f"{name} {seconds(quantile(self.steps, count, part))}" for name, part in QUANTILES]
        lines.append(f"{', '.join(times)}, longest {seconds(self.longest)}")
        lines.append(f"{self.latest.errors:,} errors")
        lines += [f"  {number:,} {kind}" for kind, number in self.errors.most_common(KINDS_SHOWN)]
        return [in_one_line(line) if not line.startswith("  ") else f"  {in_one_line(line)}" for line in lines]


@click.command()
@click.argument("target", metavar="SERVICE.METHOD")
@click.argument("arguments", default="[]", metavar="[JSON]")
@configured
@click.option(
    "--in-flight", type=click.IntRange(1, IN_FLIGHT_MAX), default=50, show_default=True, help="Calls at once."
)
@click.option("--seconds", "length", type=click.FloatRange(0, min_open=True), default=10.0, show_default=True)
def bench(target: str, arguments: str, given: Given, in_flight: int, length: float) -> None:
    """Call a method for some seconds, and print calls a second, times and errors. It is really called.

    Ctrl-C ends it before. JSON is as for `call`.
    """
    service, method = method_of(target)
    args, kwargs = read_arguments(arguments)

    async def work(config: dict[str, Any]) -> None:
        from txservices.standalone.rpc import ClusterRpcProxy

        async with interruptible() as interrupt, ClusterRpcProxy(config) as cluster:
            proxy = getattr(cluster[service], method)
            await proxy(*args, **kwargs)  # if this fails, there is nothing to measure
            run = Run(interrupt.clock)
            calling = [Deferred.fromCoroutine(run.call(lambda: proxy(*args, **kwargs))) for _ in range(in_flight)]
            with ExitStack() as stack:
                bar: Any = None
                if sys.stderr.isatty():
                    bar = stack.enter_context(click.progressbar(length=100, label=target, file=sys.stderr, width=0))
                while not interrupt.now and (left := run.began + length - run.clock.seconds()) > 0:
                    await interrupt.wait(min(left, SHOWN_EVERY))
                    if bar is None:
                        click.echo(run.now(), err=True)
                    else:
                        bar.label = run.now()
                        bar.update(min(int(100 * (run.clock.seconds() - run.began) / length), 100) - bar.pos)
            run.over = True
            await gatherResults(calling)
        click.echo("\n".join(run.summary()))
        if run.errors:
            raise SystemExit(exits.CRASH)

    as_client(work, given)
