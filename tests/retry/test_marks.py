"""Marks: what headers say of a message that is tried again, and what a copy of it keeps."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txservices.amqp.entities import Message
from txservices.retry.marks import ATTEMPTS_COUNTED, Back, Origin, Why, anew, copied, way_back, without_marks

ATTEMPT, EXCHANGE, KEY = "txservices-attempt", "txservices-exchange", "txservices-routing-key"
EXPIRATION, USER = "txservices-expiration", "txservices-user-id"
OURS = {"queue": "txservices.delay.1s.orders", "reason": "expired"}
THEIRS = {"queue": "theirs", "reason": "rejected"}


def message(headers: dict[str, Any], **properties: Any) -> Message:
    return Message(b"", {**properties, "headers": headers}, "here", "q", False, 1, "", lambda *settled: None)


class MarksTests(SynchronousTestCase):
    """Headers, which may be a stranger's."""

    def test_origin(self) -> None:
        """Marks say where a message came from if both are texts, and the attempt if it is a number that can be."""
        table: list[tuple[dict[str, Any], Origin]] = [
            ({ATTEMPT: 1, EXCHANGE: "x", KEY: "k"}, Origin("x", "k", 1)),
            ({ATTEMPT: 2, EXCHANGE: "x", KEY: "k"}, Origin("x", "k", 2)),
            ({ATTEMPT: ATTEMPTS_COUNTED, EXCHANGE: "x", KEY: "k"}, Origin("x", "k", ATTEMPTS_COUNTED)),
            ({ATTEMPT: 2, EXCHANGE: 5, KEY: "k"}, Origin("here", "q", 2)),
            ({ATTEMPT: 2, EXCHANGE: "x", KEY: None}, Origin("here", "q", 2)),
            ({ATTEMPT: 2, "txservices-first-failed": "then"}, Origin("here", "q", 2, "then")),
            ({ATTEMPT: 2, "txservices-first-failed": 5}, Origin("here", "q", 2)),
        ]
        for attempt in (0, ATTEMPTS_COUNTED + 1, True, "2", 2.0, None):
            table.append(({ATTEMPT: attempt, EXCHANGE: "x", KEY: "k"}, Origin("here", "q")))
        for headers, origin in table:
            self.assertEqual(Origin.of(message(headers)), origin, headers)

    def test_moved(self) -> None:
        """``expiration`` and ``user_id`` of a message are headers of its copy, and of the copies of that."""
        first = copied(message({}, expiration="5000", user_id="guest", priority=3))
        second = copied(message(first["headers"], priority=3))
        for properties in (first, second):
            self.assertEqual(properties.pop("headers"), {EXCHANGE: "here", KEY: "q", EXPIRATION: "5000", USER: "guest"})
            self.assertEqual(properties, {"priority": 3})
        self.assertEqual(copied(message({EXPIRATION: 5}))["headers"], {EXCHANGE: "here", KEY: "q"})

    def test_deaths(self) -> None:
        """What the broker says of delays goes, and what it says of other queues stays, also what a stranger says."""
        first = {"x-first-death-queue": "theirs", "x-last-death-queue": "txservices.delay.1s.orders", "a": 1}
        self.assertEqual(without_marks({"x-death": [OURS], **first}), {"a": 1})
        strangers: list[list[Any]] = [[THEIRS], [{}], [7], [None, "x"]]
        for others in strangers:
            for deaths in ([OURS, *others], [*others, OURS], others):
                self.assertEqual(without_marks({"x-death": deaths, **first}), {"x-death": others, **first}, deaths)
        for strange in (5, "x", None):
            self.assertEqual(without_marks({"x-death": strange}), {"x-death": strange})

    def test_way_back(self) -> None:
        """It is what the marks say, or else what the broker says, and of a stranger's words only those that can be."""
        marks = {"txservices-back-exchange": "", "txservices-back-routing-key": "a"}
        table: list[tuple[dict[str, Any], Back | None]] = [
            (marks, Back("a", "", "a", ("here", "q"))),
            ({**marks, "txservices-queue": "b"}, Back("b", "", "a", ("here", "q"))),
            ({**marks, "txservices-back-routing-key": 5}, None),
            ({**marks, "txservices-back-exchange": 5}, None),
        ]
        deaths: list[tuple[Any, Any, Any, Back | None]] = [
            ("a", "x", ["k", "l"], Back("a", "", "a", ("x", "k"))),
            ("a", "x", [], Back("a", "", "a", ("", "a"))),
            ("a", "x", "k", Back("a", "", "a", ("", "a"))),
            ("a", "x", [5], Back("a", "", "a", ("", "a"))),
            ("a", 5, ["k"], Back("a", "", "a", ("", "a"))),
            (5, "x", ["k"], None),
            ("rpc-s", "rpc", ["s.m"], Back("rpc-s", "rpc", "s.m", ("rpc", "s.m"))),
            ("rpc-s", "x", ["s.m"], Back("rpc-s", "", "rpc-s", ("x", "s.m"))),
            ("a", "rpc", ["s.m"], Back("a", "", "a", ("rpc", "s.m"))),
        ]
        for queue, exchange, keys, back in deaths:
            table.append(({"x-death": [{"queue": queue, "exchange": exchange, "routing-keys": keys}]}, back))
        for headers, back in table:
            self.assertEqual(way_back(message(headers), "rpc"), back, headers)

    def test_anew(self) -> None:
        """What goes back has neither an ``expiration`` nor a ``user_id``, and is at its first attempt."""
        back = Back("a", "", "a", ("x", "k"))
        properties = anew(message({ATTEMPT: 3}, expiration="5000", user_id="guest", priority=3), back)
        self.assertEqual(properties, {"priority": 3, "headers": {ATTEMPT: 1, EXCHANGE: "x", KEY: "k"}})

    def test_anew_after_a_death(self) -> None:
        """The broker's words that it came from that queue go; those of other queues, and a stranger's, stay."""
        mine, theirs = {"queue": "a", "count": 1}, {"queue": "b", "count": 1}
        strangers: list[list[Any]] = [[], [theirs], [7, None, "a"], [{}, theirs]]
        for others in strangers:
            for deaths in ([mine, *others], [*others, mine]):
                headers = anew(message({"x-death": deaths}), Back("a", "", "a", ("x", "k")))["headers"]
                self.assertEqual(headers.get("x-death", []), others, deaths)

    def test_why(self) -> None:
        """The error is told by its class and its text, as far as they are texts."""
        for kind, text, told in (("E", "why", "E: why"), ("E", "", "E"), (5, "why", "why"), ("E", 5, "E")):
            headers = {"txservices-reason": "failed", "txservices-error-class": kind, "txservices-error": text}
            self.assertEqual(Why.of(message(headers)), Why("failed", "", 1, told))

    def test_why_it_died(self) -> None:
        """Without our marks it is what the broker says: why, when, out of which queue, and how often if not once."""
        when = datetime(2026, 1, 2, 3, 4, 5, 678_999, timezone.utc)
        at = "2026-01-02T03:04:05.678+00:00"
        table: list[tuple[dict[str, Any], Why]] = [
            (
                {"queue": "a", "reason": "expired", "time": when, "count": 1},
                Why("expired", at, 1, "the broker took it out of a"),
            ),
            (
                {"queue": "a", "reason": "maxlen", "count": 2},
                Why("maxlen", "", 1, "the broker took it out of a, 2 times by now"),
            ),
            ({"queue": "a", "count": "2"}, Why("unknown", "", 1, "the broker took it out of a")),
            ({"queue": 5, "time": "today", "count": 2}, Why("unknown", "", 1, "")),
        ]
        for death, why in table:
            self.assertEqual(Why.of(message({"x-death": [death]})), why)
