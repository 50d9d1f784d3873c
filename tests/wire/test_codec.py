"""Methods and properties, both ways, and bytes that nobody should send."""

from __future__ import annotations

import random
from datetime import datetime, timezone
from itertools import combinations
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txservices.exceptions import FrameError
from txservices.wire import codec, tables
from txservices.wire.spec import METHODS, ReplyCode


class MethodTests(SynchronousTestCase):
    """Arguments of methods."""

    def test_strings_are_encoded_before_they_are_counted(self) -> None:
        """A name beyond ASCII has the length of its bytes."""
        payload = codec.encode_method("queue.declare", queue="bugq-ø", durable=True, auto_delete=True)
        self.assertEqual(payload, b"\x00\x32\x00\x0a\x00\x00\x07bugq-\xc3\xb8\x0a\x00\x00\x00\x00")

    def test_every_method_goes_both_ways(self) -> None:
        """Each method of the table, with arguments of its types, is read as it was written."""
        samples = {
            "bit": True, "octet": 7, "short": 700, "long": 70_000, "longlong": 2**40, "shortstr": "ø", "octets": "ø",
            "text": "ø", "longstr": b"\xff", "table": {"a": [1, None]},
            "timestamp": datetime(2026, 1, 1, tzinfo=timezone.utc),
        }  # fmt: skip
        for method in METHODS.values():
            arguments = {name: samples[kind] for name, kind in method.fields}
            self.assertEqual(codec.decode_method(codec.encode_method(method, **arguments)), (method, arguments))

    def test_bits_share_an_octet_until_another_type_comes(self) -> None:
        """Five bits in a row are one octet, the first of them lowest."""
        payload = codec.encode_method("exchange.declare", exchange="x", type="topic", durable=True, nowait=True)
        self.assertEqual(payload, b"\x00\x28\x00\x0a\x00\x00\x01x\x05topic\x12\x00\x00\x00\x00")

    def test_unknown_method_is_command_invalid(self) -> None:
        """A number that no method has is 503."""
        error = self.assertRaises(FrameError, codec.decode_method, b"\x00\x3c\x03\xe7")
        self.assertEqual(error.code, ReplyCode.COMMAND_INVALID)

    def test_no_whole_number_is_a_syntax_error(self) -> None:
        """A frame that is too short for a method's number is 502."""
        for size in range(4):
            error = self.assertRaises(FrameError, codec.decode_method, b"\x00\x3c\x00"[:size])
            self.assertEqual(error.code, ReplyCode.SYNTAX_ERROR)

    def test_arguments_left_out_are_empty(self) -> None:
        """Each is zero, empty or false, depending on its type."""
        empty: dict[str, Any] = {"table": {}, "longstr": b"", "timestamp": datetime.fromtimestamp(0, timezone.utc)}
        empty |= dict.fromkeys(("octet", "short", "long", "longlong"), 0) | {"bit": False}
        for method in METHODS.values():
            expected = {name: empty.get(kind, "") for name, kind in method.fields}
            self.assertEqual(codec.decode_method(codec.encode_method(method)), (method, expected))

    def test_wrong_arguments_are_named(self) -> None:
        """A value that doesn't fit its field, and a field that isn't there, are said by name."""
        error = self.assertRaises(ValueError, codec.encode_method, "basic.qos", prefetch_count=70_000)
        self.assertIn("prefetch_count", str(error))
        error = self.assertRaises(ValueError, codec.encode_method, "queue.declare", queue="q" * 256)
        self.assertIn("255", str(error))
        self.assertRaises(TypeError, codec.encode_method, "basic.qos", prefetch=1)

    def test_random_bytes_never_surprise(self) -> None:
        """Any bytes behind any method's number are read, or are a FrameError: 501 for bad UTF-8, else 502."""
        chance = random.Random(7)
        for method in METHODS.values():
            head = codec.encode_method(method)[:4]
            for _ in range(200):
                try:
                    codec.decode_method(head + chance.randbytes(chance.randrange(40)))
                except FrameError as error:
                    bad_text = isinstance(error.__cause__, UnicodeDecodeError)
                    self.assertEqual(error.code, ReplyCode.FRAME_ERROR if bad_text else ReplyCode.SYNTAX_ERROR)


