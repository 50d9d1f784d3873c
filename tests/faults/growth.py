"""How much a process and a node hold, and whether it has grown. For Linux, whose /proc it reads."""

from __future__ import annotations

import os
import re
from statistics import median

from attrs import frozen

from tests.rabbitmq import Node

WARM_UP = 0.2  # of all samples, from the start, which count for nothing: caches fill, Python's arenas find their size
MIB = 1024 * 1024
ASK_BROKER = """{
    length(rabbit_networking:connections()),
    length(rabbit_channel:list()),
    length(rabbit_amqqueue:list()),
    lists:sum([length(rabbit_amqqueue:consumers_all(Name)) || Name <- rabbit_vhost:list_names()])
}."""


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
        third = max(len(steady) // 3, 1)
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


async def held_by(node: Node) -> dict[str, int]:
    """The connections, channels, queues and consumers of a node, whoever has them."""
    counts = re.findall(r"\d+", await node.ctl("eval", ASK_BROKER))
    return dict(zip(("connections", "channels", "queues", "consumers"), map(int, counts), strict=True))
