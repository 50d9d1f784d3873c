"""Requests as bytes, each with the section of the RFC that says what a server does with it, and its status.

The second opinion is h11's, which is strict, too. Where it says something else, the row has that as well.
"""

from __future__ import annotations

from typing import NamedTuple

import h11

HTTP = "RFC 9112"
SEMANTICS = "RFC 9110"


class Row(NamedTuple):
    """A request.

    Attributes:
        section: of the RFC, with its number.
        data: the bytes.
        status: that of the last response.
        h11: the status that h11 would have a server answer.
    """

    section: str
    data: bytes
    status: int
    h11: int


rows: list[Row] = []


def row(section: str, data: bytes, status: int, h11: int | None = None) -> None:
    rows.append(Row(section, data, status, status if h11 is None else h11))


def get(*headers: bytes, line: bytes = b"GET /number/1 HTTP/1.1", host: bytes = b"Host: h") -> bytes:
    return b"\r\n".join([line, *([host] if host else []), *headers, b"", b""])


def post(*headers: bytes, body: bytes = b"") -> bytes:
    return get(*headers, line=b"POST /length HTTP/1.1") + body


def chunked(body: bytes, *headers: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked", *headers, body=body)


# The request line
row(f"{HTTP} 3", get(), 200)
row(f"{HTTP} 2.2: an empty line before a request is ignored", b"\r\n" + get(), 200, 400)
row(f"{HTTP} 2.2: a bare LF may end a line, or be refused", get().replace(b"\r\n", b"\n"), 400, 200)
row(f"{HTTP} 2.2", get().replace(b"\r\n", b"\n", 1), 400, 200)
row(f"{HTTP} 2.2: a bare CR is invalid", get(b"A: b\rc: d"), 400)
row(f"{HTTP} 2.2", get(line=b"GET /number/1\rHTTP/1.1"), 400)
row(f"{HTTP} 2.2: no space before the first header", get(host=b" Host: h"), 400)
row(f"{HTTP} 2.3: a version is HTTP/digit.digit", get(line=b"GET /number/1 HTTP/1.10"), 400)
row(f"{HTTP} 2.3: it is in capitals", get(line=b"GET /number/1 http/1.1"), 400)
row(f"{HTTP} 2.3", get(line=b"GET /number/1 HTTP/1"), 400)
row(f"{SEMANTICS} 15.6.6: another major version", get(line=b"GET /number/1 HTTP/2.0"), 505, 200)
row(f"{SEMANTICS} 15.6.6", get(line=b"GET /number/1 HTTP/0.9"), 505, 200)
row(f"{SEMANTICS} 15.6.6: the start of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, 400)
row(f"{SEMANTICS} 2.5: a later minor version is taken for ours", get(line=b"GET /number/1 HTTP/1.2"), 200)
row(f"{HTTP} 3: a line without a version", b"GET /number/1\r\n\r\n", 400, 400)
row(f"{HTTP} 3: one space between the parts", get(line=b"GET  /number/1 HTTP/1.1"), 400)
row(f"{HTTP} 3", get(line=b"GET\t/number/1 HTTP/1.1"), 400)
row(f"{HTTP} 3", get(line=b"GET /number/1 HTTP/1.1 "), 400)
row(f"{HTTP} 3.1: a method is a token", get(line=b"G@T /number/1 HTTP/1.1"), 400)
row(f"{HTTP} 3.1", get(line=b" GET /number/1 HTTP/1.1"), 400)
row(f"{SEMANTICS} 15.5.6: a method that the URL has not", get(line=b"BREW /number/1 HTTP/1.1"), 405, 200)
row(f"{SEMANTICS} 9.1: werkzeug has no case in methods, and nameko with it", get(line=b"get /number/1 HTTP/1.1"), 200)
row(f"{HTTP} 3.2: no space in a URL", get(line=b"GET /number/1 2 HTTP/1.1"), 400)
row(f"{HTTP} 3.2: no control character", get(line=b"GET /number/1\x01 HTTP/1.1"), 400)
row(f"{HTTP} 3.2.1", get(line=b"GET number/1 HTTP/1.1"), 400, 200)
row(f"{HTTP} 3.2.2: the form for proxies", get(line=b"GET http://h/number/1 HTTP/1.1"), 200)
row(f"{HTTP} 3.2.3: we are no proxy", get(line=b"CONNECT h:80 HTTP/1.1"), 400, 200)
row(f"{HTTP} 3.2.4", get(line=b"OPTIONS * HTTP/1.1"), 204, 200)
row(f"{HTTP} 3.2.4: with OPTIONS alone", get(line=b"GET * HTTP/1.1"), 400, 200)
row(f"{HTTP} 3: a line of over 16 KiB", get(line=b"GET /%b HTTP/1.1" % (b"x" * 17_000)), 414, 200)
row(f"{HTTP} 2.1: this is TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400)

# Headers
row(f"{HTTP} 5.1: no space before the colon", get(b"A : b"), 400)
row(f"{HTTP} 5.1", get(b"Content-Length : 5"), 400)
row(f"{HTTP} 5.1", get(b"Transfer-Encoding\t: chunked"), 400)
row(f"{HTTP} 5.1: a header has a colon", get(b"A"), 400)
row(f"{HTTP} 5.1: and a name", get(b": b"), 400)
row(f"{HTTP} 5.1: of a token's characters", get(b"A(b): c"), 400)
row(f"{HTTP} 5.1", get("Ä: c".encode()), 400)
row(f"{HTTP} 5.2: a folded line", get(b"A: b", b" c"), 400, 200)
row(f"{HTTP} 5.2", get(b"A: b", b"\tc"), 400, 200)
row(f"{HTTP} 5.2", get(b"Transfer-Encoding:", b" chunked"), 400)
row(f"{SEMANTICS} 5.5: NUL in a value", get(b"A: b\0c"), 400)
row(f"{SEMANTICS} 5.5: another control character", get(b"A: b\x01c"), 400, 200)
row(f"{SEMANTICS} 5.5: bytes over 127 are taken", get(b"A: \xff\xfe"), 200)
row(f"{SEMANTICS} 5.5: spaces around a value", get(b"A: \t b c \t"), 200)
row(f"{SEMANTICS} 5.5: an empty one", get(b"A:"), 200)
row("RFC 6585 5: headers of over 16 KiB", get(b"A: " + b"x" * 17_000), 431, 200)
row("RFC 6585 5", get(*[b"A: " + b"x" * 1000] * 17), 431, 200)
row("RFC 6585 5: over 500 headers", get(*[b"A:"] * 501), 431, 200)

# Host
row(f"{HTTP} 3.2: none", get(host=b""), 400)
row(f"{HTTP} 3.2: HTTP/1.0 needs none", get(host=b"", line=b"GET /number/1 HTTP/1.0"), 200)
row(f"{HTTP} 3.2: two", get(b"Host: h"), 400)
row(f"{HTTP} 3.2", get(b"Host: i", line=b"GET /number/1 HTTP/1.0"), 400)
row(f"{HTTP} 3.2: an empty one", get(host=b"Host:"), 200)
for host in (b"h:80", b"127.0.0.1:8000", b"[::1]", b"[::1]:8000", b"a-b.c_d", b"h:", b"%41"):
    row(f"{HTTP} 3.2, RFC 3986 3.2", get(host=b"Host: " + host), 200)
for host in (b"a b", b"h/x", b"h:80x", b"h:80:80", b"a@h", b"<h>", b"[::1", b"h,i", b"\xc3\xa4", b"%4", b"h?", b"::1"):
    row(f"{HTTP} 3.2, RFC 3986 3.2", get(host=b"Host: " + host), 200 if host == b"h,i" else 400, 200)

# How long the body is
row(f"{HTTP} 6.2", post(b"Content-Length: 4", body=b"four"), 200)
row(f"{HTTP} 6.2", post(b"Content-Length: 0"), 200)
for length in (b"", b"-1", b"+4", b"0x4", b"4.0", b"4 4", b"\xb2", b"four", b"4, 5", b"4;"):
    row(f"{HTTP} 6.3", post(b"Content-Length: " + length, body=b"four"), 400)
row(f"{HTTP} 6.3: one length given twice may be refused", post(b"Content-Length: 4, 4", body=b"four"), 400, 200)
row(f"{HTTP} 6.3", post(b"Content-Length: 4", b"Content-Length: 4", body=b"four"), 400, 200)
row(f"{HTTP} 6.3", post(b"Content-Length: 4", b"Content-Length: 5", body=b"four"), 400)
row(f"{SEMANTICS} 15.5.14", post(b"Content-Length: 100000000"), 413, 400)
row(f"{SEMANTICS} 15.5.14", post(b"Content-Length: " + b"9" * 5000), 413, 400)
row(f"{HTTP} 6.3: less than it says", post(b"Content-Length: 5", body=b"four"), 400)
row(f"{HTTP} 6.1: both", post(b"Content-Length: 4", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 400, 200)
row(f"{HTTP} 6.1", post(b"Transfer-Encoding: chunked", b"Content-Length: 4", body=b"0\r\n\r\n"), 400, 200)
row(f"{HTTP} 6.1", post(b"Transfer-Encoding: identity", b"Content-Length: 4", body=b"four"), 400, 501)
row(f"{HTTP} 6.1: not in HTTP/1.0", chunked(b"0\r\n\r\n").replace(b"1.1", b"1.0"), 400, 200)
for coding in (b"chunked", b"CHUNKED", b" chunked ", b"chunked,"):
    row(f"{HTTP} 6.1", post(b"Transfer-Encoding: " + coding, body=b"0\r\n\r\n"), 200, 501 if b"," in coding else 200)
for coding in (b"", b"identity", b"gzip", b"chunked, gzip", b"chunked, identity", b"chunked, chunked", b"chunked, foo"):
    row(f"{HTTP} 6.3: chunked is last, and there once", post(b"Transfer-Encoding: " + coding), 400, 501)
row(f"{HTTP} 6.3", chunked(b"0\r\n\r\n", b"Transfer-Encoding: chunked"), 400, 501)
row(f"{HTTP} 6.3", chunked(b"0\r\n\r\n", b"Transfer-Encoding: identity"), 400, 501)
for coding in (b"foo", b"gzip, chunked", b"foo, chunked", b"xchunked", b"chunked;a=b", b'"chunked"', b"\xffchunked"):
    row(f"{HTTP} 6.1: a coding that we don't know", post(b"Transfer-Encoding: " + coding), 501)
row(f"{HTTP} 6.1", post(b"Transfer-Encoding: \x0bchunked"), 400, 400)

# Chunks
row(f"{HTTP} 7.1", chunked(b"4\r\nfour\r\n3\r\nsix\r\n0\r\n\r\n"), 200)
row(f"{HTTP} 7.1", chunked(b"0004\r\nfour\r\n00\r\n\r\n"), 200)
for body in (b"x", b"-4", b"+4", b"0x4", b"4 4", b" 4", b"", b";", b"4\r", b"4_0"):
    row(f"{HTTP} 7.1: a chunk begins with its size", chunked(body + b"\r\nfour\r\n0\r\n\r\n"), 400, 400)
row(f"{HTTP} 7.1: lines end in CRLF", chunked(b"4\nfour\r\n0\r\n\r\n"), 400)
row(f"{HTTP} 7.1", chunked(b"4\r\nfour\n0\r\n\r\n"), 400)
row(f"{HTTP} 7.1: a chunk is as long as it says", chunked(b"4\r\nfive5\r\n0\r\n\r\n"), 400)
row(f"{HTTP} 7.1: a size that overflows", chunked(b"10000000000000004\r\nfour\r\n0\r\n\r\n"), 400)
row(f"{HTTP} 7.1", chunked(b"f" * 1025 + b"\r\n"), 400)
row(f"{SEMANTICS} 15.5.14", chunked(b"%x\r\n%b" % (20_000_000, b"x" * 17_000_000)), 413, 400)
row(f"{HTTP} 8: the end before the end", chunked(b"4\r\nfour\r\n"), 400)
row(f"{HTTP} 7.1.1: extensions are ignored", chunked(b'4;a=b;c="d"\r\nfour\r\n0;e\r\n\r\n'), 200)
row(f"{HTTP} 7.1.1: they have no control characters", chunked(b"4;\x01\r\nfour\r\n0\r\n\r\n"), 400, 200)
row(f"{HTTP} 7.1.1: space before them", chunked(b"4 ;a=b\r\nfour\r\n0\r\n\r\n"), 200, 400)
row(f"{HTTP} 7.1.1: their length is limited", chunked(b"1;%b\r\nx\r\n" % (b"a" * 2000) + b"0\r\n\r\n"), 400, 200)
row(f"{HTTP} 7.1.1: in all", chunked(b"1;%b\r\nx\r\n" % (b"a" * 1000) * 17 + b"0\r\n\r\n"), 400, 200)
row(f"{HTTP} 7.1.2: trailers", chunked(b"4\r\nfour\r\n0\r\nA: b\r\nC: d\r\n\r\n"), 200)
row(f"{HTTP} 7.1.2: they are headers", chunked(b"4\r\nfour\r\n0\r\nA\r\n\r\n"), 400)
row(f"{HTTP} 7.1.2", chunked(b"4\r\nfour\r\n0\r\nA : b\r\n\r\n"), 400)
row(f"{HTTP} 7.1.2: their length is limited", chunked(b"0\r\n" + b"A: " + b"b" * 17_000 + b"\r\n\r\n"), 400, 200)

# The connection
row(f"{HTTP} 9.3: one after the other", get() + get(b"Connection: close"), 200)
row(f"{HTTP} 9.3.2: pipelined, the second is wrong", get() + get(b"Host: h"), 400)
row(f"{HTTP} 8: half a head", get()[:-2], 400)
row(f"{SEMANTICS} 10.1.1", post(b"Expect: 100-continue", b"Content-Length: 4", body=b"four"), 200)
row(f"{SEMANTICS} 10.1.1: nothing is awaited", get(b"Expect: 100-continue"), 200)
row(f"{SEMANTICS} 9.3.2: HEAD", get(line=b"HEAD /number/1 HTTP/1.1"), 200)


def second_opinion(data: bytes) -> int:
    """What h11 would have a server answer: 200 if it takes all requests, which end where the bytes end."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(data)
    server.receive_data(b"")
    try:
        while True:
            event = server.next_event()
            if isinstance(event, h11.Request) and event.method == b"CONNECT":
                return 200
            if isinstance(event, h11.EndOfMessage):
                server.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                server.send(h11.EndOfMessage())
                if server.our_state is not h11.DONE:
                    return 200
                server.start_next_cycle()
            elif isinstance(event, h11.ConnectionClosed):
                return 200
    except h11.RemoteProtocolError as error:
        return error.error_status_hint
