"""`txservices shell`, piped into and at a terminal."""

from __future__ import annotations

import os
import re
import sys
from typing import Any

from tests import processes
from tests.services import ServicesCase
from txservices.events import event_handler
from txservices.rpc import rpc
from txservices.testing.waiting import Heard

TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


class Shells(ServicesCase):
    """Shells, with services of this process."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = os.path.abspath(self.mktemp())
        os.makedirs(self.folder)
        self.config_path = processes.config_file(self)

    def file(self, name: str, text: str) -> str:
        path = os.path.join(self.folder, name)
        with open(path, "w") as file:
            file.write(text)
        return path

    async def services(self) -> None:
        """Start the services, on the broker that a shell finds if its config names none."""
        self.sold = sold = Heard()

        class Odd:
            name = "odd"

            @rpc
            def add(self, first: int, second: int = 1) -> int:
                return first + second

            @rpc(expected_exceptions=ValueError)
            def fail(self) -> None:
                raise ValueError("not today")

            @event_handler("shop", "sold")
            def sold(self, payload: Any) -> None:
                sold(payload)

        await super().start(Odd)
        _, address = (await self.stage.listen()).rstrip("/").split("@")
        self.config_path = processes.config_file(self, EMBEDDED_BROKER_ADDRESS=address)

    def piped(self, text: str, *options: str, **environ: str) -> processes.Process:
        shell = processes.txservices(self, "shell", "-c", self.config_path, *options, cwd=self.folder, **environ)
        shell.process.write(text.encode())
        shell.process.closeStdin()
        return shell

    def at_terminal(self, *options: str, **environ: str) -> processes.Process:
        arguments = [processes.script("txservices"), "shell", "-c", self.config_path, *options]
        environ = {"TERM": "dumb", "PYTHONPATH": self.folder, **environ}
        return processes.start(self, [sys.executable, "-c", TERMINAL, *arguments], self.folder, **environ)

    async def test_piped(self) -> None:
        """Calls wait and print, with no prompt between; names in brackets; events; what is defined in it."""
        await self.services()
        shell = self.piped(
            "n.rpc.odd.add(1, 2)\nn.rpc['odd'].add(5)\nfor each in 1, 2:\n    x = n.rpc.odd.add(each, second=10)\n"
            "x\nn.dispatch_event('shop', 'sold', {'a': 1})\nn.disconnect()\nn.rpc.odd.add.call_async(40, 2).result()\n"
            "sorted(n.config)",
        )
        printed = await processes.succeed(shell)
        names = "['AMQP_URI', 'BROKER_START_TIMEOUT', 'EMBEDDED_BROKER_ADDRESS', 'WEB_SERVER_ADDRESS']"
        self.assertEqual((printed, shell.stderr), (f"3\n6\n12\n42\n{names}\n", ""))
        self.assertEqual(await self.sold.wait(), [{"a": 1}])

    async def test_errors(self) -> None:
        """Piped lines end with their first error, from its own line on, with 1; with any interface asked for."""
        await self.services()
        for text, error in [
            ("n.rpc.odd.fail()", "RemoteError: ValueError not today"),
            ("n.rpc.nobody.fail()", "UnknownService: Unknown service `nobody` (call of nobody.fail)"),
            ("1 +", "SyntaxError: invalid syntax"),
        ]:
            shell = self.piped(f"print('begins')\n{text}\nprint('not reached')\n", "--interface", "ipython")
            self.assertEqual(await shell.exit(), 1, str(shell))
            self.assertEqual(shell.stdout, "" if "1 +" in text else "begins\n")
            self.assertRegex(shell.stderr, f'(?s)File "<stdin>", line 2.*{re.escape(error)}\n$')
            self.assertNotIn("in run_piped", shell.stderr)

    async def test_startup_file(self) -> None:
        """PYTHONSTARTUP is run before, with `n` at hand; an error in it is told of, and no end."""
        broker = "--broker=amqp://guest:guest@127.0.0.1:1/"
        path = self.file("startup.py", "there = n.config['AMQP_URI']\n1 / 0\n")
        shell = self.piped("there, n.config['BROKER_START_TIMEOUT']", broker, PYTHONSTARTUP=path)
        self.assertEqual(await processes.succeed(shell), "('amqp://guest:guest@127.0.0.1:1/', 5.0)\n")
        self.assertRegex(shell.stderr, '(?s)File ".*startup.py", line 2.*ZeroDivisionError')

    async def test_no_broker(self) -> None:
        """If no broker is configured, and none is there, it says so, with status 2."""
        shell = self.piped("1")
        self.assertEqual(await shell.exit(), 2, str(shell))
        self.assertRegex(shell.stderr, "^Error: no broker on 127.0.0.1:.*\n$")

    async def test_terminal(self) -> None:
        """At a terminal it greets, prompts, prints and goes on after an error; Ctrl-D leaves, with 0."""
        await self.services()
        shell = self.at_terminal("--interface", "plain")
        await shell.line("Broker: amqp://guest:[*]{8}@127.0.0.1:[0-9]+/.*\r\n(.*\r\n)+>>> ")
        for typed, answer in [("n.rpc.odd.add(1, 41)", "42"), ("1 / 0", "ZeroDivisionError.*"), ("6 * 9", "54")]:
            shell.process.write(f"{typed}\n".encode())
            await shell.line(f"^{answer}\r\n>>> ")  # at its prompt: before, the terminal itself would take a Ctrl-D
        shell.process.write(b"\x04")
        self.assertEqual(await shell.exit(), 0, str(shell))

    async def test_interfaces(self) -> None:
        """The prompt is the first that is installed, or the one that is asked for."""
        self.file(
            "bpython.py", "def embed(locals_, banner): print('bpython', locals_['n'].config['max_workers'], banner)"
        )
        self.file(
            "IPython.py", "def start_ipython(argv, user_ns): print('ipython', user_ns['n'].config['max_workers'], argv)"
        )
        options = ("--broker", "amqp://me:s3cret@127.0.0.1:1/", "-d", "max_workers=7")
        for interface, expected in [((), "bpython 7 txs"), (("--interface", "ipython"), r"ipython 7 \['--Term")]:
            shell = self.at_terminal(*options, *interface)
            await shell.line(expected)
            self.assertEqual(await shell.exit(), 0, str(shell))
            self.assertNotIn("s3cret", shell.stdout)

    async def test_interface_not_installed(self) -> None:
        """A prompt that is asked for and not installed is a mistake."""
        self.file("sitecustomize.py", "import sys; sys.modules['bpython'] = None")
        shell = self.at_terminal("--broker", "amqp://127.0.0.1:1/", "--interface", "bpython")
        self.assertEqual(await shell.exit(), 2, str(shell))
        await shell.line("Error: --interface bpython is not installed: pip install bpython, or choose plain")
