"""Ids, deadlines, dotted names, and what must not be shown."""

from __future__ import annotations

import os
import uuid
from types import SimpleNamespace
from typing import Any

from attrs import define
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from txservices.utils import Sweeper, get_redacted_args, import_from_path, new_id, sanitize_url


class Ids(TestCase):
    """``new_id``."""

    def test_shape(self) -> None:
        """An id looks like a UUID, and no two are the same."""
        ids = [new_id() for _ in range(1000)]
        self.assertEqual(len(set(ids)), 1000)
        self.assertEqual(str(uuid.UUID(ids[-1])), ids[-1])

    def test_fork(self) -> None:
        """A forked process makes ids of its own."""
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.write(writer, new_id().encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as file:
            theirs = file.read()
        os.waitpid(child, 0)
        self.assertEqual(len(theirs), 36)
        self.assertNotEqual(theirs[:24], new_id()[:24])


@define
class Record:
    """Something that is pending."""

    deadline: float


class Sweeping(TestCase):
    """``Sweeper``."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.pending: dict[str, Record] = {}
        self.expired: list[str] = []
        self.sweeper = Sweeper(self.clock, self.pending, self.expire)

    def expire(self, key: str, record: Record) -> None:
        self.expired.append(key)

    def add(self, key: str, deadline: float) -> None:
        self.pending[key] = Record(deadline)
        self.sweeper.watch()

    def test_overdue_are_taken_out(self) -> None:
        """Each goes when its time is up, whatever the order in which they came."""
        self.add("late", 5)
        self.add("soon", 1)
        self.add("never", float("inf"))
        self.clock.pump([0.1] * 12)
        self.assertEqual(self.expired, ["soon"])
        self.clock.pump([0.1] * 40)
        self.assertEqual(self.expired, ["soon", "late"])
        self.assertEqual(list(self.pending), ["never"])

    def test_one_call_for_all(self) -> None:
        """However many are pending, one delayed call is scheduled; none when nothing is pending any more."""
        for n in range(100):
            self.add(str(n), 1)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.pending.clear()
        self.clock.advance(0.1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_many_are_looked_at_less_often(self) -> None:
        """With very many pending the interval grows, so that looking stays cheap."""
        self.pending.update((str(n), Record(9)) for n in range(50_000))
        self.sweeper.watch()
        self.assertEqual(self.clock.getDelayedCalls()[0].getTime(), 0.5)

    def test_stop(self) -> None:
        """Stopped, nothing is scheduled; watching again goes on."""
        self.add("one", 1)
        self.sweeper.stop()
        self.sweeper.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.add("two", 1)
        self.clock.pump([0.1] * 11)
        self.assertEqual(self.expired, ["one", "two"])

    def test_expiry_that_raises(self) -> None:
        """An error in one expiry leaves the others for the next time."""

        def expire(key: str, record: Record) -> None:
            self.expire(key, record)
            if key == "bad":
                raise ValueError(key)

        self.sweeper.expire = expire
        self.add("bad", 0)
        self.add("good", 0)
        self.assertRaises(ValueError, self.clock.advance, 0.1)
        self.clock.advance(0.1)
        self.assertEqual(self.expired, ["bad", "good"])

    def test_expiry_that_takes_another_out(self) -> None:
        """What one expiry removes does not expire after it."""
        self.sweeper.expire = lambda key, record: self.pending.clear() or self.expire(key, record)
        self.add("one", 0)
        self.add("two", 0)
        self.clock.advance(0.1)
        self.assertEqual(self.expired, ["one"])


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
    """What is called in the tests of redaction."""

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
    ("a.x", ((n for n in ()),), {}, {"a": "********", "b": None}),
]


class Redaction(TestCase):
    """``get_redacted_args``."""

    def test_table(self) -> None:
        """What is named is hidden, the rest is shown, and what isn't there is no matter."""
        for sensitive, args, kwargs, shown in REDACTIONS:
            entrypoint = SimpleNamespace(
                container=SimpleNamespace(service_cls=Service), method_name="method", sensitive_arguments=sensitive
            )
            redacted = get_redacted_args(entrypoint, *args, **kwargs)
            empty = {"args": (), "kwargs": {}}
            self.assertEqual({**empty, **redacted}, {**empty, **shown}, sensitive)

    def test_arguments_stay(self) -> None:
        """The arguments themselves are not touched."""
        self.assertEqual(NESTED, {"name": "n", "cards": [{"number": 1}, {"number": 2}]})
