"""The queues to which keys and headers lead."""

from __future__ import annotations

import gc
import time
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from txservices.broker.bindings import Direct, Topic
from txservices.broker.exchanges import Exchange, route
from txservices.broker.queues import Queue

# (binding key, routing keys that it takes, routing keys that it doesn't)
TOPICS = [
    ("a.b", ["a.b"], ["a", "a.b.c", "a.", ""]),
    ("a.*", ["a.b", "a."], ["a", "a.b.c", "b.a"]),
    ("*.b", ["a.b", ".b"], ["b", "a.b.c"]),
    ("*", ["a"], ["", "a.b"]),
    ("#", ["", "a", "a.b.c", "#", "*"], []),
    ("a.#", ["a", "a.b", "a.b.c"], ["b", "", "ab"]),
    ("#.a", ["a", "b.a", "c.b.a"], ["a.b", ""]),
    ("a.#.b", ["a.b", "a.x.b", "a.x.y.b"], ["a", "b", "a.b.c"]),
    ("#.#", ["", "a", "a.b"], []),
    ("#.a.#", ["a", "x.a.y", "a.a"], ["b", ""]),
    ("*.#", ["a", "a.b"], [""]),
    ("#.*", ["a", "a.b"], [""]),
    ("*.#.*", ["a.b", "a.b.c"], ["a", ""]),
    ("", [""], ["a", "."]),
    ("a..b", ["a..b"], ["a.b"]),
]

# (arguments of the binding, headers, whether they agree)
HEADERS: list[tuple[dict[str, Any], dict[str, Any], bool]] = [
    ({"x-match": "all", "a": 1, "b": 2}, {"a": 1, "b": 2, "c": 3}, True),
    ({"x-match": "all", "a": 1, "b": 2}, {"a": 1}, False),
    ({"a": 1, "b": 2}, {"a": 1, "b": 3}, False),
    ({"x-match": "any", "a": 1, "b": 2}, {"b": 2}, True),
    ({"x-match": "any", "a": 1, "b": 2}, {"b": 3}, False),
    ({"x-match": "any"}, {"b": 3}, False),
    ({}, {"b": 3}, True),
    ({"a": None}, {"a": "whatever"}, True),
    ({"a": None}, {}, False),
    ({"a": True}, {"a": 1}, False),
    ({"a": 1}, {"a": True}, False),
    ({"a": 0}, {"a": False}, False),
    ({"x-match": "all", "x-a": 1}, {}, True),
    ({"x-match": "all-with-x", "x-a": 1}, {}, False),
    ({"x-match": "any-with-x", "x-a": 1}, {"x-a": 1}, True),
]


def nothing() -> dict[str, Any]:
    return {}


def exchange(type: str, *bindings: tuple[str, str]) -> tuple[Exchange, dict[str, Queue]]:
    """An exchange with (queue, key) bindings."""
    made = Exchange("x", type)
    queues = {name: Queue(name) for name, _ in bindings}
    for name, key in bindings:
        made.bind(queues[name], key, {})
    return made, queues


def routed(start: Exchange, key: str, headers: dict[str, Any] | None = None, **others: Exchange) -> list[str]:
    queues, _ = route(start, (key,), lambda: headers or {}, others.get)
    return sorted(queue.name for queue in queues)


