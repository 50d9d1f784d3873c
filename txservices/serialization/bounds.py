"""Bounds for decoding a stranger's bytes: how much a body may become. Pure.

A few bytes can become a lot: 97 kB of gzip become 100 MB of text, and these 33 million lists. So decompression stops at
its limit. A short body is decoded at once, in the reactor. A long one is decoded in a thread, in small steps, because a
decoder in C is one step, which no other thread interrupts, not even the reactor's. The steps also count what they make:
each value and each key is 1, and each list and mapping ``CONTAINER`` more.

Here is what the readers of all formats share: the limits, the count, and the steps through a text.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from io import BytesIO
from typing import Any

HERE_MAX = 262_144  # bytes of a body that is decoded in the reactor, which takes up to 50 ms; a longer one in a thread
CONTAINER = 4  # what a list or a mapping counts, besides its values
TEXT_STEP = 1_048_576  # bytes or characters of a text that are decoded in one step; some charsets take 3 ms for that

Found = tuple[Any, int]  # a value, and the place behind it


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
