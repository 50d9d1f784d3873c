"""Values to bytes and back: strings, field tables and arrays, each direction beside the other.

Pure: no Twisted here. Bad bytes raise ``FrameError`` with the reply code that AMQP gives them. Values that AMQP can't
carry raise a ``TypeError`` or ``ValueError`` that names the field. Strings are encoded before they are counted.

Field types are RabbitMQ's reading of the specification (its "0-9-1 errata"), with ``L`` as py-amqp writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from decimal import Decimal
from math import isfinite
from struct import Struct
from struct import error as StructError
from typing import Any

from txservices.exceptions import FrameError
from txservices.safe import brief, name_of
from txservices.wire.spec import ReplyCode

TABLE_DEPTH_MAX = 64  # tables and arrays inside each other; deeper is an attack or a mistake

SHORT = Struct(">H")
LONG = Struct(">I")
LONGLONG = Struct(">Q")
KIND_AND_LONG = Struct(">cI")  # a field's type and its length
INT = Struct(">i")
INT64 = Struct(">q")
DOUBLE = Struct(">d")
DECIMAL = Struct(">BI")
DOUBLE_KIND = ord("d")

UNWRITABLE = (TypeError, ValueError, AttributeError, OverflowError, StructError)  # what writing a wrong value raises
UNREADABLE = (IndexError, KeyError, StructError, UnicodeDecodeError)  # what reading bytes raises that run short

Reader = Callable[[bytes, int, int], "tuple[Any, int]"]  # buffer, offset, depth -> value, next offset
Writer = Callable[[Any, int], bytes]  # value, depth -> bytes


# Strings, tables and arrays ------------------------------------------------------------------------------------------


OCTETS = tuple(bytes((number,)) for number in range(256))


def encode_shortstr(value: str | bytes) -> bytes:
    """A string of at most 255 bytes behind one byte of length."""
    data = value if isinstance(value, bytes) else value.encode()
    if len(data) > 255:
        raise ValueError(f"{data[:40]!r}… has {len(data)} bytes, a short string of AMQP holds 255")
    return OCTETS[len(data)] + data


def read_shortstr(buffer: bytes, offset: int, depth: int = 0) -> tuple[str, int]:
    start = offset + 1
    end = start + buffer[offset]
    data = buffer[start:end]
    if len(data) != end - start:
        raise IndexError
    return data.decode(), end


def read_octet(buffer: bytes, offset: int, depth: int = 0) -> tuple[int, int]:
    return buffer[offset], offset + 1


def read_octets(buffer: bytes, offset: int, depth: int = 0) -> tuple[str, int]:
    """A name that may not be UTF-8: a byte that is not becomes a lone surrogate, as in ``os.fsdecode``."""
    start = offset + 1
    end = start + buffer[offset]
    data = buffer[start:end]
    if len(data) != end - start:
        raise IndexError
    return data.decode(errors="surrogateescape"), end


def read_words(buffer: bytes, offset: int, depth: int = 0) -> tuple[str, int]:
    """A text for people: a byte that is not UTF-8 is shown as ``\\xff``."""
    text, end = read_octets(buffer, offset)
    return octets(text).decode(errors="backslashreplace"), end


def octets(name: str) -> bytes:
    """The bytes that ``read_octets`` has read."""
    return name.encode(errors="surrogateescape")


def encode_longstr(value: str | bytes) -> bytes:
    """Any number of bytes behind four bytes of length."""
    data = value if isinstance(value, bytes) else value.encode()
    return LONG.pack(len(data)) + data


def read_longstr(buffer: bytes, offset: int, depth: int = 0) -> tuple[bytes, int]:
    start = offset + 4
    end = start + LONG.unpack_from(buffer, offset)[0]
    data = buffer[start:end]
    if len(data) != end - start:
        raise IndexError
    return data, end


NAMES: dict[str, bytes] = {}  # the names of fields, encoded; a program uses a handful
NAMES_MAX = 256


def learn_name(key: str) -> bytes:
    if len(NAMES) >= NAMES_MAX:
        NAMES.clear()
    name = NAMES[key] = encode_shortstr(key)
    return name


def encode_table(table: Mapping[str, Any] | None, depth: int = 0) -> bytes:
    """A mapping of names to values as an AMQP field table, its length in front."""
    if not table:
        return b"\x00\x00\x00\x00"
    parts: list[bytes] = []
    for key, value in table.items():
        try:
            name = NAMES.get(key) or learn_name(key)
            if type(value) is float and value - value == 0:  # finite: the two deadlines of each call, without a call
                parts += (name, b"d", DOUBLE.pack(value))
            else:
                parts += (name, encode_field(value, depth + 1))
        except UNWRITABLE as error:
            raise (TypeError if isinstance(error, TypeError) else ValueError)(
                f"in field {brief(key)}: {error}"
            ) from error
    return encode_longstr(b"".join(parts))


def read_table(buffer: bytes, offset: int, depth: int = 0) -> tuple[dict[str, Any], int]:
    start = offset + 4
    end = start + LONG.unpack_from(buffer, offset)[0]
    if end > len(buffer):
        raise IndexError
    table: dict[str, Any] = {}
    if start == end:
        return table, end
    if depth > TABLE_DEPTH_MAX:
        raise FrameError(ReplyCode.SYNTAX_ERROR, f"a field table is nested deeper than {TABLE_DEPTH_MAX}")
    offset = start
    while offset < end:
        begin = offset + 1
        offset = begin + buffer[offset]
        key = buffer[begin:offset].decode()  # one that is cut is noticed at the next byte, which is not there
        kind = buffer[offset]
        if kind == DOUBLE_KIND:  # the two deadlines of each call, without a call
            table[key] = DOUBLE.unpack_from(buffer, offset + 1)[0]
            offset += 9
        else:
            table[key], offset = FIELD_READERS[kind](buffer, offset + 1, depth + 1)
    if offset != end:
        raise IndexError
    return table, end


def encode_array(values: Sequence[Any], depth: int) -> bytes:
    data = b"".join([encode_field(value, depth + 1) for value in values])
    return KIND_AND_LONG.pack(b"A", len(data)) + data


def read_array(buffer: bytes, offset: int, depth: int) -> tuple[list[Any], int]:
    start = offset + 4
    end = start + LONG.unpack_from(buffer, offset)[0]
    if end > len(buffer):
        raise IndexError
    if depth > TABLE_DEPTH_MAX:
        raise FrameError(ReplyCode.SYNTAX_ERROR, f"a field array is nested deeper than {TABLE_DEPTH_MAX}")
    values = []
    offset = start
    while offset < end:
        value, offset = FIELD_READERS[buffer[offset]](buffer, offset + 1, depth + 1)
        values.append(value)
    if offset != end:
        raise IndexError
    return values, end


def writable(table: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a table that can be written. Others can be read, too: a number that is not finite is one."""
    kept = {}
    for name, value in table.items():
        try:
            encode_table({name: value})
        except UNWRITABLE:
            continue
        kept[name] = value
    return kept