class MatchTests(SynchronousTestCase):
    """The four types."""

    def test_direct(self) -> None:
        """A direct exchange leads to the queues bound with just that key."""
        x, _ = exchange("direct", ("q", "a"), ("r", "b"), ("s", "a"))
        self.assertEqual([routed(x, key) for key in ("a", "b", "c")], [["q", "s"], ["r"], []])

    def test_fanout(self) -> None:
        """A fanout exchange leads to all, whatever the key, and to each once."""
        x, _ = exchange("fanout", ("q", "a"), ("r", "b"), ("q", "c"))
        self.assertEqual(routed(x, "zzz"), ["q", "r"])

    def test_topic(self) -> None:
        """Each pattern takes exactly the keys that it should, and a removed one takes none."""
        for pattern, takes, leaves in TOPICS:
            x, queues = exchange("topic", ("q", pattern))
            for key in takes:
                self.assertEqual(routed(x, key), ["q"], f"{pattern!r} takes {key!r}")
            for key in leaves:
                self.assertEqual(routed(x, key), [], f"{pattern!r} does not take {key!r}")
            self.assertTrue(x.unbind(queues["q"], pattern, {}))
            self.assertEqual([key for key in takes if routed(x, key)], [])

    def test_topics_share_a_tree(self) -> None:
        """All patterns together answer as each of them alone, also after half of them are gone."""
        x, queues = exchange("topic", *((pattern, pattern) for pattern, _, _ in TOPICS))
        keys = {key for _, takes, leaves in TOPICS for key in takes + leaves}
        alone = {pattern: exchange("topic", ("q", pattern))[0] for pattern, _, _ in TOPICS}
        for step in range(2):
            for key in keys:
                expected = sorted(pattern for pattern, single in alone.items() if routed(single, key))
                self.assertEqual(routed(x, key), expected, f"{key!r}, step {step}")
            for pattern in list(alone)[::2]:
                x.unbind(queues[pattern], pattern, {})
                del alone[pattern]

    def test_no_word_is_kept(self) -> None:
        """When the last binding of a pattern goes, the words that only it had go with it."""
        made = Exchange("x", "topic")
        root = cast(Topic, made.matching).root
        queue = Queue("q")
        for number in range(50):
            made.bind(queue, f"a.{number}.*.#", {})
        made.bind(queue, "a", {})
        for number in range(50):
            made.unbind(queue, f"a.{number}.*.#", {})
        self.assertEqual((list(root.following), root.following["a"].following), (["a"], {}))
        self.assertEqual((routed(made, "a"), routed(made, "a.1.b")), (["q"], []))
        made.unbind(queue, "a", {})
        self.assertEqual(root.following, {})

    def test_no_key_is_kept(self) -> None:
        """When the last binding of a key goes, the key goes with it: reply queues come and go for ever."""
        made = Exchange("x", "direct")
        one, other = Queue("one"), Queue("other")
        for number in range(50):
            for queue in (one, other):
                made.bind(queue, f"{number}", {})
        for number in range(1, 50):
            made.unbind(one, f"{number}", {})
            self.assertEqual(routed(made, f"{number}"), ["other"])
            made.unbind(other, f"{number}", {})
        self.assertEqual(list(cast(Direct, made.matching).by_key), ["0"])
        self.assertEqual(routed(made, "0"), ["one", "other"])

    def test_headers(self) -> None:
        """A headers exchange compares arguments with headers, all or any of them."""
        for arguments, headers, agrees in HEADERS:
            x = Exchange("x", "headers")
            x.bind(Queue("q"), "", arguments)
            self.assertEqual(bool(routed(x, "", headers)), agrees, f"{arguments} and {headers}")


class BindingTests(SynchronousTestCase):
    """Bindings made and undone."""

    def test_twice_is_once(self) -> None:
        """The same binding again is one binding, and undone by one unbind."""
        for type in ("direct", "fanout", "topic", "headers"):
            x, queues = exchange(type, ("q", "k"), ("q", "k"))
            self.assertEqual((len(x.bindings), len(queues["q"].incoming)), (1, 1))
            self.assertTrue(x.unbind(queues["q"], "k", {}))
            self.assertFalse(x.unbind(queues["q"], "k", {}))
            self.assertEqual((routed(x, "k"), queues["q"].incoming), ([], {}))

    def test_arguments_make_another_binding(self) -> None:
        """Two bindings that differ in arguments alone are two, and lead to the queue once."""
        x, queues = exchange("direct", ("q", "k"))
        x.bind(queues["q"], "k", {"a": [1]})
        self.assertEqual((len(x.bindings), routed(x, "k")), (2, ["q"]))
        x.unbind(queues["q"], "k", {})
        self.assertEqual(routed(x, "k"), ["q"])


