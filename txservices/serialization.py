"""Values to the bytes of a message's body, and back. Each serializer is a ``Format``.

JSON is kombu's dialect, which nameko's services use: all text is ASCII, and values that JSON does not have (times,
decimals, UUIDs, bytes) are wrapped as ``{"__type__": …, "__value__": …}``. Only the serializers in ``ACCEPT`` are read,
by default the configured one: to read a pickle from a stranger is to run the stranger's program.
"""

from __future__ import annotations

import base64
import bz2
import encodings
import json
import pickle
import pkgutil
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
from txservices.bounds import (
    DENSE_HERE_MAX,
    HERE_MAX,
    TEXT_STEP,
    YAML_HERE_MAX,
    JsonReader,
    LongBody,
    decode_charset,
    decompress,
    encode_utf8,
    is_quick,
    join,
    read_msgpack,
    read_yaml,
)
from txservices.exceptions import ConfigurationError, DecodeError, EncodeError
from txservices.safe import brief, name_of, safe_for_serialization
from txservices.utils import import_from_path

__all__ = ["Format", "Serializers"]

ERROR_TEXT_MAX = 300  # characters of what a decoder says: some repeat the whole body
WRAPPED_MAX = 65_536  # characters of a wrapped value, unless it is bytes: 16 MB of digits would take 0.1 s

TYPE, VALUE = "__type__", "__value__"
ENVELOPE = {TYPE, VALUE}


@frozen
class Format:
    """One serializer: how it writes and reads, and the content type and encoding that its messages have.

    Attributes:
        here_max: bytes of a body that is decoded in the reactor.
        decode_long: decodes a longer one, in a thread; called with the body and ``VALUES_MAX``.
    """

    content_type: str
    content_encoding: str
    encode: Callable[[Any], str | bytes]
    decode: Callable[[bytes], Any]
    decode_long: Callable[[bytes, int], Any]
    here_max: int = HERE_MAX


# JSON ----------------------------------------------------------------------------------------------------------------


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


# Other formats -------------------------------------------------------------------------------------------------------

FORMATS: dict[str, Format] = {
    "json": Format("application/json", "utf-8", encode_json, decode_json, decode_long_json),
    # Its values are not counted: who may send a pickle may run any program here.
    "pickle": Format(
        "application/x-python-serialize", "binary", pickle.dumps, pickle.loads, lambda body, _: pickle.loads(body)
    ),
    "yaml": Format(
        "application/x-yaml",
        "utf-8",
        yaml.safe_dump,
        lambda body: read_yaml(body, configuration.VALUES_MAX.default),
        read_yaml,
        YAML_HERE_MAX,
    ),
    "msgpack": Format(
        "application/x-msgpack",
        "binary",
        msgspec.msgpack.encode,
        msgspec.msgpack.decode,
        read_msgpack,
        DENSE_HERE_MAX,
    ),
    "raw": Format("application/data", "binary", lambda value: value, lambda body: body, lambda body, _: body),
}


# Text ----------------------------------------------------------------------------------------------------------------

# Content types that are always accepted: their bodies are text or bytes, as their content encoding says.
TEXT_TYPES = ("application/data", "application/text")
BINARY = ("binary", "ascii-8bit")
# Codecs of Python's that are no charsets, and two whose time grows with the square of the length: 100 kB of punycode
# take 4 s.
NO_CHARSETS = {"base64_codec", "bz2_codec", "hex_codec", "quopri_codec", "rot_13", "uu_codec", "zlib_codec"}
NO_CHARSETS |= {"undefined", "idna", "punycode", "aliases"}
# Python would note every name that it is asked for, for ever, and look for a module of that name.
CHARSETS = frozenset(module.name for module in pkgutil.iter_modules(encodings.__path__)) - NO_CHARSETS


def charset_of(content_encoding: str) -> str:
    """The name that Python has for a charset. ``LookupError`` if it has no such charset."""
    name = encodings.normalize_encoding(content_encoding.lower())
    name = encodings.aliases.aliases.get(name, name)
    if name not in CHARSETS:
        raise LookupError(f"no charset {content_encoding[:ERROR_TEXT_MAX]!r}")
    return name


def decode_text(body: bytes, content_encoding: str | None, here: bool) -> str | bytes:
    """Text in the charset that its content encoding names; bytes if that says ``binary``.

    ``ValueError`` or ``LookupError`` if it can't be decoded; ``LongBody`` if that should not be done here.
    """
    encoding = content_encoding or "utf-8"
    if encoding.lower() in BINARY:
        return body
    charset = charset_of(encoding)
    if here and len(body) > HERE_MAX:
        raise LongBody()
    return decode_charset(body, charset, "strict")


# Compression ---------------------------------------------------------------------------------------------------------

COMPRESSIONS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("application/x-gzip", zlib.compress),
    "zlib": ("application/x-gzip", zlib.compress),
    "bzip2": ("application/x-bz2", bz2.compress),
}


