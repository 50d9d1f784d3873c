"""The wall clock is set while things wait: nothing that waits is early, late or lost."""

from __future__ import annotations

import ast
import os
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock, LoopingCall
from twisted.python import runtime
from twisted.trial.unittest import SynchronousTestCase

from tests import processes
from tests.services import ServicesCase
from tests.test_architecture import MODULES
from txservices.rpc import rpc
from txservices.testing.waiting import Heard
from txservices.utils import default_reactor

HOUR = 3600.0

# Modules that may ask for the wall clock, each with the reason.
WALL = {
    "txservices.broker.vhost": "the date in x-death",
    "txservices.command.jsonlogs": "the times of log lines",
    "txservices.command.logs": "the dates of log lines",
    "txservices.command.tables": "the times of day of what other machines have told",
    "txservices.deadlines": "the time of day at which a caller on another machine gives up",
    "txservices.monitoring.answering": "the times of day at which a process began, and at which it answers",
    "txservices.monitoring.failures": "the times of day of failures, which are shown",
    "txservices.monitoring.happening": "the times of day of what has happened, which are shown",
    "txservices.page.cluster": "the times of day that the page shows, of what other machines have told",
    "txservices.retry.marks": "the dates in the headers of messages that have failed",
    "txservices.utils": "it takes the reactor off the wall clock",
}
# What tells the wall clock, by the module that it is imported from.
TELLS = {
    "time": {"time", "time_ns", "localtime", "gmtime", "ctime", "strftime"},
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
    "runtime": {"seconds"},
    "twisted.python.runtime": {"seconds"},
}


class Wall:
    """A wall clock that stands where it is set."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Reactors(SynchronousTestCase):
    """A reactor, before and after it is the default one's."""

    def setUp(self) -> None:
        self.wall = Wall()
        self.monotonic = 500.0
        self.patch(runtime, "seconds", self.wall)
        self.patch(sys.modules["time"], "monotonic", lambda: self.monotonic)
        self.called: list[str] = []

    def reactor(self) -> Any:
        """A reactor by the wall clock, as Twisted has it."""
        reactor: Any = type("OnWall", (SelectReactor,), {"seconds": staticmethod(self.wall)})()
        self.addCleanup(
            lambda: [reader.connectionLost(None) for reader in reactor.removeAll() or reactor._internalReaders]
        )
        return reactor

    def after(self, reactor: Any, seconds: float) -> list[str]:
        """The calls made by then."""
        self.monotonic += seconds
        self.wall.now += seconds
        reactor.runUntilCurrent()
        called = self.called.copy()
        self.called.clear()
        return called

    def test_as_twisted_has_it(self) -> None:
        """Without us a reactor calls an hour early, or not at all: this is what the other tests would see."""
        reactor = self.reactor()
        reactor.callLater(5, self.called.append, "soon")
        reactor.callLater(HOUR, self.called.append, "later")
        self.wall.now += HOUR - 1
        self.assertEqual(self.after(reactor, 1), ["soon", "later"])
        reactor.callLater(5, self.called.append, "soon")
        self.wall.now -= HOUR
        self.assertEqual(self.after(reactor, 5), [])

    def test_set_forward_and_back(self) -> None:
        """A delayed call is made after so many seconds, however the wall clock is set meanwhile."""
        for moved in (HOUR, -HOUR, 365 * 24 * HOUR, -365 * 24 * HOUR, 0.5, -0.5):
            reactor = default_reactor(self.reactor())
            reactor.callLater(5, self.called.append, "soon")
            reactor.callLater(8, self.called.append, "later")
            self.wall.now += moved
            self.assertAlmostEqual(reactor.timeout(), 5.0, places=5)
            self.assertEqual(self.after(reactor, 4.9), [])
            self.wall.now -= 2 * moved
            self.assertEqual(self.after(reactor, 0.2), ["soon"])
            self.assertEqual(self.after(reactor, 3), ["later"])

    def test_what_waited_before(self) -> None:
        """Calls made before are called at their time, in their order, also if they are reset, delayed or cancelled."""
        reactor = self.reactor()
        calls = {name: reactor.callLater(after, self.called.append, name) for after, name in enumerate("abcdef", 1)}
        reactor.runUntilCurrent()  # now they are in its heap, and those to come are not yet
        calls["new"] = reactor.callLater(7, self.called.append, "new")
        calls["b"].cancel()
        default_reactor(reactor)
        self.wall.now += HOUR
        calls["c"].reset(4.5)  # later
        calls["e"].reset(0.5)  # sooner
        calls["d"].delay(2)
        calls["f"].delay(-4)
        self.assertEqual(self.after(reactor, 0.6), ["e"])
        self.wall.now -= 2 * HOUR
        self.assertEqual(self.after(reactor, 0.5), ["a"])
        self.assertEqual(self.after(reactor, 1), ["f"])
        self.assertEqual(self.after(reactor, 2.5), ["c"])
        self.assertEqual(self.after(reactor, 2.5), ["d", "new"])

    def test_looping_call(self) -> None:
        """A LoopingCall that runs already keeps its interval."""
        reactor = self.reactor()
        loop = LoopingCall(self.called.append, "tick")
        loop.clock = reactor
        loop.start(1, now=False)
        self.assertEqual(self.after(reactor, 1), ["tick"])
        default_reactor(reactor)
        for moved in (HOUR, -2 * HOUR, HOUR):
            self.wall.now += moved
            self.assertEqual(self.after(reactor, 0.5), [])
            self.assertEqual(self.after(reactor, 0.5), ["tick"])
        loop.stop()

    def test_twice(self) -> None:
        """It is done once for a reactor; its time goes on from where it was, so that what was noted stays right."""
        reactor = default_reactor(self.reactor())
        seconds = reactor.seconds
        self.assertAlmostEqual(seconds(), self.wall.now, places=5)
        self.wall.now += HOUR
        self.assertIs(default_reactor(reactor), reactor)
        self.assertIs(reactor.seconds, seconds)

    def test_clock_of_a_test(self) -> None:
        """A clock that is not the wall's is left as it is, and the process's reactor does not follow the wall clock."""
        clock = Clock()
        self.assertIs(default_reactor(clock), clock)
        clock.advance(3)
        self.assertEqual(clock.seconds(), 3)
        reactor = default_reactor()
        before = reactor.seconds()
        self.wall.now += HOUR
        self.assertEqual(reactor.seconds(), before)


