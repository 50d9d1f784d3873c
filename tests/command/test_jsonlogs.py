"""Lines of the log as JSON objects."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections import OrderedDict
from datetime import date
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

from twisted.logger import (
    LogEvent,
    Logger,
    LogPublisher,
    globalLogBeginner,
    globalLogPublisher,
    textFileLogObserver,
)
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txservices.callids import on_behalf_of
from txservices.command import jsonlogs, logs
from txservices.safe import SAFE_CUT, SAFE_FAILED
from txservices.utils import secrets
from txservices.utils.printable import TEXT_MAX


class Hostile:
    """A value that can't be looked at."""

    @property
    def __class__(self) -> Any:
        raise SystemExit(1)

    def __str__(self) -> str:
        raise SystemExit(2)

    __repr__ = __str__


class Silent:
    """A value without a text."""

    def __str__(self) -> str:
        raise ValueError("silent")

    __repr__ = __str__


class Exits:
    """A value whose text ends the process, if nobody is careful."""

    def __str__(self) -> str:
        raise SystemExit("exits")

    __repr__ = __str__


class Wide:
    """A value with a long text of several lines."""

    def __str__(self) -> str:
        return "wide\n" * 20_000


class Case(SynchronousTestCase):
    """A log whose lines are kept."""

    def setUp(self) -> None:
        self.file = io.StringIO()
        self.written = logs.to_file(self.file, form=jsonlogs.one_object)
        self.log = Logger("app.stock", observer=LogPublisher(logs.notes_call_id, logs.cleans, self.written))

    def objects(self) -> list[dict[str, Any]]:
        """What was written since the last look, each line read by itself."""
        text = self.file.getvalue()
        self.file.seek(0)
        self.file.truncate()
        self.assertTrue(text.isascii())
        return [json.loads(line) for line in text.splitlines()]

    def only(self) -> dict[str, Any]:
        [found] = self.objects()
        return found