def decode_table(buffer: bytes, offset: int = 0) -> tuple[dict[str, Any], int]:
    """The table at that offset, and where it ends."""
    try:
        return read_table(buffer, offset)
    except UNREADABLE as error:
        raise unreadable(error) from error


# Fields of a table ---------------------------------------------------------------------------------------------------


def read_text(buffer: bytes, offset: int, depth: int) -> tuple[str | bytes, int]:
    """A long string as text, or as bytes if it is not UTF-8: AMQP says nothing of its encoding."""
    start = offset + 4
    end = start + LONG.unpack_from(buffer, offset)[0]
    data = buffer[start:end]  # one that is cut is noticed at the end of its table or array
    try:
        return data.decode(), end
    except UnicodeDecodeError:
        return data, end


def read_decimal(buffer: bytes, offset: int, depth: int) -> tuple[Decimal, int]:
    scale, unscaled = DECIMAL.unpack_from(buffer, offset)
    return Decimal(unscaled if unscaled < 1 << 31 else unscaled - (1 << 32)).scaleb(-scale), offset + 5


def encode_decimal(value: Decimal) -> bytes:
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int) or not -255 <= exponent <= 0:
        raise ValueError(f"{value} has no scale from 0 to 255, which AMQP's decimal needs")
    unscaled = int("".join(map(str, digits))) * (-1 if sign else 1)
    if not -(1 << 31) <= unscaled < 1 << 31:
        raise ValueError(f"{value} has more than the 31 bits of AMQP's decimal; send it as a string")
    return b"D" + DECIMAL.pack(-exponent, unscaled & 0xFFFFFFFF)


def read_timestamp(buffer: bytes, offset: int, depth: int = 0) -> tuple[datetime | int, int]:
    """Seconds since 1970 as a time in UTC, or as a number if datetime doesn't reach so far (past the year 9999)."""
    seconds = LONGLONG.unpack_from(buffer, offset)[0]
    try:
        return datetime.fromtimestamp(seconds, timezone.utc), offset + 8
    except (OverflowError, ValueError, OSError):
        return seconds, offset + 8


