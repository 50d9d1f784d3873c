"""Methods and messages' properties to bytes and back, by the table of ``spec``; each direction beside the other.

Pure: no Twisted here. Bad bytes raise ``FrameError`` with the reply code that AMQP gives them. Arguments and properties
that AMQP can't carry raise a ``ValueError`` that names them. Strings, tables and numbers are in ``tables``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import Struct
from typing import Any

from txservices.exceptions import FrameError
from txservices.safe import brief
from txservices.wire.spec import METHODS, METHODS_BY_ID, PROPERTIES, Method, ReplyCode
from txservices.wire.tables import (
    LONG,
    LONGLONG,
    OCTETS,
    SHORT,
    UNWRITABLE,
    Reader,
    encode_longstr,
    encode_shortstr,
    encode_table,
    encode_timestamp,
    fixed,
    guarded,
    read_longstr,
    read_octet,
    read_octets,
    read_shortstr,
    read_table,
    read_timestamp,
    read_words,
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
    if payload.startswith(DELIVER_ID):
        return DELIVER, guarded(read_deliver, payload, DELIVER)
    if payload.startswith(ACK_ID) and len(payload) == ACK_FIELDS.size:
        tag, bits = ACK_FIELDS.unpack(payload)[2:]
        return ACK, {"delivery_tag": tag, "multiple": bits & 1 == 1}
    if len(payload) < METHOD_ID.size:
        raise FrameError(ReplyCode.SYNTAX_ERROR, "a method frame of under four bytes")
    method = METHODS_BY_ID.get(LONG.unpack_from(payload)[0])
    if method is None:
        class_id, method_id = METHOD_ID.unpack_from(payload)
        raise FrameError(ReplyCode.COMMAND_INVALID, f"no method {method_id} in class {class_id}")
    arguments: dict[str, Any] = guarded(read_arguments, payload, method)
    return method, arguments


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


def read_deliver(payload: bytes, method: Method) -> dict[str, Any]:
    """``read_arguments`` by a look-up, for the method that comes with every message.

    Most deliveries to one consumer differ only in the delivery tag and the redelivered flag.
    """
    tag = 5 + payload[4]
    same = payload[4:tag] + payload[tag + 9 :]
    arguments = DELIVERS.get(same)
    if arguments is None:
        if len(DELIVERS) >= DELIVERS_MAX:
            DELIVERS.clear()
        arguments = DELIVERS[same] = read_arguments(payload, method)
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

PROPERTY_FLAGS = tuple(
    (name, 0x8000 >> index, kind == "shortstr", ARGUMENT_READERS[kind], ARGUMENT_WRITERS[kind])
    for index, (name, kind) in enumerate(PROPERTIES)
)
KNOWN_PROPERTIES = frozenset(name for name, _ in PROPERTIES)
MORE_FLAGS = 0x0001  # the lowest bit announces a second word of flags; basic has no use for one
UNUSED_FLAG = 0x0002


# How to write messages that have the same properties: the flags, and for each property its name, whether it is a short
# string, and the function that writes it. A program sends a handful of kinds of messages.
Layout = tuple[bytes, tuple[tuple[str, bool, Callable[[Any], bytes]], ...]]
LAYOUTS: dict[tuple[str, ...], Layout] = {}
LAYOUTS_MAX = 256


def encode_properties(properties: Mapping[str, Any]) -> bytes:
    """A message's properties as flags and values, as they follow the body size in a header frame.

    A property that is None is left out. A ``ValueError`` names a property that AMQP can't carry.
    """
    names = tuple(properties)
    flags, fields = LAYOUTS.get(names) or learn_layout(names)
    parts = [flags]
    name = ""
    value: Any = None
    try:
        for name, is_short, write in fields:
            value = properties[name]
            if is_short and len(value) < 64:  # always under 256 bytes in UTF-8
                data = value.encode()
                parts += (OCTETS[len(data)], data)
            else:
                parts.append(write(value))
    except UNWRITABLE as error:
        if None in properties.values():
            return encode_properties({name: value for name, value in properties.items() if value is not None})
        raise ValueError(f"property {name}={brief(value)}: {error}") from error
    return b"".join(parts)


def learn_layout(names: tuple[str, ...]) -> Layout:
    unknown = set(names) - KNOWN_PROPERTIES
    if unknown:
        raise ValueError(f"no property {', '.join(map(repr, unknown))} in AMQP: put it into headers")
    flags = 0
    fields = []
    for name, flag, is_short, _, write in PROPERTY_FLAGS:
        if name in names:
            flags |= flag
            fields.append((name, is_short, write))
    if len(LAYOUTS) >= LAYOUTS_MAX:
        LAYOUTS.clear()
    layout = LAYOUTS[names] = SHORT.pack(flags), tuple(fields)
    return layout


PRESENT: dict[int, tuple[tuple[str, bool, Reader], ...]] = {}  # flags -> the properties that they announce


def learn_present(flags: int) -> tuple[tuple[str, bool, Reader], ...]:
    if len(PRESENT) >= LAYOUTS_MAX:
        PRESENT.clear()
    present = tuple((name, is_short, read) for name, flag, is_short, read, _ in PROPERTY_FLAGS if flags & flag)
    PRESENT[flags] = present
    return present


def decode_properties(payload: bytes, offset: int = 0) -> dict[str, Any]:
    """Read the properties whose flags stand at that offset. The mapping has only those that were sent."""
    properties: dict[str, Any] = guarded(read_properties, payload, offset)
    return properties


def read_properties(payload: bytes, offset: int) -> dict[str, Any]:
    """Most properties are short strings and octets, read here without a call for each."""
    properties: dict[str, Any] = {}
    flags = SHORT.unpack_from(payload, offset)[0]
    if flags & (MORE_FLAGS | UNUSED_FLAG):
        raise FrameError(ReplyCode.SYNTAX_ERROR, f"property flags {flags:#06x} name properties that basic hasn't")
    offset += 2
    for name, is_short, read in PRESENT.get(flags) or learn_present(flags):
        if is_short:
            start = offset + 1
            offset = start + payload[offset]
            properties[name] = payload[start:offset].decode()
        elif read is read_octet:
            properties[name] = payload[offset]
            offset += 1
        else:
            properties[name], offset = read(payload, offset, 0)
    if offset != len(payload):  # a string that is cut short ends beyond the payload
        raise IndexError
    return properties
