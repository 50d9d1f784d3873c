"""Compressed bodies, both ways. Decompression stops at a limit: see ``bounds``. Pure."""

from __future__ import annotations

import bz2
import zlib
from collections.abc import Callable
from typing import Any

from txservices.exceptions import ConfigurationError

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


DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    "application/x-gzip": zlib.decompressobj,
    "application/x-bz2": bz2.BZ2Decompressor,
}


def decompress(compression: str, body: bytes, most: int) -> bytes | None:
    """The decompressed body; None if that would have more than ``most`` bytes. ``ValueError`` if the body is cut."""
    one = DECOMPRESSORS[compression]()
    data: bytes = one.decompress(body, most + 1)
    if len(data) > most:
        return None
    if not one.eof:
        raise ValueError("a compressed body that is cut")
    return data
