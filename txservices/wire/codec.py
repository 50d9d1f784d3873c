"""Methods and messages' properties to bytes and back, by the table of ``spec``; each direction beside the other.

Pure: no Twisted here. Bad bytes raise ``FrameError`` with the reply code that AMQP gives them. Arguments and properties
that AMQP can't carry raise a ``ValueError`` that names them. Strings, tables and numbers are in ``tables``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from struct import Struct
from typing import Any

from txservices.exceptions import FrameError
from txservices.safe import brief
from txservices.wire.spec import METHODS, METHODS_BY_ID, PROPERTIES, Method, ReplyCode
from txservices.wire.tables import (
    LONG,
    LONGLONG,
    SHORT,
    UNREADABLE,
    UNWRITABLE,
    Reader,
    encode_longstr,
    encode_shortstr,
    encode_table,
    encode_timestamp,
    fixed,
    read_longstr,
    read_octet,
    read_octets,
    read_shortstr,
    read_table,
    read_timestamp,
    read_words,
    unreadable,
)

METHOD_ID = Struct(">HH")
OCTET = Struct("B")

# Methods -------------------------------------------------------------------------------------------------------------

ARGUMENT_READERS: dict[str, Reader] = {
    "octet": read_octet,
    "short": fixed("H"),
    "long": fixed("I"),
    "longlong": fixed("Q"),
    "shortstr": read_shortstr,
    "octets": read_octets,
    "text": read_words,
    "longstr": read_longstr,
    "table": read_table,
    "timestamp": read_timestamp,
}
ARGUMENT_WRITERS: dict[str, Callable[[Any], bytes]] = {
    "octet": OCTET.pack,
    "short": SHORT.pack,
    "long": LONG.pack,
    "longlong": LONGLONG.pack,
    "shortstr": encode_shortstr,
    "octets": encode_shortstr,
    "text": encode_shortstr,
    "longstr": encode_longstr,
    "table": encode_table,
    "timestamp": encode_timestamp,
}
ZEROS: dict[str, Any] = {
    "octet": 0, "short": 0, "long": 0, "longlong": 0, "shortstr": b"", "octets": b"", "text": b"", "longstr": b"",
    "table": None, "timestamp": 0, "bit": False,
}  # fmt: skip


def encode_method(method: Method | str, **arguments: Any) -> bytes:
    """The payload of a method frame. An argument that is left out is zero, empty or false, depending on its type."""
    if isinstance(method, str):
        method = METHODS[method]
    parts = [METHOD_ID.pack(method.class_id, method.method_id)]
    bits = width = 0
    for name, kind in method.fields:
        value = arguments.pop(name, ZEROS[kind])
        if kind == "bit":  # adjacent bits share an octet, and the first is the lowest
            bits |= bool(value) << width
            width += 1
            continue
        if width:
            parts.append(bytes((bits,)))
            bits = width = 0
        try:
            parts.append(ARGUMENT_WRITERS[kind](value))
        except UNWRITABLE as error:
            raise ValueError(f"{method.name}: {name}={brief(value)} is no {kind}: {error}") from error
    if width:
        parts.append(bytes((bits,)))
    if arguments:
        raise TypeError(f"{method.name} has no argument {', '.join(arguments)}")
    return b"".join(parts)


def decode_method(payload: bytes) -> tuple[Method, dict[str, Any]]:
    """Which method a frame's payload is, and its arguments by name. Long strings are bytes."""
    try:
        if payload.startswith(DELIVER_ID):
            return DELIVER, read_deliver(payload)
        if payload.startswith(ACK_ID) and len(payload) == ACK_FIELDS.size:
            tag, bits = ACK_FIELDS.unpack(payload)[2:]
            return ACK, {"delivery_tag": tag, "multiple": bits & 1 == 1}
        method = METHODS_BY_ID.get(LONG.unpack_from(payload)[0])
        if method is None:
            class_id, method_id = METHOD_ID.unpack_from(payload)
            raise FrameError(ReplyCode.COMMAND_INVALID, f"no method {method_id} in class {class_id}")
        return method, read_arguments(payload, method)
    except UNREADABLE as error:
        raise unreadable(error) from error


# Acks are as frequent as messages, ours and the broker's confirms, so they are not read and written by the table.
ACK = METHODS["basic.ack"]
ACK_ID = METHOD_ID.pack(ACK.class_id, ACK.method_id)
ACK_FIELDS = Struct(">HHQB")


def encode_ack(tag: int, multiple: bool) -> bytes:
    """The payload of a ``basic.ack``."""
    return ACK_FIELDS.pack(ACK.class_id, ACK.method_id, tag, multiple)


DELIVER = METHODS["basic.deliver"]
DELIVER_ID = METHOD_ID.pack(DELIVER.class_id, DELIVER.method_id)
DELIVERS: dict[bytes, dict[str, Any]] = {}  # a deliver's bytes without tag and flag -> its arguments
DELIVERS_MAX = 4096


