"""Starts, and the mistakes that they find, under twistd and under `txservices run`: real processes."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.python import usage
from twisted.trial.unittest import TestCase

from tests import processes, rabbitmq
from tests.command.folder import Ended, FolderCase, TypingCase
from txservices.command import tap

TICKS = """
from txservices.timer import timer

class Ticks:
    name = "ticks"

    @timer(interval=60)
    def tick(self): pass
"""
HTTP = """
from txservices.web.handlers import http

class Web:
    name = "web"

    @http("GET", "/")
    def root(self, request): return "here"
"""
ASYNCIO = """
import asyncio
from txservices.extensions import DependencyProvider
from txservices.timer import timer

class Cache(DependencyProvider):
    async def setup(self): await asyncio.sleep(1)

class Shop:
    name = "shop"
    cache = Cache()

    @timer(60)
    def tick(self): pass
"""
RPC = """
from txservices.rpc import rpc

class Adder:
    name = "adder"

    @rpc
    def add(self, first: int, second: int, third=0): return first + second + third
"""


REFUSES = "127.0.0.1:1"  # nobody listens there


class Starts:
    """A folder with modules in it, `app` mostly, run by one face."""

    face: Callable[..., processes.Process]  # that of processes.ByTwistd or ByRun

    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        os.makedirs(self.folder)

    def app(self, text: str, name: str = "app") -> None:
        with open(os.path.join(self.folder, f"{name}.py"), "w", encoding="utf-8") as file:
            file.write(textwrap.dedent(text))

    def start(self, module: str = "app", *options: str, **config: Any) -> processes.Process:
        file = processes.config_file(self, **config)
        return self.face([module], self.folder, "--config", file, *options)

    async def mistake(self, running: processes.Process, pattern: str) -> None:
        """It ends with 2, and what it says is one line on stderr."""
        status = await running.exit()
        self.assertEqual(status, 2, str(running))
        lines = running.stderr.strip().splitlines()
        self.assertEqual(len(lines), 1, str(running))
        self.assertRegex(lines[0], pattern)
        self.assertNotIn("Traceback", running.stdout + running.stderr, str(running))


class Mistakes:
    """A mistake that is found before anything starts is told in one line; the status is 2."""

    def typed(self, *options: str, module: str = "app") -> Ended:
        raise NotImplementedError  # by run or by twistd: the subclasses say

    def mistake(self, ended: Ended, pattern: str) -> None:
        """It ended with 2, and what it said is one line on stderr."""
        status, stdout, stderr = ended
        self.assertEqual((status, stdout, len(stderr.splitlines())), (2, "", 1), stderr)
        self.assertRegex(stderr, pattern)

    def test_no_such_module(self) -> None:
        """A module that is nowhere."""
        self.mistake(self.typed(module="nowhere"), "Error: no module named 'nowhere' in ")

    def test_file_name(self) -> None:
        """`app.py` for `app`."""
        self.write("app.py", TICKS)
        self.mistake(self.typed(module="app.py"), "did you mean 'app'")

    def test_no_service(self) -> None:
        """A module with nothing to run."""
        self.write("app.py", "value = 1")
        self.mistake(self.typed(), "nothing in module 'app' looks like a service")

    def test_no_name(self) -> None:
        """A service class that does not say its name."""
        self.write("app.py", TICKS.replace('name = "ticks"', ""))
        self.mistake(self.typed(), "Ticks.*name|name.*Ticks")

    def test_error_in_module(self) -> None:
        """An import error inside the module comes with its traceback, from the user's line on."""
        self.write("app.py", "import missing_dependency\n")
        status, _, stderr = self.typed()
        self.assertEqual(status, 2, stderr)
        self.assertIn('app.py", line 1, in <module>', stderr)
        self.assertRegex(stderr, "\nError: module 'app' could not be imported: ModuleNotFoundError.*\n$")
        self.assertNotIn("loading.py", stderr)

    def test_config(self) -> None:
        """A config file that is missing, or no YAML."""
        self.mistake(self.typed("--config", "missing.yaml"), "cannot read the config file missing.yaml")
        self.write("bad.yaml", "a: [1\n")
        self.mistake(self.typed("--config", "bad.yaml"), "bad.yaml, line 2")

    def test_define(self) -> None:
        """A definition lacks its `=`."""
        self.mistake(self.typed("--define", "max_workers"), "'max_workers' defines nothing: write KEY=V")


