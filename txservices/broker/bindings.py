"""What is bound to what, and how each type of exchange finds the bindings that take a message. Pure: no Twisted here.

Each type keeps its bindings so that a match does not look at all of them: by key (direct), as they come (fanout), in a
tree of words (topic). Only those of headers are compared one by one. A match among ten thousand topic bindings takes no
longer than one among ten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from attrs import field, frozen

Headers = Callable[[], Mapping[str, Any]]  # reads a message's headers, for the one type that wants them


class Destination(Protocol):
    """A queue or an exchange, as its bindings know it. ``incoming`` are the bindings that lead to it."""

    name: str
    incoming: dict[Binding, None]


@frozen(eq=False)
class Binding:
    """What leads from an exchange, given by its name, to a queue or to another exchange."""

    source: str
    destination: Destination = field(repr=lambda destination: repr(destination.name))
    key: str
    arguments: Mapping[str, Any]


class Matching(Protocol):
    """How one type of exchange keeps its bindings, and finds those that take a message."""

    def add(self, binding: Binding) -> None: ...

    def remove(self, binding: Binding) -> None: ...

    def match(self, key: str, headers: Headers) -> Iterable[Binding]: ...


class Direct:
    """The binding's key is the message's."""

    def __init__(self) -> None:
        self.by_key: dict[str, dict[Binding, None]] = {}

    def add(self, binding: Binding) -> None:
        self.by_key.setdefault(binding.key, {})[binding] = None

    def remove(self, binding: Binding) -> None:
        bindings = self.by_key[binding.key]
        del bindings[binding]
        if not bindings:
            del self.by_key[binding.key]

    def match(self, key: str, headers: Headers) -> Iterable[Binding]:
        return self.by_key.get(key, ())


class Unsorted:
    """Keeps bindings in the order in which they came, for the types that look at each of them."""

    def __init__(self) -> None:
        self.bindings: dict[Binding, None] = {}

    def add(self, binding: Binding) -> None:
        self.bindings[binding] = None

    def remove(self, binding: Binding) -> None:
        del self.bindings[binding]


class Fanout(Unsorted):
    """Every binding, whatever the key."""

    def match(self, key: str, headers: Headers) -> Iterable[Binding]:
        return self.bindings


class Word:
    """A place in the tree of topic bindings: the words that can follow, and the bindings that end here."""

    __slots__ = ("bindings", "following", "parent", "word")

    def __init__(self, word: str, parent: Word | None) -> None:
        self.word = word
        self.parent = parent
        self.following: dict[str, Word] = {}
        self.bindings: dict[Binding, None] = {}


class Topic:
    """Keys are words with dots between them. In a binding ``*`` is any one word, ``#`` any number of words.

    A match follows all places of the tree that the words so far lead to at once, so that a pattern of many ``#`` costs
    its length and never a power of it.
    """

    def __init__(self) -> None:
        self.root = Word("", None)

    def add(self, binding: Binding) -> None:
        place = self.root
        for word in words(binding.key):
            following = place.following.get(word)
            if following is None:
                following = place.following[word] = Word(word, place)
            place = following
        place.bindings[binding] = None

    def remove(self, binding: Binding) -> None:
        place = self.root
        for word in words(binding.key):
            place = place.following[word]
        del place.bindings[binding]
        while place.parent is not None and not place.bindings and not place.following:
            del place.parent.following[place.word]
            place = place.parent

    def match(self, key: str, headers: Headers) -> Iterable[Binding]:
        places = with_none({self.root: None})
        for word in words(key):
            reached: dict[Word, None] = {}
            for place in places:
                if place.word == "#":
                    reached[place] = None  # takes this word too
                for step in (word, "*"):
                    if step in place.following:
                        reached[place.following[step]] = None
            places = with_none(reached)
        return [binding for place in places for binding in place.bindings]


def words(key: str) -> list[str]:
    return key.split(".") if key else []


def with_none(places: dict[Word, None]) -> dict[Word, None]:
    """These places, and those behind a ``#`` that takes no word."""
    reached = dict(places)
    todo = [place for place in places if "#" in place.following]
    while todo:
        place = todo.pop().following["#"]
        reached[place] = None
        if "#" in place.following:
            todo.append(place)
    return reached


# x-match -> (whether all must agree or any, whether names that begin with "x-" count)
X_MATCH = {"all": (all, False), "any": (any, False), "all-with-x": (all, True), "any-with-x": (any, True)}


class ByHeaders(Unsorted):
    """The binding's arguments agree with the message's headers: all of them, or any, as its ``x-match`` says."""

    def match(self, key: str, headers: Headers) -> Iterable[Binding]:
        values = headers()
        return [binding for binding in self.bindings if agrees(binding.arguments, values)]


def agrees(arguments: Mapping[str, Any], headers: Mapping[str, Any]) -> bool:
    quantity, with_x = X_MATCH[arguments.get("x-match", "all")]
    return quantity(
        name in headers and (wanted is None or same(wanted, headers[name]))
        for name, wanted in arguments.items()
        if name != "x-match" and (with_x or not name.startswith("x-"))
    )


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal in AMQP, where true is not the number 1."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


TYPES: dict[str, Callable[[], Matching]] = {
    "direct": Direct,
    "fanout": Fanout,
    "topic": Topic,
    "headers": ByHeaders,
}
