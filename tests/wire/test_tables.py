"""Field tables and bytes, one table read in both directions, and bytes that nobody should send."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txservices.exceptions import FrameError
from txservices.wire import tables
from txservices.wire.frames import FRAME_MAX
from txservices.wire.spec import ReplyCode

# A table of one field "k" with that value, and its bytes behind the length, the name and the type's letter.
FIELDS: list[tuple[Any, bytes]] = [
    (True, b"t\x01"),
    (False, b"t\x00"),
    (5, b"I\x00\x00\x00\x05"),
    (-5, b"I\xff\xff\xff\xfb"),
    (2**31, b"l\x00\x00\x00\x00\x80\x00\x00\x00"),
    (-(2**31) - 1, b"l\xff\xff\xff\xff\x7f\xff\xff\xff"),
    (1.5, b"d\x3f\xf8\x00\x00\x00\x00\x00\x00"),
    (Decimal("-1.25"), b"D\x02\xff\xff\xff\x83"),
    ("hellø", b"S\x00\x00\x00\x06hell\xc3\xb8"),
    ("", b"S\x00\x00\x00\x00"),
    (b"\xff\x00", b"x\x00\x00\x00\x02\xff\x00"),
    (None, b"V"),
    (datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc), b"T\x00\x00\x00\x00\x69\x57\x35\xa5"),
    ([1, ["a"]], b"A\x00\x00\x00\x10I\x00\x00\x00\x01A\x00\x00\x00\x06S\x00\x00\x00\x01a"),
    ([], b"A\x00\x00\x00\x00"),
    ([1.5], b"A\x00\x00\x00\x09d\x3f\xf8\x00\x00\x00\x00\x00\x00"),
    ({"ø": {"n": None}}, b"F\x00\x00\x00\x0b\x02\xc3\xb8F\x00\x00\x00\x03\x01nV"),
]
# What is read and never written by us.
READ_ONLY: list[tuple[Any, bytes]] = [
    (-1, b"b\xff"),
    (255, b"B\xff"),
    (-2, b"s\xff\xfe"),
    (65534, b"u\xff\xfe"),
    (4294967295, b"i\xff\xff\xff\xff"),
    (-1, b"L\xff\xff\xff\xff\xff\xff\xff\xff"),
    (0.5, b"f\x3f\x00\x00\x00"),
    (b"\xff", b"S\x00\x00\x00\x01\xff"),
    (2**63, b"T\x80\x00\x00\x00\x00\x00\x00\x00"),
]


def table_of(field: bytes) -> bytes:
    return (len(field) + 2).to_bytes(4, "big") + b"\x01k" + field


class FieldTests(SynchronousTestCase):
    """Field tables."""

    def test_every_type_is_written_as_its_bytes(self) -> None:
        """The bytes of each kind of value are AMQP's."""
        for value, field in FIELDS:
            self.assertEqual(tables.encode_table({"k": value}), table_of(field), repr(value))

    def test_every_type_is_read_from_its_bytes(self) -> None:
        """The bytes of each type are read as its value."""
        for value, field in FIELDS + READ_ONLY:
            table, end = tables.decode_table(table_of(field))
            self.assertEqual((table, end), ({"k": value}, len(field) + 6), repr(field))
            self.assertIs(type(table["k"]), type(value))

    def test_what_a_table_cannot_carry_is_named(self) -> None:
        """A value of no AMQP type is refused with its field's name."""
        for value, error in [(object(), TypeError), (2**63, ValueError), (Decimal("1e3"), ValueError)]:
            self.assertIn("'k'", str(self.assertRaises(error, tables.encode_table, {"k": value})))

    def test_nesting_has_an_end(self) -> None:
        """Tables inside each other are read and written to a depth, not to the end of the stack."""
        value: Any = {}
        data = b"F\x00\x00\x00\x00"
        for _ in range(tables.TABLE_DEPTH_MAX + 5):
            value = {"k": value}
            data = b"F" + table_of(data)
        self.assertRaises(ValueError, tables.encode_table, value)
        error = self.assertRaises(FrameError, tables.decode_table, data[1:])
        self.assertEqual(error.code, ReplyCode.SYNTAX_ERROR)
        field = b"V"
        for _ in range(tables.TABLE_DEPTH_MAX):
            field = b"F" + table_of(field)
        tables.decode_table(table_of(field))  # just as deep
        self.assertRaises(FrameError, tables.decode_table, table_of(b"F" + table_of(field)))

    def test_arrays_nest_no_deeper(self) -> None:
        """Arrays count as tables do: as deep as the limit both are read and written, one deeper neither is."""
        for wrap in (lambda value: [value], lambda value: {"k": value}):
            value: Any = None
            for _ in range(tables.TABLE_DEPTH_MAX - 1):
                value = wrap(value)
            data = tables.encode_table({"k": value})
            self.assertEqual(tables.decode_table(data), ({"k": value}, len(data)))
            self.assertRaises(ValueError, tables.encode_table, {"k": wrap(value)})
        field = b"A\x00\x00\x00\x00"
        for _ in range(tables.TABLE_DEPTH_MAX - 1):
            field = b"A" + tables.LONG.pack(len(field)) + field
        tables.decode_table(table_of(field))
        field = b"A" + tables.LONG.pack(len(field)) + field
        error = self.assertRaises(FrameError, tables.decode_table, table_of(field))
        self.assertEqual(error.code, ReplyCode.SYNTAX_ERROR)

    def test_size_has_an_end(self) -> None:
        """A table that fills a frame is read whole; one that says that it is larger than that is a syntax error."""
        table = {f"{number:05}": None for number in range(FRAME_MAX // 8)}
        data = tables.encode_table(table)
        self.assertEqual(tables.decode_table(data), (table, len(data)))
        for size in (len(data) - 3, 0x7FFFFFFF, 0xFFFFFFFF):
            error = self.assertRaises(FrameError, tables.decode_table, tables.LONG.pack(size) + data[4:])
            self.assertEqual(error.code, ReplyCode.SYNTAX_ERROR)

    def test_cut_tables_are_syntax_errors(self) -> None:
        """Bytes that end too soon, anywhere, are the peer's error and never an exception of ours."""
        for _, field in FIELDS + READ_ONLY:
            whole = table_of(field)
            for end in range(len(whole)):
                self.assertRaises(FrameError, tables.decode_table, whole[:end])

    def test_fields_end_with_their_table(self) -> None:
        """A field that says that it is longer than its table or its array is a syntax error, whatever comes behind."""
        for kind in (b"S", b"x", b"A", b"F"):
            field = kind + b"\x00\x00\x00\x02V"
            for whole in (table_of(field), table_of(b"A" + tables.LONG.pack(len(field)) + field)):
                for behind in (b"", b"VVVV"):
                    error = self.assertRaises(FrameError, tables.decode_table, whole + behind)
                    self.assertEqual(error.code, ReplyCode.SYNTAX_ERROR)

    def test_times(self) -> None:
        """A time is a datetime, in UTC if it has no zone, or a number of seconds since 1970; a text is refused."""
        east = timezone(timedelta(hours=1))
        moments: list[Any] = [datetime(1970, 1, 1, 0, 0, 5), datetime(1970, 1, 1, 1, 0, 5, tzinfo=east), 5, 5.9]
        for moment in moments:
            self.assertEqual(tables.encode_timestamp(moment), b"\x00" * 7 + b"\x05", moment)
        texts: list[Any] = ["5", b"5", bytearray(b"5")]
        for text in texts:
            self.assertRaises(TypeError, tables.encode_timestamp, text)
