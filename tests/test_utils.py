"""Dotted names, and what must not be shown."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import TestCase

from tests import hostile
from txservices.utils import get_redacted_args, import_from_path, sanitize_url


class DottedNames(TestCase):
    """``import_from_path``."""

    def test_found(self) -> None:
        """A dotted path gives what it names, None gives None."""
        self.assertIs(import_from_path("os.path.join"), os.path.join)
        self.assertIsNone(import_from_path(None))

    def test_not_found(self) -> None:
        """No such module, no such name, no dot: ImportError, each with its reason."""
        for path, text in [("os.nothing", "'nothing'"), ("tx_nowhere.thing", "tx_nowhere"), ("os", "no dot")]:
            self.assertIn(text, str(self.assertRaises(ImportError, import_from_path, path)))


URLS = [
    ("amqp://guest:guest@localhost:5672/vhost", "amqp://guest:********@localhost:5672/vhost"),
    ("amqp://localhost", "amqp://localhost"),
    ("amqp://user@localhost", "amqp://user@localhost"),
    ("pyamqp://:secret@h", "pyamqp://:********@h"),
    ("amqp://u:p@ss/w;rd@h/v", "amqp://u:********@h/v"),
    ("amqp://u:one@h1; amqps://u:two@h2", "amqp://u:********@h1; amqps://u:********@h2"),
    ("memory://name", "memory://name"),
]


class Passwords(TestCase):
    """``sanitize_url``."""

    def test_hidden(self) -> None:
        """No password is left, also none that is written carelessly."""
        for url, shown in URLS:
            self.assertEqual(sanitize_url(url), shown)


class Service:
    """The service that the tests of redaction call."""

    def method(self, a: Any, b: Any = None, *args: Any, **kwargs: Any) -> None: ...


NESTED = {"name": "n", "cards": [{"number": 1}, {"number": 2}]}

# sensitive_arguments, positional arguments, keyword arguments, what is shown
REDACTIONS: list[tuple[Any, tuple[Any, ...], dict[str, Any], dict[str, Any]]] = [
    ((), (1,), {}, {"a": 1, "b": None}),
    ("a", (1,), {"b": 2}, {"a": "********", "b": 2}),
    (("a", "b"), (1, 2), {}, {"a": "********", "b": "********"}),
    ("a.name", (NESTED,), {}, {"a": {**NESTED, "name": "********"}, "b": None}),
    (
        "a.cards[1].number",
        (NESTED,),
        {},
        {"a": {"name": "n", "cards": [{"number": 1}, {"number": "********"}]}, "b": None},
    ),
    (["a.nothing", "a.cards[7].number", "c", "a.name.x"], (NESTED,), {}, {"a": NESTED, "b": None}),
    (
        ["a.name", "a.cards[0]"],
        (NESTED,),
        {},
        {"a": {"name": "********", "cards": ["********", {"number": 2}]}, "b": None},
    ),
    ("args", (1, 2, 3), {"k": 4}, {"a": 1, "b": 2, "args": "********", "kwargs": {"k": 4}}),
    ("a.x", ((n for n in range(0)),), {}, {"a": "********", "b": None}),
    ("a[1]", ((1, 2),), {}, {"a": (1, "********"), "b": None}),
    ("a[0].x", (({"x": 1}, {"x": 2}),), {}, {"a": ({"x": "********"}, {"x": 2}), "b": None}),
    ("a[0]", ("text",), {}, {"a": "********", "b": None}),
    ("a[9]", ("text",), {}, {"a": "text", "b": None}),
    ("a.x", ("text",), {}, {"a": "text", "b": None}),
    (
        ["a.x", "a.y.z"],
        ({"x": 1, "y": {"z": 2, "n": 3}},),
        {},
        {"a": {"x": "********", "y": {"z": "********", "n": 3}}, "b": None},
    ),
    (["", ".", "a..b"], (1,), {}, {"a": 1, "b": None}),
]


class Redaction(TestCase):
    """``get_redacted_args``."""

    def test_table(self) -> None:
        """Named arguments are hidden, the others are shown, and names that aren't there are no error."""
        for sensitive, args, kwargs, shown in REDACTIONS:
            entrypoint = SimpleNamespace(
                container=SimpleNamespace(service_cls=Service), method_name="method", sensitive_arguments=sensitive
            )
            redacted = get_redacted_args(entrypoint, *args, **kwargs)
            empty: dict[str, Any] = {"args": (), "kwargs": {}}
            self.assertEqual({**empty, **redacted}, {**empty, **shown}, sensitive)

    def test_large(self) -> None:
        """An argument is not walked: only what the path names is looked at."""
        large = {"secret": 1, "rest": hostile.bomb()}
        entrypoint = SimpleNamespace(
            container=SimpleNamespace(service_cls=Service), method_name="method", sensitive_arguments="a.secret"
        )
        shown = get_redacted_args(entrypoint, large)["a"]
        self.assertEqual((shown["secret"], shown["rest"] is large["rest"], large["secret"]), ("********", True, 1))

    def test_arguments_stay(self) -> None:
        """The arguments themselves are not touched."""
        self.assertEqual(NESTED, {"name": "n", "cards": [{"number": 1}, {"number": 2}]})
