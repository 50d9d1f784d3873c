"""How a process ends, under twistd and under `txservices run`: real processes."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from tests import processes, rabbitmq
from tests.command.test_tap import RPC, TICKS, Starts

SLOW = """
from twisted.internet.defer import Deferred
from txservices.extensions import DependencyProvider
from txservices.timer import timer

class Seen(DependencyProvider):
    def stop(self): print("dependency stopped")

class Slow:
    name = "slow"
    seen = Seen()

    @timer(interval=60, eager=True)
    def for_ever(self):
        print("worker runs")
        return Deferred()
"""
QUICKER = """
import threading
import time
from twisted.internet.defer import Deferred
from txservices import containers
from txservices.command import overtime
from txservices.extensions import DependencyProvider
from txservices.timer import timer

containers.EXTENSION_TIMEOUT = containers.KILL_TIMEOUT = 0.5
overtime.THREADS_TIMEOUT = 2  # the coverage of a slow machine is written in that time, too
overtime.REACTOR_TIMEOUT = 3

class Hangs:
    name = "hangs"
"""
RUNS = """
    @timer(interval=60, eager=True)
    def tick(self): print("it runs")
"""
# what hangs at the end -> the service, and what the log says
HANGS = {
    "a blocking method": (
        QUICKER
        + """
    @timer(interval=60, eager=True, blocking=True)
    def for_ever(self):
        print("it runs")
        threading.Event().wait()
""",
        r"given up(.|\n)*Hangs.for_ever, in a thread:(.|\n)*in for_ever\n"
        r"(.|\n)*not ended within 2 s(.|\n)*in for_ever\n",
    ),
    "a thread of one's own": (
        QUICKER
        + """
    @timer(interval=60, eager=True)
    def leave_behind(self):
        threading.Thread(target=threading.Event().wait, name="left behind").start()
        print("it runs")
""",
        r"not ended within 2 s(.|\n)*A thread held it(.|\n)*thread left behind:\n(.|\n)*in wait\n",
    ),
    "the stop of a dependency": (
        QUICKER.replace(
            "class Hangs:",
            "class Stuck(DependencyProvider):\n    def stop(self): return Deferred()\n\n"
            "class Hangs:\n    stuck = Stuck()",
        )
        + RUNS,
        r"Stuck(.|\n)* has not ended 0.5 s after its stop was called: going on without it",
    ),
    "a stop that holds the reactor": (
        QUICKER.replace(
            "class Hangs:",
            "class Stuck(DependencyProvider):\n    def stop(self): time.sleep(60)\n\nclass Hangs:\n    stuck = Stuck()",
        )
        + RUNS,
        r"not ended within 3 s(.|\n)*thread MainThread:\n(.|\n)*in stop\n",
    ),
    "what runs at the exit": (
        "import atexit, threading\natexit.register(threading.Event().wait)\n" + QUICKER + RUNS,
        r"not ended within 2 s(.|\n)*thread MainThread:\n(.|\n)*in wait\n",
    ),
}
# the kill of a dependency that never fires, after another has failed
KILLED = (
    QUICKER.replace(
        "class Hangs:",
        """class Stuck(DependencyProvider):
    def kill(self): return Deferred()

class Fails(DependencyProvider):
    def start(self): self.container.spawn_managed(self.fail)

    async def fail(self): raise RuntimeError("the roof is on fire")

class Hangs:
    stuck, fails = Stuck(), Fails()""",
    )
    + RUNS
)
HOLDS = """
import sys
import time
from txservices.command import overtime
from txservices.timer import timer

overtime.HURRY_TIMEOUT = 0.5

class Holds:
    name = "holds"

    @timer(interval=60, eager=True)
    def for_ever(self):
        threads = len(sys._current_frames())
        print("worker runs")
        while len(sys._current_frames()) == threads:
            time.sleep(0.01)
        print("it was asked to end")
        time.sleep(3600)
"""
CRASHES = """
from txservices.extensions import DependencyProvider
from txservices.timer import timer

class Fails(DependencyProvider):
    def start(self):
        self.container.spawn_managed(self.fail)

    async def fail(self):
        raise RuntimeError("the roof is on fire")

class Crashes:
    name = "crashes"
    fails = Fails()

    @timer(interval=60)
    def tick(self): pass
