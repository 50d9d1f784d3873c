"""Values to bodies and back, by content type."""

from __future__ import annotations

import bz2
import math
import uuid
import zlib
from datetime import date, datetime, time, timezone
from decimal import Decimal
from typing import Any

from kombu.utils import json as kombu_json
from twisted.trial.unittest import SynchronousTestCase

from txservices import serialization
from txservices.exceptions import ConfigurationError, DecodeError, EncodeError
from txservices.serialization import Serializers

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
        """What is written is what kombu writes, to the byte."""
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
        self.assertEqual(serialization.compress("gzip", b"[1]")[0], "application/x-gzip")

    def test_bombs_and_rubbish_are_decode_errors(self) -> None:
        """A body that grows past the limit, is cut, or is compressed in an unknown way is not read."""
        self.patch(serialization, "DECOMPRESSED_MAX", 1000)
        for header, body in [
            ("application/x-gzip", zlib.compress(b" " * 2000)),
            ("application/x-gzip", zlib.compress(b"[1]")[:-3]),
            ("application/x-gzip", b"rubbish"),
            ("application/x-zstd", b""),
            (["application/x-gzip"], b""),
        ]:
            self.assertRaises(DecodeError, Serializers({}).decode, JSON, "utf-8", body, {"compression": header})
