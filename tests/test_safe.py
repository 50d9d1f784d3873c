"""Values made safe for the wire, and errors that are hard to write: it never raises, and it comes to an end."""

from __future__ import annotations

import itertools
import json
import time
from collections import deque
from random import Random
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.logger import eventAsText
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase as TestCase

from tests import hostile
from txservices.exceptions import UnserializableValueError, serialize
from txservices.safe import (
    BRIEF_MAX,
    SAFE_CUT,
    SAFE_DEPTH_MAX,
    SAFE_FAILED,
    SAFE_NODES_MAX,
    SAFE_TEXT_MAX,
    brief,
    fits,
    safe_for_serialization,
    shown,
)


class Unspeakable:
    """Has no text."""

    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


class Thing:
    """Has a text."""

    def __str__(self) -> str:
        return "<Thing>"

    __repr__ = __str__


ITSELF: list[Any] = []
ITSELF.append(ITSELF)


class Odd(Exception):
    """Its ``args`` are something else."""

    args = None  # what it is for


class Raising(Exception):
    """Whatever is asked of it raises."""

    @property
    def args(self) -> Any:
        raise SystemExit("args")

    def __str__(self) -> str:
        raise KeyboardInterrupt("text")


class RaisingClass(type):
    """A class whose own name can't be had."""

    @property
    def __name__(cls) -> str:
        raise SystemExit("name")


class Nameless(Exception, metaclass=RaisingClass):
    """One of that kind."""


class Endless(list[int]):
    """A list that never ends."""

    def __iter__(self) -> Any:
        return itertools.count()


def undecodable() -> UnicodeDecodeError:
    try:
        (b"a" * 5_000_000 + b"\xff").decode()
    except UnicodeDecodeError as error:
        return error
    raise AssertionError


def deep(levels: int, value: Any = ()) -> Any:
    value = list(value)
    for _ in range(levels):
        value = [value]
    return value


def forever() -> Any:
    while True:
        yield 1


# A value, and what goes onto the wire for it.
SAFE: list[tuple[Any, Any]] = [
    ("text", "text"),
    ("hellø", "hellø"),
    (404, "404"),
    (1.5, "1.5"),
    (None, "None"),
    (True, "True"),
    (b"by", ["98", "121"]),
    ((1, 2), ["1", "2"]),
    ([], []),
    ({1}, ["1"]),
    ({"k": Thing(), 2: [None]}, {"k": "<Thing>", "2": ["None"]}),
    ({(1, 2): 3}, {"['1', '2']": "3"}),
    (Thing(), "<Thing>"),
    (Unspeakable(), "[__unicode__ failed]"),
    ([Unspeakable()], ["[__unicode__ failed]"]),
    (ValueError("reason"), "reason"),
    (KeyError("missing"), "'missing'"),
]

# Errors that are hard to write down, and what their text begins with.
HARD: list[tuple[BaseException, str]] = [
    (Odd("a"), "a"),
    (Raising(), SAFE_FAILED),
    (Nameless("a"), "a"),
    (undecodable(), "'utf-8' codec can't decode byte 0xff"),
    (ValueError(b"x" * 5_000_000), f"ValueError {SAFE_CUT}"),
    (ValueError(bytearray(5_000_000)), f"ValueError {SAFE_CUT}"),
    (ValueError("x" * 20_000_000), "xxx"),
    (ValueError(["x" * 1000] * 1_000_000), f"ValueError {SAFE_CUT}"),
    (ValueError(*range(1_000_000)), f"ValueError {SAFE_CUT}"),
    (ValueError({n: n for n in range(1_000_000)}), f"ValueError {SAFE_CUT}"),
    (ValueError(deep(10_000)), ""),
    (ValueError([[[[0] * 100] * 100] * 100] * 100), f"ValueError {SAFE_CUT}"),
    (ValueError(Endless()), "[]"),
    (ValueError(forever()), "<generator object"),
    (ValueError(ValueError(hostile.bomb())), f"ValueError {SAFE_CUT}"),
    (ValueError(deep(SAFE_DEPTH_MAX + 5, hostile.bomb())), f"ValueError {SAFE_CUT}"),
    (ValueError(deque([hostile.bomb()])), f"ValueError {SAFE_CUT}"),
    (ValueError({"k": hostile.bomb()}.values()), f"ValueError {SAFE_CUT}"),
    (OSError(1, hostile.bomb()), f"PermissionError {SAFE_CUT}"),
    (SyntaxError(hostile.bomb()), f"SyntaxError {SAFE_CUT}"),
    (ImportError(hostile.bomb()), f"ImportError {SAFE_CUT}"),
    (StopIteration(hostile.bomb()), f"StopIteration {SAFE_CUT}"),
    (ValueError(iter([1])), "<list_iterator object"),
    (ValueError("\ud800"), "\ud800"),
    (KeyError({1: {2: {3}}}), "{1: {2: {3}}}"),
]


