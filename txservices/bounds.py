"""Bounds for decoding a stranger's bytes: how much a body may become. Pure.

A few bytes can become a lot: 97 kB of gzip become 100 MB of text, and these 33 million lists. So decompression stops at
its limit. A short body is decoded at once, in the reactor. A long one is decoded in a thread, in small steps, because a
decoder in C is one step, which no other thread interrupts, not even the reactor's. The steps also count what they make:
each value and each key is 1, and each list and mapping ``CONTAINER`` more.

The page is long because the readers of all formats are on it: they share the count and the steps.
"""

from __future__ import annotations

import codecs
import re
import zlib
from bz2 import BZ2Decompressor
from collections.abc import Callable, Iterable
from io import BytesIO
from json import JSONDecoder
from typing import Any

import msgspec
import yaml

HERE_MAX = 262_144  # bytes of a body that is decoded in the reactor, which takes up to 50 ms; a longer one in a thread
DENSE_HERE_MAX = 65_536  # the same for msgpack, where each byte may be a list
YAML_HERE_MAX = 512  # the same for YAML, whose reader is the slowest: 2 kB of open brackets take it 0.4 s
QUICK_MAX = 1_048_576  # bytes of a long JSON that is decoded in one step all the same, if it has few values
QUICK_VALUES_MAX = 100_000  # such few
CONTAINER = 4  # what a list or a mapping counts, besides its values
STEP = 4096  # characters of JSON that are decoded in one step, unless they are one text or number
TEXT_STEP = 1_048_576  # bytes or characters of a text that are decoded in one step; some charsets take 3 ms for that
ALONE = 100  # values that are read one by one after a step that failed
YAML_VALUE = 10  # what a value counts in YAML, whose reader takes 0.1 ms and a kilobyte for each
YAML_DEPTH_MAX = 100  # lists and mappings inside each other; Python's recursion limit comes soon after
YAML_NUMBER_MAX = 4300  # characters of a number; Python's own limit for a whole one, which 1:30:59 would evade


class LongBody(Exception):
    """A body that would hold the reactor for long: decode it in a thread."""


class Count:
    """Counts the values of a body."""

    __slots__ = ("most", "values")

    def __init__(self, most: int) -> None:
        self.most = most
        self.values = 0

    def add(self, number: int) -> None:
        """``ValueError`` if there are too many."""
        self.values += number
        if self.values > self.most:
            raise ValueError(f"it has more than {self.most} values, the limit that VALUES_MAX sets")


# Text ----------------------------------------------------------------------------------------------------------------


def decode_charset(body: bytes | memoryview, charset: str, errors: str) -> str:
    """Text, decoded in steps if it is long."""
    if len(body) <= TEXT_STEP:
        return bytes(body).decode(charset, errors)
    decoder = codecs.getincrementaldecoder(charset)(errors)
    return join_texts(
        decoder.decode(bytes(body[at : at + TEXT_STEP]), at + TEXT_STEP >= len(body))
        for at in range(0, len(body), TEXT_STEP)
    )


def encode_utf8(text: str) -> bytes:
    """A text as UTF-8, encoded in steps if it is long."""
    return join(text[at : at + TEXT_STEP].encode() for at in range(0, len(text), TEXT_STEP))


def join_texts(pieces: Iterable[str]) -> str:
    """``"".join``, in steps, unless a wider character comes behind narrow ones."""
    text = ""
    for piece in pieces:  # in a while loop, Python 3.11 would copy the text each time and not lengthen it where it is
        text += piece
    return text


def join(pieces: Iterable[bytes | memoryview]) -> bytes:
    """``b"".join``, in steps."""
    joined = BytesIO()
    for piece in pieces:
        joined.write(piece)
    return joined.getvalue()


# JSON ----------------------------------------------------------------------------------------------------------------

Found = tuple[Any, int]  # a value, and the place behind it

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


# msgpack -------------------------------------------------------------------------------------------------------------

PLAIN, LIST, MAPPING = range(3)
LONG_TEXT, LONG_TEXT_OR_BYTES = 0xDB, b"\xdb\xc6"


def msgpack_heads() -> list[tuple[int, int, int, int]]:
    """For each first byte of a value: bytes of its head, bytes of a length in it, fixed length, and kind.

    The length counts the bytes of a plain value, and the entries of a list or a mapping.
    """
    heads = [(1, 0, 0, PLAIN)] * 256
    for n in range(16):
        heads[0x80 + n] = (1, 0, n, MAPPING)
        heads[0x90 + n] = (1, 0, n, LIST)
    for n in range(32):
        heads[0xA0 + n] = (1, 0, n, PLAIN)
    for first, width in ((0xC4, 1), (0xC5, 2), (0xC6, 4), (0xD9, 1), (0xDA, 2), (0xDB, 4)):  # bytes and text
        heads[first] = (1 + width, width, 0, PLAIN)
    for first, width in ((0xC7, 1), (0xC8, 2), (0xC9, 4)):  # extensions, which have a byte for their type
        heads[first] = (2 + width, width, 0, PLAIN)
    for first, size in ((0xCA, 4), (0xCB, 8), (0xCC, 1), (0xCD, 2), (0xCE, 4), (0xCF, 8)):  # numbers
        heads[first] = (1, 0, size, PLAIN)
    for first, size in ((0xD0, 1), (0xD1, 2), (0xD2, 4), (0xD3, 8)):
        heads[first] = (1, 0, size, PLAIN)
    for n in range(5):
        heads[0xD4 + n] = (2, 0, 1 << n, PLAIN)  # extensions of a fixed size
    for first, width, kind in ((0xDC, 2, LIST), (0xDD, 4, LIST), (0xDE, 2, MAPPING), (0xDF, 4, MAPPING)):
        heads[first] = (1 + width, width, 0, kind)
    return heads


