"""Values to bytes and back: field tables, method arguments, message properties; each direction beside the other.

Pure: no Twisted here. Bad bytes raise ``FrameError`` with the reply code that AMQP gives them; values that AMQP can't
carry raise ``TypeError`` or ``ValueError`` that name the field. Every string is encoded before it is counted.

Field types are RabbitMQ's reading of the specification (its "0-9-1 errata"), with ``L`` as py-amqp writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from decimal import Decimal
from struct import Struct
from struct import error as StructError
from typing import Any

from txservices.amqp.spec import METHODS, METHODS_BY_ID, PROPERTIES, Method, ReplyCode
from txservices.exceptions import FrameError

TABLE_DEPTH_MAX = 64  # tables and arrays inside each other; deeper is an attack or a mistake

SHORT = Struct(">H")
LONG = Struct(">I")
LONGLONG = Struct(">Q")
INT = Struct(">i")
INT64 = Struct(">q")
DOUBLE = Struct(">d")
DECIMAL = Struct(">BI")
METHOD_ID = Struct(">HH")

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


def encode_table(table: Mapping[str, Any] | None, depth: int = 0) -> bytes:
    """A mapping of names to values as an AMQP field table, its length in front."""
    if not table:
        return b"\x00\x00\x00\x00"
    parts = []
    for key, value in table.items():
        try:
            parts.append(encode_shortstr(key))
            parts.append(encode_field(value, depth + 1))
        except (TypeError, ValueError, AttributeError, StructError) as error:
            raise type(error)(f"in field {key!r}: {error}") from error
    return encode_longstr(b"".join(parts))


def read_table(buffer: bytes, offset: int, depth: int = 0) -> tuple[dict[str, Any], int]:
    start = offset + 4
    end = start + LONG.unpack_from(buffer, offset)[0]
    if end > len(buffer):
        raise IndexError
    if depth > TABLE_DEPTH_MAX:
        raise FrameError(ReplyCode.SYNTAX_ERROR, f"a field table is nested deeper than {TABLE_DEPTH_MAX}")
    table = {}
    offset = start
    while offset < end:
        key, offset = read_shortstr(buffer, offset)
        table[key], offset = FIELD_READERS[buffer[offset]](buffer, offset + 1, depth + 1)
    if offset != end:
        raise IndexError
    return table, end


def encode_array(values: Sequence[Any], depth: int) -> bytes:
    data = b"".join([encode_field(value, depth + 1) for value in values])
    return b"A" + LONG.pack(len(data)) + data


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


def decode_table(buffer: bytes, offset: int = 0) -> tuple[dict[str, Any], int]:
    """The table at that offset, and where it ends."""
    with_errors: tuple[dict[str, Any], int] = guarded(read_table, buffer, offset)
    return with_errors


# Fields of a table ---------------------------------------------------------------------------------------------------


def read_text(buffer: bytes, offset: int, depth: int) -> tuple[str | bytes, int]:
    """A long string as text; as bytes where it is no UTF-8, since AMQP says nothing of its encoding."""
    data, end = read_longstr(buffer, offset)
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
    """Seconds since 1970 as a time in UTC; as a number where datetime doesn't reach (past the year 9999)."""
    seconds = LONGLONG.unpack_from(buffer, offset)[0]
    try:
        return datetime.fromtimestamp(seconds, timezone.utc), offset + 8
    except (OverflowError, ValueError, OSError):
        return seconds, offset + 8


def encode_timestamp(value: datetime | float) -> bytes:
    """A time, or seconds since 1970; a time without a zone is UTC, as py-amqp takes it."""
    if isinstance(value, datetime):
        value = (value if value.tzinfo else value.replace(tzinfo=timezone.utc)).timestamp()
    return LONGLONG.pack(int(value))


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
    return b"S" + LONG.pack(len(data)) + data


