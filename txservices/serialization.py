"""A value to the bytes of a message and back: name -> (content type, encode, decode).

JSON is kombu's dialect, since that is what nameko's services speak: text in ASCII, and what JSON hasn't (times,
decimals, UUIDs, bytes) wrapped as ``{"__type__": …, "__value__": …}``. Only what ``ACCEPT`` names is decoded (the
configured serializer alone, unless told otherwise): a pickle from a stranger is a program.
"""

from __future__ import annotations

import base64
import bz2
import json
import pickle
import uuid
import zlib
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import msgspec
import yaml
from attrs import frozen

from txservices import configuration
from txservices.exceptions import ConfigurationError, DecodeError, EncodeError
from txservices.utils import import_from_path

DECOMPRESSED_MAX = 134_217_728  # bytes that a compressed body may grow to, 128 MiB as for a body

TYPE, VALUE = "__type__", "__value__"
ENVELOPE = {TYPE, VALUE}


@frozen
class Format:
    """How one serializer writes and reads, and what the message says about it."""

    content_type: str
    content_encoding: str
    encode: Callable[[Any], str | bytes]
    decode: Callable[[Any], Any]


# JSON ----------------------------------------------------------------------------------------------------------------


def wrap_bytes(value: bytes) -> dict[str, Any]:
    """Text in UTF-8 stays readable; other bytes go as base64."""
    try:
        return {TYPE: "bytes", VALUE: value.decode()}
    except UnicodeDecodeError:
        return {TYPE: "base64", VALUE: base64.b64encode(value).decode("ascii")}


# The first line that fits is taken: a datetime is a date too.
WRAPPERS: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (datetime, lambda value: {TYPE: "datetime", VALUE: value.isoformat()}),
    (date, lambda value: {TYPE: "date", VALUE: value.isoformat()}),
    (time, lambda value: {TYPE: "time", VALUE: value.isoformat()}),
    (Decimal, lambda value: {TYPE: "decimal", VALUE: str(value)}),
    (uuid.UUID, lambda value: {TYPE: "uuid", VALUE: {"hex": value.hex}}),
    (bytes, wrap_bytes),
)
UNWRAPPERS: dict[str, Callable[[Any], Any]] = {
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "decimal": Decimal,
    "uuid": lambda value: uuid.UUID(hex=value["hex"]),
    "bytes": lambda value: value.encode(),
    "base64": lambda value: base64.b64decode(value, validate=True),
}


def wrap(value: Any) -> Any:
    """What JSON has no word for, as something it has."""
    reduce = getattr(value, "__json__", None)
    if reduce is not None:
        return reduce()
    for kind, wrapped in WRAPPERS:
        if isinstance(value, kind):
            return wrapped(value)
    raise TypeError(f"{value!r} is a {type(value).__name__}, which JSON can't carry")


def unwrap(found: dict[str, Any]) -> Any:
    """An object of exactly the envelope's two keys is the value in it."""
    if found.keys() == ENVELOPE:
        return UNWRAPPERS[found[TYPE]](found[VALUE])
    return found


def json_encoder() -> Callable[[Any], str]:
    """What ``json.dumps`` does, with its C encoder made once and not for each value.

    Without the check for circles, which end in a ``RecursionError`` then.
    """
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:  # PyPy has none
        return json.JSONEncoder(default=wrap).encode
    chunks = make(None, wrap, json.encoder.encode_basestring_ascii, None, ": ", ", ", False, False, True)
    return lambda value: "".join(chunks(value, 0))


encode_json = json_encoder()


def decode_json(body: bytes) -> Any:
    """msgspec reads what is plain JSON, and is faster; NaN and lone surrogates are Python's dialect alone."""
    if b"__type__" not in body:
        try:
            return msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
    return json.loads(body.decode("utf-8", "surrogatepass"), object_hook=unwrap)


FORMATS: dict[str, Format] = {
    "json": Format("application/json", "utf-8", encode_json, decode_json),
    "pickle": Format("application/x-python-serialize", "binary", pickle.dumps, pickle.loads),
    "yaml": Format("application/x-yaml", "utf-8", yaml.safe_dump, yaml.safe_load),
    "msgpack": Format("application/x-msgpack", "binary", msgspec.msgpack.encode, msgspec.msgpack.decode),
    "raw": Format("application/data", "binary", lambda value: value, lambda body: body),
}

