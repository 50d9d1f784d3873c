"""Conversations that went well, and what can be done to their bytes: each input known by the number that it is made of.

A conversation is a list of pieces: frames of AMQP, lines and bodies of HTTP. ``Mutations.make(seed)`` takes one, does
something bad to it, and gives it as chunks, cut wherever a network may cut.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

from txservices.wire.frames import FRAME, frame
from txservices.wire.spec import PROTOCOL_HEADER

NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 131_064, 131_072, 1 << 63, (1 << 64) - 1)
TEXTS = (b"", b"0", b"-1", b"+1", b"1e9", b"0x10", b"9" * 30, b"18446744073709551616", b"65536", b" 1", b"1,2")
OCTETS = (0, 1, 10, 13, 32, 58, 127, 0xCE, 0xFF)
LONG_RUN = 5000  # bytes: more than any line or name may have

Pieces = list[bytes]


def pieces_of(data: bytes) -> Pieces:
    """A recorded stream of AMQP cut into its frames, the protocol header being one."""
    pieces = []
    if data.startswith(PROTOCOL_HEADER):
        pieces.append(PROTOCOL_HEADER)
        data = data[len(PROTOCOL_HEADER) :]
    while data:
        end = FRAME.size + FRAME.unpack_from(data)[2] + 1
        pieces.append(data[:end])
        data = data[end:]
    return pieces


def mended(piece: bytes) -> bytes:
    """A frame whose length and last octet are right again, so that what is wrong inside it is read."""
    if len(piece) <= FRAME.size or piece.startswith(PROTOCOL_HEADER[:4]):
        return piece
    kind, channel, _ = FRAME.unpack_from(piece)
    return frame(kind, channel, piece[FRAME.size : -1])


# What can be done to a conversation; each changes the list that it is given.


def flip(random: Random, pieces: Pieces, others: list[Pieces]) -> None:
    """Some bits."""
    at = random.randrange(len(pieces))
    data = bytearray(pieces[at])
    for _ in range(random.choice((1, 1, 2, 8))):
        if data:
            data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    pieces[at] = bytes(data)


def octet(random: Random, pieces: Pieces, others: list[Pieces]) -> None:
    """An octet that means something somewhere."""
    at, place = somewhere(random, pieces)
    pieces[at] = pieces[at][:place] + bytes((random.choice(OCTETS),)) + pieces[at][place + 1 :]


def lie(random: Random, pieces: Pieces, others: list[Pieces]) -> None:
    """A number of one, two, four or eight bytes that says something else: a length, often."""
    at, place = somewhere(random, pieces)
    width = random.choice((1, 2, 4, 4, 8))
    number = random.choice(NUMBERS) & ((1 << 8 * width) - 1)
    pieces[at] = pieces[at][:place] + number.to_bytes(width, "big") + pieces[at][place + width :]


def lie_in_digits(random: Random, pieces: Pieces, others: list[Pieces]) -> None:
    """A number that is written in digits."""
    at = random.randrange(len(pieces))
    found = list(re.finditer(rb"\d+", pieces[at]))
    if found:
        number = random.choice(found)
        pieces[at] = pieces[at][: number.start()] + random.choice(TEXTS) + pieces[at][number.end() :]


def cut(random: Random, pieces: Pieces, others: list[Pieces]) -> None:
    """Some bytes less."""
    at, place = somewhere(random, pieces)
    pieces[at] = pieces[at][:place] + pieces[at][place + random.choice((1, 2, 4, 9, 60)) :]


def end(random: Random, pieces: Pieces, others: list[Pieces]) -> None:
    """The rest is missing."""
    at, place = somewhere(random, pieces)
    pieces[at:] = [pieces[at][:place]]


def double(random: Random, pieces: Pieces, others: list[Pieces]) -> None:
    """Some bytes twice."""
    at, place = somewhere(random, pieces)
    again = pieces[at][place : place + random.choice((1, 4, 9, 60))]
    pieces[at] = pieces[at][:place] + again * random.choice((1, 1, 3)) + pieces[at][place:]


def swell(random: Random, pieces: Pieces, others: list[Pieces]) -> None:
    """Many bytes more."""
    at, place = somewhere(random, pieces)
    run = bytes((random.randrange(256),)) * random.randrange(LONG_RUN)
    pieces[at] = pieces[at][:place] + run + pieces[at][place:]


def drop(random: Random, pieces: Pieces, others: list[Pieces]) -> None:
    """A piece less."""
    del pieces[random.randrange(len(pieces))]


def repeat(random: Random, pieces: Pieces, others: list[Pieces]) -> None:
    """A piece several times."""
    at = random.randrange(len(pieces))
    pieces[at:at] = [pieces[at]] * random.choice((1, 2, 30))


def reorder(random: Random, pieces: Pieces, others: list[Pieces]) -> None:
    """A piece somewhere else."""
    piece = pieces.pop(random.randrange(len(pieces)))
    pieces.insert(random.randrange(len(pieces) + 1), piece)


def foreign(random: Random, pieces: Pieces, others: list[Pieces]) -> None:
    """A piece of another conversation."""
    pieces.insert(random.randrange(len(pieces) + 1), random.choice(random.choice(others)))


def splice(random: Random, pieces: Pieces, others: list[Pieces]) -> None:
    """The beginning of a piece with the end of another's."""
    at, place = somewhere(random, pieces)
    other = random.choice(random.choice(others))
    pieces[at] = pieces[at][:place] + other[random.randrange(len(other) + 1) :]


def somewhere(random: Random, pieces: Pieces) -> tuple[int, int]:
    at = random.randrange(len(pieces))
    return at, random.randrange(len(pieces[at]) + 1)


MUTATIONS: tuple[Callable[[Random, Pieces, list[Pieces]], None], ...] = (
    flip, octet, lie, lie_in_digits, cut, end, double, swell, drop, repeat, reorder, foreign, splice,
)  # fmt: skip


class Mutations:
    """Bad inputs, made of good conversations.

    Args:
        conversations: what they are made of.
        mend: makes a changed piece whole again, which is done to every other input.
    """

    def __init__(self, conversations: list[Pieces], mend: Callable[[bytes], bytes] | None = None) -> None:
        self.conversations = conversations
        self.mend = mend

    def pieces(self, random: Random) -> Pieces:
        """A conversation with something wrong in it; its beginning is left as it is more often than not."""
        pieces = list(random.choice(self.conversations))
        first = random.choice((0, random.randrange(len(pieces))))
        good, bad = pieces[:first], pieces[first:]
        before = set(bad)
        for _ in range(random.choice((1, 1, 1, 2, 3, 8))):
            if bad:
                random.choice(MUTATIONS)(random, bad, self.conversations)
        if self.mend is not None and random.random() < 0.5:
            bad = [piece if piece in before else self.mend(piece) for piece in bad]
        return good + bad

    def make(self, seed: int) -> list[bytes]:
        """The input of that number, as the chunks that it comes in."""
        random = Random(seed)
        pieces = self.pieces(random)
        ways = random.random()
        data = b"".join(pieces)
        if ways < 0.4:
            return [data]
        if ways < 0.8:
            return [piece for piece in pieces if piece]
        size = random.choice((1, 7, 64)) if len(data) < 3000 else 1000
        return [data[at : at + size] for at in range(0, len(data), size)]
