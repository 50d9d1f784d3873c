"""Any value as text, or as dicts and lists of text, which every serializer can write. Errors are sent in this form.

Pure: it never raises, whatever the value is like, and does no more work than the limits below allow.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

# How much of an error travels. The rest is left out, with SAFE_CUT in its place. An error may contain anything, such as
# a body of 100 MB or a structure without an end, and to make that safe must not block the reactor.
SAFE_DEPTH_MAX = 20  # nested containers in one argument
SAFE_NODES_MAX = 10_000  # values in all arguments together
SAFE_TEXT_MAX = 1_048_576  # characters in all texts of the arguments together, and in the error's own text
SAFE_CUT = "[…]"
SAFE_FAILED = "[__unicode__ failed]"  # nameko's text, which callers may look for


class Safe:
    """Makes values safe for the wire, up to a number of values and a number of characters in all."""

    def __init__(self) -> None:
        self.nodes = SAFE_NODES_MAX
        self.characters = SAFE_TEXT_MAX

    def value(self, value: Any, depth: int = SAFE_DEPTH_MAX) -> Any:
        """Turn a value into one that every serializer can write: text, or dicts and lists of text. Never raises."""
        self.nodes -= 1
        try:
            if isinstance(value, str):
                return self.text(value)
            if isinstance(value, (dict, list, tuple, set, frozenset, bytes, bytearray)):
                if depth == 0 or self.nodes <= 0:
                    return SAFE_CUT
                if isinstance(value, dict):
                    return self.mapping(value, depth - 1)
                return self.sequence(value, depth - 1)
            if isinstance(value, (bytes, bytearray, memoryview)):
                value = bytes(value[: self.characters])  # its text has at least one character for each byte
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