class PropertyTests(SynchronousTestCase):
    """Properties of messages."""

    ALL = {
        "content_type": "application/json", "content_encoding": "utf-8", "headers": {"nameko.stack": ["a", "b"]},
        "delivery_mode": 2, "priority": 0, "correlation_id": "c", "reply_to": "r", "expiration": "60000",
        "message_id": "m", "timestamp": datetime(2026, 1, 1, tzinfo=timezone.utc), "type": "t", "user_id": "guest",
        "app_id": "a", "cluster_id": "",
    }  # fmt: skip

    def test_all_fourteen_go_both_ways(self) -> None:
        """Every property is read as it was written."""
        self.assertEqual(codec.decode_properties(codec.encode_properties(self.ALL)), self.ALL)

    def test_each_alone_goes_both_ways(self) -> None:
        """A property sent alone comes back alone: the flags are right."""
        for name, value in self.ALL.items():
            self.assertEqual(codec.decode_properties(codec.encode_properties({name: value})), {name: value})

    def test_bytes_on_the_wire(self) -> None:
        """A usual message's properties, as nameko sends them, are these bytes."""
        self.assertEqual(
            codec.encode_properties({"content_type": "application/json", "delivery_mode": 2, "priority": None}),
            b"\x90\x00\x10application/json\x02",
        )

    def test_unknown_properties_are_refused(self) -> None:
        """A name that AMQP has no property for is not passed over."""
        self.assertIn("'colour'", str(self.assertRaises(ValueError, codec.encode_properties, {"colour": "red"})))

    def test_flags_that_basic_has_not_are_syntax_errors(self) -> None:
        """A continuation flag, an unknown flag, cut values and values too many are 502."""
        for data in [b"\x00\x01\x00\x00", b"\x00\x02", b"\x80\x00\x05ab", b"\x00\x00x", b"\x00"]:
            self.assertEqual(self.assertRaises(FrameError, codec.decode_properties, data).code, ReplyCode.SYNTAX_ERROR)


class CacheTests(SynchronousTestCase):
    """Caches have a bound, and do not change what is read or written."""

    def test_layouts(self) -> None:
        """Ever new sets of properties, written and read, take no more places than there are."""
        self.patch(codec, "LAYOUTS_MAX", 8)
        for cache in (codec.LAYOUTS, codec.PRESENT):
            cache.clear()
            self.addCleanup(cache.clear)
        for names in combinations(PropertyTests.ALL, 3):
            properties = {name: PropertyTests.ALL[name] for name in names}
            self.assertEqual(codec.decode_properties(codec.encode_properties(properties)), properties)
            self.assertLessEqual(max(len(codec.LAYOUTS), len(codec.PRESENT)), 8)

    def test_names(self) -> None:
        """Ever new names of headers take no more places than there are."""
        self.patch(tables, "NAMES_MAX", 8)
        tables.NAMES.clear()
        self.addCleanup(tables.NAMES.clear)
        for number in range(100):
            table = {f"{number}": number, "same": 1}
            self.assertEqual(tables.decode_table(tables.encode_table(table))[0], table)
            self.assertLessEqual(len(tables.NAMES), 8)

    def test_deliveries(self) -> None:
        """Ever new routing keys of deliveries take no more places than there are."""
        self.patch(codec, "DELIVERS_MAX", 8)
        codec.DELIVERS.clear()
        self.addCleanup(codec.DELIVERS.clear)
        for number in range(100):
            payload = codec.encode_method(
                "basic.deliver", consumer_tag="t", delivery_tag=number, routing_key=f"{number}"
            )
            _, arguments = codec.decode_method(payload)
            self.assertEqual((arguments["routing_key"], arguments["delivery_tag"]), (f"{number}", number))
            self.assertLessEqual(len(codec.DELIVERS), 8)

    def test_deliveries_alike(self) -> None:
        """Deliveries that differ in their tag and in whether they come again take one place."""
        codec.DELIVERS.clear()
        for number in range(10):
            payload = codec.encode_method(
                "basic.deliver", consumer_tag="t", delivery_tag=number, redelivered=number % 2
            )
            _, arguments = codec.decode_method(payload)
            self.assertEqual((arguments["delivery_tag"], arguments["redelivered"]), (number, number % 2 == 1))
        self.assertEqual(len(codec.DELIVERS), 1)
