"""A soak: minutes of steady load, after which nothing has grown. For Linux, whose /proc it reads.

``make soak`` runs it, for ten minutes or ``SOAK_SECONDS``. Its name is not a test module's, so that nothing else finds
it: as part of the suite it would only ever be skipped.
"""

from __future__ import annotations

import os
import re
from statistics import median

from attrs import frozen
from twisted.internet import reactor

from tests import processes, rabbitmq
from tests.faults.load import RATE, LoadCase

SECONDS = int(os.environ.get("SOAK_SECONDS") or 600)
SAMPLE_EVERY = 1000  # events, and as many calls: five seconds
WARM_UP = 0.2  # of all samples, from the start, which count for nothing: caches fill, Python's arenas find their size
INSTANCES = 2  # of the service

MEMORY_GROWTH = 2.0  # MiB of a process from the first third to the last: in ten minutes, 16 bytes of each message
COUNT_GROWTH = 0.0  # of files, connections, channels and queues

MIB = 1024 * 1024
ASK_BROKER = "{length(rabbit_networking:connections()), length(rabbit_channel:list()), length(rabbit_amqqueue:list())}."


@frozen
class Growth:
    """How one measure was in the first and in the last third of a run, by the median, and what it may have gained."""

    what: str
    first: float
    last: float
    bound: float

    @classmethod
    def of(cls, what: str, values: list[float], bound: float) -> Growth:
        steady = values[int(len(values) * WARM_UP) :]
        third = len(steady) // 3
        return cls(what, median(steady[:third]), median(steady[-third:]), bound)

    @property
    def flat(self) -> bool:
        return self.last - self.first <= self.bound

    def __str__(self) -> str:
        return f"{self.what}: {self.first:g}, then {self.last:g} ({self.last - self.first:+g}, at most {self.bound:+g})"


def memory(pid: int) -> float:
    """The resident memory of a process, in MiB."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return round(int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") / MIB, 2)


def files(pid: int) -> int:
    """How many files and sockets a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


class Soak(LoadCase):
    """Services under twistd, called and told at a steady rate."""

    timeout = SECONDS + 120

    def node(self) -> rabbitmq.Node:
        return rabbitmq.node()

    async def setUp(self) -> None:
        await super().setUp()
        self.config.update(self.direct)  # a proxy in this process would be measured with the caller
        self.samples: dict[str, list[float]] = {}

    async def test_load_8_soak(self) -> None:
        """After minutes at load the services, their caller and the broker hold what they held in the beginning."""
        pids = {f"service {number}": (await self.twisted()).pid for number in range(1, INSTANCES + 1)}
        pids["caller"] = os.getpid()
        load = await self.load()
        began = reactor.seconds()
        while reactor.seconds() < began + SECONDS:
            await load.passed(SAMPLE_EVERY)
            await self.sample(pids)
        seconds = reactor.seconds() - began
        rate = load.number / seconds
        await load.finish()
        report = self.checker.check()
        grown = [
            Growth.of(what, values, MEMORY_GROWTH if what.startswith("memory") else COUNT_GROWTH)
            for what, values in self.samples.items()
        ]
        took = f"{seconds:.0f} s, {len(self.samples['channels'])} samples, {rate:.0f} events/s and as many calls/s"
        print(f"\n{self.id()}: {took}: {report} {dict(self.checker.errors) or ''}")
        print("\n".join(f"  {each}" for each in grown))
        self.assertEqual(load.wrong, [])
        self.assertEqual(report.failed, 0, self.checker.errors)
        self.assertGreater(rate, 0.9 * RATE)
        self.assertEqual([str(each) for each in grown if not each.flat], [])

    async def twisted(self) -> processes.Process:
        """An instance of the worker under twistd, running."""
        process = processes.twistd(
            self,
            f"--broker={self.config['AMQP_URI']}",
            "--module=app",
            cwd=self.folder,
            CHECKER_LOG=self.checker.path,
            PYTHONPATH=processes.ROOT,
        )
        await process.line("running: ")
        return process

    async def sample(self, pids: dict[str, int]) -> None:
        """One look at everything; at the broker last, for rabbitmqctl's pipes are files of the caller."""
        seen: dict[str, float] = {}
        for who, pid in pids.items():
            seen[f"memory of {who}, MiB"] = memory(pid)
            seen[f"files of {who}"] = files(pid)
        counts = re.findall(r"\d+", await self.broker.ctl("eval", ASK_BROKER))
        seen.update(zip(("connections", "channels", "queues"), map(float, counts), strict=True))
        for what, value in seen.items():
            self.samples.setdefault(what, []).append(value)
