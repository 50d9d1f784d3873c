"""Bodies in fewer bytes, by gzip or brotli, for clients that take them. Pure.

Brotli needs the extra: ``pip install 'txservices[brotli]'``. Without it gzip is used.

A body is compressed if it is complete, at least ``WEB_COMPRESS_FROM`` bytes long, and of a type that gets shorter by
it. A body that is longer than ``AT_ONCE`` is compressed piece by piece, while it is sent.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import Any

from werkzeug.wrappers import Request, Response

from txservices.web.conditional import Stored
from txservices.web.messages import vary

try:
    import brotli
except ImportError:
    brotli = None

AT_ONCE = 64 * 1024  # bytes that are compressed at once: some 3 ms
GZIP_LEVEL = 6
BROTLI_QUALITY = 4  # takes as long as gzip's 6, and is shorter
GZIP_WINDOW = 31  # zlib's number for gzip's format
SHORTENED = re.compile(
    r"text/(?!event-stream).*|application/(?:[\w.\-]+\+)?(?:json|xml)|application/(?:javascript|wasm|x-ndjson|manifest)"
    r"|image/svg\+xml|image/x-icon|font/(?:ttf|otf)",
    re.IGNORECASE,
)


def coding_of(request: Request, response: Response, stored: Stored, least: int) -> str | None:
    """The coding by which to send a response: br, gzip, or None. Tells caches that it depends on the request."""
    headers = response.headers
    if (
        stored.length < least
        or "Content-Encoding" in headers
        or "no-transform" in headers.get("Cache-Control", "").lower()
        or not SHORTENED.fullmatch(response.mimetype or "")
    ):
        return None
    vary(headers, "Accept-Encoding")
    accepted = request.accept_encodings
    best, coding = 0.0, None
    for each in ("br", "gzip") if brotli is not None else ("gzip",):
        quality = accepted.quality(each)
        if quality > best:
            best, coding = quality, each
    return coding


def weaken(response: Response) -> None:
    """Say by the ETag that the body is the same, and its bytes are not: RFC 9110, 8.8.1."""
    etag = response.headers.get("ETag")
    if etag is not None and not etag.startswith("W/"):
        response.headers["ETag"] = f"W/{etag}"


def compress(response: Response, stored: Stored, coding: str) -> None:
    """Send the body of a response by a coding."""
    headers = response.headers
    headers["Content-Encoding"] = coding
    headers.remove("Content-Length")
    headers.remove("Accept-Ranges")  # parts are of the body as it is
    pieces = compressed(stored.pieces(0, stored.length), coding)
    if stored.length <= AT_ONCE:
        response.response = [b"".join(pieces)]
    else:
        response.response = pieces


def compressed(pieces: Iterator[bytes], coding: str) -> Iterator[bytes]:
    compressor: Any
    if coding == "br":
        compressor = brotli.Compressor(quality=BROTLI_QUALITY)
        feed, flush = compressor.process, compressor.finish
    else:
        compressor = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, GZIP_WINDOW)
        feed, flush = compressor.compress, compressor.flush
    for piece in pieces:
        for at in range(0, len(piece), AT_ONCE):
            made = feed(piece[at : at + AT_ONCE])
            if made:
                yield made
    yield flush()
