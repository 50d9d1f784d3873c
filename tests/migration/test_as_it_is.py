"""nameko's services and nameko's tests, unchanged: real processes, with ``--nameko``."""

from __future__ import annotations

import os

from twisted.trial.unittest import TestCase

from tests import processes
from tests.rabbitmq import free_port

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "as_it_is")
OURS = ("-p", "txservices.testing.plugin", "-p", "txservices.migration.plugin", "--nameko")

LOGGING = {
    "version": 1,
    "formatters": {"told": {"class": "extras.Told"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "told"}},
    "root": {"level": "INFO", "handlers": ["console"]},
}


class Suite(TestCase):
    """A suite that was written for nameko."""

    timeout = 240

    async def test_suite(self) -> None:
        """Every test of it passes, on an embedded broker for each."""
        printed = await processes.succeed(processes.pytest(self, *OURS, cwd=FOLDER))
        self.assertRegex(printed, r"\b2\d passed")
        self.assertNotRegex(printed, "failed|error")


class Services(TestCase):
    """Services that were written for nameko, in a process."""

    timeout = 120

    def setUp(self) -> None:
        self.embedded, self.web = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        self.defines = (f"EMBEDDED_BROKER_ADDRESS={self.embedded}", f"WEB_SERVER_ADDRESS={self.web}")

    async def answer(self, target: str, arguments: str) -> str:
        broker = f"amqp://guest:guest@{self.embedded}"
        return await processes.succeed(processes.txservices(self, "call", "--broker", broker, target, arguments))

    async def used(self, process: processes.Process) -> None:
        """It answers calls, and stops in order."""
        await process.line("^running: stock, shop, auditor|running: .*shop")
        printed = await self.answer("shop.many", '[["tin", "iron"]]')
        self.assertEqual(printed, '["tin", "iron"]\n')
        await processes.stopped(process)

    async def test_run(self) -> None:
        """``txservices run --nameko``: an unmodified module starts, answers and stops, and LOGGING names a module."""
        defines = [part for each in (*self.defines, f"LOGGING={LOGGING}") for part in ("--define", each)]
        process = processes.txservices(self, "run", "--nameko", *defines, "shop", cwd=FOLDER)
        await process.line("^told: ")
        await self.used(process)

    async def test_twistd(self) -> None:
        """``twistd txservices --nameko``, likewise."""
        defines = [part for each in (*self.defines, f"LOGGING={LOGGING}") for part in ("--define", each)]
        process = processes.twistd(self, "--nameko", *defines, "--module=shop", cwd=FOLDER)
        await process.line("^told: ")
        await self.used(process)

    async def test_command_line_of_nameko(self) -> None:
        """``python -m txservices nameko run`` takes nameko's options, abbreviations included."""
        broker = processes.txservices(self, "broker", "--port", self.embedded.rpartition(":")[2])
        await broker.line("running|listening|broker")
        address = f"amqp://guest:guest@{self.embedded}"
        options = ("run", "--brok", address, "--backdoor", str(free_port()), "--defi", self.defines[1])
        process = processes.python(self, "-m", "txservices", "nameko", *options, "shop", cwd=FOLDER)
        await process.line("^backdoor: telnet")
        await self.used(process)

    async def test_script(self) -> None:
        """A script that starts its services by ``nameko.cli.run.run``."""
        lines = [
            "from txservices.migration.imports import install; install()",
            "from nameko.cli.run import run",
            "from shop import Auditor, Shop, Stock",
            f"run([Stock, Shop, Auditor], {dict(each.split('=') for each in self.defines)!r})",
        ]
        await self.used(processes.python(self, "-c", "\n".join(lines), cwd=FOLDER))
