"""Code that holds the reactor is named: by a clock of the test's own, in this reactor, and in processes."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import succeed
from twisted.internet.task import Clock
from twisted.logger import LogEvent, capturedLogs, formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from tests import processes
from tests.services import ServicesCase
from txservices.exceptions import ConfigurationError
from txservices.testing.waiting import Heard
from txservices.timer import timer
from txservices.utils import default_reactor
from txservices.watchdog import Watchdog, watchdog

SLEEPS = """
import time
from txservices.timer import timer

class Sleeps:
    name = "sleeps"

    @timer(interval=60, eager=True)
    def tick(self): in_a_helper()

def in_a_helper():
    time.sleep(1.5)
"""


class Looks(TestCase):
    """The thread's look at the reactor, without the thread."""

    def setUp(self) -> None:
        self.time = self.used = 100.0
        self.dog = Watchdog(1.0, Clock(), lambda: self.time, lambda: self.used)
        self.dog.reactor_thread = threading.get_ident()
        self.dog.beat()
        self.dog.look()

    def look(self, *passing: float, used: float = 0.25) -> list[str]:
        """The lines that are logged if it looks each time after that many seconds."""
        with capturedLogs() as events:
            for seconds in passing:
                self.time += seconds
                self.used += used
                self.dog.look()
        return [formatEvent(event) for event in events]

    def test_in_time(self) -> None:
        """While the stamp is renewed, or may still be, nothing is said."""
        self.assertEqual(self.look(*[0.25] * 5), [])
        self.dog.beat()
        self.assertEqual(self.look(*[0.25] * 5), [])

    def test_held(self) -> None:
        """Once too old, it says so once, and the reactor says when it goes on."""
        (told,) = self.look(*[0.25] * 12)
        self.assertIn("the reactor has been held for 1.5 s by ", told)
        self.assertIn("in look\n", told)
        with capturedLogs() as events:
            self.dog.beat()
            self.dog.beat()
        self.assertEqual([formatEvent(event) for event in events], ["the reactor goes on, after 3.0 s"])

    def test_again(self) -> None:
        """The next time it is held, it says so again."""
        self.look(*[0.25] * 12)
        self.dog.beat()
        self.assertEqual(len(self.look(*[0.25] * 12)), 1)

    def test_stopped_process(self) -> None:
        """A process that was stopped or starved as a whole was not held by a method."""
        self.assertEqual(self.look(600, used=0), [])

    def test_interpreter_held(self) -> None:
        """When even this thread could not run because the processor was used, somebody held it."""
        self.assertEqual(len(self.look(600, used=300)), 1)


class TheConfig(TestCase):
    """The values of BLOCKED_REACTOR_TIMEOUT."""

    def test_timeout(self) -> None:
        """Seconds, a second if it is not there."""
        for config, expected in [({}, 1.0), ({"BLOCKED_REACTOR_TIMEOUT": 0.2}, 0.2)]:
            made = watchdog(config, Clock())
            self.assertIsInstance(made, Watchdog)
            self.assertEqual(made.timeout, expected)

    def test_off(self) -> None:
        """Null and 0 turn it off."""
        for off in (None, 0):
            self.assertNotIsInstance(watchdog({"BLOCKED_REACTOR_TIMEOUT": off}, Clock()), Watchdog)

    def test_mistakes(self) -> None:
        """A value that is no number of seconds is refused."""
        for wrong in ("soon", -1, True):
            error = self.assertRaises(ConfigurationError, watchdog, {"BLOCKED_REACTOR_TIMEOUT": wrong}, Clock())
            self.assertIn("BLOCKED_REACTOR_TIMEOUT", str(error))

    def test_life(self) -> None:
        """Stopping leaves neither a call on the clock nor a thread, and it can be started again."""
        clock = Clock()
        dog = Watchdog(0.004, clock)
        for _ in range(2):
            dog.startService()
            (thread,) = [each for each in threading.enumerate() if each.name == "txservices.watchdog"]
            dog.stopService()
            thread.join(10)
            self.assertFalse(thread.is_alive())
            self.assertEqual(clock.getDelayedCalls(), [])


told = threading.Event()


def in_a_helper() -> None:
    told.wait(30)


class Held(ServicesCase):
    """A service of which a method sleeps, in the reactor of this test, with a watchdog."""

    def setUp(self) -> None:
        super().setUp()
        dog = Watchdog(0.2, default_reactor())
        dog.startService()
        self.addCleanup(dog.stopService)
        self.slept = Heard()
        told.clear()

        def observe(event: LogEvent) -> None:  # in the watchdog's thread
            if "in in_a_helper" in formatEvent(event):
                told.set()

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    async def told(self, method: Any, **options: Any) -> list[str]:
        """What the log says of it while a service runs that method."""
        service = type("Sleeps", (), {"name": "sleeps", "tick": timer(interval=60, eager=True, **options)(method)})
        with capturedLogs() as events:
            await self.start(service)
            await self.slept.wait()
        lines = map(formatEvent, events)
        return [line for line in lines if re.search("held for .* by (sleeps.tick|in_a_helper)", line)]

    async def test_after_a_wait(self) -> None:
        """A method that has waited before is named, though what it waited for calls it by then."""

        async def tick(service: Any) -> None:
            await succeed(None)
            in_a_helper()
            self.slept()

        (told,) = await self.told(tick)
        self.assertRegex(told, "held for [0-9.]+ s by sleeps.tick:")

    async def test_in_a_callback(self) -> None:
        """Code that is no worker's is named by its function."""

        def tick(service: Any) -> None:
            default_reactor().callLater(0, in_a_helper)
            default_reactor().callLater(0, self.slept)

        (told,) = await self.told(tick)
        self.assertRegex(told, rf"held for [0-9.]+ s by in_a_helper \({__file__}:\d+\)")

    async def test_in_a_thread(self) -> None:
        """A blocking method holds nothing."""

        def tick(service: Any) -> None:
            told.wait(0.8)
            default_reactor().callFromThread(self.slept)

        self.assertEqual(await self.told(tick, blocking=True), [])


class Blocks:
    """The same in a process, which really blocks."""

    face: Callable[..., processes.Process]  # that of processes.ByTwistd or ByRun

    async def test_plain_method(self) -> None:
        """A method that sleeps in the reactor is named, with its place, and not with how the reactor came there."""
        folder = os.path.abspath(self.mktemp())
        os.makedirs(folder)
        with open(os.path.join(folder, "app.py"), "w") as file:
            file.write(SLEEPS)
        path = processes.config_file(self, BLOCKED_REACTOR_TIMEOUT=0.3)
        running = self.face(["app"], folder, "--config", path)
        await running.line(r"sleeps\.tick\.[0-9a-f-]{36}\]:? the reactor has been held for [0-9.]+ s by sleeps.tick")
        await running.line("the reactor goes on, after [0-9.]+ s")
        self.assertRegex(running.stdout, r'\(blocking = True\).*\n\s+File ".*app.py", line 9, in tick\n')
        self.assertRegex(running.stdout, r"in in_a_helper\n\s+time.sleep\(1.5\)")
        await processes.stopped(running)


class BlocksByRun(Blocks, processes.ByRun, TestCase):
    """`txservices run`."""


class BlocksUnderTwistd(Blocks, processes.ByTwistd, TestCase):
    """twistd."""
