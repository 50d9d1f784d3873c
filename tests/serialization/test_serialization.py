"""Values to bodies and back, by content type."""

from __future__ import annotations

import bz2
import math
import uuid
import zlib
from datetime import date, datetime, time, timezone
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from kombu import serialization as kombu_serialization
from kombu.utils import json as kombu_json
from twisted.trial.unittest import SynchronousTestCase

from txservices.amqp.options import Sending
from txservices.exceptions import ConfigurationError, DecodeError, EncodeError
from txservices.serialization import Serializers, compression

JSON = "application/json"
SPECIAL = [
    datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=timezone.utc),
    datetime(2026, 1, 2),
    date(2026, 1, 2),
    time(3, 4),
    Decimal("1.50"),
    uuid.UUID(int=7),
    b"text",
    b"\xff\x00",
]
PLAIN: list[Any] = [None, True, 0, -1, 2**70, 1.5, "hellø", "\ud800", [], {}, [1, [2, {"a": None}]], {"__type__": 1}]


def upper(value: Any) -> str:
    return str(value).upper()


def lower(body: bytes) -> str:
    return body.decode().lower()


class Point:
    def __json__(self) -> Any:
        return [1, 2]


class JsonTests(SynchronousTestCase):
    """kombu's dialect of JSON, compared with kombu's own code."""

    def setUp(self) -> None:
        self.serializers = Serializers({})

    def round_trip(self, value: Any) -> Any:
        content_type, encoding, body = self.serializers.encode(None, value)
        return self.serializers.decode(content_type, encoding, body, {})

    def test_values_go_both_ways(self) -> None:
        """Plain and special values are read as they were written."""
        for value in PLAIN + SPECIAL:
            self.assertEqual(self.round_trip({"v": [value]}), {"v": [value]})
        self.assertTrue(math.isnan(self.round_trip(math.nan)))
        self.assertEqual(self.round_trip((1, {2: 3})), [1, {"2": 3}])

    def test_bytes_are_those_of_kombu(self) -> None:
        """The written bytes are those that kombu writes."""
        for value in PLAIN + SPECIAL:
            body = self.serializers.encode("json", {"v": [value]})[2]
            self.assertEqual(body.decode(), kombu_json.dumps({"v": [value]}))

    def test_kombu_reads_ours(self) -> None:
        """kombu reads every special value from our bytes."""
        for value in SPECIAL:
            self.assertEqual(kombu_json.loads(self.serializers.encode("json", value)[2].decode()), value)

    def test_objects_that_know_their_json(self) -> None:
        """An object with ``__json__`` is written as what that gives."""
        self.assertEqual(self.round_trip(Point()), [1, 2])

    def test_what_json_cannot_carry(self) -> None:
        """Sets, generators and exceptions are refused with their type's name."""
        for value in [{1}, (x for x in ""), ValueError("x"), object()]:
            error = self.assertRaises(EncodeError, self.serializers.encode, None, value)
            self.assertIn(type(value).__name__, str(error))
        circle: list[Any] = []
        circle.append(circle)
        self.assertRaises(EncodeError, self.serializers.encode, None, circle)

    def test_bad_bodies(self) -> None:
        """Empty, cut and wrong text, and an envelope of an unknown type or a bad value, are decode errors."""
        bodies = [
            b"",
            b"{",
            b"nope",
            b"\xff",
            b'{"__type__": "car", "__value__": 1}',
            b'{"__type__": "uuid", "__value__": 1}',
        ]
        for body in bodies:
            self.assertRaises(DecodeError, self.serializers.decode, JSON, "utf-8", body, {})


