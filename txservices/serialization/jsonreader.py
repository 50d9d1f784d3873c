"""Reads a long JSON in steps: see ``bounds``. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from json import JSONDecoder
from typing import Any

from txservices.serialization.bounds import CONTAINER, TEXT_STEP, Count, Found, join_texts

QUICK_MAX = 1_048_576  # bytes of a long JSON that is decoded in one step all the same, if it has few values
QUICK_VALUES_MAX = 100_000  # values of such a JSON, at most
STEP = 4096  # characters of JSON that are decoded in one step, unless they are one text or number
ALONE = 100  # values that are read one by one after a step that failed

# reads one value, in C
scan: Callable[[str, int], Found] = JSONDecoder().scan_once  # type: ignore[attr-defined]  # typeshed lacks it
skip_space: Callable[..., Any] = re.compile(r"[ \t\n\r]*").match
# Characters and escapes of a text, of which no escape is cut at the end of the step.
skip_text: Callable[..., Any] = re.compile(r"""(?:[^"\\]+|\\u[0-9A-Fa-f]{4}|\\[^u])*""").match
is_low_surrogate: Callable[[str, int], Any] = re.compile(r"\\u[dD][c-fC-F][0-9A-Fa-f]{2}").match


def is_quick(body: bytes) -> bool:
    """Whether a JSON may be decoded in one step: it is not too long, and has few values."""
    return len(body) <= QUICK_MAX and values_at_most(body) <= QUICK_VALUES_MAX


def values_at_most(body: bytes) -> int:
    """No fewer values than a JSON has: marks inside of its texts count, too."""
    containers = body.count(b"[") + body.count(b"{")
    return 1 + body.count(b",") + body.count(b":") + (1 + CONTAINER) * containers


class JsonReader:
    """Reads JSON in steps.

    A step is Python's decoder in C, for a part that can't be long: a list or mapping that ends soon, some values of one
    that does not, or a megabyte of a text. Such a part is read alone. If it is JSON by itself, a reader of the whole
    text would have found the same values there.

    Args:
        most: how many values it may have.
        unwrap: called with each mapping; what it gives takes the mapping's place. None if nothing is wrapped.
    """

    def __init__(self, text: str, most: int, unwrap: Callable[[dict[str, Any]], Any] | None = None) -> None:
        self.text = text
        self.count = Count(most).add
        self.unwrap = unwrap

    def read_all(self) -> Any:
        """The value of the whole text. ``ValueError`` if it is no JSON, or has too many values."""
        value, at = self.read(self.behind_space(0))
        if self.behind_space(at) != len(self.text):
            raise ValueError(f"something behind the value, at {at}")
        return value

    def behind_space(self, at: int) -> int:
        end: int = skip_space(self.text, at, at + TEXT_STEP).end()
        return end if end < at + TEXT_STEP else self.behind_space_from(end)

    def behind_space_from(self, end: int) -> int:
        at = -1
        while at < end:
            at, end = end, skip_space(self.text, end, end + TEXT_STEP).end()
        return end

    def read(self, at: int) -> Found:
        first = self.text[at : at + 1]
        if first == "[":
            self.count(CONTAINER)
            return self.read_short(at, "]") or self.read_list(self.behind_space(at + 1))
        if first == "{":
            self.count(CONTAINER)
            mapping, end = self.read_short(at, "}") or self.read_mapping(self.behind_space(at + 1))
            return (mapping if self.unwrap is None else self.unwrap(mapping)), end
        return self.read_plain(at)

    def read_plain(self, at: int) -> Found:
        text = self.text
        if text[at : at + 1] == '"' and text.find('"', at + 1, at + TEXT_STEP) < 0:
            return self.read_long_text(at + 1)
        try:
            return scan(text, at)
        except StopIteration:
            raise ValueError(f"no value at {at}") from None

    def read_long_text(self, at: int) -> Found:
        pieces = []
        text = self.text
        while text[at : at + 1] != '"':
            end = at + TEXT_STEP
            if end > len(text) or text.find("\\", at, end) >= 0 or text.find('"', at, end) >= 0:
                end = skip_text(text, at, end).end()
            if is_low_surrogate(text, end):
                end += 6  # it may be a character with the one before it
            if end == at:
                raise ValueError(f"no text and no end of it at {at}")
            pieces.append(scan(f'"{text[at:end]}"', 0)[0])
            at = end
        return join_texts(pieces), at + 1

    def read_short(self, at: int, close: str) -> Found | None:
        """The list or mapping that opens here, if it closes within a step and there is no other in it."""
        text = self.text
        end = text.find(close, at, at + STEP)
        if end < 0 or text.find("[", at + 1, end) >= 0 or text.find("{", at + 1, end) >= 0:
            return None
        return self.part(text[at : end + 1], end + 1)

    def read_some(self, at: int, marks: str) -> Found | None:
        """The next values of a list or mapping, if there are no others in it for the length of a step."""
        text = self.text
        end = text.rfind(",", at, at + STEP)
        if end <= at or any(text.find(mark, at, end) >= 0 for mark in "[]{}"):
            return None
        return self.part(f"{marks[0]}{text[at:end]}{marks[1]}", self.behind_space(end + 1))

    def part(self, text: str, end: int) -> Found | None:
        try:
            some, length = scan(text, 0)
        except (StopIteration, ValueError):
            return None
        if length != len(text):
            return None
        self.count(len(some) if type(some) is list else 2 * len(some))
        return some, end

    def read_list(self, at: int) -> Found:
        values: list[Any] = []
        alone, more = 0, self.text[at : at + 1] != "]"
        if not more:
            at += 1
        while more:
            some = None if alone else self.read_some(at, "[]")
            if some is not None and some[0]:
                values += some[0]
                at = some[1]
                continue
            alone = alone - 1 if alone else ALONE
            value, at = self.read(at)
            values.append(value)
            self.count(1)
            more, at = self.goes_on(at, "]")
        return values, at

    def read_mapping(self, at: int) -> Found:
        mapping: dict[str, Any] = {}
        alone, more = 0, self.text[at : at + 1] != "}"
        if not more:
            at += 1
        while more:
            some = None if alone else self.read_some(at, "{}")
            if some is not None and some[0]:
                mapping.update(some[0])
                at = some[1]
                continue
            alone = alone - 1 if alone else ALONE
            key, at = self.read_plain(at)
            at = self.behind_space(at)
            if type(key) is not str or self.text[at : at + 1] != ":":
                raise ValueError(f"no key and value at {at}")
            mapping[key], at = self.read(self.behind_space(at + 1))
            self.count(2)
            more, at = self.goes_on(at, "}")
        return mapping, at

    def goes_on(self, at: int, close: str) -> tuple[bool, int]:
        """Whether there is a comma here, and the place behind it or behind the end."""
        at = self.behind_space(at)
        mark = self.text[at : at + 1]
        if mark == ",":
            return True, self.behind_space(at + 1)
        if mark != close:
            raise ValueError(f"neither a comma nor {close} at {at}")
        return False, at + 1
