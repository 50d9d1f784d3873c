"""The end of a process, with a reactor that only notes it; real ends are in test_endings.py."""

from __future__ import annotations

import io
import signal
import sys
import threading

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txservices.command import exits
from txservices.command import overtime as exits_overtime
from txservices.command.overtime import HURRY_TIMEOUT, REACTOR_TIMEOUT, THREADS_TIMEOUT, Overtime
from txservices.exceptions import ConfigurationError


class NotedReactor(Clock):
    """Counts its stops."""

    stops = 0

    def stop(self) -> None:
        self.stops += 1


class Endings(SynchronousTestCase):
    """The status, and who is asked to hurry."""

    def setUp(self) -> None:
        self.reactor = NotedReactor()
        self.ending = exits.Ending(self.reactor)
        self.hurried = 0
        self.ending.hurry = self.hurry
        self.addCleanup(self.ending.overtime.cancel)
        self.stderr = io.StringIO()
        self.patch(sys, "__stderr__", self.stderr)

    def hurry(self) -> None:
        self.hurried += 1

    def test_asked_once(self) -> None:
        """A signal stops the reactor, with 0."""
        self.ending.asked(signal.SIGTERM)
        self.assertEqual((self.reactor.stops, self.ending.status, self.hurried), (1, 0, 0))

    def test_asked_again(self) -> None:
        """A second SIGTERM changes nothing, a second Ctrl-C hurries."""
        self.ending.asked(signal.SIGTERM)
        self.ending.asked(signal.SIGTERM)
        self.assertEqual((self.reactor.stops, self.hurried), (1, 0))
        self.ending.asked(signal.SIGINT)
        self.assertEqual((self.reactor.stops, self.hurried), (1, 1))

    def test_first_status_stays(self) -> None:
        """A failure while the process ends already does not hide why it ends; after a signal the failure shows."""
        self.ending.end(exits.MISTAKE)
        self.ending.end(exits.CRASH)
        self.assertEqual((self.reactor.stops, self.ending.status), (1, exits.MISTAKE))

    def test_mistake(self) -> None:
        """A mistake is told in one line, whatever its text looks like."""
        self.ending.fail(ConfigurationError("a queue exists:\n  with other arguments"))
        self.assertEqual(self.stderr.getvalue(), "Error: a queue exists: with other arguments\n")
        self.assertEqual((self.reactor.stops, self.ending.status), (1, exits.MISTAKE))

    def test_mistakes(self) -> None:
        """Several are told in a line each."""
        self.ending.fail(ConfigurationError("a: 1 is no b", "c: 2 is\nno d"))
        self.assertEqual(self.stderr.getvalue(), "Error: a: 1 is no b\nError: c: 2 is no d\n")

    def test_no_words(self) -> None:
        """A mistake without a text is told by its name."""
        self.ending.fail(ConfigurationError())
        self.assertEqual(self.stderr.getvalue(), "Error: ConfigurationError\n")

    def test_crash(self) -> None:
        """Anything else is a crash, in the log with its traceback."""
        try:
            raise RuntimeError("boom")
        except RuntimeError as error:
            self.ending.fail(error)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual((self.stderr.getvalue(), self.ending.status), ("", exits.CRASH))


class Given(Overtime):
    """Notes how long it has, and starts no thread."""

    def __init__(self) -> None:
        super().__init__(lambda: None, lambda: 100.0)
        self.watching = True

    @property
    def left(self) -> float:
        return self.deadline - 100.0


class Overtimes(SynchronousTestCase):
    """How long the end of a process may still take, and what is told when that is over."""

    def test_reactor_that_turns(self) -> None:
        """The reactor is granted its time again and again, and threads theirs once the services have ended."""
        clock = Clock()
        now = [0.0]
        overtime = Given()
        overtime.now = lambda: now[0]
        overtime.begin()
        overtime.keep_granting(clock)
        for _ in range(100):
            now[0] += 1
            clock.advance(1)
            self.assertEqual(overtime.deadline, now[0] + REACTOR_TIMEOUT)
        overtime.threads_only()
        self.assertEqual((overtime.deadline, clock.getDelayedCalls()), (now[0] + THREADS_TIMEOUT, []))

    def test_hurry(self) -> None:
        """A second Ctrl-C leaves a time that nothing makes longer."""
        overtime = Given()
        overtime.hurry()
        overtime.begin()
        overtime.threads_only()
        self.assertEqual((overtime.left, overtime.granted), (HURRY_TIMEOUT, "3 s after the second Ctrl-C"))

    def test_signal_after_the_services_have_ended(self) -> None:
        """It gives threads no more time."""
        overtime = Given()
        overtime.threads_only()
        overtime.begin()
        self.assertEqual((overtime.left, overtime.granted), (THREADS_TIMEOUT, "within 5 s"))

    def test_cancelled(self) -> None:
        """A process that goes on after all is not ended."""
        left: list[int] = []
        overtime = Overtime(lambda: left.append(1), lambda: 0.0)
        overtime.watching = True
        overtime.begin()
        overtime.deadline = -1.0
        overtime.cancel()
        overtime.watch()
        self.assertEqual(left, [])

    def test_log_that_hangs(self) -> None:
        """The process is left also if the line about it can't be written."""
        left: list[int] = []
        overtime = Overtime(lambda: left.append(1), lambda: 0.0)
        hanging = threading.Event()
        self.addCleanup(hanging.set)
        self.patch(overtime, "tell", lambda frames: hanging.wait())
        self.patch(exits_overtime, "TELL_TIMEOUT", 0.01)
        overtime.give_up()
        self.assertEqual(left, [1])

    def test_no_thread_to_be_had(self) -> None:
        """If Python begins no thread any more, as 3.12 at its end, the line is written and the process is left."""
        left: list[object] = []
        overtime = Overtime(lambda: left.append("left"), lambda: 0.0)

        def start(thread: threading.Thread) -> None:
            raise RuntimeError("can't create new thread at interpreter shutdown")

        self.patch(threading.Thread, "start", start)
        self.patch(overtime, "tell", left.append)
        overtime.give_up()
        self.assertEqual((len(left), left[-1]), (2, "left"))