# The first line that fits is taken: bool before int, which it is a kind of.
FIELD_WRITERS: tuple[tuple[type | tuple[type, ...], Writer], ...] = (
    (str, encode_text),
    (bool, lambda value, depth: b"t\x01" if value else b"t\x00"),
    (int, lambda value, depth: encode_int(value)),
    (float, lambda value, depth: b"d" + DOUBLE.pack(value)),
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
        if isinstance(value, kind):
            return write(value, depth)
    raise TypeError(f"{value!r} is a {type(value).__name__}, which an AMQP table can't carry")


# Methods -------------------------------------------------------------------------------------------------------------

ARGUMENT_READERS: dict[str, Reader] = {
    "octet": lambda buffer, offset, depth: (buffer[offset], offset + 1),
    "short": fixed("H"),
    "long": fixed("I"),
    "longlong": fixed("Q"),
    "shortstr": read_shortstr,
    "longstr": read_longstr,
    "table": read_table,
    "timestamp": read_timestamp,
}
ARGUMENT_WRITERS: dict[str, Callable[[Any], bytes]] = {
    "octet": lambda value: bytes((value,)),
    "short": SHORT.pack,
    "long": LONG.pack,
    "longlong": LONGLONG.pack,
    "shortstr": encode_shortstr,
    "longstr": encode_longstr,
    "table": encode_table,
    "timestamp": encode_timestamp,
}
ZEROS: dict[str, Any] = {
    "octet": 0, "short": 0, "long": 0, "longlong": 0, "shortstr": b"", "longstr": b"", "table": None, "timestamp": 0,
    "bit": False,
}  # fmt: skip


def encode_method(method: Method | str, **arguments: Any) -> bytes:
    """The payload of a method frame. Arguments left out are zero, empty or false, as their types have it."""
    if isinstance(method, str):
        method = METHODS[method]
    parts = [METHOD_ID.pack(method.class_id, method.method_id)]
    bits = width = 0
    for name, kind in method.fields:
        value = arguments.pop(name, ZEROS[kind])
        if kind == "bit":  # bits that follow each other share an octet, the first one lowest
            bits |= bool(value) << width
            width += 1
            continue
        if width:
            parts.append(bytes((bits,)))
            bits = width = 0
        try:
            parts.append(ARGUMENT_WRITERS[kind](value))
        except (TypeError, ValueError, AttributeError, StructError) as error:
            raise ValueError(f"{method.name}: {name}={value!r} is no {kind}: {error}") from error
    if width:
        parts.append(bytes((bits,)))
    if arguments:
        raise TypeError(f"{method.name} has no argument {', '.join(arguments)}")
    return b"".join(parts)


def decode_method(payload: bytes) -> tuple[Method, dict[str, Any]]:
    """Which method a frame's payload is, and its arguments by name. Long strings are bytes."""
    if len(payload) < METHOD_ID.size:
        raise FrameError(ReplyCode.SYNTAX_ERROR, "a method frame of under four bytes")
    method = METHODS_BY_ID.get(LONG.unpack_from(payload)[0])
    if method is None:
        class_id, method_id = METHOD_ID.unpack_from(payload)
        raise FrameError(ReplyCode.COMMAND_INVALID, f"no method {method_id} in class {class_id}")
    if method is DELIVER:
        return method, guarded(read_deliver, payload, method)
    arguments: dict[str, Any] = guarded(read_arguments, payload, method)
    return method, arguments


DELIVER = METHODS["basic.deliver"]


def read_deliver(payload: bytes, method: Method) -> dict[str, Any]:
    """``read_arguments`` for the method that comes with every message: 1.4 us, 2.6 by the table."""
    tag_end = 5 + payload[4]
    exchange = tag_end + 10
    key = exchange + payload[tag_end + 9]
    end = key + 1 + payload[key]
    if end != len(payload):
        raise IndexError
    return {
        "consumer_tag": payload[5:tag_end].decode(),
        "delivery_tag": LONGLONG.unpack_from(payload, tag_end)[0],
        "redelivered": bool(payload[tag_end + 8] & 1),
        "exchange": payload[exchange:key].decode(),
        "routing_key": payload[key + 1 :].decode(),
    }


def read_arguments(payload: bytes, method: Method) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    offset = METHOD_ID.size
    bits = width = 0
    for name, kind in method.fields:
        if kind == "bit":
            if not width:
                bits = payload[offset]
                offset += 1
            arguments[name] = bool(bits >> width & 1)
            width = (width + 1) % 8
            continue
        width = 0
        arguments[name], offset = ARGUMENT_READERS[kind](payload, offset, 0)
    if offset != len(payload):
        raise IndexError
    return arguments


# Properties ----------------------------------------------------------------------------------------------------------

PROPERTY_FLAGS = tuple(
    (name, 0x8000 >> index, kind == "shortstr", ARGUMENT_READERS[kind], ARGUMENT_WRITERS[kind])
    for index, (name, kind) in enumerate(PROPERTIES)
)
KNOWN_PROPERTIES = frozenset(name for name, _ in PROPERTIES)
MORE_FLAGS = 0x0001  # the lowest bit announces a second word of flags; basic has no use for one
UNUSED_FLAG = 0x0002


def encode_properties(properties: Mapping[str, Any]) -> bytes:
    """A message's properties as flags and values: what follows the body size in a header frame. ``None`` is left out.

    ``ValueError`` names what AMQP can't carry. With a request's nine properties: 4.8 us, 7.2 before there was one
    ``try`` around all of them and a writer for each exact type.
    """
    flags = written = 0
    parts = [b""]
    add = parts.append
    get = properties.get
    name = ""
    value: Any = None
    try:
        for name, flag, is_short, _, write in PROPERTY_FLAGS:
            value = get(name)
            if value is not None:
                flags |= flag
                written += 1
                if is_short and len(value) < 64:  # in UTF-8 under 256 bytes whatever it is
                    data = value.encode()
                    add(OCTETS[len(data)])
                    add(data)
                else:
                    add(write(value))
    except (TypeError, ValueError, AttributeError, StructError) as error:
        raise ValueError(f"property {name}={value!r}: {error}") from error
    if written != len(properties) and not properties.keys() <= KNOWN_PROPERTIES:
        unknown = ", ".join(map(repr, properties.keys() - KNOWN_PROPERTIES))
        raise ValueError(f"no property {unknown} in AMQP: put it into headers")
    parts[0] = SHORT.pack(flags)
    return b"".join(parts)


def decode_properties(payload: bytes, offset: int = 0) -> dict[str, Any]:
    """The properties whose flags stand at that offset; those not sent are not in the mapping."""
    properties: dict[str, Any] = guarded(read_properties, payload, offset)
    return properties


def read_properties(payload: bytes, offset: int) -> dict[str, Any]:
    """Most properties are short strings, read here without a call each: 4.5 us for a request's nine, 5.3 before."""
    properties: dict[str, Any] = {}
    flags = SHORT.unpack_from(payload, offset)[0]
    if flags & (MORE_FLAGS | UNUSED_FLAG):
        raise FrameError(ReplyCode.SYNTAX_ERROR, f"property flags {flags:#06x} name properties that basic hasn't")
    offset += 2
    for name, flag, is_short, read, _ in PROPERTY_FLAGS:
        if flags & flag:
            if is_short:
                start = offset + 1
                offset = start + payload[offset]
                properties[name] = payload[start:offset].decode()
            else:
                properties[name], offset = read(payload, offset, 0)
    if offset != len(payload):  # a string that is cut ends beyond it
        raise IndexError
    return properties


def guarded(read: Callable[[bytes, Any], Any], payload: bytes, argument: Any) -> Any:
    """``read(payload, argument)``, where any way to run off the bytes is the peer's syntax error and never ours."""
    try:
        return read(payload, argument)
    except FrameError:
        raise
    except (IndexError, KeyError, StructError, UnicodeDecodeError) as error:
        raise FrameError(ReplyCode.SYNTAX_ERROR, f"unreadable bytes in a frame: {error!r}") from error
