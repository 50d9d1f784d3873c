"""Times in the log."""

from __future__ import annotations

import logging

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from txservices.log_helpers import make_timing_logger

logger = logging.getLogger("tests.times")


class Times(SynchronousTestCase):
    """The lines that log_time writes."""

    def test_message(self) -> None:
        """The message with its arguments, then the seconds, with level and precision as told."""
        with self.assertLogs(logger, "INFO") as logged, make_timing_logger(logger, 2, logging.INFO)("sold %s", "pen"):
            pass
        self.assertRegex(logged.records[0].getMessage(), r"^sold pen in \d+\.\d\ds$")

    def test_raises(self) -> None:
        """A call that raises has taken its time too; the default level is debug."""
        log_time = make_timing_logger(logger)
        with self.assertLogs(logger, "DEBUG") as logged, self.assertRaises(KeyError), log_time("looked"):
            raise KeyError
        self.assertEqual(logged.records[0].levelname, "DEBUG")
        self.assertRegex(logged.records[0].getMessage(), r"^looked in \d+\.\d{3}s$")

    def test_awaits(self) -> None:
        """Nothing is written before what is awaited inside is there."""
        waited: Deferred[None] = Deferred()

        async def look() -> None:
            with make_timing_logger(logger)("looked"):
                await waited

        with self.assertLogs(logger, "DEBUG") as logged:
            looking = Deferred.fromCoroutine(look())
            self.assertEqual(logged.records, [])
            waited.callback(None)
        self.successResultOf(looking)
        self.assertEqual(len(logged.records), 1)