class Safe(TestCase):
    """``safe_for_serialization``."""

    def test_values(self) -> None:
        """Everything becomes text, or lists and dicts of text, as nameko has it."""
        for value, expected in SAFE:
            self.assertEqual(safe_for_serialization(value), expected)

    def test_depth(self) -> None:
        """A value that contains itself comes to an end."""
        json.dumps(safe_for_serialization(ITSELF))

    def test_deeper_than_the_limit(self) -> None:
        """Containers are kept to the limit, as error's arguments go on the wire; what lies deeper is left out."""
        for wrap in (lambda value: [value], lambda value: {"k": value}):
            value: Any = "bottom"
            for _ in range(SAFE_DEPTH_MAX + 1):
                value = wrap(value)
            deepest = safe_for_serialization(value)
            for _ in range(SAFE_DEPTH_MAX):
                self.assertIs(type(deepest), type(value))
                (deepest,) = deepest.values() if isinstance(deepest, dict) else deepest
            self.assertEqual(deepest, SAFE_CUT)
        self.assertEqual(serialize(ValueError(ITSELF))["exc_args"], [safe_for_serialization(ITSELF)])


class Anything(TestCase):
    """What hypothesis thinks of."""

    def test_errors(self) -> None:
        """Any error is written, and has a form in which it can be logged, at once and without a raise."""

        @settings(max_examples=30, deadline=None, database=None)
        @given(st.randoms(use_true_random=False))
        def try_one(random: Random) -> None:
            error = hostile.exception(random)
            written = serialize(error)
            self.assertEqual([type(each) for each in written.values()], [str, str, list, str])
            self.assertLess(len(json.dumps(written)), 15 * SAFE_TEXT_MAX)
            yaml.safe_dump(safe_for_serialization(list(BaseException.args.__get__(error)))[:1])
            fine = shown(error)
            failure = Failure(fine, type(fine), None)
            text = eventAsText({"log_format": "{error} {error!r}", "error": fine, "log_failure": failure})
            self.assertLess(len(text), 15 * SAFE_TEXT_MAX)

        try_one()

    def test_values(self) -> None:
        """Any value can be told in a line."""
        for value in hostile.VALUES:
            for each in (value, [value], {"k": value}, deque([value]), ValueError(value)):
                self.assertLess(len(brief(each)), BRIEF_MAX + 10)
                self.assertIn(type(safe_for_serialization(each)), (str, list, dict))


class Hard(TestCase):
    """Errors that are large, deep, endless or refuse to be looked at."""

    def test_bounds(self) -> None:
        """Each is written, within the limits, and in less time than the watchdog would complain of."""
        for error, text in HARD:
            began = time.process_time()
            written = serialize(error)
            took = time.process_time() - began
            self.assertTrue(written["value"].startswith(text), written["value"][:100])
            self.assertLess(len(written["value"]), SAFE_TEXT_MAX + 10)
            self.assertLess(len(json.dumps(written["exc_args"])), 7 * SAFE_TEXT_MAX)
            self.assertLess(took, 10, written["value"][:100])

    def test_cut(self) -> None:
        """A part that is left out has a mark in its place."""
        self.assertEqual(serialize(ValueError("x" * (SAFE_TEXT_MAX + 1)))["exc_args"], ["x" * SAFE_TEXT_MAX + SAFE_CUT])
        many = serialize(ValueError(list(range(SAFE_NODES_MAX))))["exc_args"][0]
        self.assertEqual((len(many), many[-1]), (SAFE_NODES_MAX, SAFE_CUT))
        fields = serialize(ValueError(dict.fromkeys(range(SAFE_NODES_MAX))))["exc_args"][0]
        self.assertEqual((len(fields), fields[SAFE_CUT]), (SAFE_NODES_MAX // 2 + 1, SAFE_CUT))
        inner = serialize(ValueError(deep(SAFE_DEPTH_MAX + 5)))["exc_args"][0]
        for _ in range(SAFE_DEPTH_MAX - 1):
            (inner,) = inner
        self.assertEqual(inner, [SAFE_CUT])

    def test_within(self) -> None:
        """At the limits nothing is left out."""
        text = "x" * SAFE_TEXT_MAX
        self.assertEqual(serialize(ValueError(text))["exc_args"], [text])
        self.assertEqual(len(serialize(ValueError([0] * (SAFE_NODES_MAX - 1)))["exc_args"][0]), SAFE_NODES_MAX - 1)
        self.assertNotIn(SAFE_CUT, json.dumps(serialize(ValueError(deep(SAFE_DEPTH_MAX - 1)))["exc_args"]))

    def test_looked_at(self) -> None:
        """What Python would make a text of may be as deep and as long as the limits say, and no more."""
        nested: Any = 0
        for _ in range(SAFE_DEPTH_MAX):
            nested = [nested]
        values = [0] * (SAFE_NODES_MAX - 2)  # with the list itself, one less than the limit
        self.assertEqual([fits(nested), fits([nested])], [True, False])
        self.assertEqual([fits(values), fits([*values, 0])], [True, False])
        self.assertEqual(serialize(ValueError([*values, [1]]))["exc_args"][0][-1], SAFE_CUT)

    def test_args_of_its_own(self) -> None:
        """Where a class has an ``args`` of its own, those that the error was made with go out."""
        self.assertEqual(serialize(Odd("a", 1))["exc_args"], ["a", "1"])

    def test_unserializable(self) -> None:
        """A result that can't be written is named by its type, if its text would be too long."""
        self.assertEqual(str(UnserializableValueError({1: 2})), "Unserializable value: `{1: 2}`")
        self.assertEqual(
            str(UnserializableValueError([object] * 1_000_000)), f"Unserializable value: `list {SAFE_CUT}`"
        )