def compress(name: str, body: bytes) -> tuple[str, bytes]:
    """The value for the ``compression`` header and the compressed body. ``ConfigurationError`` for an unknown name."""
    try:
        header, shrink = COMPRESSIONS[name]
    except KeyError:
        raise ConfigurationError(f"no compression {name!r}: there are {', '.join(COMPRESSIONS)}") from None
    return header, shrink(body)


# What the rest of the house uses -------------------------------------------------------------------------------------


class Serializers:
    """The serializers of one configuration: it writes with ``serializer`` and reads those in ``ACCEPT``.

    ``ConfigurationError`` if one of these names is not registered.

    Attributes:
        formats: every known serializer, by name.
        names: the names of the serializers, by content type.
        default: the name of the one that writes.
        accepted: the ones that are read, by content type.
        readers: those of them whose bodies are more than text.
        decompressed_max: bytes that a compressed body may grow to.
        values_max: values that a long body may have.
    """

    __slots__ = ("accepted", "decompressed_max", "default", "formats", "names", "readers", "values_max")

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.formats = dict(FORMATS)
        for name, entry in configuration.SERIALIZERS.of(config).items():
            self.formats[name] = custom_format(name, entry)
        self.names = {form.content_type: name for name, form in self.formats.items()}
        self.default = configuration.SERIALIZER.of(config)
        self.format(self.default)
        accept = configuration.ACCEPT.of(config) or [self.default]
        self.accepted = {form.content_type: form for form in map(self.format, accept)}
        self.readers = {kind: form for kind, form in self.accepted.items() if form is not FORMATS["raw"]}
        self.decompressed_max = configuration.DECOMPRESSED_MAX.of(config)
        self.values_max = configuration.VALUES_MAX.of(config)

    def format(self, name: str) -> Format:
        try:
            return self.formats[name]
        except KeyError:
            raise ConfigurationError(f'Please register a serializer for "{name}" format') from None

    def encode(self, name: str | None, value: Any) -> tuple[str, str, bytes]:
        """Write a value: its content type, content encoding and body. ``EncodeError`` if it can't be written."""
        form = self.formats.get(name or self.default) or self.format(name or "")  # which raises
        try:
            body = form.encode(value)
            written: bytes = body if isinstance(body, bytes) else body.encode()
        except BaseException as error:  # a serializer of the user's may raise anything, and give anything
            raise EncodeError(f"{name_of(type(error))}: {safe_for_serialization(error)}") from error
        return form.content_type, form.content_encoding, written

    def decode(
        self,
        content_type: str | None,
        content_encoding: str | None,
        body: bytes,
        headers: Mapping[str, Any] | None,
        here: bool = False,
    ) -> Any:
        """Read a body. ``DecodeError`` if its content type is not accepted, or if it can't be read.

        In the reactor, which says so with ``here``, a body that takes long is a ``LongBody``: decode it in a thread.
        """
        compression = headers.get("compression") if headers else None
        form = self.readers.get(content_type or "")
        try:
            if compression:
                body = self.decompress(compression, body, here)
            if form is not None:
                if len(body) <= form.here_max:
                    return form.decode(body)
                if here:
                    raise LongBody()
                return form.decode_long(body, self.values_max)
            if not content_type or content_type in TEXT_TYPES:
                return decode_text(body, content_encoding, here)
        except LongBody:
            raise
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"[:ERROR_TEXT_MAX]
            raise DecodeError(f"a body of {content_type} can't be read: {text}") from error
        raise DecodeError(f"content type {content_type!r} is not accepted here, {', '.join(self.accepted)} is")

    def decompress(self, compression: str, body: bytes, here: bool) -> bytes:
        """The decompressed body; ``LongBody`` if it is to be made here, and is long."""
        if here and len(body) > HERE_MAX:
            raise LongBody()
        most = min(HERE_MAX, self.decompressed_max) if here else self.decompressed_max
        data = decompress(compression, body, most)
        if data is not None:
            return data
        if most < self.decompressed_max:
            raise LongBody()
        key = configuration.DECOMPRESSED_MAX.name
        raise ValueError(f"decompressed it has more than {most} bytes, the limit that {key} sets")


def custom_format(name: str, entry: Mapping[str, Any]) -> Format:
    """The serializer that an entry of ``SERIALIZERS`` describes."""
    try:
        encode, decode = import_from_path(entry["encoder"]), import_from_path(entry["decoder"])
        encoding = entry.get("content_encoding", "utf-8")
        return Format(entry["content_type"], encoding, encode, decode, lambda body, _: decode(body))
    except (KeyError, ImportError) as error:
        raise ConfigurationError(
            f"SERIALIZERS: {name!r} needs encoder, decoder and content_type, the first two as dotted paths: {error!r}"
        ) from error
