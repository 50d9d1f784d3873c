"""Compression: which answers are sent in fewer bytes, to whom, and what caches are told."""

from __future__ import annotations

import gzip
import json
from email import message_from_bytes
from email.message import Message

import brotli
from twisted.trial.unittest import SynchronousTestCase, TestCase
from werkzeug.wrappers import Response

from tests.web.peer import WebTestCase, converse, text
from txservices.runners import run_services
from txservices.web import compression
from txservices.web.compression import AT_ONCE, SHORTENED, compressed
from txservices.web.conditional import Stored
from txservices.web.handlers import http

LONG = "0123456789abcdef" * 100
HUGE = 10 * AT_ONCE
ROWS = [{"row": number, "name": "tea"} for number in range(200)]


class Service:
    """Long and short answers of several kinds."""

    name = "service"

    @http("GET", "/long")
    def long(self, request):
        return LONG

    @http("GET", "/short")
    def short(self, request):
        return "short"

    @http("GET", "/json")
    def json(self, request):
        return 201, ROWS

    @http("GET", "/huge")
    def huge(self, request):
        return "x" * HUGE

    @http("GET", "/image")
    def image(self, request):
        return 200, {"Content-Type": "image/png"}, LONG.encode()

    @http("GET", "/coded")
    def coded(self, request):
        return 200, {"Content-Encoding": "gzip"}, LONG

    @http("GET", "/transform")
    def transform(self, request):
        return 200, {"Cache-Control": "private, No-Transform"}, LONG

    @http("GET", "/never", compress=False)
    def never(self, request):
        return LONG

    @http("GET", "/tagged", conditional=True)
    def tagged(self, request):
        return 200, {"ETag": '"v1"'}, LONG

    @http("GET", "/weak", conditional=True)
    def weak(self, request):
        return 200, {"ETag": 'W/"v1"', "Vary": "Accept-encoding"}, LONG

    @http("GET", "/stream")
    def stream(self, request):
        return Response(iter([LONG]))


