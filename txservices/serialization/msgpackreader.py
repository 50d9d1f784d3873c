"""Reads a long msgpack in steps, which are its values: see ``bounds``. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from txservices.serialization.bounds import CONTAINER, TEXT_STEP, Count, Found, decode_charset, join

DENSE_HERE_MAX = 65_536  # bytes of msgpack that are decoded in the reactor: each of them may be a list

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