class Objects(Case):
    """Twisted's events."""

    def test_an_object_a_line(self) -> None:
        """It has the time, the level, the logger, the text and its fields, and no key without a value."""
        self.log.warn("only {count} of {what!r} left: {rest:.1f}", count=3, what="spo\non", rest=0.25, other=1)
        found = self.only()
        self.assertRegex(found.pop("time"), r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
        expected = {"level": "warn", "logger": "app.stock", "message": "only 3 of 'spo\\non' left: 0.2"}
        self.assertEqual(found, {**expected, "fields": {"count": 3, "what": "spo\non", "rest": 0.25}})

    def test_time(self) -> None:
        """It is UTC; an event without a time has that of now."""
        self.assertEqual(jsonlogs.clock(0.5), "1970-01-01T00:00:00.500Z")
        for wrong in (None, "x", float("nan"), float("inf"), 1e300):
            self.assertRegex(jsonlogs.clock(wrong), r"^2\d{3}-")

    def test_values(self) -> None:
        """What JSON has a form for stays what it is, and any other value is its text."""
        endless: list[Any] = []
        endless.append(endless)
        for value, expected in [
            *((same, same) for same in (None, True, 0, -7, 1.5, "", "ä", [1, ["a"]], {"a": {"b": None}}, 2**62)),
            ((1, 2), [1, 2]),
            ("a\x1b[2J\u2028b", "a\\x1b[2J\\u2028b"),
            ("\ud800", "\\ud800"),
            (float("nan"), "nan"),
            (float("-inf"), "-inf"),
            (2**70, str(2**70)),
            (10**5000, SAFE_FAILED),
            (b"a\n", "b'a\\n'"),
            (Decimal("1.50"), "1.50"),
            (date(2026, 1, 31), "2026-01-31"),
            ({1, 2}, "{1, 2}"),
            ({1: "a"}, "{1: 'a'}"),
            ([{"a": date(2026, 1, 31)}], [{"a": "2026-01-31"}]),
            (OrderedDict(a=1), str(OrderedDict(a=1))),
            (ValueError("two\nlines"), "two\nlines"),
            (Hostile(), SAFE_FAILED),
            ([1, Hostile()], [1, SAFE_FAILED]),
            (endless, f"list {SAFE_CUT}"),
        ]:
            self.log.info("a {value}", value=value)
            self.assertEqual(self.only()["fields"], {"value": expected})

    def test_bounded(self) -> None:
        """A text, a list and a mapping that are too long are cut."""
        many = {str(each): each for each in range(5_000)}
        for value in ("x" * 10**6, ["x" * 100] * 10_000, many, Wide(), [[0]] * 8_000):
            self.log.info("a {value}", value=value)
            found = self.only()["fields"]["value"]
            self.assertIsInstance(found, str)
            self.assertLess(len(found), TEXT_MAX + 100)

    def test_names(self) -> None:
        """A field's name is that in the format: attributes, items and calls as well; one that is missing is told."""
        order = SimpleNamespace(total=3)
        self.log.info("{o.total} {d[k]} {f()} {}", o=order, d={"k": [1]}, f=lambda: "called", **{"": 1})
        self.assertEqual(self.only()["fields"], {"o.total": 3, "d[k]": [1], "f()": "called"})
        self.log.info("{o.absent}", o=order)
        self.assertEqual(self.only()["fields"], {"o.absent": SAFE_FAILED})

    def test_formats_that_are_wrong(self) -> None:
        """A line with a format that can't be is written."""
        for template in ("{", "}", "{a", "{a!z}", "{0}", "{a:{b}}", "{a.b.c}", "{a[}"):
            self.log.info(template, a=1)
            self.assertIn("message", self.only())

    def test_all_of_the_message(self) -> None:
        """A field that is all of the message is not there twice."""
        self.log.info("{line}", line="running")
        self.assertNotIn("fields", self.only())

    def test_secrets(self) -> None:
        """They are hidden in the text, in each field and its keys, in numbers and in the exception."""
        self.patch(secrets, "learned", set())
        self.patch(secrets, "pattern", None)
        secrets.learn({"DB_PASSWORD": "12345678", "token": "t0psecret"})
        bad = {"t0psecret": ["t0psecret", 12345678], "uri": "amqp://u:hunter2@h/"}
        error = Failure(ValueError("t0psecret amqp://u:hunter2@h/"))
        self.log.failure("{bad} {number} {other}", error, bad=bad, number=12345678, other={12345678})
        text = self.file.getvalue()
        for secret in ("t0psecret", "12345678", "hunter2"):
            self.assertNotIn(secret, text)
        self.assertEqual(set(self.only()["fields"]), {"bad", "number", "other"})

    def test_exception(self) -> None:
        """A failure's traceback is apart from the text, which need not be there."""
        for message in ("it failed", ""):
            self.log.failure(message, Failure(ValueError("two\nlines")))
            found = self.only()
            self.assertEqual((found["level"], found["message"]), ("critical", message))
            self.assertRegex(found["exception"], r"^Traceback [\s\S]*ValueError: two\nlines$")

    def test_failures_that_can_not_be_shown(self) -> None:
        """A line whose failure has no text is written."""
        self.log.critical("it failed", log_failure=SimpleNamespace())
        self.assertEqual(self.only()["exception"], SAFE_FAILED)

    def test_worker(self) -> None:
        """A line of a worker has its service, its ids and those of its span, as far as they are there."""
        container = SimpleNamespace(service_name="shop")
        worker: Any = SimpleNamespace(container=container, call_id="shop.sell.2", origin_call_id="web.buy.1", data={})
        on_behalf_of(worker, self.log.info, "sold")
        found = self.only()
        ids = (found["service"], found["call_id"], found["origin"])
        self.assertEqual(ids, ("shop", "shop.sell.2", "web.buy.1"))
        self.log.info("sold", trace_id="a" * 32, span_id="b" * 16)
        found = self.only()
        self.assertEqual((found["trace_id"], found["span_id"]), ("a" * 32, "b" * 16))
        self.assertNotIn("service", found)

    def test_what_is_left_out(self) -> None:
        """The same as in the plain form."""
        self.log.debug("a message")
        self.log.info("(TCP Port 8000 Closed)")
        self.log.info("")
        self.assertEqual(self.objects(), [])


class WholeCase(Case):
    """The whole log of a process."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(logs, "take_any_text", lambda: None)
        root = logging.getLogger()
        handlers, level, factory = list(root.handlers), root.level, logging.getLogRecordFactory()
        root.handlers[:] = []
        publisher = LogPublisher()
        self.patch(globalLogBeginner, "beginLoggingTo", lambda given, **_: [*map(publisher.addObserver, given)])
        self.patch(logs, "globalLogPublisher", publisher)
        self.patch(logging.Handler, "handleError", logging.Handler.handleError)
        self.patch(sys, "stdout", self.file)

        def restore() -> None:
            globalLogPublisher.removeObserver(publisher)
            root.handlers[:] = handlers
            root.setLevel(level)
            logging.setLogRecordFactory(factory)

        self.addCleanup(restore)
        globalLogPublisher.addObserver(publisher)
        self.publisher = publisher


class Joined(WholeCase):
    """The log under twistd."""

    def said(self, config: dict[str, Any]) -> list[str]:
        """The lines on stdout, ours and twistd's, of an event before twistd's log begins and of one after it."""
        logs.join(config)
        early: list[LogEvent] = []
        self.publisher.addObserver(early.append)
        logging.getLogger("app").warning("early %d", 1)
        self.publisher.removeObserver(early.append)
        logs.leave_stdout(config)
        if sys.stdout is not self.file:
            self.addCleanup(sys.stdout.close)
        self.publisher.addObserver(textFileLogObserver(sys.stdout))
        for event in early:
            self.publisher(event)  # as twistd's beginning does
        Logger("app", observer=self.publisher).info("late")
        return self.file.getvalue().splitlines()

    def test_once(self) -> None:
        """Each event is an object, once, be it logged before or after twistd's log begins."""
        found = [json.loads(line)["message"] for line in self.said({"LOG_FORMAT": "json"})]
        self.assertEqual(found, ["early 1", "late"])

    def test_levels(self) -> None:
        """With LOG_LEVELS the lines are those of `run`."""
        self.addCleanup(logging.getLogger("app").setLevel, logging.NOTSET)
        (line,) = self.said({"LOG_LEVELS": {"app": "warn"}})
        self.assertRegex(line, r"^\d\d:\d\d:\d\d warn app: early 1$")

    def test_neither(self) -> None:
        """Without both, twistd has its own lines."""
        early, late = self.said({"LOG_FORMAT": "plain"})
        self.assertRegex(early, r"^\S+ \[app#warn\] early 1$")
        self.assertRegex(late, r"^\S+ \[app#info\] late$")


class Begun(WholeCase):
    """The log under `run`."""

    def setUp(self) -> None:
        super().setUp()
        logs.begin({"LOG_FORMAT": "json"})

    def test_printed(self) -> None:
        """What is printed is a line of the logger stdout, each line of it by itself."""
        print("two\nlines")
        found = [(each["logger"], each["message"]) for each in self.objects()]
        self.assertEqual(found, [("stdout", "two"), ("stdout", "lines")])

    def test_records(self) -> None:
        """A record of the standard library has its logger and its text, with `extra` as fields."""
        extra = {"item": 7, "what": {"a": date(2026, 1, 31)}, "bad": Hostile(), 5: 6}
        logging.getLogger("app.shop").warning("sold\n%d", 3, extra=extra)
        found = self.only()
        self.assertEqual((found["logger"], found["level"], found["message"]), ("app.shop", "warn", "sold\n3"))
        self.assertEqual(found["fields"], {"item": 7, "what": {"a": "2026-01-31"}, "bad": SAFE_FAILED, "5": 6})
        self.assertNotIn("exception", found)

    def test_exceptions_of_records(self) -> None:
        """Its traceback and its stack are apart from the text, as they were."""
        try:
            raise ValueError("two\nlines")
        except ValueError:
            logging.getLogger("app").exception("it failed", stack_info=True)
        found = self.only()
        self.assertEqual(found["message"], "it failed")
        self.assertRegex(found["exception"], r"^Traceback [\s\S]*ValueError: two\nlines\nStack [\s\S]*it failed")

    def test_records_that_are_wrong(self) -> None:
        """A record whose arguments do not fit, or can't be looked at, is written."""
        for args in (("a %d", "b"), ("a", "b"), ("%s", Silent()), ("%s", Exits()), ("%(x)s", {"y": 1})):
            logging.getLogger("app").warning(*args)
            self.assertIn("can't be formatted", self.only()["message"])