# Taken from everyone, as text: nothing is decoded.
TEXT_TYPES = ("application/data", "application/text")


# Compression ---------------------------------------------------------------------------------------------------------


def inflate(make: Callable[[], Any]) -> Callable[[bytes], bytes]:
    """A decompressor with an end: a bomb of some bytes must not become gigabytes."""

    def decompress(body: bytes) -> bytes:
        one = make()
        data: bytes = one.decompress(body, DECOMPRESSED_MAX)
        if not one.eof:
            raise ValueError(f"a compressed body that is cut, or longer than {DECOMPRESSED_MAX} bytes")
        return data

    return decompress


COMPRESSIONS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("application/x-gzip", zlib.compress),
    "zlib": ("application/x-gzip", zlib.compress),
    "bzip2": ("application/x-bz2", bz2.compress),
}
DECOMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "application/x-gzip": inflate(zlib.decompressobj),
    "application/x-bz2": inflate(bz2.BZ2Decompressor),
}


def compress(name: str, body: bytes) -> tuple[str, bytes]:
    """The value of the ``compression`` header, and the body; ``ConfigurationError`` for a name that isn't known."""
    try:
        header, shrink = COMPRESSIONS[name]
    except KeyError:
        raise ConfigurationError(f"no compression {name!r}: known are {', '.join(COMPRESSIONS)}") from None
    return header, shrink(body)


# What the rest of the house uses -------------------------------------------------------------------------------------


class Serializers:
    """The serializers of one configuration: ``serializer`` writes, ``ACCEPT`` says what is read."""

    __slots__ = ("accepted", "default", "formats", "names")

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.formats = dict(FORMATS)
        for name, entry in configuration.SERIALIZERS.of(config).items():
            self.formats[name] = custom_format(name, entry)
        self.names = {form.content_type: name for name, form in self.formats.items()}
        self.default = configuration.SERIALIZER.of(config)
        self.format(self.default)
        accept = configuration.ACCEPT.of(config) or [self.default]
        self.accepted = {form.content_type: form for form in map(self.format, accept)}

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Serializers:
        """Those of a configuration. ``ConfigurationError`` for a name that is not registered."""
        return cls(config)

    def format(self, name: str) -> Format:
        try:
            return self.formats[name]
        except KeyError:
            raise ConfigurationError(f'Please register a serializer for "{name}" format') from None

    def by_content_type(self, content_type: str | None) -> str | None:
        """The name of the serializer that writes that type, so that a reply speaks as its request did."""
        return self.names.get(content_type or "")

    def encode(self, name: str | None, value: Any) -> tuple[str, str, bytes]:
        """Content type, content encoding and body of a value. ``EncodeError`` where it can't be written."""
        form = self.format(name or self.default)
        try:
            body = form.encode(value)
        except Exception as error:
            raise EncodeError(f"{type(error).__name__}: {error}") from error
        return form.content_type, form.content_encoding, body if isinstance(body, bytes) else body.encode()

    def decode(
        self,
        content_type: str | None,
        content_encoding: str | None,
        body: bytes,
        headers: Mapping[str, Any] | None,
    ) -> Any:
        """The value of a body. ``DecodeError`` says why it can't be had: not accepted, or not readable."""
        compression = headers.get("compression") if headers else None
        form = self.accepted.get(content_type or "")
        try:
            if compression:
                body = DECOMPRESSIONS[compression](body)
            if form is not None:
                return form.decode(body)
        except Exception as error:
            raise DecodeError(f"a body of {content_type} can't be read: {type(error).__name__}: {error}") from error
        if not content_type or content_type in TEXT_TYPES:
            return body if content_encoding == "binary" else body.decode("utf-8", "replace")
        raise DecodeError(f"content type {content_type!r} is not accepted here, {', '.join(self.accepted)} is")


def custom_format(name: str, entry: Mapping[str, Any]) -> Format:
    """One entry of ``SERIALIZERS``: where its functions are, and what its messages are called."""
    try:
        return Format(
            entry["content_type"],
            entry.get("content_encoding", "utf-8"),
            import_from_path(entry["encoder"]),
            import_from_path(entry["decoder"]),
        )
    except (KeyError, ImportError) as error:
        raise ConfigurationError(
            f"SERIALIZERS: {name!r} needs encoder, decoder and content_type, the first two as dotted paths: {error!r}"
        ) from error
