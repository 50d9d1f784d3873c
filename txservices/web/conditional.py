"""Responses that depend on what the client has already: 304, 412, and parts of a body. RFC 9110, 13 and 14. Pure.

    conditional(request, response, stored) -> 200, 206, 304, 412 or 416

``Stored`` is a body that is complete: in memory, or in a file. A client may ask for several parts of it at once, which
are sent in one body (multipart/byteranges).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from email.utils import format_datetime
from hashlib import blake2b
from typing import IO

from werkzeug.http import quote_etag, unquote_etag
from werkzeug.wrappers import Request, Response

RANGES_MAX = 10  # parts that a request may ask for; beyond them it is sent the whole
PIECE = 64 * 1024  # bytes of a file that are read together
RANGES = re.compile(r"bytes\s*=\s*(.*)", re.IGNORECASE)
RANGE = re.compile(r"(\d*)\s*-\s*(\d*)", re.ASCII)
DIGITS_MAX = 18  # of a position in a body
SAFE = ("GET", "HEAD")


class Stored:
    """A body that is complete.

    Attributes:
        length: how many bytes it has.
    """

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.length = len(body)

    def pieces(self, start: int, stop: int) -> Iterator[bytes]:
        yield self.body[start:stop]

    def body_of(self, pieces: Iterator[bytes]) -> Iterable[bytes]:
        """Pieces as the body of a response: a list if they are there already."""
        return list(pieces)


class StoredFile(Stored):
    """A body that is in an open file. The response closes that: see ``Response.call_on_close``."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.length = os.fstat(file.fileno()).st_size

    def pieces(self, start: int, stop: int) -> Iterator[bytes]:
        self.file.seek(start)
        while start < stop:
            piece = self.file.read(min(PIECE, stop - start))
            if not piece:
                return  # it has become shorter: the client is cut off
            start += len(piece)
            yield piece

    def body_of(self, pieces: Iterator[bytes]) -> Iterable[bytes]:
        return pieces

    def put_into(self, response: Response) -> None:
        """Make this the body of a response."""
        response.response = self.pieces(0, self.length)
        response.headers["Content-Length"] = str(self.length)


def add_etag(response: Response, body: bytes) -> None:
    """Give a response an ETag made of its body, unless it has one, or a Last-Modified."""
    if "ETag" not in response.headers and "Last-Modified" not in response.headers:
        response.headers["ETag"] = quote_etag(blake2b(body, digest_size=16).hexdigest())


def conditional(request: Request, response: Response, stored: Stored | None) -> None:
    """Change a response to what is enough for its client. ``stored`` is its body, if that is complete."""
    if response.status_code != 200 or request.method not in SAFE:
        return
    status = precondition(request, response)
    if status is not None:
        leave_out(response, status)
        return
    if stored is not None:
        response.headers["Accept-Ranges"] = "bytes"
        if request.method == "GET" and stored.length and may_have_part(request, response):
            ranges = ranges_of(request.headers["Range"], stored.length)
            if ranges is not None:
                send_ranges(response, stored, ranges)


def leave_out(response: Response, status: int) -> None:
    """Make it a response without a body."""
    close = getattr(response.response, "close", None)
    if close is not None:  # it is made while it is sent
        close()
    response.status_code = status
    response.response = []
    response.headers.remove("Content-Length")
    response.headers.remove("Content-Type")


def precondition(request: Request, response: Response) -> int | None:
    """412 or 304 if the request's conditions say so, in the order of RFC 9110, 13.2.2."""
    etag, weak = unquote_etag(response.headers.get("ETag"))
    modified = response.last_modified
    headers = request.headers
    if "If-Match" in headers:
        match = request.if_match
        if not (match.star_tag or (etag is not None and not weak and match.is_strong(etag))):
            return 412
    elif "If-Unmodified-Since" in headers:
        since = request.if_unmodified_since
        if since is not None and modified is not None and modified > since:
            return 412
    if "If-None-Match" in headers:
        none_match = request.if_none_match
        if none_match.star_tag or (etag is not None and none_match.contains_weak(etag)):
            return 304
    elif "If-Modified-Since" in headers:
        since = request.if_modified_since
        if since is not None and modified is not None and modified <= since:
            return 304
    return None


def may_have_part(request: Request, response: Response) -> bool:
    """Whether a request asks for a part, and of this very body, if it says of which."""
    if "Range" not in request.headers:
        return False
    condition = request.headers.get("If-Range", "").strip()
    if not condition:
        return True
    if condition.endswith('"'):
        return condition == response.headers.get("ETag") and not condition.startswith("W/")
    modified = response.last_modified
    return modified is not None and condition == format_datetime(modified, usegmt=True)


def ranges_of(header: str, length: int) -> list[tuple[int, int]] | None:
    """The parts that a Range header asks for: pairs of a start and a stop. Empty if the body has none of them.

    None if the header is to be ignored: it is no list of ranges of bytes, has too many of them, or they overlap so that
    they are longer than the whole.
    """
    unit = RANGES.fullmatch(header.strip())
    specs = [each.strip() for each in unit[1].split(",")] if unit is not None else []
    specs = [each for each in specs if each]
    if not specs or len(specs) > RANGES_MAX:
        return None
    found = []
    for spec in specs:
        match = RANGE.fullmatch(spec)
        if match is None or len(spec) > 2 * DIGITS_MAX:
            return None
        first, last = match.groups()
        if first:
            start, stop = int(first), int(last) + 1 if last else length
            if stop <= start and last:
                return None
        elif last:
            start, stop = max(length - int(last), 0), length
        else:
            return None
        if start < min(stop, length):
            found.append((start, min(stop, length)))
    return found if sum(stop - start for start, stop in found) <= length else None


def send_ranges(response: Response, stored: Stored, ranges: list[tuple[int, int]]) -> None:
    """Make a response of these parts of a body; 416 if there are no parts."""
    headers = response.headers
    if not ranges:
        leave_out(response, 416)
        headers["Content-Range"] = f"bytes */{stored.length}"
        return
    response.status_code = 206
    if len(ranges) == 1:
        [(start, stop)] = ranges
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{stored.length}"
        headers["Content-Length"] = str(stop - start)
        response.response = stored.body_of(stored.pieces(start, stop))
        return
    content_type = headers.get("Content-Type", "application/octet-stream")
    boundary = os.urandom(16).hex()
    heads = [
        f"\r\n--{boundary}\r\nContent-Type: {content_type}\r\nContent-Range: bytes {start}-{stop - 1}/{stored.length}"
        "\r\n\r\n".encode("latin-1")
        for start, stop in ranges
    ]
    end = f"\r\n--{boundary}--\r\n".encode()

    def parts() -> Iterator[bytes]:
        for head, (start, stop) in zip(heads, ranges, strict=True):
            yield head
            yield from stored.pieces(start, stop)
        yield end

    headers["Content-Type"] = f"multipart/byteranges; boundary={boundary}"
    headers["Content-Length"] = str(sum(map(len, heads)) + sum(stop - start for start, stop in ranges) + len(end))
    response.response = stored.body_of(parts())