class RouteTests(SynchronousTestCase):
    """Exchanges bound to exchanges."""

    def test_through_exchanges(self) -> None:
        """A message passes on with its key, and comes once to a queue that two ways lead to."""
        first, second = Exchange("first", "topic"), Exchange("second", "direct")
        queue = Queue("q")
        first.bind(second, "#", {})
        first.bind(queue, "k", {})
        second.bind(queue, "k", {})
        self.assertEqual((routed(first, "k"), routed(first, "other")), (["q"], []))

    def test_circle(self) -> None:
        """Exchanges bound in a circle are passed once each."""
        first, second = Exchange("first", "fanout"), Exchange("second", "fanout")
        first.bind(second, "", {})
        second.bind(first, "", {})
        second.bind(Queue("q"), "", {})
        self.assertEqual(routed(first, "k"), ["q"])

    def test_alternate(self) -> None:
        """A message that an exchange has no way for goes to its alternate, if that exists."""
        x = Exchange("x", "direct", arguments={"alternate-exchange": "other"})
        other, _ = exchange("fanout", ("lost", ""))
        x.bind(Queue("q"), "k", {})
        self.assertEqual(routed(x, "k", other=other), ["q"])
        self.assertEqual(routed(x, "nobody", other=other), ["lost"])
        self.assertEqual(routed(x, "nobody"), [])

    def test_many_keys(self) -> None:
        """A message with several keys goes where any of them leads, once to each queue, and is not remembered."""
        for type, keys, expected in (
            ("direct", ("b", "a", "n"), ["a", "b"]),
            ("direct", ("n", "n"), []),
            ("topic", ("a", "b", "a"), ["a", "b"]),
            ("fanout", ("n", "m"), ["a", "b"]),
            ("headers", ("n", "m"), ["a", "b"]),
        ):
            x = Exchange("x", type)
            for name in ("a", "b"):
                x.bind(Queue(name), name, {})
            queues, by_key_alone = route(x, keys, dict, {}.get)
            self.assertEqual((sorted(queue.name for queue in queues), by_key_alone), (expected, False), type)

    def test_alternate_of_many_keys(self) -> None:
        """The alternate exchange is for messages that no key leads anywhere."""
        other, _ = exchange("fanout", ("spare", ""))
        x = Exchange("x", "direct", arguments={"alternate-exchange": "other"})
        x.bind(Queue("a"), "a", {})
        for keys, expected in ((("n", "a"), ["a"]), (("n", "m"), ["spare"])):
            found, _ = route(x, keys, nothing, {"other": other}.get)
            self.assertEqual([queue.name for queue in found], expected)

    def test_headers_can_not_be_remembered(self) -> None:
        """A route that headers had a part in says so."""
        x, h = Exchange("x", "fanout"), Exchange("h", "headers")
        self.assertEqual(route(x, ("k",), nothing, {}.get), ([], True))
        x.bind(h, "", {})
        self.assertEqual(route(x, ("k",), nothing, {}.get), ([], False))


class SpeedTests(SynchronousTestCase):
    """Matching does not look at all bindings."""

    def test_ten_thousand_bindings(self) -> None:
        """With 10,000 topic bindings a match takes about as long as with ten."""

        def seconds(services: int) -> float:
            x, queue = Exchange("x", "topic"), Queue("q")
            for number in range(services):
                x.bind(queue, f"service{number}.*", {})
                x.bind(queue, f"*.event{number}.#", {})
            keys = [f"service{number % services}.event{number % services}" for number in range(1000)]
            times = []
            for _ in range(5):  # other processes only add to a time: the least counts
                begin = time.process_time()
                found = [len(x.match(key, nothing)) for key in keys]
                times.append(time.process_time() - begin)
                self.assertEqual(found, [2] * 1000)
            return min(times)

        gc.disable()  # it would walk what the tests before this one have left
        self.addCleanup(gc.enable)
        self.assertLess(seconds(5000) / seconds(5), 30)  # it is 2; 1,000 if each is looked at

    def test_hostile_pattern(self) -> None:
        """Many `#` and a long key cost their product, not a power of it."""
        x, _ = exchange("topic", ("q", ".".join(["#", "a"] * 40)))
        begin = time.process_time()
        self.assertEqual(routed(x, ".".join("a" * 120)), ["q"])
        self.assertEqual(routed(x, ".".join("a" * 119) + ".b"), [])
        self.assertLess(time.process_time() - begin, 10)
