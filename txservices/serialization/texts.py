"""Bodies that are text, in the charset that their content encoding names. Pure."""

from __future__ import annotations

import encodings
import pkgutil

from txservices.serialization.bounds import HERE_MAX, LongBody, decode_charset

ERROR_TEXT_MAX = 300  # characters of what a decoder says: some repeat the whole body

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