"""


class Endings(Starts):
    """Exit status 0, 1 and 2, each with its reason."""

    async def test_asked_to(self) -> None:
        """SIGTERM and Ctrl-C each stop the services, and the status is 0."""
        self.app(TICKS)
        for name in ("TERM", "INT"):
            running = self.start()
            await running.line("running: ticks")
            self.assertEqual(await running.end(name), 0, str(running))

    async def test_second_interrupt(self) -> None:
        """A worker that never ends is waited for after the first Ctrl-C, and not after the second."""
        self.app(SLOW)
        running = self.start()
        await running.line("running: slow")
        await running.line("worker runs")
        running.signal("INT")
        await running.line("SIGINT: stopping")
        running.signal("INT")
        self.assertEqual(await running.exit(), 0, str(running))
        self.assertRegex(
            running.stdout, r"slow is killed: 1 workers were running and 0 .* Running were slow.for_ever for"
        )

    async def test_second_interrupt_and_kill_that_hangs(self) -> None:
        """A dependency whose kill never ends is named after a second Ctrl-C, and the status is 1."""
        self.app(SLOW.replace('def stop(self): print("dependency stopped")', "def kill(self): return Deferred()"))
        running = self.start()
        await running.line("worker runs")
        running.signal("INT")
        await running.line("SIGINT: stopping")
        running.signal("INT")
        self.assertEqual(await running.exit(), 1, str(running))
        self.assertRegex(
            running.stdout,
            r"slow: <Seen( \[slow\.\w+\])? at \w+> has not ended 1 s after its kill was called: going on",
        )

    async def test_shutdown_timeout(self) -> None:
        """A worker that never ends is given up after SHUTDOWN_TIMEOUT, and the rest stops in its order."""
        self.app(SLOW)
        running = self.start(SHUTDOWN_TIMEOUT=0.1)
        await running.line("running: slow")
        await running.line("worker runs")
        self.assertEqual(await running.end(), 1, str(running))
        self.assertIn("dependency stopped", running.stdout)
        said = running.stdout + running.stderr
        self.assertIn("slow: 1 workers were running and 0 waiting after 0.1 s and are given up: their messages", said)
        self.assertRegex(said, r"Running were slow.for_ever for \d")

    async def test_what_hangs(self) -> None:
        """Whatever does not end is named with its place, and the process ends with 1."""
        each = []
        for number, (what, (text, pattern)) in enumerate(HANGS.items()):
            self.app(text, f"app{number}")
            each.append((what, pattern, self.start(f"app{number}", SHUTDOWN_TIMEOUT=0.2)))
        for _, _, running in each:
            await running.line("it runs")
        for _, _, running in each:
            running.signal("TERM")
        for what, pattern, running in each:
            self.assertEqual(await running.exit(), 1, f"{what}: {running}")
            self.assertRegex(running.stdout + running.stderr, pattern, what)

    async def test_kill_that_hangs(self) -> None:
        """A service that dies ends its process with 1, also if one of its dependencies does not end."""
        self.app(KILLED)
        running = self.start()
        self.assertEqual(await running.exit(), 1, str(running))
        said = running.stdout + running.stderr
        self.assertRegex(said, r"Stuck(.|\n)* has not ended 0.5 s after its kill was called: going on without it")
        self.assertIn("RuntimeError: the roof is on fire", said)

    async def test_second_interrupt_without_the_reactor(self) -> None:
        """A method that holds the reactor for ever is left after a second Ctrl-C, with its stack and 1."""
        self.app(HOLDS)
        running = self.start()
        await running.line("worker runs")
        running.signal("INT")
        await running.line("it was asked to end")
        running.signal("INT")
        self.assertEqual(await running.exit(), 1, str(running))
        self.assertRegex(
            running.stdout + running.stderr, r"not ended 0.5 s after the second Ctrl-C(.|\n)*in for_ever\n\s+time"
        )

    async def test_crash(self) -> None:
        """An error in an extension ends the process with its traceback and 1."""
        self.app(CRASHES)
        running = self.start()
        self.assertEqual(await running.exit(), 1, str(running))
        self.assertIn("RuntimeError: the roof is on fire", running.stdout + running.stderr)

    async def test_waits_for_broker(self) -> None:
        """A broker that is not there is waited for, told in a line, and SIGTERM ends the waiting at once."""
        self.app(RPC)
        port = rabbitmq.free_port()
        running = self.start("app", "--broker", f"amqp://guest:s3cret@127.0.0.1:{port}/")
        await running.line(f"127.0.0.1:{port}.*refused")
        self.assertEqual(await running.end(), 0, str(running))
        self.assertNotIn("s3cret", running.stdout + running.stderr)
        self.assertNotIn("Traceback", running.stdout + running.stderr, str(running))


class EndingsUnderTwistd(Endings, processes.ByTwistd, TestCase):
    """twistd."""


class EndingsByRun(Endings, processes.ByRun, TestCase):
    """`txservices run`."""
