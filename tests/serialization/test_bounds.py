"""The bounds of a decoded body: everything that grows has a limit, and readers go in small steps."""

from __future__ import annotations

import base64
import bz2
import json
import math
import re
import tracemalloc
import zlib
from functools import cache
from typing import Any

import msgspec
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txservices.exceptions import DecodeError
from txservices.serialization import Serializers, bounds, jsonreader, jsonvalues
from txservices.serialization.bounds import HERE_MAX, LongBody, decode_charset
from txservices.serialization.jsonreader import JsonReader
from txservices.serialization.jsonvalues import decode_json, unwrap
from txservices.serialization.msgpackreader import read_msgpack
from txservices.serialization.yamlreader import read_yaml

JSON, MSGPACK = "application/json", "application/x-msgpack"
YAML, PICKLE = "application/x-yaml", "application/x-python-serialize"
ALL = Serializers({"ACCEPT": ["json", "msgpack", "yaml", "pickle"]})
GZIP, BZIP2 = "application/x-gzip", "application/x-bz2"
MIB = 1024 * 1024
MOST = 1_000_000

VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**60), 2**60),
        st.floats(allow_nan=False),
        st.text(max_size=40),
        st.text('a"\\,:[]{}é\U0001f600\ud83d', max_size=8),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=20), st.dictionaries(st.text('a"\\,:[{é', max_size=6), inner, max_size=20)
    ),
    max_leaves=60,
)
# Of JSON, right and wrong.
TOKENS = st.lists(
    st.sampled_from([*'[]{},: \n"', '"a"', "1", "-", ".5", "null", "NaN", '"\\', '"a,b"', '"]"', '{"b":'])
)


def count_of(value: Any) -> int:
    """How many values, counted the plain way."""
    if isinstance(value, dict):
        return bounds.CONTAINER + sum(2 + count_of(each) for each in value.values())
    if isinstance(value, list):
        return bounds.CONTAINER + sum(1 + count_of(each) for each in value)
    return 0


ADDRESS = re.compile("at 0x[0-9a-f]+")  # of an object of msgpack's that has no text of its own


def outcome(read: Any, *arguments: Any) -> Any:
    """What a function gives, in a form that tells 1 from True and from 1.0; or ValueError."""
    try:
        return ADDRESS.sub("at 0x", repr(read(*arguments)))
    except (ValueError, TypeError, RecursionError, IndexError, msgspec.DecodeError):
        return ValueError


def read_json(text: str, most: int = MOST) -> Any:
    return JsonReader(text, most, unwrap).read_all()


