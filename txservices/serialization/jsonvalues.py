"""JSON as kombu writes it, which nameko's services use.

All text is ASCII, and values that JSON does not have (times, decimals, UUIDs, bytes) are wrapped as
``{"__type__": …, "__value__": …}``.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import msgspec

from txservices.safe import brief, name_of
from txservices.serialization.bounds import TEXT_STEP, decode_charset, encode_utf8, join
from txservices.serialization.jsonreader import JsonReader, is_quick

WRAPPED_MAX = 65_536  # characters of a wrapped value, unless it is bytes: 16 MB of digits would take 0.1 s

TYPE, VALUE = "__type__", "__value__"
ENVELOPE = {TYPE, VALUE}


def wrap_bytes(value: bytes) -> dict[str, Any]:
    """Wrap bytes: as text if they are UTF-8, else as base64."""
    try:
        return {TYPE: "bytes", VALUE: value.decode()}
    except UnicodeDecodeError:
        return {TYPE: "base64", VALUE: base64.b64encode(value).decode("ascii")}


# The first match counts, so datetime comes before date: a datetime is a date, too.
WRAPPERS: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (datetime, lambda value: {TYPE: "datetime", VALUE: value.isoformat()}),
    (date, lambda value: {TYPE: "date", VALUE: value.isoformat()}),
    (time, lambda value: {TYPE: "time", VALUE: value.isoformat()}),
    (Decimal, lambda value: {TYPE: "decimal", VALUE: str(value)}),
    (uuid.UUID, lambda value: {TYPE: "uuid", VALUE: {"hex": value.hex}}),
    (bytes, wrap_bytes),
)


def unwrap_base64(value: str) -> bytes:
    """The bytes, decoded in steps, which are multiples of four characters; the last one has the padding."""
    last = max(0, len(value) - 3) // TEXT_STEP * TEXT_STEP
    if value.find("=", 0, last) >= 0:
        raise ValueError("base64 that goes on behind its end")
    steps = (value[at : at + TEXT_STEP] for at in range(0, last, TEXT_STEP))
    return join(base64.b64decode(step, validate=True) for step in (*steps, value[last:]))


UNWRAPPERS: dict[str, Callable[[Any], Any]] = {
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "decimal": Decimal,
    "uuid": lambda value: uuid.UUID(hex=value["hex"]),
    "bytes": encode_utf8,
    "base64": unwrap_base64,
}


def wrap(value: Any) -> Any:
    """Turn a value that JSON does not have into one that it has. ``TypeError`` if that is not known how."""
    reduce = getattr(value, "__json__", None)
    if reduce is not None:
        return reduce()
    for kind, wrapped in WRAPPERS:
        if isinstance(value, kind):
            return wrapped(value)
    hint = ": await it first" if hasattr(type(value), "__await__") else ""
    raise TypeError(f"{brief(value)} is a {name_of(type(value))}, which JSON can't carry{hint}")


def unwrap(found: dict[str, Any]) -> Any:
    """The value in a wrapped object. Any other object stays as it is."""
    if found.keys() == ENVELOPE:
        kind, value = found[TYPE], found[VALUE]
        if type(value) is str and len(value) > WRAPPED_MAX and kind not in ("bytes", "base64"):
            raise ValueError(f"a {kind} of over {WRAPPED_MAX} characters")
        return UNWRAPPERS[kind](value)
    return found


def json_encoder() -> Callable[[Any], str]:
    """A function that does what ``json.dumps`` does, but with a C encoder that is made once and not for each value.

    It does not look for circular references, which end in a ``RecursionError``.
    """
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:  # PyPy has none
        return json.JSONEncoder(default=wrap).encode
    chunks = make(None, wrap, json.encoder.encode_basestring_ascii, None, ": ", ", ", False, False, True)
    return lambda value: "".join(chunks(value, 0))


encode_json = json_encoder()


def decode_json(body: bytes) -> Any:
    """Read JSON, and unwrap the values in it."""
    # msgspec is faster, but it knows no wrapped values, and neither NaN nor lone surrogates, which Python's json writes
    if b"__type__" not in body:
        try:
            return msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
    return json.loads(body.decode("utf-8", "surrogatepass"), object_hook=unwrap)


def decode_long_json(body: bytes, most: int) -> Any:
    """The same in steps, with a limit for the number of values."""
    if is_quick(body):
        return decode_json(body)
    return JsonReader(decode_charset(body, "utf-8", "surrogatepass"), most, unwrap).read_all()