class Sources(SynchronousTestCase):
    """Which clocks the modules read."""

    def test_no_wall_clock(self) -> None:
        """No module asks the wall clock how long something takes: those that show a date are named."""
        asking = {
            f"{module.dotted}:{node.lineno}"
            for module in MODULES.values()
            for node in ast.walk(module.tree)
            if module.dotted not in WALL and asks_wall(node)
        }
        self.assertEqual(asking, set())

    def test_those_that_may(self) -> None:
        """Whoever may ask the wall clock does."""
        self.assertEqual([name for name in WALL if not any(map(asks_wall, ast.walk(MODULES[name].tree)))], [])

    def test_what_is_found(self) -> None:
        """The check finds what it is for, and passes what is not."""
        for found in (
            "time.time()",
            "from time import time",
            "from time import sleep, time_ns",
            "datetime.now(utc)",
            "datetime.datetime.utcnow()",
            "clock=time.time",
            "from twisted.python.runtime import seconds",
        ):
            self.assertTrue(any(map(asks_wall, ast.walk(ast.parse(found)))), found)
        for passed in (
            "time.monotonic()",
            "from time import perf_counter",
            "clock.seconds()",
            "datetime.fromtimestamp(0)",
            "from datetime import time",
            "import time",
            "reactor.seconds()",
        ):
            self.assertFalse(any(map(asks_wall, ast.walk(ast.parse(passed)))), passed)

    def test_one_way_to_the_reactor(self) -> None:
        """Only ``default_reactor`` imports the reactor, so that nobody has it by the wall clock."""
        importing = [
            module.dotted
            for module in MODULES.values()
            for node in ast.walk(module.tree)
            if isinstance(node, ast.ImportFrom)
            and node.module == "twisted.internet"
            and any(alias.name == "reactor" for alias in node.names)
        ]
        self.assertEqual(importing, ["txservices.utils"])