def parse(answer: bytes) -> tuple[int, Message, bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    status, _, headers = head.partition(b"\r\n")
    message = message_from_bytes(headers)
    if message["Transfer-Encoding"] == "chunked":
        whole = b""
        while body:
            size, _, body = body.partition(b"\r\n")
            whole += body[: int(size, 16)]
            body = body[int(size, 16) + 2 :]
        body = whole
    return int(status.split()[1]), message, body


PLAIN = {None: bytes, "gzip": gzip.decompress, "br": brotli.decompress}

# Accept-Encoding -> the coding that is taken
ACCEPTED: list[tuple[str | None, str | None]] = [
    (None, None),
    ("", None),
    ("gzip", "gzip"),
    ("br", "br"),
    ("gzip, deflate, br, zstd", "br"),
    ("gzip;q=1.0, br;q=0.5", "gzip"),
    ("gzip;q=0, br;q=0", None),
    ("gzip;q=0", None),
    ("identity", None),
    ("deflate", None),
    ("*", "br"),
    ("br;q=0, *", "gzip"),
    ("GZIP", "gzip"),
    ("gzip;q=x", None),
]


class Answers(WebTestCase):
    """WEB_COMPRESS_FROM."""

    async def test_accepted(self) -> None:
        """The client says which codings it takes, and gets the best of them; caches are told that it depends on it."""
        await self.serve(Service, WEB_COMPRESS_FROM=1000)
        for accept, coding in ACCEPTED:
            headers = [] if accept is None else [f"Accept-Encoding: {accept}"]
            status, message, body = parse(self.peer().get("/long", *headers))
            self.assertEqual((status, message["Content-Encoding"]), (200, coding), accept)
            self.assertEqual(PLAIN[coding](body), LONG.encode())
            self.assertEqual(message["Vary"], "Accept-Encoding")
            self.assertEqual(int(message["Content-Length"]), len(body))
            self.assertEqual(message["Content-Type"], "text/plain; charset=utf-8")

    async def test_which(self) -> None:
        """Short answers, images, what is coded already, and what must not be changed stay as they are."""
        await self.serve(Service, WEB_COMPRESS_FROM=1000)
        for path, coding, vary in [
            ("/short", None, None),
            ("/image", None, None),
            ("/coded", "gzip", None),
            ("/transform", None, None),
            ("/never", None, None),
            ("/stream", None, None),
            ("/json", "gzip", "Accept-Encoding"),
            ("/tagged", "gzip", "Accept-Encoding"),
        ]:
            _, message, body = parse(self.peer().get(path, "Accept-Encoding: gzip"))
            self.assertEqual((message["Content-Encoding"], message["Vary"]), (coding, vary), path)
            if path == "/json":
                self.assertEqual(json.loads(gzip.decompress(body)), ROWS)

    async def test_off(self) -> None:
        """Without the key nothing is compressed, and the answer is as ever, byte for byte."""
        await self.serve(Service)
        self.assertEqual(self.peer().get("/long", "Accept-Encoding: gzip"), text("200 OK", LONG))

    async def test_head(self) -> None:
        """HEAD has the head of the GET."""
        await self.serve(Service, WEB_COMPRESS_FROM=0)
        for path in ("/long", "/short"):
            get = self.peer().get(path, "Accept-Encoding: gzip").partition(b"\r\n\r\n")[0]
            head = self.peer().get(path, "Accept-Encoding: gzip", method="HEAD").partition(b"\r\n\r\n")[0]
            self.assertEqual(get, head)

    async def test_etags(self) -> None:
        """A strong ETag becomes weak: the bytes are others. By it a client is answered 304, and is sent no parts."""
        await self.serve(Service, WEB_COMPRESS_FROM=0)
        get = self.peer().get
        gzipped = "Accept-Encoding: gzip"
        self.assertEqual(parse(get("/tagged", gzipped))[1]["ETag"], 'W/"v1"')
        self.assertEqual(parse(get("/tagged"))[1]["ETag"], '"v1"')
        self.assertEqual(parse(get("/weak", gzipped))[1]["ETag"], 'W/"v1"')
        self.assertEqual(parse(get("/weak", gzipped))[1]["Vary"], "Accept-encoding")
        status, message, _ = parse(get("/tagged", gzipped, 'If-None-Match: W/"v1"'))
        self.assertEqual((status, message["ETag"], message["Vary"]), (304, 'W/"v1"', "Accept-Encoding"))
        status, message, body = parse(get("/tagged", gzipped, "Range: bytes=0-3"))
        self.assertEqual((status, message["Content-Encoding"], body), (206, None, b"0123"))
        status, message, body = parse(get("/tagged", gzipped, "Range: bytes=0-3", 'If-Range: W/"v1"'))
        self.assertEqual((status, message["Content-Encoding"], body), (200, None, LONG.encode()))
        self.assertIsNone(parse(get("/tagged", gzipped))[1]["Accept-Ranges"])

    async def test_without_brotli(self) -> None:
        """Without the package gzip is used."""
        self.patch(compression, "brotli", None)
        await self.serve(Service, WEB_COMPRESS_FROM=0)
        for accept, coding in (("br", None), ("br, gzip;q=0.1", "gzip")):
            _, message, _ = parse(self.peer().get("/long", f"Accept-Encoding: {accept}"))
            self.assertEqual(message["Content-Encoding"], coding)


class Huge(TestCase):
    """A long answer, with sockets."""

    async def test_huge(self) -> None:
        """It is compressed while it is sent."""
        async with run_services({"WEB_SERVER_ADDRESS": "0", "WEB_COMPRESS_FROM": 0}, Service) as runner:
            port = runner.containers[0].entrypoints[0].server.port
            for coding in ("gzip", "br"):
                data = b"GET /huge HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAccept-Encoding: %b\r\n\r\n"
                _, message, body = parse(await converse(port, data % coding.encode()))
                self.assertEqual((message["Content-Encoding"], message["Content-Length"]), (coding, None))
                self.assertEqual(PLAIN[coding](body), b"x" * HUGE)


class Codings(SynchronousTestCase):
    """The codings themselves."""

    def test_pieces(self) -> None:
        """A body of any length comes back whole."""
        for length in (0, 1, AT_ONCE, AT_ONCE + 1, 3 * AT_ONCE):
            body = bytes(range(256)) * (length // 256 + 1)
            stored = Stored(body[:length])
            for coding in ("gzip", "br"):
                made = b"".join(compressed(stored.pieces(0, length), coding))
                self.assertEqual(PLAIN[coding](made), body[:length])

    def test_types(self) -> None:
        """Texts of all kinds get shorter; images, archives and streams of events are left alone."""
        for kind in ("text/html", "text/css", "application/json", "application/problem+json", "image/svg+xml"):
            self.assertTrue(SHORTENED.fullmatch(kind), kind)
        for kind in ("application/javascript", "text/javascript", "application/atom+xml", "application/wasm"):
            self.assertTrue(SHORTENED.fullmatch(kind), kind)
        for kind in ("image/png", "application/zip", "video/mp4", "font/woff2", "text/event-stream", "", "json"):
            self.assertFalse(SHORTENED.fullmatch(kind), kind)
