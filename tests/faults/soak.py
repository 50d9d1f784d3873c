"""A soak: minutes of steady load, after which nothing has grown.

``make soak`` runs it, for ten minutes or ``SOAK_SECONDS``. Its name is not a test module's, so that nothing else finds
it: as part of the suite it would only ever be skipped.
"""

from __future__ import annotations

import os

from twisted.internet import reactor

from tests import processes
from tests.faults.growth import Growth, files, held_by, memory
from tests.faults.load import RATE, LoadCase

SECONDS = int(os.environ.get("SOAK_SECONDS") or 600)
SAMPLE_EVERY = 1000  # events, and as many calls: five seconds
INSTANCES = 2  # of the service

MEMORY_GROWTH = 2.0  # MiB of a process from the first third to the last: in ten minutes, 16 bytes of each message
COUNT_GROWTH = 0.0  # of files, connections, channels, queues and consumers


class Soak(LoadCase):
    """Services under twistd, called and told at a steady rate."""

    timeout = SECONDS + 120

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
        seen.update(await held_by(self.broker))
        for what, value in seen.items():
            self.samples.setdefault(what, []).append(value)
