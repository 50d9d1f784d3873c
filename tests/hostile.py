"""Exceptions that do to those who look at them whatever an exception can do, by a ``Random``."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet.defer import CancelledError

RAISED: list[type[BaseException]] = [
    ValueError, TypeError, AttributeError, SystemExit, KeyboardInterrupt, GeneratorExit, RecursionError, MemoryError,
    StopIteration, CancelledError,
]  # fmt: skip


def raising(error: type[BaseException]) -> Callable[..., Any]:
    def raises(*args: Any, **kwargs: Any) -> Any:
        raise error("on purpose")

    return raises


def giving(value: Any) -> Callable[..., Any]:
    return lambda *args, **kwargs: value


class Text(str):
    """A text that is no plain one."""

    __slots__ = ()

    def __len__(self) -> int:
        raise SystemExit

    def __str__(self) -> str:
        return self

    def __getitem__(self, key: Any) -> Any:
        raise KeyboardInterrupt


class Row(tuple[Any, ...]):
    """A tuple that never ends, and has no length."""

    __slots__ = ()

    def __iter__(self) -> Any:
        return itertools.repeat(self)

    def __len__(self) -> int:
        raise ValueError


class BrokenRow(Row):
    """A tuple that can't be iterated."""

    __slots__ = ()

    def __iter__(self) -> Any:
        raise KeyboardInterrupt


def bomb(levels: int = 12) -> Any:
    """A list of few objects whose text would fill the memory."""
    value: Any = "x"
    for _ in range(levels):
        value = [value] * 10
    return value


class Faking:
    """Says that it is of a class which it is not."""

    def __init__(self, kind: Any) -> None:
        self.kind = kind

    @property
    def __class__(self) -> Any:
        return self.kind

    def __iter__(self) -> Any:
        return itertools.count()


class Raising:
    """Raises whatever is asked of it."""

    def __init__(self, error: type[BaseException]) -> None:
        object.__setattr__(self, "error", error)

    def __getattribute__(self, name: str) -> Any:
        raise object.__getattribute__(self, "error")("on purpose")

    def __str__(self) -> str:
        raise object.__getattribute__(self, "error")("on purpose")

    __repr__ = __str__

    def __hash__(self) -> int:
        return 1


ITSELF: dict[str, Any] = {}
ITSELF["k"] = ITSELF
VALUES: list[Any] = [
    None, 7, "text", "\ud800", b"\xff", ["a"], {"k": "v"}, {1, 2}, Text("x" * 100), Row("ab"), BrokenRow("ab"), bomb(),
    {"k": bomb()}, (bomb(),), "x" * 1_100_000, Faking(str), Faking(list), Faking(dict), Faking(tuple), Faking(None),
    ValueError(bomb()), OSError(1, bomb()), object(), {Text("k"): 1}, {Raising(ValueError): 1},
    *map(Raising, RAISED),
]  # fmt: skip
OF_INSTANCES = [
    "__str__", "__repr__", "__eq__", "__hash__", "__bool__", "__getattribute__", "__reduce__", "__len__", "__iter__",
    "args", "__class__", "__cause__", "__context__", "__traceback__", "__notes__", "__doc__", "__module__",
]  # fmt: skip
OF_CLASSES = [
    "__name__", "__module__", "__eq__", "__hash__", "__getattribute__", "__instancecheck__", "__subclasscheck__",
    "__str__", "__repr__", "__mro__", "__bases__", "__call__",
]  # fmt: skip
BASES = [Exception, ValueError, KeyError, OSError, SystemExit, BaseException, SyntaxError, ImportError, StopIteration]
ATTRIBUTES = {"args", "__class__", "__cause__", "__context__", "__traceback__", "__notes__", "__doc__", "__module__"}
ATTRIBUTES |= {"__name__", "__mro__", "__bases__"}


def attribute(name: str, random: Random) -> Any:
    """What may stand under a name in a class: a function that raises or gives anything, or a property by it."""
    values = VALUES[:8] if name in ("__module__", "__name__") else VALUES  # nobody has a module of that many names
    function = raising(random.choice(RAISED)) if random.random() < 0.6 else giving(random.choice(values))
    return property(function) if name in ATTRIBUTES else function


def attributes(names: list[str], number: int, random: Random) -> dict[str, Any]:
    return {name: attribute(name, random) for name in random.sample(names, number)}


def exception(random: Random) -> BaseException:
    """An exception that raises and lies in one or a few ways, with arguments of any kind."""
    base = random.choice(BASES)
    meta = type("Meta", (type,), attributes(OF_CLASSES, random.randrange(3), random))
    cls: Any = type.__new__(meta, "Hostile", (base,), attributes(OF_INSTANCES, random.randrange(4), random))
    error: BaseException = base.__new__(cls, *random.choices(VALUES, k=random.randrange(3)))
    return error
