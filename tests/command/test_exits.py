"""The end of a process, with a reactor that only notes it; real ends are in test_tap.py."""

from __future__ import annotations

import io
import signal
import sys

from twisted.trial.unittest import SynchronousTestCase

from txservices.command import exits
from txservices.exceptions import ConfigurationError


class NotedReactor:
    """Counts its stops."""

    def __init__(self) -> None:
        self.stops = 0

    def stop(self) -> None:
        self.stops += 1


class Endings(SynchronousTestCase):
    """The status, and who is asked to hurry."""

    def setUp(self) -> None:
        self.reactor = NotedReactor()
        self.ending = exits.Ending(self.reactor)
        self.hurried = 0
        self.ending.hurry = self.hurry
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
        """What goes wrong while the process ends already does not hide why it does; after a signal it shows."""
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