class StepsTests(SynchronousTestCase):
    """Long bodies, read in steps, are what they are read at once."""

    def smaller(self, **numbers: int) -> None:
        for name, number in numbers.items():
            for module in (bounds, jsonreader, jsonvalues):
                if hasattr(module, name):
                    self.patch(module, name, number)

    def test_json_table(self) -> None:
        """JSON, right and wrong, whatever a step has in it."""
        texts = ["[]", "[1]", "[1,]", "[,1]", "[,]", "[1 2]", "{,}", '{"a":1,}', '{,"a":1}', '{"a"}', '{"a":}', "{1:2}"]
        texts += ["", " ", "1", " 1 ", "1 2", "]", "[1]]", "[", "{", '["a', '{"a":1', "[[]", "[{}]", '[{"a":[1,{}]}]']
        texts += ["nul", "[nul]", "NaN", "[NaN,-Infinity]", "[01]", "[1.]", "[1e999]", '["\\ud83d\\ude00","\\ud83d"]']
        texts += [
            '{"a":1,"a":2,"b":3}',
            '["a,b","]","}","[1]"]',
            '{"a,b":"}","c":"{"}',
            "\ufeff1",
            "[1]\x00",
            "[\x0b1]",
        ]
        texts += ['{"__type__":"decimal","__value__":"1.5"}', '[{"__type__":"bytes","__value__":"x"},1,{"__type__":1}]']
        texts += ['{"__type__":"nope","__value__":1}', '{"x":[],"__type__":"time","__value__":"01:02"}', "[" * 3000]
        texts += ['{"__value__":"2026-01-02","__type__":"date"}', '{"a":1,"__type__":"time","__value__":"01:02"}']
        for step in (1, 2, 3, 5, 8, 13, 4096):
            self.smaller(STEP=step, ALONE=step % 3)
            for text in texts:
                expected = outcome(json.loads, text) if "__type__" not in text else None
                if expected is None:
                    try:
                        expected = repr(json.loads(text, object_hook=unwrap))
                    except KeyError:
                        self.assertRaises(KeyError, read_json, text)
                        continue
                self.assertEqual(outcome(read_json, text), expected, (step, text))

    def test_json_steps(self) -> None:
        """No call of the decoder in C is for more than a step, however long a list, a mapping or a text is."""
        self.smaller(STEP=40, TEXT_STEP=50)
        steps: list[int] = []
        scan = jsonreader.scan

        def scanning(text: str, at: int) -> Any:
            value, end = scan(text, at)
            steps.append(end - at)
            return value, end

        self.patch(jsonreader, "scan", scanning)
        inner: list[Any] = [1, [], {}, [1], "],["]
        values: list[Any] = ["a" * 5000, "é" * 5000, [["x" * 20] * 20] * 20]
        values += [[value] * 500 for value in inner]
        values += [{str(number): value for number in range(500)} for value in inner]
        for value in values:
            for text in (json.dumps(value), json.dumps(value, indent=1)):
                self.assertEqual(read_json(text), value)
        # a step, with the marks around its part, and with an escape that ends behind it
        self.assertLessEqual(max(steps), 60)

    @settings(max_examples=100, deadline=None)
    @given(VALUES, st.sampled_from([1, 3, 8, 40, 4096]), st.sampled_from([None, 1]))
    def test_json(self, value: Any, step: int, indent: int | None) -> None:
        """JSON, with steps of all lengths; and its values are counted exactly."""
        self.smaller(STEP=step, TEXT_STEP=step + 11, ALONE=1)  # the longest escape is 12 characters
        for ascii in (True, False):
            text = json.dumps(value, ensure_ascii=ascii, indent=indent)
            self.assertEqual(read_json(text), json.loads(text))
            most = count_of(value)
            read_json(text, most)
            if most:
                self.assertRaises(ValueError, read_json, text, most - 1)
            encoded = text.encode("utf-8", "surrogatepass")
            self.assertGreaterEqual(jsonreader.values_at_most(encoded), most)

    @settings(max_examples=200, deadline=None)
    @given(TOKENS, st.sampled_from([1, 3, 8, 4096]))
    def test_no_json(self, tokens: list[str], step: int) -> None:
        """What is no JSON is none in steps, and what is some is the same."""
        self.smaller(STEP=step, TEXT_STEP=step + 11, ALONE=1)  # the longest escape is 12 characters
        text = "".join(tokens)
        self.assertEqual(outcome(read_json, text), outcome(json.loads, text))

    @settings(max_examples=200, deadline=None)
    @given(
        st.lists(
            st.sampled_from(
                ["\\ud83d", "\\ude00", "\\\\", "\\n", '\\"', '"', "\\u00e9", "\\u", "\\", "u", "a", "\n", "é"]
            )
        ),
        st.sampled_from([12, 13, 14, 17, 24]),
    )
    def test_json_text(self, parts: list[str], step: int) -> None:
        """A long text of JSON, right and wrong, wherever the steps are cut."""
        self.smaller(TEXT_STEP=step)
        text = f'"{"".join(parts)}"'
        self.assertEqual(outcome(read_json, text), outcome(json.loads, text))

    @settings(max_examples=100, deadline=None)
    @given(st.binary(max_size=60), st.integers(0, 80), st.sampled_from(["", "=", "a", "\n", "é"]))
    def test_base64(self, value: bytes, at: int, other: str) -> None:
        """Wrapped bytes, right and wrong."""
        self.smaller(TEXT_STEP=4)
        text = base64.b64encode(value).decode()
        text = text[:at] + other + text[at:]

        def whole(text: str) -> bytes:
            return base64.b64decode(text, validate=True)

        self.assertEqual(outcome(jsonvalues.unwrap_base64, text), outcome(whole, text))

    def test_long_wrapped(self) -> None:
        """Wrapped bytes may be long; a time, decimal or UUID that is long is none."""
        most = jsonvalues.WRAPPED_MAX
        self.assertEqual(len(unwrap({"__type__": "bytes", "__value__": "x" * MIB})), MIB)
        self.assertEqual(len(str(unwrap({"__type__": "decimal", "__value__": "1" * most}))), most)
        for kind in ("decimal", "date", "time", "datetime", "uuid"):
            self.assertRaises(ValueError, unwrap, {"__type__": kind, "__value__": "1" * (most + 1)})

    @settings(max_examples=100, deadline=None)
    @given(VALUES, st.integers(0, 10_000), st.binary(min_size=1, max_size=2))
    def test_msgpack(self, value: Any, at: int, other: bytes) -> None:
        """msgpack, also with some bytes changed; and its values are counted exactly."""
        try:
            body = msgspec.msgpack.encode(value)
        except UnicodeEncodeError:
            return
        self.assertEqual(read_msgpack(body, MOST), msgspec.msgpack.decode(body))
        most = count_of(value)
        read_msgpack(body, most)
        if most:
            self.assertRaises(ValueError, read_msgpack, body, most - 1)
        at %= len(body)
        body = body[:at] + other + body[at + 1 :]
        self.assertEqual(outcome(read_msgpack, body, MOST), outcome(msgspec.msgpack.decode, body))

    def test_msgpack_heads(self) -> None:
        """Every kind of msgpack value, whatever the length of its head."""
        values = [b"x" * 300, b"x" * 70_000, "x" * 20, "x" * 300, "x" * 70_000, 1.5, 2**40, -(2**40), -300, -70_000]
        values += [200, 300, 70_000, 2**63, None, True, False, -1, [0] * 20, [0] * 70_000, {"a": 1}, {1: 2}]
        values += [{str(n): n for n in range(count)} for count in (20, 70_000)]
        values += [{(1, (2, 3)): 4}, msgspec.msgpack.Ext(5, b"x" * 16), msgspec.msgpack.Ext(5, b"x" * 300)]
        values += [msgspec.msgpack.Ext(5, b"x" * size) for size in (1, 2, 3, 4, 8, 70_000)]
        for value in values:
            body = msgspec.msgpack.encode([value, 1])
            self.assertEqual(read_msgpack(body, MOST), msgspec.msgpack.decode(body))
        self.assertRaises(ValueError, read_msgpack, b"\x01\x01", MOST)

    @settings(max_examples=50, deadline=None)
    @given(VALUES)
    def test_yaml(self, value: Any) -> None:
        """YAML is what PyYAML reads."""
        body = yaml.safe_dump(value).encode("utf-8", "surrogatepass")
        self.assertEqual(outcome(read_yaml, body, MOST), outcome(yaml.safe_load, body))

    def test_yaml_aliases(self) -> None:
        """Aliases and merges within the limits work, and numbers and long texts are what they were."""
        for text in (
            "a: &a {x: 1, y: [2]}\nb: {<<: *a, z: *a}",
            "- 1:30:59\n- 0x1f\n- 1.5\n- 2026-01-02\n- yes\n- ~",
            "- " + "9" * 5000 + "a",
            "- '" + "9" * 5000 + "'",
        ):
            self.assertEqual(read_yaml(text.encode(), MOST), yaml.safe_load(text))

    @settings(max_examples=100, deadline=None)
    @given(st.text(max_size=300), st.sampled_from(["utf-8", "utf-16", "utf-7", "gb18030", "latin-1", "koi8-r", "hz"]))
    def test_text(self, text: str, encoding: str) -> None:
        """A long text is what it is at once, wherever the steps are cut."""
        body = text.encode(encoding, "replace")
        self.smaller(TEXT_STEP=7)
        self.assertEqual(decode_charset(body, encoding, "strict"), body.decode(encoding))

    @settings(max_examples=100, deadline=None)
    @given(st.text(st.characters(), max_size=60))
    def test_lone_surrogates(self, text: str) -> None:
        """A long JSON with lone surrogates in it, which kombu writes, is read wherever the steps are cut."""
        body = text.encode("utf-8", "surrogatepass")
        self.smaller(TEXT_STEP=1)
        self.assertEqual(decode_charset(body, "utf-8", "surrogatepass"), text)