def read_deliver(payload: bytes) -> dict[str, Any]:
    """``read_arguments`` by a look-up, for the method that comes with every message.

    Most deliveries to one consumer differ only in the delivery tag and the redelivered flag.
    """
    tag = 5 + payload[4]
    same = payload[4:tag] + payload[tag + 9 :]
    arguments = DELIVERS.get(same)
    if arguments is None:
        if len(DELIVERS) >= DELIVERS_MAX:
            DELIVERS.clear()
        arguments = DELIVERS[same] = read_arguments(payload, DELIVER)
    return {
        **arguments,
        "delivery_tag": LONGLONG.unpack_from(payload, tag)[0],
        "redelivered": payload[tag + 8] & 1 == 1,
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

PROPERTY_FLAGS = tuple((name, 0x8000 >> index, kind) for index, (name, kind) in enumerate(PROPERTIES))
KNOWN_PROPERTIES = frozenset(name for name, _ in PROPERTIES)
MORE_FLAGS = 0x0001  # the lowest bit announces a second word of flags; basic has no use for one
UNUSED_FLAG = 0x0002

# A program sends and gets a handful of kinds of messages. For each combination of properties a function is made that
# writes or reads them one after the other, which takes half the time of a loop over the table. These are its lines, for
# kinds that occur in most messages; the others are a call. To make one takes a millisecond, so what comes after
# ``LAYOUTS_MAX`` of them, as from a stranger who tries all combinations, is written and read by the table.
WRITES = {"shortstr": ("%c%b", "len(value := encode(properties[{name!r}])), value")}
WRITES_OTHERS = ("%b", "write_{kind}(properties[{name!r}])")
READS = {
    "shortstr": "start = offset + 1; offset = start + payload[offset]; {name} = payload[start:offset].decode()",
    "octet": "{name} = payload[offset]; offset += 1",
}
READS_OTHERS = "{name}, offset = read_{kind}(payload, offset, 0)"

LAYOUTS: dict[tuple[str, ...], Callable[[Mapping[str, Any]], bytes]] = {}  # names -> what writes these properties
LAYOUTS_MAX = 256


def encode_properties(properties: Mapping[str, Any]) -> bytes:
    """A message's properties as flags and values, as they follow the body size in a header frame.

    A property that is None is left out. A ``ValueError`` names a property that AMQP can't carry.
    """
    names = tuple(properties)
    write = LAYOUTS.get(names) or learn_layout(names)
    try:
        return write(properties)
    except UNWRITABLE:
        given = {name: value for name, value in properties.items() if value is not None}
        return encode_properties(given) if len(given) < len(properties) else write_each(given)


def write_each(properties: Mapping[str, Any]) -> bytes:
    """Write properties by the table, and tell which can't be written."""
    flags, parts = 0, []
    for name, flag, kind in PROPERTY_FLAGS:
        if name in properties:
            value = properties[name]
            try:
                parts.append(ARGUMENT_WRITERS[kind](str.encode(value) if kind == "shortstr" else value))
            except UNWRITABLE as error:
                raise ValueError(f"property {name}={brief(value)}: {error}") from error
            flags |= flag
    return SHORT.pack(flags) + b"".join(parts)


def learn_layout(names: tuple[str, ...]) -> Callable[[Mapping[str, Any]], bytes]:
    unknown = set(names) - KNOWN_PROPERTIES
    if unknown:
        raise ValueError(f"no property {', '.join(map(repr, unknown))} in AMQP: put it into headers")
    if len(LAYOUTS) >= LAYOUTS_MAX:
        return write_each
    found = [(name, flag, kind) for name, flag, kind in PROPERTY_FLAGS if name in names]
    flags = SHORT.pack(sum(flag for _, flag, _ in found))
    form = "".join(WRITES.get(kind, WRITES_OTHERS)[0] for _, _, kind in found)
    values = ", ".join(WRITES.get(kind, WRITES_OTHERS)[1].format(name=name, kind=kind) for name, _, kind in found)
    writers = {f"write_{kind}": write for kind, write in ARGUMENT_WRITERS.items()}
    LAYOUTS[names] = eval(
        f"lambda properties: b'%b{form}' % (flags, {values})", {**writers, "encode": str.encode, "flags": flags}
    )
    return LAYOUTS[names]


PRESENT: dict[int, Callable[[bytes, int], tuple[dict[str, Any], int]]] = {}  # flags -> what reads such properties


def learn_present(flags: int) -> Callable[[bytes, int], tuple[dict[str, Any], int]]:
    found = [(name, kind) for name, flag, kind in PROPERTY_FLAGS if flags & flag]
    if len(PRESENT) >= LAYOUTS_MAX:
        return partial(read_each, found)
    lines = [READS.get(kind, READS_OTHERS).format(name=name, kind=kind) for name, kind in found]
    lines.append(f"return {{{', '.join(f'{name!r}: {name}' for name, _ in found)}}}, offset")
    names: dict[str, Any] = {f"read_{kind}": read for kind, read in ARGUMENT_READERS.items()}
    exec("def read(payload, offset):\n " + "\n ".join(lines), names)
    PRESENT[flags] = names["read"]
    return PRESENT[flags]


def read_each(found: list[tuple[str, str]], payload: bytes, offset: int) -> tuple[dict[str, Any], int]:
    """Read properties by the table."""
    properties: dict[str, Any] = {}
    for name, kind in found:
        properties[name], offset = ARGUMENT_READERS[kind](payload, offset, 0)
    return properties, offset


def decode_properties(payload: bytes, offset: int = 0) -> dict[str, Any]:
    """Read the properties whose flags stand at that offset. The mapping has only those that were sent."""
    try:
        flags = SHORT.unpack_from(payload, offset)[0]
        if flags & (MORE_FLAGS | UNUSED_FLAG):
            raise FrameError(ReplyCode.SYNTAX_ERROR, f"property flags {flags:#06x} name properties that basic hasn't")
        properties, offset = (PRESENT.get(flags) or learn_present(flags))(payload, offset + 2)
        if offset != len(payload):  # a string that is cut short ends beyond the payload
            raise IndexError
    except UNREADABLE as error:
        raise unreadable(error) from error
    return properties
