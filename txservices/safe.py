"""Any value as text, or as dicts and lists of text, which every serializer can write. Errors are sent in this form.

Pure: it never raises, whatever the value is like, and does no more work than the limits below allow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from types import TracebackType
from typing import Any

# How much of an error travels. The rest is left out, with SAFE_CUT in its place. An error may contain anything, such as
# a body of 100 MB or a structure without an end, and to make that safe must not block the reactor.
SAFE_DEPTH_MAX = 20  # nested containers in one argument
SAFE_NODES_MAX = 10_000  # values in all arguments together
SAFE_TEXT_MAX = 1_048_576  # characters in all texts of the arguments together, and in the error's own text
BRIEF_MAX = 300  # characters of a value in a line of text
SAFE_CUT = "[…]"
SAFE_FAILED = "[__unicode__ failed]"  # nameko's text, which callers may look for

# What Python walks to make a text: what is in each, asked of Python itself, for a subclass may say anything.
arguments_of: Callable[[BaseException], tuple[Any, ...]] = BaseException.args.__get__  # type: ignore[attr-defined]  # a descriptor
traceback_of: Callable[[BaseException], TracebackType | None] = BaseException.__traceback__.__get__  # type: ignore[union-attr]  # likewise
cause_of: Callable[[BaseException], BaseException | None] = BaseException.__cause__.__get__  # type: ignore[union-attr]  # likewise
classes_of: Callable[[type], tuple[type, ...]] = type.__dict__["__mro__"].__get__  # a metaclass may say anything
names_of: Callable[[type], Mapping[str, Any]] = type.__dict__["__dict__"].__get__
module_of: Callable[[type], Any] = type.__dict__["__module__"].__get__
name_of: Callable[[type], str] = type.__dict__["__name__"].__get__
VIEWS: tuple[Any, ...] = (type({}.keys()), type({}.values()), type({}.items()))
SEQUENCES: tuple[Any, ...] = (list, tuple, set, frozenset, deque)
CONTENTS: tuple[tuple[type, Callable[[Any], Iterable[Any]]], ...] = (
    (dict, lambda value: chain(dict.keys(value), dict.values(value))),
    *((sequence, sequence.__iter__) for sequence in SEQUENCES),
    *((view, iter) for view in VIEWS),
    (BaseException, arguments_of),
)
SHOWING_ARGUMENTS = (
    BaseException.__str__, KeyError.__str__, OSError.__str__, SyntaxError.__str__, ImportError.__str__
)  # fmt: skip


def walk(value: Any, nodes: int) -> int:
    """How many of so many values are left after those in this one; 0 if its text would exceed the limits.

    That goes for texts that Python makes, and not a class of somebody's.
    """
    characters = SAFE_TEXT_MAX
    left = [(value, SAFE_DEPTH_MAX)]
    while left:
        value, depth = left.pop()
        nodes -= 1
        kind = type(value)
        for text in (str, bytes, bytearray):
            if issubclass(kind, text):
                characters -= text.__len__(value)
        for container, contents in CONTENTS:
            if issubclass(kind, container):
                for each in contents(value):
                    if len(left) >= nodes or depth == 0:
                        return 0
                    left.append((each, depth - 1))
                break
        if nodes <= 0 or characters < 0:
            return 0
    return nodes


def fits(value: Any) -> bool:
    """Whether the text of a value is within the limits."""
    return walk(value, SAFE_NODES_MAX) > 0


def shows(error: BaseException) -> Any:
    """What ``str(error)`` makes a text of: most errors show their arguments."""
    arguments = arguments_of(error)
    if len(arguments) == 1 and type(arguments[0]) is str:
        return None
    text = next(own["__str__"] for own in map(names_of, classes_of(type(error))) if "__str__" in own)
    return arguments if any(text is each for each in SHOWING_ARGUMENTS) else None


def brief(value: Any) -> str:
    """A value as Python writes it, for a line of text: cut, and never an error or a long look."""
    try:
        text = str.__str__(repr(value)) if fits(value) else f"{name_of(type(value))} {SAFE_CUT}"
    except BaseException:
        return SAFE_FAILED
    return text if len(text) <= BRIEF_MAX else text[:BRIEF_MAX] + SAFE_CUT


def is_text(value: Any) -> bool:
    """Whether it is a plain text within the limits."""
    return type(value) is str and len(value) <= SAFE_TEXT_MAX


def shown(error: BaseException) -> BaseException:
    """The error, or one with its name and a safe text in its place, if to log it would raise or take too long."""
    kind = type(error)
    try:
        names = kind.__module__, kind.__name__, kind.__qualname__
        honest = kind.__bases__ and error.__class__ is kind and error.__traceback__ is traceback_of(error)
        if honest and fits(arguments_of(error)) and all(map(is_text, (*names, str(error), repr(error)))):
            return error
    except BaseException:  # a class may raise anything
        pass
    in_its_place: BaseException = type(name_of(kind), (Exception,), {"__module__": __name__})(
        safe_for_serialization(error)
    )
    return in_its_place


class Safe:
    """Makes values safe for the wire, up to a number of values and a number of characters in all."""

    def __init__(self) -> None:
        self.nodes = SAFE_NODES_MAX
        self.characters = SAFE_TEXT_MAX

    def value(self, value: Any, depth: int = SAFE_DEPTH_MAX) -> Any:
        """Turn a value into one that every serializer can write: text, or dicts and lists of text. Never raises."""
        self.nodes -= 1
        kind = type(value)  # not isinstance, which asks the value
        try:
            if issubclass(kind, str):
                return self.text(value)
            if issubclass(kind, (dict, list, tuple, set, frozenset, bytes, bytearray)):
                if depth == 0 or self.nodes <= 0:
                    return SAFE_CUT
                if issubclass(kind, dict):
                    return self.mapping(value, depth - 1)
                return self.sequence(value, depth - 1)
            self.nodes = walk(shows(value) if issubclass(kind, BaseException) else value, self.nodes + 1)
            if not self.nodes:
                return self.text(f"{name_of(kind)} {SAFE_CUT}")
            return self.text(str(value))
        except BaseException:  # also SystemExit: a `__str__` may raise anything, and the error must reach its caller
            return SAFE_FAILED

    @property
    def full(self) -> bool:
        """Whether the next value is left out."""
        return self.nodes <= 0 or self.characters <= 0

    def mapping(self, value: dict[Any, Any], depth: int) -> dict[str, Any]:
        safe = {}
        for key, each in dict.items(value):
            if self.nodes <= 0:
                safe[SAFE_CUT] = SAFE_CUT
                break
            safe[str(self.value(key, depth))] = self.value(each, depth)
        return safe

    def sequence(self, value: Iterable[Any], depth: int) -> list[Any]:
        safe = []
        for each in value:
            if self.nodes <= 0:
                safe.append(SAFE_CUT)
                break
            safe.append(self.value(each, depth))
        return safe

    def text(self, text: str) -> str:
        text = str.__str__(text)  # of no subclass, which may be like anything, and which some serializers don't write
        if len(text) <= self.characters:
            self.characters -= len(text)
            return text
        cut = text[: self.characters] + SAFE_CUT
        self.characters = 0
        return cut


def safe_for_serialization(value: Any) -> Any:
    """Turn a value into one that every serializer can write: text, or dicts and lists of text. Never raises.

    Dicts stay dicts; lists, tuples and sets become lists, down to ``SAFE_DEPTH_MAX`` and up to ``SAFE_NODES_MAX``
    values. Any other value becomes the text that ``str`` makes of it, up to ``SAFE_TEXT_MAX`` characters in all.
    """
    return Safe().value(value)
