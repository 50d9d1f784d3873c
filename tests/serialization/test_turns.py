"""Long bodies are decoded in a thread, and never for longer than a turn of the reactor."""

from __future__ import annotations

import bz2
import json
import pickle
import time
from functools import cache, partial
from typing import Any

import msgspec
from twisted.internet.defer import Deferred

from tests.serialization.test_bounds import (
    ALL,
    BZIP2,
    JSON,
    MIB,
    MSGPACK,
    PICKLE,
    YAML,
    bombs,
    lists,
    read_json,
)
from tests.turns import TURN_MAX, TurnsCase, least, slowness
from txservices.exceptions import DecodeError
from txservices.serialization.bounds import HERE_MAX, LongBody
from txservices.utils.background import in_background
from txservices.wire import codec, frames
from txservices.wire.spec import BASIC_CLASS, FRAME_BODY, FRAME_HEADER, FRAME_METHOD


@cache
def table(as_mappings: bool) -> Any:
    """An honest table."""
    names = [f"column_{number}" for number in range(20)]
    rows = ([row * column for column in range(20)] for row in range(5_000))
    return [dict(zip(names, row, strict=True)) if as_mappings else row for row in rows]


@cache
def longest() -> dict[str, tuple[str, str | None, bytes]]:
    """Bodies within the limits: content type, content encoding, body.

    Some are as long as they may be. Others, each value of which is a step of its own, have enough for thousands.
    """
    return {
        "table": (JSON, None, json.dumps(table(True)).encode()),
        "table of lists": (JSON, None, json.dumps(table(False)).encode()),
        "table in a call": (JSON, None, json.dumps({"args": [table(True)], "kwargs": {}}).encode()),
        "lists": (JSON, None, lists(60_000)),
        "mappings": (JSON, None, b"[" + b",".join([b"{}"] * 30_000) + b"]"),
        "keys": (JSON, None, b"{" + b",".join(b'"%d":1' % n for n in range(150_000)) + b"}"),
        "lists of one": (JSON, None, b"[" + b",".join([b"[1]"] * 30_000) + b"]"),
        "nested": (JSON, None, b"[" + b",".join([b"[" * 30 + b"]" * 30] * 2_000) + b"]"),
        "numbers": (JSON, None, b"[" + b",".join([b"1.5e3"] * 990_000) + b"]"),
        "long numbers": (JSON, None, b"[" + b",".join([b"1" * 4000] * 1_000) + b"]"),
        "texts": (JSON, None, b"[" + b",".join([b'"abc"'] * 990_000) + b"]"),
        "texts with brackets": (JSON, None, b"[" + b",".join([b'"],["'] * 40_000) + b"]"),
        "one text": (JSON, None, b'"' + b"a" * (16 * MIB) + b'"'),
        "commas in a text": (JSON, None, b'"' + b",[" * (8 * MIB) + b'"'),
        "escapes": (JSON, None, b'"' + b"\\u00e9" * (4 * MIB // 6) + b'"'),
        "decimal": (
            JSON,
            None,
            b'[{"__type__":"decimal","__value__":"' + b"1" * 65_536 + b'"}' + b" " * HERE_MAX + b"]",
        ),
        "bytes": (JSON, None, b'{"__type__":"base64","__value__":"' + b"A" * (16 * MIB) + b'"}'),
        "space": (JSON, None, b" " * (16 * MIB) + b"1"),
        "few, with NaN": (JSON, None, b"[NaN," + b",".join(b'{"%d":1}' % n for n in range(14_000)) + b"]"),
        "wrapped": (JSON, None, b"[" + b",".join([b'{"__type__":"decimal","__value__":"1.5"}'] * 15_000) + b"]"),
        "msgpack table": (MSGPACK, None, msgspec.msgpack.encode(table(True))),
        "msgpack lists": (MSGPACK, None, b"\xdd" + (60_000).to_bytes(4, "big") + b"\x90" * 60_000),
        "msgpack numbers": (MSGPACK, None, b"\xdd" + (300_000).to_bytes(4, "big") + b"\x01" * 300_000),
        "msgpack text": (MSGPACK, None, msgspec.msgpack.encode("é" * (8 * MIB))),
        "yaml": (YAML, None, b"- a\n" * 5_000),
        "yaml text": (YAML, None, b"1" * (3 * MIB // 2) + b"a"),
        "pickle": (PICKLE, None, pickle.dumps([[] for _ in range(100_000)])),
        "gb18030": ("application/data", "gb18030", "中".encode("gb18030") * (8 * MIB)),
        "iso2022_kr": ("application/data", "iso2022_kr", b"ab" * (8 * MIB)),
        "latin-1": ("application/data", "latin-1", b"\xe9" * (16 * MIB)),
    }


BOMB_MAX = 300  # yardsticks; the longest takes some 40, and with work that grows as the square of its length 1,000


def yardstick() -> float:
    """Seconds of processor time for a body of 5,000 lists, here and now: on this machine, traced by coverage or not."""
    began = time.process_time()
    read_json(lists(5_000).decode())
    return time.process_time() - began


class TurnsTests(TurnsCase):
    """The reactor, while bodies are decoded."""

    async def test_here(self) -> None:
        """In the reactor each body is read, refused or put off in 0.1 s."""
        here = {
            "lists": (JSON, None, lists(87_000)),
            "keys": (JSON, None, b"{" + b",".join(b'"%d":1' % n for n in range(28_000)) + b"}"),
            "wrapped": (JSON, None, b"[" + b",".join([b'{"__type__":"decimal","__value__":"1"}'] * 6_700) + b"]"),
            "NaN and lists": (JSON, None, b"[NaN," + lists(86_000) + b"]"),
            "numbers": (JSON, None, b"[" + b",".join([b"1" * 4000] * 65) + b"]"),
            "msgpack": (MSGPACK, None, b"\xdd" + (65_000).to_bytes(4, "big") + b"\x90" * 65_000),
            "yaml": (YAML, None, b"- {a: &a [1]}\n" * 36),
            "bzip2": (JSON, BZIP2, bz2.compress(lists(200_000))),
        }
        for bodies in (here, bombs(), {name: (kind, None, body) for name, (kind, _, body) in longest().items()}):
            for name, (content_type, compression, body) in bodies.items():
                headers = {"compression": compression} if compression else {}
                seconds = await least(partial(self.decoding_here, content_type, body, headers))
                self.assertLessEqual(seconds, TURN_MAX, name)

    async def decoding_here(self, content_type: str, body: bytes, headers: dict[str, Any]) -> float:
        """Seconds of processor time that it takes to read a body, to refuse it or to put it off."""
        began = time.process_time()
        try:
            ALL.decode(content_type, None, body, headers, True)
        except (DecodeError, LongBody):
            pass
        return time.process_time() - began

    async def decoding(self, readable: bool, *arguments: Any) -> float:
        """The longest turn while a body is decoded in a thread and dropped, or refused if it is not readable."""
        outcomes: list[bool] = []

        def decoded(_: Any) -> None:
            outcomes.append(True)

        def failed(failure: Any) -> None:
            failure.trap(DecodeError)
            self.assertLess(len(str(failure.value)), 500)
            outcomes.append(False)

        happening: Deferred[Any] = in_background(ALL.decode, *arguments).addCallbacks(decoded, failed)
        seconds = await self.longest_turn(happening)
        self.assertEqual(outcomes, [readable])
        return seconds

    async def test_longest_texts(self) -> None:
        """Nor do texts and bytes as long as a body may be."""
        size = frames.BODY_MAX - MIB
        for name, content_type, encoding, body in (
            ("text", JSON, None, b'"' + b"a" * size + b'"'),
            ("latin-1", "application/data", "latin-1", b"\xe9" * size),
            ("bytes", JSON, None, b'{"__type__":"bytes","__value__":"' + b"a" * size + b'"}'),
            ("msgpack text", MSGPACK, None, b"\xdb" + size.to_bytes(4, "big") + b"a" * size),
            ("msgpack bytes", MSGPACK, None, b"\xc6" + size.to_bytes(4, "big") + b"a" * size),
        ):
            seconds = await least(partial(self.decoding, True, content_type, encoding, body, {}))
            self.assertLessEqual(seconds, TURN_MAX, name)

    def test_arriving(self) -> None:
        """No frame of the longest body takes long, nor its last."""
        longest = 0.0
        found: list[frames.Content] = []
        assembler = frames.Assembler(found.append)
        payload = codec.encode_method("basic.deliver", delivery_tag=1)
        assembler.frame(FRAME_METHOD, payload)
        assembler.frame(FRAME_HEADER, frames.HEADER.pack(BASIC_CLASS, 0, frames.BODY_MAX) + b"\0\0")
        part, slow = b"x" * (128 * 1024), slowness()
        for _ in range(frames.BODY_MAX // len(part)):
            began = time.process_time()
            assembler.frame(FRAME_BODY, part)
            longest = max(longest, (time.process_time() - began) / slow)
        self.assertEqual(len(found[0].body), frames.BODY_MAX)
        self.assertLessEqual(longest, TURN_MAX)

    async def test_within(self) -> None:
        """The longest bodies within the limits are read, and hold no turn of the reactor for 0.1 s."""
        turns = {
            name: await least(partial(self.decoding, True, content_type, encoding, body, {}))
            for name, (content_type, encoding, body) in longest().items()
        }
        self.assertEqual({name: seconds for name, seconds in turns.items() if seconds > TURN_MAX}, {})

    async def test_beyond(self) -> None:
        """Nor do those that are refused, with a short reason, after no more work than readings of a short body take."""
        turns, works = {}, {}
        for name, (content_type, compression, body) in bombs().items():
            headers = {"compression": compression} if compression else {}
            short, began = yardstick(), time.process_time()
            turns[name] = await self.decoding(False, content_type, "utf-8", body, headers)
            works[name] = (time.process_time() - began) / short
            if turns[name] > TURN_MAX:
                turns[name] = await least(partial(self.decoding, False, content_type, "utf-8", body, headers))
        self.assertEqual({name: seconds for name, seconds in turns.items() if seconds > TURN_MAX}, {})
        self.assertEqual({name: work for name, work in works.items() if work > BOMB_MAX}, {})
