"""`python -m benchmarks.delayed`: the memory of each process while 100,000 messages wait for their time at the broker.

A program sends events with a delay. When they are due, a service fails with each of them, so that all are delayed once
more, and handles them after that. The broker is a RabbitMQ of its own, and then the embedded one in the service's
process, which holds its messages in memory. docs/retries.md has the figures.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import ClassVar

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater, react

from benchmarks import environment
from benchmarks.children import Child, running
from tests import rabbitmq
from txservices.amqp.delays import DELAY_QUEUE
from txservices.events import event_handler
from txservices.retry import Retry
from txservices.standalone.events import event_dispatcher

NUMBER, DELAY, AGAIN = (int(os.environ.get(f"DELAYED_{name}", "0")) for name in ("NUMBER", "DELAY", "AGAIN"))
IN_FLIGHT = 200
SETTLED = 6.0  # seconds until what a phase has used is given back, and RabbitMQ has counted its messages anew
PHASE_MAX = 600.0  # seconds for the slowest part
MARKS = ["before", "all sent", "all failed once", "all handled"]

seen = bytearray(NUMBER)


class Late:
    name = "late"
    runs: ClassVar[dict[str, int]] = {"failed": 0, "handled": 0}

    @event_handler("benchmark", "due")
    def due(self, number: int) -> None:
        outcome = "handled" if seen[number] else "failed"
        seen[number] = 1
        self.runs[outcome] += 1
        if self.runs[outcome] == NUMBER:
            print(f"all {outcome}", flush=True)
        if outcome == "failed":
            raise Retry(after=AGAIN)


async def send(uri: str) -> None:
    """Send all, and stay until the process is ended."""
    async with event_dispatcher({"AMQP_URI": uri}) as dispatch:
        numbers = iter(range(NUMBER))
        await dispatch("benchmark", "nothing", None)

        async def some() -> None:
            for number in numbers:
                await dispatch("benchmark", "due", number, delay=DELAY)

        print("ready", flush=True)
        await deferLater(reactor, SETTLED)
        await gatherResults([Deferred.fromCoroutine(some()) for _ in range(IN_FLIGHT)])
        print("sent", flush=True)
        await Deferred()


class Memory:
    """The memory of some processes, in MB, at each of ``MARKS``; and the most that it was since the one before."""

    def __init__(self, pids: dict[str, int]) -> None:
        self.pids = pids
        self.rows: dict[str, list[str]] = {who: [] for who in pids}

    def look(self) -> None:
        for who, pid in self.pids.items():
            with open(f"/proc/{pid}/status", encoding="utf-8") as file:
                kilobytes = {line.split()[0]: int(line.split()[1]) for line in file if line.startswith("Vm")}
            now, most = (f"{kilobytes[what] / 1000:.0f}" for what in ("VmRSS:", "VmHWM:"))
            self.rows[who].append(f"{now} ({most})" if self.rows[who] else now)
            with open(f"/proc/{pid}/clear_refs", "w", encoding="utf-8") as file:
                file.write("5")  # count the most anew

    def table(self) -> str:
        lines = [["memory, MB", *MARKS], ["--"] * (len(MARKS) + 1), *([who, *row] for who, row in self.rows.items())]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def measure(node: rabbitmq.Node | None) -> None:
    """On RabbitMQ, or on the embedded broker if there is no node."""
    vhost = node.new_vhost() if node else ""
    port = rabbitmq.free_port()
    uri = node.uri(vhost) if node else f"amqp://guest:guest@127.0.0.1:{port}/"
    os.environ["BENCHMARK_PORT"] = str(port)
    broker = ["--broker", uri] if node else []
    program = os.path.join(os.path.dirname(sys.executable), "txservices")
    config = os.path.join(environment.ROOT, "benchmarks", "peers", "txservices.yaml")
    with running([program, "run", "--config", config, *broker, "benchmarks.delayed:Late"]) as service:
        service.line("running:")
        with running([sys.executable, "-m", "benchmarks.delayed", "--send", uri]) as sender:
            sender.line("ready")
            pids = {"the program that sends": sender.process.pid, "the service": service.process.pid}
            if node and node.process:
                pids[f"RabbitMQ {node.ctl_now('version').strip()}"] = node.process.pid
            else:
                pids["the service, and the embedded broker in it"] = pids.pop("the service")
            memory = Memory(pids)
            memory.look()
            for child, line in ((sender, "sent"), (service, "all failed"), (service, "all handled")):
                took = wait(child, line)
                time.sleep(SETTLED)
                memory.look()
                print(f"{line} after {took:.0f} s{in_delay(node, vhost)}", file=sys.stderr, flush=True)
            print(f"\n{memory.table()}\n", flush=True)


def wait(child: Child, line: str) -> float:
    began = time.monotonic()
    child.line(line, PHASE_MAX)
    return time.monotonic() - began


def in_delay(node: rabbitmq.Node | None, vhost: str) -> str:
    if node is None:
        return ""
    queues = [line.split("\t") for line in node.ctl_now("list_queues", "-p", vhost, "name", "messages").splitlines()]
    return f", in delay: {sum(int(count) for name, count in queues if name.startswith(DELAY_QUEUE)):,}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.delayed", description="memory while messages are in delay")
    parser.add_argument("--number", type=int, default=100_000, help="of events")
    parser.add_argument("--delay", type=int, default=60, help="seconds; more than it takes to send all")
    parser.add_argument("--again", type=int, default=300, help="seconds; more than it takes until all have failed")
    parser.add_argument("--send", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.send:
        react(lambda _: Deferred.fromCoroutine(send(chosen.send)))
    for name in ("number", "delay", "again"):
        os.environ[f"DELAYED_{name.upper()}"] = str(getattr(chosen, name))
    measure(rabbitmq.Node("delayed", erlang="").start())
    measure(None)


if __name__ == "__main__":
    main()
