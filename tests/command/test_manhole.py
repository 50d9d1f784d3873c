"""The prompt inside a process: typed to over a socket, as telnet does."""

from __future__ import annotations

import os
from collections.abc import Callable

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests import processes
from tests.rabbitmq import free_port
from txservices.command import manhole
from txservices.exceptions import CommandError

APP = """
from txservices.timer import timer

class Ticks:
    name = "ticks"

    @timer(interval=60)
    def tick(self): pass
"""


class Typist(Protocol):
    """Types lines, and waits for what is printed."""

    def connectionMade(self) -> None:
        self.text = ""
        self.waiting: list[tuple[str, Deferred[None]]] = []
        self.hung_up: Deferred[None] = Deferred()

    def type(self, line: str, answer: str) -> Deferred[None]:
        """Fires once `answer` was printed after it."""
        self.text = ""
        printed: Deferred[None] = Deferred()
        self.waiting.append((answer, printed))
        self.transport.write(line.encode() + b"\r\n")
        return printed.addTimeout(processes.DEADLINE, reactor)

    def dataReceived(self, data: bytes) -> None:
        self.text += data.decode("latin-1")
        for entry in [each for each in self.waiting if each[0] in self.text]:
            self.waiting.remove(entry)
            entry[1].callback(None)

    def connectionLost(self, reason: Failure) -> None:
        self.hung_up.callback(None)


async def typist(test: TestCase, port: int) -> Typist:
    made: Typist = await HostnameEndpoint(reactor, "127.0.0.1", port).connect(Factory.forProtocol(Typist))

    def hang_up() -> Deferred[None]:
        made.transport.loseConnection()
        return made.hung_up

    test.addCleanup(hang_up)
    return made


class Inside:
    """A process with a manhole."""

    face: Callable[..., processes.Process]  # that of processes.ByTwistd or ByRun

    def start(self, address: str) -> processes.Process:
        folder = os.path.abspath(self.mktemp())
        os.makedirs(folder)
        with open(os.path.join(folder, "app.py"), "w") as file:
            file.write(APP)
        config = processes.config_file(self, max_workers=7)
        return self.face(["app"], folder, "--config", config, "--backdoor-port", address)

    async def test_prompt(self) -> None:
        """The runner, its containers and the config are at hand, and leaving does not end the process."""
        port = free_port()
        running = self.start(str(port))
        await running.line(f"backdoor: telnet 127.0.0.1 {port}")
        await running.line("running: ticks")
        me = await typist(self, port)
        await me.type("containers['ticks'].max_workers * 111", "777")
        await me.type("runner.service_names", "['ticks']")
        await me.type("config['max_workers'] * 100", "700")
        await me.type("1 / 0", "ZeroDivisionError")
        await me.type("raise SystemExit", "")
        await me.hung_up.addTimeout(processes.DEADLINE, reactor)
        self.assertIsNone(running.status)
        await processes.stopped(running)

    async def test_stop_while_somebody_is_in(self) -> None:
        """An open prompt does not keep the process from ending."""
        port = free_port()
        running = self.start(f"localhost:{port}")
        await running.line("running: ticks")
        me = await typist(self, port)
        await me.type("6 * 7", "42")
        await processes.stopped(running)

    async def test_other_host(self) -> None:
        """Only this machine can reach it."""
        running = self.start("0.0.0.0:3000")
        self.assertEqual(await running.exit(), 2, str(running))
        self.assertRegex(running.stderr, "^Error: --backdoor-port 0.0.0.0:3000: .* on 127.0.0.1 only: write 3000")

    async def test_port_taken(self) -> None:
        """A port that is somebody else's is a mistake."""
        taken = reactor.listenTCP(0, Factory.forProtocol(Protocol), interface="127.0.0.1")
        self.addCleanup(taken.stopListening)
        running = self.start(str(taken.getHost().port))
        self.assertEqual(await running.exit(), 2, str(running))
        self.assertRegex(running.stderr, f"^Error: .*127.0.0.1:{taken.getHost().port}.*in use")


class InsideByRun(Inside, processes.ByRun, TestCase):
    """`txservices run`."""


class InsideUnderTwistd(Inside, processes.ByTwistd, TestCase):
    """twistd."""


class ThePrompt(TestCase):
    """The manhole's refusals, in this process."""

    async def test_browser(self) -> None:
        """A request from a page in a browser is not run."""
        done: list[int] = []
        opened = manhole.Manhole(0, {"done": done}, reactor)
        port = int(opened.listen().split()[-1])
        self.addCleanup(opened.close)
        me = await typist(self, port)
        me.transport.write(b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\ndone.append(1)\r\n")
        await me.hung_up.addTimeout(processes.DEADLINE, reactor)
        self.assertEqual(done, [])

    def test_address(self) -> None:
        """A port, with no host but this machine."""
        for address in ("3000", "127.0.0.1:3000", "localhost:3000"):
            self.assertEqual(manhole.port_of(address), 3000)
        for address in ("", "port", "70000", "0.0.0.0:3000", "::1:3000", "example.org:3000"):
            self.assertRaises(CommandError, manhole.port_of, address)