def encode_timestamp(value: datetime | float) -> bytes:
    """A time, or seconds since 1970; a time without a zone is UTC, as py-amqp takes it."""
    if isinstance(value, datetime):
        value = (value if value.tzinfo else value.replace(tzinfo=timezone.utc)).timestamp()
    elif isinstance(value, (str, bytes, bytearray)):  # int() would read a number from it
        raise TypeError("a time is a datetime, or seconds since 1970 as a number, and no text")
    return LONGLONG.pack(int(value))


def encode_float(value: float) -> bytes:
    """A number that is finite. RabbitMQ closes the connection (541) for any other."""
    if not isfinite(value):
        raise ValueError(f"{value} is not finite, and no broker takes it; send it as a string")
    return b"d" + DOUBLE.pack(value)


def encode_int(value: int) -> bytes:
    if -(1 << 31) <= value < 1 << 31:
        return b"I" + INT.pack(value)
    if -(1 << 63) <= value < 1 << 63:
        return b"l" + INT64.pack(value)
    raise ValueError(f"{value} has more than the 64 bits of AMQP's longest number; send it as a string")


def fixed(layout: str) -> Reader:
    """A reader of one number of that struct layout."""
    number = Struct(">" + layout)

    def read(buffer: bytes, offset: int, depth: int) -> tuple[Any, int]:
        return number.unpack_from(buffer, offset)[0], offset + number.size

    return read


FIELD_READERS: dict[int, Reader] = {
    ord("t"): fixed("?"),
    ord("b"): fixed("b"),
    ord("B"): fixed("B"),
    ord("s"): fixed("h"),
    ord("u"): fixed("H"),
    ord("I"): fixed("i"),
    ord("i"): fixed("I"),
    ord("l"): fixed("q"),
    ord("L"): fixed("q"),
    ord("f"): fixed("f"),
    ord("d"): fixed("d"),
    ord("D"): read_decimal,
    ord("S"): read_text,
    ord("x"): read_longstr,
    ord("A"): read_array,
    ord("T"): read_timestamp,
    ord("F"): read_table,
    ord("V"): lambda buffer, offset, depth: (None, offset),
}


def encode_text(value: str, depth: int) -> bytes:
    data = value.encode()
    return KIND_AND_LONG.pack(b"S", len(data)) + data


# The first line that fits is taken. bool stands before int, since a bool is an int too.
FIELD_WRITERS: tuple[tuple[type | tuple[type, ...], Writer], ...] = (
    (str, encode_text),
    (bool, lambda value, depth: b"t\x01" if value else b"t\x00"),
    (int, lambda value, depth: encode_int(value)),
    (float, lambda value, depth: encode_float(value)),
    (type(None), lambda value, depth: b"V"),
    ((bytes, bytearray, memoryview), lambda value, depth: b"x" + encode_longstr(bytes(value))),
    (Decimal, lambda value, depth: encode_decimal(value)),
    (datetime, lambda value, depth: b"T" + encode_timestamp(value)),
    (Mapping, lambda value, depth: b"F" + encode_table(value, depth)),
    ((list, tuple), encode_array),
)
WRITERS_BY_TYPE: dict[type, Writer] = {
    kind: write for kinds, write in FIELD_WRITERS for kind in (kinds if isinstance(kinds, tuple) else (kinds,))
} | {dict: FIELD_WRITERS[-2][1]}


def encode_field(value: Any, depth: int) -> bytes:
    """One value of a table or an array, its type's letter in front."""
    exact = WRITERS_BY_TYPE.get(type(value))
    if exact is not None and depth <= TABLE_DEPTH_MAX:
        return exact(value, depth)
    if depth > TABLE_DEPTH_MAX:
        raise ValueError(f"nested deeper than {TABLE_DEPTH_MAX}")
    for kind, write in FIELD_WRITERS:
        if issubclass(type(value), kind):
            return write(value, depth)
    raise TypeError(f"{brief(value)} is a {name_of(type(value))}, which an AMQP table can't carry")


def unreadable(error: Exception) -> FrameError:
    """The error of a peer for one of ``UNREADABLE``: reading has run off its bytes in some way."""
    if isinstance(error, UnicodeDecodeError):
        return FrameError(ReplyCode.FRAME_ERROR, f"malformed UTF-8: {error.object!r}")
    return FrameError(ReplyCode.SYNTAX_ERROR, f"unreadable bytes in a frame: {error!r}")
