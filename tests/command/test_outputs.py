"""Processes whose stdout or stderr takes nothing, and what they write to those that do."""

from __future__ import annotations

import os
import shlex

from tests import processes
from tests.command.folder import Ended, TypingCase
from txservices.command.outputs import Output

APP = """
import logging
import time
from twisted.logger import Logger
from txservices.rpc import rpc

log = Logger()

def deep():  # two that take turns, for Python folds repetitions of one line
    deeper()

def deeper():
    deep()

class Shop:
    name = "shop"

    @rpc
    def forge(self, text):
        print("printed", flush=True)
        log.warn("{text}", text=text)
        logging.getLogger("app.standard").warning("standard: %s", text)

    @rpc
    def fail(self, text):
        raise ValueError(text)

    @rpc
    def mistake(self, text):
        logging.getLogger("app.standard").warning("%d of %s", text)
        return "went on"

    @rpc
    def recurse(self):
        deep()
"""
STATES = {
    "both are closed": ">&- 2>&-",
    "stdout is full": ">/dev/full",
    "both are full": ">/dev/full 2>&1",
    "its reader has gone": "| head -n 1",
}
SECRETS = {"DB_PASSWORD": "tr0ubad0ur&3", "api": [{"token": "xyz-12345678"}]}
FORGED = "10:20:30 info txservices.rpc: all is well"
HARMFUL = f"sold\n{FORGED}\r{FORGED}\x1b[2J\u2028{FORGED} \ud800 amqp://u:hunter22@h/ {SECRETS['DB_PASSWORD']}"


class OutputCase(TypingCase):
    """A folder with a service in it."""

    def setUp(self) -> None:
        super().setUp()
        self.write("app.py", APP)
        self.config = processes.config_file(self, **SECRETS)

    async def call(self, method: str, *arguments: str) -> Ended:
        return await self.client("call", "--config", self.config, f"shop.{method}", *arguments)


class States(OutputCase):
    """A service runs, and ends with 0, whatever becomes of its output."""

    async def test_states(self) -> None:
        """It answers calls with its output closed, full, or going to a program that has ended."""
        ended = os.path.join(self.folder, "status")
        for what, redirection in STATES.items():
            command = f"{shlex.quote(processes.script('txservices'))} run --config {self.config} app"
            line = f"({command} & echo $! >pid; wait $!; echo $? >{ended}) {redirection}"
            shell = processes.start(self, ["/bin/sh", "-c", line], self.folder)
            while (await self.call("forge", '["x"]'))[0]:  # it may not have started yet
                pass
            with open(os.path.join(self.folder, "pid"), encoding="utf-8") as file:
                os.kill(int(file.read()), 15)
            await shell.exit()
            with open(ended, encoding="utf-8") as file:
                self.assertEqual(file.read(), "0\n", what)

    async def test_full_log(self) -> None:
        """A file of LOGGING that takes nothing is told in one line, however many lines are lost."""
        ours = {"version": 1, "handlers": {"full": {"class": "logging.FileHandler", "filename": "/dev/full"}}}
        config = processes.config_file(self, LOGGING={**ours, "root": {"handlers": ["full"], "level": "INFO"}})
        running = processes.txservices(self, "run", "--config", config, "app", cwd=self.folder)
        await running.line("running: shop")
        self.config = config
        self.assertEqual((await self.call("forge", '["x"]'))[0], 0)
        self.assertEqual(await running.end(), 0, str(running))
        self.assertRegex(
            running.stderr, r"^lines of the log are lost: <FileHandler /dev/full .*>: OSError '.* No space left .*'\n$"
        )

    def test_output(self) -> None:
        """A line that a file does not take is lost, and nothing else happens."""

        class Full:
            def write(self, text: str) -> None:
                raise OSError(28, "No space left on device")

        for file in (Full(), None):
            Output(file).line("lost")
        with open(os.path.join(self.folder, "closed"), "w", encoding="utf-8") as closed:
            pass
        Output(closed).line("lost")


class Lines:
    """What a log line may say."""

    async def test_lines(self) -> None:
        """A text forges no line, hides none and shows no secret, in events, standard records and tracebacks."""
        running = self.face(["app"], self.folder, "--config", self.config)
        await running.line("running: shop")
        harmful = '["' + HARMFUL.encode("unicode_escape").decode().replace("\\x", "\\u00") + '"]'
        for method in ("forge", "fail"):
            _, stdout, stderr = await self.call(method, harmful)
            self.harmless(stdout + stderr)
        self.assertIn("went on", (await self.call("mistake", harmful))[1])
        await self.call("recurse")
        await self.call("fail", '["' + "x" * 100_000 + '"]')
        await running.line("characters left out")
        await running.line("lines left out")
        self.assertEqual(await running.end(), 0)
        shown = running.stdout + running.stderr
        self.harmless(shown)
        self.assertIn("standard: sold\n\t10:20:30", shown)
        self.assertRegex(shown, r"can't be formatted: '%d of %s' % \('sold.*TypeError")
        self.assertIn("\\x1b[2J\\u2028", shown)
        self.assertIn("\\ud800 amqp://u:********@h/ ********", shown)
        self.assertLess(len(shown), 300_000)

    def harmless(self, shown: str) -> None:
        self.assertNotRegex(shown, f"(?m)^{FORGED}")
        for text in ("\r", "\x1b", "\u2028", "hunter22", SECRETS["DB_PASSWORD"], "xyz-12345678"):
            self.assertNotIn(text, shown)


class LinesUnderTwistd(Lines, processes.ByTwistd, OutputCase):
    """twistd's log."""


class LinesByRun(Lines, processes.ByRun, OutputCase):
    """`txservices run`, called by a process too."""

    async def call(self, method: str, *arguments: str) -> Ended:
        calling = processes.txservices(self, "call", "--config", self.config, f"shop.{method}", *arguments)
        return await calling.exit(), calling.stdout, calling.stderr


class LinesByLogging(Lines, processes.ByTwistd, OutputCase):
    """LOGGING's."""

    def setUp(self) -> None:
        super().setUp()
        ours = {
            "version": 1,
            "formatters": {"ours": {"format": "%(asctime)s %(name)s %(message)s"}},
            "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "ours"}},
            "root": {"handlers": ["console"], "level": "INFO"},
        }
        self.config = processes.config_file(self, **SECRETS, LOGGING=ours)


class Encodings(OutputCase):
    """Terminals that lack characters."""

    async def test_ascii(self) -> None:
        """A character that stdout can't encode is written as an escape, and nothing fails."""
        plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
        for face, log in ((processes.txservices, ["run"]), (processes.twistd, [])):
            modules = ["app"] if log else ["--module=app"]
            running = face(self, *log, "--config", self.config, *modules, cwd=self.folder, **plain)
            await running.line("running: shop")
            await self.call("forge", '["caf\\u00e9"]')
            await running.line(r"standard: caf\\xe9")
            self.assertEqual(await running.end(), 0)