def lists(number: int) -> bytes:
    return b"[" + b",".join([b"[]"] * number) + b"]"


def gzip_of(start: bytes, some: bytes, times: int) -> bytes:
    """A compressed body, a million of some bytes after the other. Its checksum, which no bomb comes to, is wrong."""
    shrink = zlib.compressobj()
    first = shrink.compress(start) + shrink.flush(zlib.Z_FULL_FLUSH)
    return first + (shrink.compress(some * MIB) + shrink.flush(zlib.Z_FULL_FLUSH)) * times + shrink.flush()


# bz2.compress(b" " * (100 * MIB)), which takes a second
BZIP2_OF_SPACES = bytes.fromhex(
    "425a6839314159265359b52265bf015f8e1000c0000008200030804d4642a025a90a8097314159265359b52265bf015f8e1000c00000"
    "08200030804d4642a025a90a8097314159265359068276060064061400c00010000008200030cc0529a628045b128045e2ee48a70a12"
    "1709e570e0"
)


LAUGHS = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%b]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 9)) for c in range(ord("b"), ord("j"))
)


@cache
def bombs() -> dict[str, tuple[str, str | None, bytes]]:
    """Bodies over the limits: content type, compression, body."""
    return {
        "lists": (JSON, None, lists(250_000)),
        "mappings": (JSON, None, b"[" + b",".join([b"{}"] * 250_000) + b"]"),
        "keys": (JSON, None, b"{" + b",".join(b'"%d":1' % n for n in range(550_000)) + b"}"),
        "numbers": (JSON, None, b"[" + b",".join([b"1"] * 1_100_000) + b"]"),
        "deep": (JSON, None, b"[" * 400_000),
        "deep mappings": (JSON, None, b'{"":' * 100_000),
        "short and deep": (JSON, None, b"[" * 50_000),
        "short, deep, wrapped": (JSON, None, b'["__type__",' * 5_000),
        "digits": (JSON, None, b"1" * (16 * MIB)),
        "date": (JSON, None, b'{"__type__":"date","__value__":"' + b"1" * (16 * MIB) + b'"}'),
        "no end": (JSON, None, lists(90_000)[:-1]),
        "msgpack lists": (MSGPACK, None, b"\xdd" + (600_000).to_bytes(4, "big") + b"\x90" * 600_000),
        "msgpack claims": (MSGPACK, None, b"\xdd\xff\xff\xff\xff" + b"\x01" * 300_000),
        "msgpack claims, short": (MSGPACK, None, b"\xdf\xff\xff\xff\xff"),
        "msgpack deep": (MSGPACK, None, b"\x91" * 600_000),
        "msgpack short and deep": (MSGPACK, None, b"\x91" * 30_000),
        "yaml laughs": (YAML, None, LAUGHS),
        "yaml merges": (YAML, None, b"a: &a {x: 1}\n" + b"b: {<<: [" + b",".join([b"*a"] * 200_000) + b"]}\n"),
        "yaml contains itself": (YAML, None, b"&a [*a]"),
        "yaml deep": (YAML, None, b"[" * 2_000),
        "yaml number": (YAML, None, b"!!int 1" + b":1" * 20_000),
        "yaml digits": (YAML, None, b"!!int " + b"1" * 20_000),
        "gzip": (JSON, GZIP, gzip_of(b"", b" ", 100)),
        "gzip of lists": (JSON, GZIP, gzip_of(b'{"args":[[', b"[],", 33)),
        "gzip of numbers": (JSON, GZIP, zlib.compress(b"[" + b"1," * 2_000_000 + b"1]")),
        "bzip2": (JSON, BZIP2, BZIP2_OF_SPACES),
        "gzip of text": ("application/data", GZIP, zlib.compress(b" " * (17 * MIB))),
        "zstd": (JSON, "application/zstd", b"\x28\xb5\x2f\xfd" + b"x" * 100),
        "lzma": (JSON, "application/x-lzma", b"\xfd7zXZ" + b"x" * 100),
    }


