"""Commands and configuration: lines 67 to 69."""

from __future__ import annotations

import os
from typing import Any
from unittest.mock import patch

from tests import processes
from tests.command.folder import TypingCase
from tests.conformance.cases import Case
from txservices.command import settings
from txservices.events import event_handler
from txservices.exceptions import ConfigurationError
from txservices.rpc import rpc
from txservices.testing.waiting import Heard

ENVIRON = {"INT": "5", "BOOL": "true", "LIST": "[1, 2]", "DICT": "{a: 1}", "SEVEN": "007", "TEXT": '"1"', "EMPTY": ""}

# as written in the file, what it becomes
VALUES: list[tuple[str, Any]] = [
    ("${INT}", 5),
    ("${BOOL}", True),
    ("${LIST}", [1, 2]),
    ("${DICT}", {"a": 1}),
    ("${SEVEN}", 7),
    ("${TEXT}", "1"),
    ("${EMPTY}", None),
    ("${EMPTY:default}", None),
    ("${UNSET}", None),
    ("${UNSET:default}", "default"),
    ("${UNSET:a:b}", "a:b"),
    ("amqp://${UNSET:guest}:${INT}@host", "amqp://guest:5@host"),
    ("$INT", "$INT"),
    ('"${INT}"', "${INT}"),
    ("'${INT}'", "${INT}"),
    ('!env_var "${INT}"', 5),
    ('!raw_env_var "${INT}"', "5"),
    ("${UNSET:${INT}}", 5),
    ('!env_var "${UNSET:${UNSET:{a: [${INT}]}}}"', {"a": [5]}),
    ("\n  - ${INT}\n  - ${UNSET:x}", [5, "x"]),
    ("\n  inner: ${BOOL}", {"inner": True}),
]

APP = """
import logging
from twisted.internet.defer import Deferred
from txservices.rpc import rpc
from txservices.timer import timer

class One:
    name = "one"

    @rpc
    def method(self): pass

class Two:
    name = "two"

    @timer(interval=60, eager=True)
    def tick(self):
        logging.getLogger("of.the.app").warning("ticking")
        return Deferred()

value = 1
"""
LOGGING = {
    "version": 1,
    "formatters": {"own": {"format": "own format: %(name)s %(message)s"}},
    "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "own"}},
    "root": {"handlers": ["out"], "level": "INFO"},
}


class Settings(TypingCase):
    """Line 67."""

    def test_line_67_substitution(self) -> None:
        """Variables in plain scalars become what YAML makes of their text. Nested ones need no package here."""
        for written, value in VALUES:
            found = settings.parse(f"key: {written}\n", "config.yaml", ENVIRON)["key"]
            self.assertEqual((found, type(found)), (value, type(value)), written)
        with self.assertRaises(ConfigurationError):
            settings.parse("key: !!python/name:os.system", "config.yaml", ENVIRON)

    def test_line_67_show_config(self) -> None:
        """``show-config`` prints what the services get; passwords in addresses are hidden, which nameko shows."""
        self.write("config.yaml", "AMQP_URI: amqp://u:${PASSWORD}@h/\nmax_workers: ${WORKERS:3}\n")
        with patch.dict(os.environ, PASSWORD="s3cret"):
            shown = self.txservices("show-config")
        self.assertEqual(shown, (0, "AMQP_URI: amqp://u:********@h/\nmax_workers: 3\n", ""))


class Run(TypingCase):
    """Line 68: ``txservices run``."""

    def setUp(self) -> None:
        super().setUp()
        self.write("app.py", APP)

    def run_services(self, *modules: str, **config: Any) -> processes.Process:
        file = processes.config_file(self, **config)
        return processes.txservices(self, "run", "--config", file, *modules, cwd=self.folder)

    def test_line_68_mistakes(self) -> None:
        """A module that can't be run gets one line that says what may have been meant, with status 2; nameko's is 0."""
        for module, words in [
            ("nowhere", "no module named 'nowhere'"),
            ("app.py", "did you mean 'app'?"),
            ("app:Three", "'Three'|Three"),
            ("app:value", "app:value is not a class"),
        ]:
            status, _, stderr = self.txservices("run", "--config", processes.config_file(self), module)
            self.assertEqual(status, 2, stderr)
            self.assertRegex(stderr, f"^Error: .*({words}).*\n$")

    async def test_line_68_signals(self) -> None:
        """SIGTERM, however often, and Ctrl-C stop in order; a second Ctrl-C does not wait. The status is 0.

        A signal during a system call (EINTR) is Python's own to mend since 3.5.
        """
        for names in (("TERM", "TERM", "INT", "INT"), ("INT", "INT")):
            running = self.run_services("app")
            await running.line("running: one, two")
            await running.line("ticking")
            running.signal(names[0])
            await running.line(f"SIG{names[0]}: stopping")
            for name in names[1:]:
                running.signal(name)
            self.assertEqual(await running.exit(), 0, str(running))

    async def test_line_68_one_class(self) -> None:
        """``module:Class`` runs that one alone; LOGGING goes to ``logging.config``, lines under who said them."""
        running = self.run_services("app:Two", LOGGING=LOGGING, SHUTDOWN_TIMEOUT=0.01)
        await running.line("^own format: of.the.app ticking$")
        self.assertEqual(await running.end(), 1, str(running))  # its tick is given up
        self.assertIn("starting services: two\n", running.stdout)
        await running.line("^own format: txservices.command.exits SIGTERM: stopping$")


class Shell(Case):
    """Line 69: ``txservices shell``. There is no ``test`` command: nothing needs to be patched before pytest runs."""

    async def setUp(self) -> None:
        super().setUp()
        heard = self.heard = Heard()
        self.config["AMQP_URI"] = await self.stage.listen()

        class Service:
            name = "service-x"

            @rpc
            def double(self, value):
                return value * 2

            @rpc(expected_exceptions=ValueError)
            def fail(self):
                raise ValueError("why")

            @event_handler("source", "type")
            def hear(self, data):
                heard(data)

        await self.start(Service)

    def shell(self, typed: str, *options: str, **environ: str) -> processes.Process:
        shell = processes.txservices(self, "shell", "--broker", self.config["AMQP_URI"], *options, **environ)
        shell.process.write(typed.encode())
        shell.process.closeStdin()
        return shell

    async def test_line_69_helper_object(self) -> None:
        """``n`` calls and waits, dispatches, and has the config; PYTHONSTARTUP is run before it; the status is 0."""
        startup = os.path.abspath(self.mktemp())
        with open(startup, "w", encoding="utf-8") as file:
            file.write("started = 21\n")
        typed = (
            "n.rpc['service-x'].double(started)\nn.dispatch_event('source', 'type', {'a': 1})\n"
            "n.config['AMQP_URI'].partition(':')[0]\nn.disconnect()\n"
        )
        shell = self.shell(typed, PYTHONSTARTUP=startup)
        self.assertEqual(await processes.succeed(shell), "42\n'amqp'\n")
        self.assertEqual(await self.heard.wait(), [{"a": 1}])

    async def test_line_69_exit_codes(self) -> None:
        """An error in what is piped in ends it with 1, whatever the interface; one that there isn't, with 2."""
        failing = self.shell("n.rpc['service-x'].fail()\nprint('on')\n", "--interface", "bpython")
        wrong = self.shell("", "--interface", "nothing")
        self.assertEqual(await failing.exit(), 1, str(failing))
        self.assertIn("RemoteError: ValueError why", failing.stderr)
        self.assertEqual(failing.stdout, "")
        self.assertEqual(await wrong.exit(), 2, str(wrong))