def asks_wall(node: ast.AST) -> bool:
    """Whether that reads the wall clock, or takes the function that does."""
    if isinstance(node, ast.ImportFrom):
        return any(alias.name in TELLS.get(node.module or "", ()) for alias in node.names if node.module != "datetime")
    if not isinstance(node, ast.Attribute):
        return False
    of = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
    return node.attr in TELLS.get(of, ())


# Python reads this module at its start, before anything else: the wall clock goes by a file that the test writes.
SITECUSTOMIZE = """
import os, time

real, path = time.time, os.environ["WALL_CLOCK"]

def moved():
    with open(path) as file:
        return real() + float(file.read() or 0)

time.time = moved
"""
SERVICE = """
import time
from txservices.rpc import RpcProxy
from txservices.timer import timer

class Waits:
    name = "waits"
    far = RpcProxy("far")
    begun = time.time()
    ticks = []  # of each the hour, as the wall clock has it

    @timer(interval=0.1)
    def tick(self):
        self.ticks.append(round((time.time() - self.begun) / 3600))
        print(f"tick {self.ticks.count(self.ticks[-1])} at {self.ticks[-1]} h", flush=True)

    @timer(interval=1000, eager=True)
    async def ask(self):
        print("answer:", await self.far.echo("here"), flush=True)
"""
PROGRAM = """
import sys
from txservices.standalone.blocking import ClusterRpcProxy

with ClusterRpcProxy({"AMQP_URI": sys.argv[1], "RPC_TIMEOUT": 200, "HEARTBEAT": 1}) as cluster:
    print("answer:", cluster.far.echo("here"), flush=True)
"""


class Processes(ServicesCase):
    """The programs that people start, with a heartbeat every second and a call under way, while the clock is set."""

    timeout = 240

    async def setUp(self) -> None:
        super().setUp()
        self.asked, self.answer = asked, answer = Heard(), Deferred[None]()

        class Far:
            name = "far"

            @rpc
            async def echo(self, value: str) -> str:
                asked()
                await answer
                return value

        await self.start(Far)
        self.folder = os.path.abspath(self.mktemp())
        os.makedirs(self.folder)
        self.write("sitecustomize.py", SITECUSTOMIZE)
        self.write("moving.py", SERVICE)
        self.write("program.py", PROGRAM)
        self.set_clock(0)

    def write(self, name: str, text: str) -> None:
        with open(os.path.join(self.folder, name), "w", encoding="utf-8") as file:
            file.write(text)

    def set_clock(self, seconds: float) -> None:
        """Set the wall clock of the processes to so many seconds from the real time."""
        self.write("moved", f"{seconds}")
        os.replace(os.path.join(self.folder, "moved"), os.path.join(self.folder, "clock"))

    async def test_programs(self) -> None:
        """`txservices run`, `twistd` and a blocking program keep their connections, calls and timers."""
        uri = await self.stage.listen()
        environ = {"PYTHONPATH": self.folder, "WALL_CLOCK": os.path.join(self.folder, "clock")}
        options = [f"--broker={uri}", "--define=HEARTBEAT=1", "--define=RPC_TIMEOUT=200"]
        services = [
            processes.txservices(self, "run", *options, "moving", cwd=self.folder, **environ),
            processes.twistd(self, *options, "--module=moving", cwd=self.folder, **environ),
        ]
        program = processes.python(self, "program.py", uri, cwd=self.folder, **environ)
        await self.asked.wait(3)
        for hours in (1, -1):
            self.set_clock(hours * HOUR)
            for service in services:
                await service.line(f"tick 25 at {hours} h")  # longer than a connection may be silent
        self.answer.callback(None)
        for process in (*services, program):
            await process.line("answer: here")
        await processes.stopped(*services)
        await processes.succeed(program)
        for process in (*services, program):
            self.assertNotIn("no connection", str(process))