class Heap(Starts):
    """What the garbage collector walks."""

    async def test_spared(self) -> None:
        """When the services run, their modules are no longer walked."""
        self.app("""
            import gc
            from txservices.timer import timer

            TABLE = [[] for _ in range(1_000_000)]

            class Heap:
                name = "heap"

                @timer(0.1)
                def tick(self):
                    print("frozen", gc.get_freeze_count(), flush=True)
        """)
        running = self.start()
        await running.line(r"frozen 1\d{6}\b")
        self.assertEqual(await running.end(), 0, str(running))


class LateMistakes(Starts):
    """A mistake that is found when the services start is told likewise, and the process ends with that status."""

    async def test_before(self) -> None:
        """One that is found before."""
        await self.mistake(self.start("nowhere"), "Error: no module named 'nowhere' in ")

    async def test_address(self) -> None:
        """A broker's address that can't be parsed, with its password not shown."""
        self.app(RPC)
        running = self.start("app", "--broker", "http://guest:s3cret@localhost/")
        await self.mistake(running, "AMQP_URI")
        self.assertNotIn("s3cret", running.stdout + running.stderr)

    async def test_web_address(self) -> None:
        """An HTTP address that can't be parsed."""
        self.app(HTTP)
        await self.mistake(self.start(WEB_SERVER_ADDRESS="http://here"), "WEB_SERVER_ADDRESS")

    async def test_asyncio(self) -> None:
        """A dependency that needs asyncio's reactor, on another one."""
        self.app(ASYNCIO)
        await self.mistake(
            self.start(), "Error: Cache.setup awaits something of asyncio's .*run --reactor asyncio`, or"
        )

    async def test_values(self) -> None:
        """Values in a config that can't be: each is told in a line of its own."""
        self.app(TICKS)
        running = self.start("app", HEARTBEAT="x", max_workers="ten", RPC_TIMEOUT="60")
        self.assertEqual(await running.exit(), 2, str(running))
        told = [line.partition(" is no ")[0] for line in running.stderr.strip().splitlines()]
        self.assertEqual(told, ["Error: max_workers: 'ten'", "Error: RPC_TIMEOUT: '60'", "Error: HEARTBEAT: 'x'"])

    async def test_port_taken(self) -> None:
        """The port for HTTP is another program's."""
        self.app(HTTP)
        port = self.occupy()
        running = self.start(WEB_SERVER_ADDRESS=f"127.0.0.1:{port}")
        await self.mistake(running, f"127.0.0.1:{port}.*WEB_SERVER_ADDRESS")

    async def test_broker_port_taken(self) -> None:
        """The port for the embedded broker answers, and not as a broker."""
        self.app(RPC)
        port = self.occupy()
        running = self.start(EMBEDDED_BROKER_ADDRESS=f"127.0.0.1:{port}")
        await self.mistake(running, f"port {port} on 127.0.0.1 is taken.*EMBEDDED_BROKER_ADDRESS")

    def occupy(self) -> int:
        """A port that something listens on which hangs up."""

        class HangsUp(Protocol):
            def connectionMade(self) -> None:
                self.transport.loseConnection()

        factory = ServerFactory.forProtocol(HangsUp)
        factory.noisy = False
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)


class Refused(Starts):
    """A refusal by RabbitMQ is a mistake as well."""

    skip = rabbitmq.skip

    def setUp(self) -> None:
        super().setUp()
        self.app(RPC)
        node = rabbitmq.node()
        self.uri = node.uri(node.new_vhost())

    async def test_password(self) -> None:
        """Wrong credentials: the user is named, the password never shown."""
        uri = re.sub("//[^@]*@", "//guest:s3cret@", self.uri)
        running = self.start(AMQP_URI=uri)
        await self.mistake(running, "guest")
        self.assertNotIn("s3cret", running.stdout + running.stderr)

    async def test_virtual_host(self) -> None:
        """A virtual host that is not there is named."""
        await self.mistake(self.start(AMQP_URI=re.sub("/[^/]*$", "/nowhere", self.uri)), "nowhere")

    async def test_queue_declared_otherwise(self) -> None:
        """A queue that exists with other arguments: the refusal says the difference."""
        await declare_otherwise(self.uri)
        await self.mistake(self.start(AMQP_URI=self.uri), "rpc-adder.*x-max-length")