class SerializersTests(SynchronousTestCase):
    """Which serializer writes, and what is read."""

    def test_only_what_is_accepted_is_decoded(self) -> None:
        """A pickle, or any other type, is not read unless ACCEPT names it."""
        pickled = Serializers({"serializer": "pickle"}).encode(None, {"a": 1})
        error = self.assertRaises(DecodeError, Serializers({}).decode, pickled[0], pickled[1], pickled[2], {})
        self.assertIn("application/x-python-serialize", str(error))
        both = Serializers({"ACCEPT": ["json", "pickle"]})
        self.assertEqual(both.decode(pickled[0], pickled[1], pickled[2], {}), {"a": 1})

    def test_every_built_in_goes_both_ways(self) -> None:
        """json, pickle, yaml and msgpack read what they write, under kombu's content types."""
        for name, content_type in [
            ("json", JSON),
            ("pickle", "application/x-python-serialize"),
            ("yaml", "application/x-yaml"),
            ("msgpack", "application/x-msgpack"),
        ]:
            serializers = Serializers({"serializer": name})
            written, encoding, body = serializers.encode(None, {"a": [1, "ø"]})
            self.assertEqual(written, content_type)
            self.assertEqual(serializers.names[written], name)
            self.assertEqual(serializers.decode(written, encoding, body, {}), {"a": [1, "ø"]})

    def test_custom_from_the_configuration(self) -> None:
        """SERIALIZERS brings functions by their dotted paths."""
        entry = {
            "encoder": f"{__name__}.upper",
            "decoder": f"{__name__}.lower",
            "content_type": "application/x-shout",
        }
        serializers = Serializers({"SERIALIZERS": {"shout": entry}, "serializer": "shout"})
        self.assertEqual(serializers.encode(None, "hej"), ("application/x-shout", "utf-8", b"HEJ"))
        self.assertEqual(serializers.decode("application/x-shout", "utf-8", b"HEJ", {}), "hej")

    def test_mistakes_in_the_configuration(self) -> None:
        """A serializer that isn't registered, and an entry that lacks something, are said."""
        self.assertRaises(ConfigurationError, Serializers, {"serializer": "jsn"})
        self.assertRaises(ConfigurationError, Serializers, {"ACCEPT": ["json", "xml"]})
        self.assertRaises(ConfigurationError, Serializers, {"SERIALIZERS": {"x": {"encoder": "no.such"}}})

    def test_text_is_always_taken(self) -> None:
        """No content type, application/data and application/text are text for everyone."""
        serializers = Serializers({})
        for content_type in (None, "", "application/data", "application/text"):
            self.assertEqual(serializers.decode(content_type, "utf-8", "hellø".encode(), {}), "hellø")
        self.assertRaises(DecodeError, serializers.decode, "text/plain", "utf-8", b"x", {})


def kombu_reads(content_type: str | None, encoding: str | None, body: bytes) -> Any:
    """The value that kombu makes of a body, or ``DecodeError``."""
    try:
        return kombu_serialization.loads(body, content_type, encoding, accept={JSON})
    except (kombu_serialization.DecodeError, kombu_serialization.ContentDisallowed):
        return DecodeError


def we_read(content_type: str | None, encoding: str | None, body: bytes) -> Any:
    try:
        return Serializers({}).decode(content_type, encoding, body, {})
    except DecodeError:
        return DecodeError