class LimitsTests(SynchronousTestCase):
    """Bodies that would become too much."""

    def test_memory(self) -> None:
        """What is compressed takes the memory that its limit says, and no more."""
        for name, (content_type, compression, body) in bombs().items():
            if compression:
                tracemalloc.start()
                self.assertRaises(DecodeError, ALL.decode, content_type, None, body, {"compression": compression})
                peak = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
                self.assertLess(peak, 64 * MIB, name)

    def test_decompressed_max(self) -> None:
        """``DECOMPRESSED_MAX`` is exact, and 0 refuses whatever is compressed."""
        for compression, compress in ((GZIP, zlib.compress), (BZIP2, bz2.compress)):
            body, headers = compress(b'"' + b"x" * 998 + b'"'), {"compression": compression}
            for here in (True, False):
                decode = Serializers({"DECOMPRESSED_MAX": 1000}).decode
                self.assertEqual(decode(JSON, None, body, headers, here), "x" * 998)
                for most in (999, 0):
                    decode = Serializers({"DECOMPRESSED_MAX": most}).decode
                    error = self.assertRaises(DecodeError, decode, JSON, None, body, headers, here)
                    self.assertIn("DECOMPRESSED_MAX", str(error))

    def test_values_max(self) -> None:
        """``VALUES_MAX`` may be raised, for larger tables."""
        body = b"[" + b"1," * MOST + b"1]"
        error = self.assertRaises(DecodeError, ALL.decode, JSON, None, body, {})
        self.assertIn("VALUES_MAX", str(error))
        value = Serializers({"VALUES_MAX": MOST + 1 + bounds.CONTAINER}).decode(JSON, None, body, {})
        self.assertEqual(len(value), MOST + 1)

    def test_long_bodies(self) -> None:
        """A body of ``HERE_MAX`` bytes is read in the reactor; a longer one is put off, compressed or not."""
        for size, long in ((HERE_MAX, False), (HERE_MAX + 1, True)):
            for content_type, body in ((JSON, b'"' + b"x" * (size - 2) + b'"'), ("application/data", b"x" * size)):
                for headers, sent in (({}, body), ({"compression": GZIP}, zlib.compress(body))):
                    value = ALL.decode(content_type, None, sent, headers)
                    self.assertEqual(len(value), size - 2 * (content_type == JSON))
                    if long:
                        self.assertRaises(LongBody, ALL.decode, content_type, None, sent, headers, True)
                    else:
                        ALL.decode(content_type, None, sent, headers, True)
        self.assertEqual(ALL.decode("application/data", "binary", b"x" * MIB, {}, True), b"x" * MIB)

    def test_quick(self) -> None:
        """A long JSON with few values is read as a short one is, NaN and wrapped values too."""
        text = '[NaN,{"__type__":"uuid","__value__":{"hex":"' + "0" * 31 + '7"}},"' + "x" * HERE_MAX + '"]'
        (number, name, _) = ALL.decode(JSON, None, text.encode(), {})
        self.assertTrue(math.isnan(number))
        self.assertEqual(name.int, 7)
        self.assertEqual(decode_json(text.encode())[1], name)
