"""The head of a request: its bytes to method, target and headers, as strictly as RFC 9112 has it. Pure.

    Channel -> read_head(bytes) -> Head; then framing_of(head) says how long the body is

Two servers in a row that read the same bytes differently let a client smuggle a request past the first one. So whatever
the RFC lets a server repair is refused here: a line that ends in LF alone, a folded header, a space before the colon,
two lengths.
"""

from __future__ import annotations

import re
from typing import NamedTuple

HEADERS_MAX = 500
LENGTH_DIGITS = 18  # of a Content-Length; more bytes than that are too many for anybody

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # RFC 9110, 5.6.2
REQUEST_LINE = re.compile(rb"(%b) ([^\x00-\x20\x7f]+) HTTP/(\d)\.(\d)\r\n" % TOKEN)
HEADER = rb"(%b):([\t\x20-\x7e\x80-\xff]*)\r\n" % TOKEN
HEADERS = re.compile(rb"(?:%b)*" % HEADER)
EACH_HEADER = re.compile(HEADER)
BARE_LF = re.compile(rb"(?<!\r)\n")
# RFC 3986, 3.2.2, with a port. The name may be empty: RFC 9112, 3.2, has a client send that for a URL without one.
HOST = re.compile(rb"(?:\[[0-9A-Fa-fv:.]+\]|(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*)(?::\d*)?")
# The codings of RFC 9112, 7. We decode chunked alone, and others only if it is on top of them, RFC 9112, 6.3.
CODINGS = {b"gzip", b"x-gzip", b"compress", b"x-compress", b"deflate", b"identity"}


class Refused(Exception):
    """A request that is not served. Its connection can't be used any more.

    Attributes:
        status: of the answer, with its phrase.
        reason: for the client.
    """

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


def bad(reason: str) -> Refused:
    return Refused("400 Bad Request", reason)


class Head(NamedTuple):
    """What a head says.

    Attributes:
        http_1_1: whether it is of HTTP/1.1, and not 1.0.
        headers: names and values, in their order. The values have no space around them.
    """

    method: bytes
    target: bytes
    http_1_1: bool
    headers: list[tuple[bytes, bytes]]


UNREAD = Head(b"", b"", False, [])  # one that can't be read, or is not


class Framing(NamedTuple):
    """How a request's body and connection go on.

    Attributes:
        length: of the body in bytes; None if it comes in chunks.
        closing: whether the client wants the connection closed after the response.
        waiting: whether the client waits to be told that it may send the body.
    """

    length: int | None
    closing: bool
    waiting: bool


def read_head(data: bytes) -> Head:
    """Read a request line and headers, each with its CRLF, without the empty line. ``Refused`` if they are wrong."""
    line = REQUEST_LINE.match(data)
    if line is None:
        raise bad("the request line is not METHOD, URL and version")
    method, target, major, minor = line.groups()
    if major != b"1":
        raise Refused("505 HTTP Version Not Supported", "this is a server for HTTP/1.1")
    headers = HEADERS.match(data, line.end())
    assert headers is not None, "it matches nothing, too"
    if headers.end() != len(data):
        raise bad("a header is not a name, a colon, and a value in one line")
    found = [(name, value.strip(b" \t")) for name, value in EACH_HEADER.findall(data, line.end())]
    if len(found) > HEADERS_MAX:
        raise Refused("431 Request Header Fields Too Large", f"more than {HEADERS_MAX} headers")
    return Head(method, target, minor != b"0", found)


def framing_of(head: Head) -> Framing:
    """What the headers say of body and connection. ``Refused`` if they contradict each other, or Host is wrong."""
    length: int | None = 0
    hosts = lengths = 0
    codings: list[bytes] | None = None
    closing, waiting = not head.http_1_1, False
    for name, value in head.headers:
        size = len(name)
        if size == 4 and name.lower() == b"host":
            hosts += 1
            if not HOST.fullmatch(value):
                raise bad("Host is not a name, with a port or without")
        elif size == 14 and name.lower() == b"content-length":
            lengths += 1
            length = length_of(value)
        elif size == 17 and name.lower() == b"transfer-encoding":
            codings = (codings or []) + listed(value)
        elif size == 10 and name.lower() == b"connection":
            closing = closing or b"close" in listed(value)
        elif size == 6 and name.lower() == b"expect":
            waiting = waiting or (head.http_1_1 and b"100-continue" in listed(value))
    if hosts > 1 or (head.http_1_1 and not hosts):
        raise bad("a request has one Host")
    if lengths > 1:
        raise bad("a request has one Content-Length")
    if codings is not None:
        check_codings(codings)
        if lengths or not head.http_1_1:
            raise bad("a request of HTTP/1.1 has a Content-Length or a Transfer-Encoding, an older one no encoding")
        length = None
    return Framing(length, closing, waiting)


def listed(value: bytes) -> list[bytes]:
    """The members of a list in a header, in lower case."""
    return [member for each in value.lower().split(b",") if (member := each.strip(b" \t"))]


def length_of(value: bytes) -> int:
    if not value.isdigit():
        raise bad("Content-Length is not a number")
    return int(value) if len(value) <= LENGTH_DIGITS else 10**LENGTH_DIGITS


def check_codings(codings: list[bytes]) -> None:
    """Raise unless the body comes in chunks and is not coded otherwise. RFC 9112, 6.1 and 6.3."""
    if codings == [b"chunked"]:
        return
    *others, last = codings or [b"identity"]
    if b"chunked" in others or (last in CODINGS):
        raise bad("chunked is the last coding of a body, and there once")
    raise Refused("501 Not Implemented", "a body may be chunked, and not coded otherwise")