class CharsetTests(SynchronousTestCase):
    """Bodies that are text, compared with kombu's own code."""

    types = (
        *(None, "", "application/data", "application/text", JSON, "text/plain", "application/octet-stream"),
        *("application/x-yaml", "application/x-python-serialize"),
    )
    encodings = (
        *(None, "", "utf-8", "UTF-8", "utf8", "utf_8_sig", "latin-1", "latin 1", "ISO-8859-1", "cp1252", "utf-16"),
        *("utf-32-be", "us-ascii", "koi8-r", "shift_jis", "gb18030", "utf-7", "cp037"),
        *("binary", "BINARY", "ascii-8bit", "8bit", "nonsense", "../os", " utf-8", "x" * 255),
    )
    bodies = (
        *(b"plain", "é".encode(), b"\xe9", b"caf\xe9 ", b"\xff\xfe\x00", b"\x80", b'{"a": 1}', '{"a": "é"}'.encode()),
        *('{"a": "é"}'.encode("latin-1"), "é".encode("utf-16"), "日本".encode("shift_jis"), b"\x00\xff" * 8, b"["),
        b"+AOk-",
    )

    def test_as_kombu(self) -> None:
        """For every content type, content encoding and body the outcome is kombu's."""
        for content_type in self.types:
            for encoding in self.encodings:
                for body in self.bodies:
                    ours, theirs = (reads(content_type, encoding, body) for reads in (we_read, kombu_reads))
                    self.assertEqual((type(ours), ours), (type(theirs), theirs), (content_type, encoding, body))

    def test_empty(self) -> None:
        """An empty text is a text, where kombu gives empty bytes; an empty JSON can't be read."""
        self.assertEqual([we_read(None, each, b"") for each in (None, "latin-1", "binary")], ["", "", b""])
        self.assertIs(we_read(JSON, "utf-8", b""), DecodeError)

    def test_codecs_that_are_no_charsets(self) -> None:
        """Codecs of bytes, which kombu would run, and those whose time grows with the square are refused."""
        for encoding in (
            "base64",
            "hex",
            "rot13",
            "zlib",
            "zip",
            "bz2",
            "quopri",
            "uu",
            "punycode",
            "idna",
            "PunyCode",
        ):
            self.assertIs(we_read(None, encoding, b"a-" + b"9" * 100_000), DecodeError, encoding)

    def test_short_reason(self) -> None:
        """The reason is short, whatever the body is, and names the charset."""
        for encoding, body in (("utf-8", b"\xff" * 10_000), ("no such", b"x"), ("x" * 255, b"x")):
            error = self.assertRaises(DecodeError, Serializers({}).decode, None, encoding, body, {})
            self.assertIn(encoding[:100], str(error))
            self.assertLess(len(str(error)), 400)

    def test_raw_is_text_too(self) -> None:
        """A consumer that accepts ``raw`` gets text or bytes as the content encoding says."""
        decode = Serializers({"ACCEPT": ["raw"]}).decode
        self.assertEqual(decode("application/data", "latin-1", b"\xe9", {}), "é")
        self.assertEqual(decode("application/data", "binary", b"\xe9", {}), b"\xe9")

    def test_our_publisher(self) -> None:
        """A value that our Publisher writes as it is reaches our consumer and kombu's as it was."""
        for content_type in ("application/data", "application/text"):
            for encoding, value, told in (
                *((each, "é", each) for each in ("utf-8", "latin-1", "utf-16", "cp1252", "UTF-8")),
                *((each, "é", "utf-8") for each in (None, "")),
                *((each, b"\xe9\x00", "binary") for each in ("binary", None)),
                (None, bytearray(b"\xff"), "binary"),
                ("latin-1", b"\xe9", "latin-1"),  # encoded by its author
            ):
                options = {"content_type": content_type, "content_encoding": encoding}
                properties, body = Sending().merged(options).write(Serializers({}), value, {})
                self.assertEqual(properties["content_encoding"], told)
                expected = "é" if told == "latin-1" else value
                for reads in (we_read, kombu_reads):
                    self.assertEqual(reads(content_type, told, body), expected, (encoding, value))

    def test_what_our_publisher_refuses(self) -> None:
        """A text that its charset lacks, or a charset that is none, is an ``EncodeError``; nothing is sent."""
        texts = (("latin-1", "€"), ("ascii", "é"), ("utf-8", "\ud800"))
        for encoding, text in (*texts, *((each, "x") for each in ("binary", "no such", "hex", "rot13", "punycode"))):
            sending = Sending().merged({"content_type": "application/data", "content_encoding": encoding})
            self.assertRaises(EncodeError, sending.write, Serializers({}), text, {})

    def test_a_serializers_encoding_is_its_own(self) -> None:
        """``content_encoding`` without a ``content_type`` changes nothing, as with kombu: JSON is UTF-8."""
        properties, body = Sending().merged({"content_encoding": "latin-1"}).write(Serializers({}), "é", {})
        self.assertEqual((properties["content_encoding"], body), ("utf-8", b'"\\u00e9"'))

    @settings(max_examples=300, deadline=None)
    @given(st.sampled_from(types), st.sampled_from(encodings), st.binary(max_size=60) | st.sampled_from(bodies))
    def test_any_body_as_kombu(self, content_type: str | None, encoding: str | None, body: bytes) -> None:
        """Whatever the bytes are, the outcome is kombu's; but an empty text is a text."""
        if body:
            self.assertEqual(we_read(content_type, encoding, body), kombu_reads(content_type, encoding, body))

    @settings(max_examples=300, deadline=None)
    @given(st.text(max_size=40), st.binary(max_size=60))
    def test_any_encoding(self, encoding: str, body: bytes) -> None:
        """Whatever the content encoding is, the body is read or is a ``DecodeError``."""
        self.assertIn(type(we_read(None, encoding, body)), (str, bytes, type))


class CompressionTests(SynchronousTestCase):
    """The ``compression`` header."""

    def test_compressed_bodies_are_read(self) -> None:
        """gzip and bzip2 as kombu names them are undone before decoding."""
        serializers = Serializers({})
        for header, body in [
            ("application/x-gzip", zlib.compress(b"[1]")),
            ("application/x-bz2", bz2.compress(b"[1]")),
        ]:
            self.assertEqual(serializers.decode(JSON, "utf-8", body, {"compression": header}), [1])
        self.assertEqual(compression.compress("gzip", b"[1]")[0], "application/x-gzip")

    def test_bombs_and_rubbish_are_decode_errors(self) -> None:
        """A body that grows past the limit, is cut, or is compressed in an unknown way is not read."""
        decode = Serializers({"DECOMPRESSED_MAX": 1000}).decode
        for header, body in [
            ("application/x-gzip", zlib.compress(b" " * 2000)),
            ("application/x-gzip", zlib.compress(b"[1]")[:-3]),
            ("application/x-gzip", b"rubbish"),
            ("application/x-zstd", b""),
            (["application/x-gzip"], b""),
        ]:
            self.assertRaises(DecodeError, decode, JSON, "utf-8", body, {"compression": header})