async def declare_otherwise(uri: str) -> None:
    """The queue of `adder`, with an argument that ours has not."""
    from txservices.amqp.connections import Connections
    from txservices.amqp.entities import Queue

    connections = Connections.from_config({"AMQP_URI": uri})
    connections.startService()
    try:
        await connections.publisher.declare(Queue("rpc-adder", arguments={"x-max-length": 7}))
    finally:
        await connections.stopService()


class MistakesUnderTwistd(Mistakes, TypingCase):
    """twistd."""

    def typed(self, *options: str, module: str = "app") -> Ended:
        return self.twistd(*options, "--module", module)


class MistakesByRun(Mistakes, TypingCase):
    """`txservices run`."""

    def typed(self, *options: str, module: str = "app") -> Ended:
        return self.txservices("run", *options, module)


class LateMistakesUnderTwistd(LateMistakes, processes.ByTwistd, TestCase):
    """twistd."""

    async def test_log_file(self) -> None:
        """A daemon has no stderr: its log file tells the mistake, in a line."""
        self.app(RPC)
        file = processes.config_file(self, AMQP_URI=f"amqp://{REFUSES}/", BROKER_START_TIMEOUT=0)
        log = os.path.join(self.folder, "log")
        argv = ["--pidfile=", f"--logfile={log}", "txservices", "--module=app", "--config", file]
        running = processes.fork(self, [processes.script("twistd"), "-n", *argv], self.folder)
        await self.mistake(running, f"Error: no broker at amqp://guest:.*@{REFUSES}/")
        with open(log, encoding="utf-8") as lines:
            [line] = [each for each in lines if "no broker at" in each]
        self.assertRegex(line, r"^\S+ \[txservices\.command\.exits#error\] no broker at amqp://guest:")


class HeapByRun(Heap, processes.ByRun, TestCase):
    """By `txservices run`."""


class HeapUnderTwistd(Heap, processes.ByTwistd, TestCase):
    """By `twistd txservices`."""


class LateMistakesByRun(LateMistakes, processes.ByRun, TestCase):
    """`txservices run`."""


class RefusedUnderTwistd(Refused, processes.ByTwistd, TestCase):
    """twistd."""


class RefusedByRun(Refused, processes.ByRun, TestCase):
    """`txservices run`."""


class UnderTwist(FolderCase):
    """Twisted's `twist`, which has fewer options than twistd, and stays in the foreground."""

    async def test_runs(self) -> None:
        """Services run until they are stopped, as under twistd."""
        self.write("app.py", RPC)
        argv = [processes.script("twist"), "--log-format=text", "txservices", "--module=app"]
        running = processes.fork(self, argv, self.folder)
        await running.line("running: ")
        await processes.stopped(running)


class TheOptions(TestCase):
    """twistd's options."""

    def test_options(self) -> None:
        """--module can be given again; --config and --broker are one each."""
        options = tap.Options()
        options.parseOptions(["--module", "a:One", "-m", "b", "--config", "c.yaml", "--broker", "amqp://h/"])
        self.assertEqual(options["modules"], ["a:One", "b"])
        self.assertEqual((options["config"], options["broker"]), ("c.yaml", "amqp://h/"))

    def test_define(self) -> None:
        """--define can be given again as well."""
        options = tap.Options()
        options.parseOptions(["-m", "a", "--define", "max_workers=5", "-d", "A=b"])
        self.assertEqual(options["defines"], ["max_workers=5", "A=b"])

    def test_no_module(self) -> None:
        """Without a module there is nothing to run."""
        error = self.assertRaises(usage.UsageError, tap.Options().parseOptions, [])
        self.assertIn("--module", str(error))
