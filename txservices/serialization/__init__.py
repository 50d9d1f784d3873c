"""Values to the bytes of a message's body, and back.

    encode      a value -> the serializer's ``Format`` -> content type, content encoding, body
    decode      body -> decompressed -> the ``Format`` of its content type, or a text in its charset -> a value

Only the serializers in ``ACCEPT`` are read, by default the configured one: to read a pickle from a stranger is to run
the stranger's program. How much a body may become is said by ``bounds``.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import yaml
from attrs import frozen

from txservices import configuration
from txservices.exceptions import ConfigurationError, DecodeError, EncodeError
from txservices.safe import name_of, safe_for_serialization
from txservices.serialization.bounds import HERE_MAX, LongBody
from txservices.serialization.compression import decompress
from txservices.serialization.jsonvalues import decode_json, decode_long_json, encode_json
from txservices.serialization.msgpackreader import DENSE_HERE_MAX, read_msgpack
from txservices.serialization.texts import ERROR_TEXT_MAX, TEXT_TYPES, decode_text
from txservices.serialization.yamlreader import YAML_HERE_MAX, read_yaml
from txservices.utils import import_from_path

__all__ = ["Format", "Serializers"]


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
