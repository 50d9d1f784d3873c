"""Where what is logged goes, from Twisted's side and from the standard library's."""

from __future__ import annotations

import io
import logging
import logging.config

from twisted.logger import LogEvent, Logger, LogLevel, LogPublisher, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from txservices import logs
from txservices.exceptions import ConfigurationError


class Lines(SynchronousTestCase):
    """What `txservices run` shows."""

    def setUp(self) -> None:
        self.file = io.StringIO()
        self.publisher = LogPublisher(logs.to_file(self.file))

    def logger(self, namespace: str) -> Logger:
        return Logger(namespace, observer=self.publisher)

    def test_a_line_an_event(self) -> None:
        """Time, level, who, and what."""
        self.logger("txservices.web.server").info("listens at {port}", port=8000)
        self.assertRegex(self.file.getvalue(), r"^\d\d:\d\d:\d\d info txservices.web.server: listens at 8000\n$")

    def test_traceback(self) -> None:
        """A failure has its traceback below its line."""
        try:
            1 / 0  # noqa: B018
        except ZeroDivisionError:
            self.logger("app").failure("a worker failed")
        self.assertRegex(self.file.getvalue(), r"critical app: a worker failed\nTraceback[\s\S]*ZeroDivisionError")

    def test_what_is_left_out(self) -> None:
        """Debug events, and the comings and goings of Twisted's own ports and factories; its warnings stay."""
        self.logger("log_legacy").info("Site starting on 8000")
        self.logger("log_legacy").info("(TCP Port 8000 Closed)")
        self.logger("txservices.rpc").debug("a message")
        self.logger("twisted.internet.protocol").info("Starting factory")
        self.assertEqual(self.file.getvalue(), "")
        self.logger("twisted.internet.protocol").warn("something odd")
        self.assertIn("something odd", self.file.getvalue())


class Standard(SynchronousTestCase):
    """The standard library's records."""

    def setUp(self) -> None:
        root = logging.getLogger()
        handlers, level = list(root.handlers), root.level
        root.handlers[:] = []

        def restore() -> None:
            root.handlers[:] = handlers
            root.setLevel(level)

        self.addCleanup(restore)
        self.events: list[LogEvent] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def test_to_twisted(self) -> None:
        """Without LOGGING they go to Twisted's log, with their level and their logger's name."""
        logs.standard({})
        logging.getLogger("app.stock").warning("only %d left {sic}", 3)
        logging.getLogger("app.stock").debug("counted")
        [event] = [event for event in self.events if event["log_namespace"] == "app.stock"]
        self.assertEqual((event["log_level"], event["text"]), (LogLevel.warn, "only 3 left {sic}"))

    def test_dictionary(self) -> None:
        """LOGGING is for dictConfig, and silences no logger that exists already."""
        before = logging.getLogger("app.before")
        logs.standard({"LOGGING": {"version": 1, "root": {"level": "ERROR"}}})
        self.assertEqual(logging.getLogger().level, logging.ERROR)
        self.assertFalse(before.disabled)

    def test_mistake(self) -> None:
        """A LOGGING that dictConfig does not take is a mistake of the config."""
        error = self.assertRaises(ConfigurationError, logs.standard, {"LOGGING": {"version": 3}})
        self.assertIn("LOGGING: ", str(error))

    def test_failures_keep_their_traceback(self) -> None:
        """exc_info of a standard record arrives as text."""
        logs.standard({})
        try:
            raise ValueError("boom")
        except ValueError:
            logging.getLogger("app").exception("failed")
        self.assertIn("ValueError: boom", self.events[-1]["text"])


class ToStandard(SynchronousTestCase):
    """Twisted's events, with LOGGING."""

    def setUp(self) -> None:
        self.log = LogPublisher(logs.ToStandard())

    def test_names(self) -> None:
        """Each goes to the logger of its module, with its level; what has none, to `twisted`."""
        with self.assertLogs(level="DEBUG") as logged:
            Logger("txservices.amqp.connection", observer=self.log).warn("lost {uri}: 5%s", uri="amqp://x")
            Logger("app.stock", observer=self.log).debug("counted")
            Logger("log_legacy", observer=self.log).info("Site starting")
        self.assertEqual(
            [(record.name, record.levelname, record.getMessage()) for record in logged.records],
            [
                ("txservices.amqp.connection", "WARNING", "lost amqp://x: 5%s"),
                ("app.stock", "DEBUG", "counted"),
                ("twisted", "INFO", "Site starting"),
            ],
        )

    def test_filtered(self) -> None:
        """A level set for one module holds for it alone."""
        quiet = logging.getLogger("txservices.amqp")
        self.addCleanup(quiet.setLevel, quiet.level)
        quiet.setLevel("ERROR")
        with self.assertLogs(level="INFO") as logged:
            Logger("txservices.amqp.connection", observer=self.log).warn("lost")
            Logger("txservices.rpc", observer=self.log).info("answered")
        self.assertEqual([record.name for record in logged.records], ["txservices.rpc"])

    def test_failure(self) -> None:
        """A failure is the record's exc_info."""
        with self.assertLogs("app", "ERROR") as logged:
            try:
                raise ValueError("boom")
            except ValueError:
                Logger("app", observer=self.log).failure("a worker failed")
        [record] = logged.records
        assert record.exc_info is not None
        self.assertEqual((record.levelname, record.exc_info[0]), ("CRITICAL", ValueError))