MSGPACK_HEADS = msgpack_heads()


def read_msgpack(body: bytes, most: int) -> Any:
    """Read msgpack in steps, one for each value. ``ValueError`` if it has too many, or is no msgpack."""
    count = Count(most).add
    heads, decode = MSGPACK_HEADS, msgspec.msgpack.decode

    def read(at: int) -> Found:
        head, width, length, kind = heads[body[at]]
        if width:
            length = int.from_bytes(body[at + 1 : at + 1 + width], "big")
        if kind == PLAIN:
            end = at + head + length
            if length > TEXT_STEP and body[at] in LONG_TEXT_OR_BYTES and end <= len(body):
                data = memoryview(body)[at + head : end]
                if body[at] == LONG_TEXT:
                    return decode_charset(data, "utf-8", "strict"), end
                return join(data[step : step + TEXT_STEP] for step in range(0, length, TEXT_STEP)), end
            return decode(body[at:end]), end
        at += head
        if kind == LIST:
            values = []
            count(CONTAINER)
            for _ in range(length):
                count(1)
                value, at = read(at)
                values.append(value)
            return values, at
        mapping = {}
        count(CONTAINER)
        for _ in range(length):
            count(2)
            key, at = read(at)
            mapping[hashable(key)], at = read(at)
        return mapping, at

    value, end = read(0)
    if end != len(body):
        raise ValueError(f"something behind the value, at {end}")
    return value


def hashable(key: Any) -> Any:
    """A key of msgpack: a list in it is a tuple, as msgspec has it."""
    return tuple(map(hashable, key)) if type(key) is list else key


# YAML ----------------------------------------------------------------------------------------------------------------


class YamlLoader(yaml.SafeLoader):
    """PyYAML's SafeLoader, which counts as it reads. An alias counts as much as what it stands for.

    A list of nine aliases of a list of nine aliases … would otherwise be a billion values to whatever walks it.
    """

    def __init__(self, body: bytes, most: int) -> None:
        super().__init__(BytesIO(body))  # of a file it reads some kilobytes at a time
        self.count = Count(most)
        self.depth = 0
        self.counts: dict[int, int] = {}  # of the nodes that have anchors, by id

    def compose_node(self, parent: Any, index: Any) -> Any:
        before = self.count.values
        self.depth += 1
        if self.depth > YAML_DEPTH_MAX:
            raise ValueError(f"more than {YAML_DEPTH_MAX} lists and mappings inside each other")
        alias = self.check_event(yaml.AliasEvent)
        anchor = getattr(self.peek_event(), "anchor", None)
        node = super().compose_node(parent, index)
        self.depth -= 1
        if alias:
            # an alias inside of what it stands for: a value that contains itself, which nothing could walk
            if id(node) not in self.counts:
                raise ValueError("an alias inside of the value that it stands for")
            self.count.add(self.counts[id(node)])
        else:
            self.count.add(YAML_VALUE * (1 if isinstance(node, yaml.ScalarNode) else 1 + CONTAINER))
            if anchor is not None:
                self.counts[id(node)] = self.count.values - before
        return node

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        """The tag of a node. A long plain text is a text: to see that it is no number would take 0.1 s a megabyte."""
        if kind is yaml.ScalarNode and implicit[0] and len(value) > YAML_NUMBER_MAX:
            implicit = (False, True)
        tag: str = super().resolve(kind, value, implicit)
        return tag

    def construct_yaml_int(self, node: Any) -> int:
        if len(node.value) > YAML_NUMBER_MAX:
            raise ValueError(f"a number of more than {YAML_NUMBER_MAX} characters")
        number: int = super().construct_yaml_int(node)
        return number


YamlLoader.add_constructor("tag:yaml.org,2002:int", YamlLoader.construct_yaml_int)


def read_yaml(body: bytes, most: int) -> Any:
    """The value in a YAML body. ``ValueError`` or ``yaml.YAMLError`` if it can't be read."""
    loader = YamlLoader(body, most)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


# Compression ---------------------------------------------------------------------------------------------------------

DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    "application/x-gzip": zlib.decompressobj,
    "application/x-bz2": BZ2Decompressor,
}


def decompress(compression: str, body: bytes, most: int) -> bytes | None:
    """The decompressed body; None if that would have more than ``most`` bytes. ``ValueError`` if the body is cut."""
    one = DECOMPRESSORS[compression]()
    data: bytes = one.decompress(body, most + 1)
    if len(data) > most:
        return None
    if not one.eof:
        raise ValueError("a compressed body that is cut")
    return data
