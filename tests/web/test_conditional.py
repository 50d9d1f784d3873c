"""Conditions and ranges: what a client that has something already is sent. RFC 9110, 13 and 14, line by line."""

from __future__ import annotations

from email import message_from_bytes
from email.message import Message

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from werkzeug.wrappers import Response

from tests.web.peer import WebTestCase
from txservices.web.conditional import DIGITS_MAX, RANGES_MAX, ranges_of
from txservices.web.handlers import http

BODY = "".join(f"{number:04d}" for number in range(50))  # 200 bytes
MODIFIED = "Tue, 01 Sep 2026 12:00:00 GMT"
BEFORE = "Tue, 01 Sep 2026 11:59:59 GMT"
AFTER = "Tue, 01 Sep 2026 12:00:01 GMT"
closed: list[str] = []


class Service:
    """Answers with an ETag, a time, or both."""

    name = "service"

    @http("GET", "/text", conditional=True)
    def text(self, request):
        return BODY

    @http("GET", "/json", conditional=True)
    def json(self, request):
        return {"a": 1}

    @http("GET", "/dated", conditional=True)
    def dated(self, request):
        return 200, {"Last-Modified": MODIFIED}, BODY

    @http("GET", "/tagged", conditional=True)
    def tagged(self, request):
        return 200, {"ETag": '"v1"', "Last-Modified": MODIFIED, "X-A": "a", "Cache-Control": "no-cache"}, BODY

    @http("GET", "/weak", conditional=True)
    def weak(self, request):
        return 200, {"ETag": 'W/"v1"'}, BODY

    @http("GET", "/stream", conditional=True)
    def stream(self, request):
        def pieces():
            try:
                yield BODY
            finally:
                closed.append("stream")

        response = Response(pieces(), headers={"ETag": '"s1"'})
        response.call_on_close(lambda: closed.append("response"))
        return response

    @http("GET", "/none")
    def none(self, request):
        return 200, {"ETag": '"v1"'}, BODY

    @http("GET", "/empty", conditional=True)
    def empty(self, request):
        return ""

    @http("GET", "/failed", conditional=True)
    def failed(self, request):
        return 404, "no such thing"

    @http("POST", "/text", conditional=True)
    def post(self, request):
        return BODY


def parse(answer: bytes) -> tuple[int, Message, bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    status, _, headers = head.partition(b"\r\n")
    return int(status.split()[1]), message_from_bytes(headers), body


# path, headers of the request, status
CONDITIONS: list[tuple[str, list[str], int]] = [
    ("/tagged", ['If-None-Match: "v1"'], 304),
    ("/tagged", ['If-None-Match: W/"v1"'], 304),
    ("/tagged", ['If-None-Match: "v0", "v1"'], 304),
    ("/tagged", ["If-None-Match: *"], 304),
    ("/tagged", ['If-None-Match: "v2"'], 200),
    ("/tagged", ['If-None-Match: "v2"', f"If-Modified-Since: {AFTER}"], 200),  # the date is ignored then
    ("/tagged", ['If-Match: "v1"'], 200),
    ("/tagged", ["If-Match: *"], 200),
    ("/tagged", ['If-Match: "v2"'], 412),
    ("/tagged", ['If-Match: W/"v1"'], 412),  # compared strongly
    ("/weak", ['If-Match: "v1"'], 412),
    ("/weak", ['If-Match: W/"v1"'], 412),
    ("/weak", ['If-None-Match: "v1"'], 304),
    ("/tagged", ['If-Match: "v1"', 'If-None-Match: "v1"'], 304),
    ("/tagged", ['If-Match: "v2"', 'If-None-Match: "v1"'], 412),
    ("/dated", [f"If-Modified-Since: {MODIFIED}"], 304),
    ("/dated", [f"If-Modified-Since: {AFTER}"], 304),
    ("/dated", [f"If-Modified-Since: {BEFORE}"], 200),
    ("/dated", ["If-Modified-Since: yesterday"], 200),
    ("/dated", [f"If-Unmodified-Since: {MODIFIED}"], 200),
    ("/dated", [f"If-Unmodified-Since: {BEFORE}"], 412),
    ("/tagged", ['If-Match: "v1"', f"If-Unmodified-Since: {BEFORE}"], 200),  # the date is ignored then
    ("/text", ['If-None-Match: "v1"'], 200),
    ("/none", ['If-None-Match: "v1"'], 200),  # it has not asked for this
    ("/failed", ["If-None-Match: *"], 404),
    ("/stream", ['If-None-Match: "s1"'], 304),
    ("/stream", ['If-None-Match: "s2"'], 200),
]

# path, headers of the request, status, Content-Range, body
RANGES: list[tuple[str, list[str], int, str | None, str]] = [
    ("/tagged", ["Range: bytes=0-3"], 206, "bytes 0-3/200", "0000"),
    ("/tagged", ["Range: bytes=196-"], 206, "bytes 196-199/200", "0049"),
    ("/tagged", ["Range: bytes=-4"], 206, "bytes 196-199/200", "0049"),
    ("/tagged", ["Range: bytes=196-1000"], 206, "bytes 196-199/200", "0049"),
    ("/tagged", ["Range: bytes=-1000"], 206, "bytes 0-199/200", BODY),
    ("/tagged", ["Range: bytes=0-"], 206, "bytes 0-199/200", BODY),
    ("/tagged", ["Range: BYTES = 4 - 7 "], 206, "bytes 4-7/200", "0001"),
    ("/tagged", ["Range: bytes=0-3,1000-"], 206, "bytes 0-3/200", "0000"),
    ("/text", ["Range: bytes=0-3"], 206, "bytes 0-3/200", "0000"),
    ("/tagged", ["Range: bytes=200-"], 416, "bytes */200", ""),
    ("/tagged", ["Range: bytes=-0"], 416, "bytes */200", ""),
    ("/tagged", ["Range: bytes=999999999999999999-"], 416, "bytes */200", ""),
    ("/tagged", ["Range: bytes=3-0"], 200, None, BODY),  # no valid range
    ("/tagged", ["Range: bytes=a-b"], 200, None, BODY),
    ("/tagged", ["Range: bytes="], 200, None, BODY),
    ("/tagged", ["Range: bytes=-"], 200, None, BODY),
    ("/tagged", ["Range: bytes=--4"], 200, None, BODY),
    ("/tagged", ["Range: lines=0-3"], 200, None, BODY),
    ("/tagged", ["Range: bytes=٣-"], 200, None, BODY),
    ("/tagged", ["Range: bytes=" + "9" * 4000 + "-"], 200, None, BODY),
    ("/tagged", ["Range: bytes=0-150,100-199"], 200, None, BODY),  # longer than the whole
    ("/tagged", ["Range: bytes=" + "0-0," * (RANGES_MAX + 1)], 200, None, BODY),
    ("/empty", ["Range: bytes=0-"], 200, None, ""),
    ("/none", ["Range: bytes=0-3"], 200, None, BODY),
    ("/stream", ["Range: bytes=0-3"], 200, None, BODY),
    ("/tagged", ["Range: bytes=0-3", 'If-Range: "v1"'], 206, "bytes 0-3/200", "0000"),
    ("/tagged", ["Range: bytes=0-3", 'If-Range: "v2"'], 200, None, BODY),
    ("/tagged", ["Range: bytes=0-3", 'If-Range: W/"v1"'], 200, None, BODY),
    ("/weak", ["Range: bytes=0-3", 'If-Range: W/"v1"'], 200, None, BODY),
    ("/dated", ["Range: bytes=0-3", f"If-Range: {MODIFIED}"], 206, "bytes 0-3/200", "0000"),
    ("/dated", ["Range: bytes=0-3", f"If-Range: {AFTER}"], 200, None, BODY),
    ("/tagged", ["Range: bytes=0-3", 'If-None-Match: "v1"'], 304, None, ""),
    ("/tagged", ["Range: bytes=0-3", 'If-Match: "v2"'], 412, None, ""),
]


class Conditions(WebTestCase):
    """ETag, If-Match, If-None-Match, If-Modified-Since, If-Unmodified-Since."""

    async def test_each(self) -> None:
        """Each condition has its status, by GET and by HEAD; 304 and 412 have no body."""
        await self.serve(Service)
        for path, headers, status in CONDITIONS:
            for method in ("GET", "HEAD"):
                peer = self.peer()
                found, _, body = parse(peer.get(path, *headers, method=method))
                self.assertEqual(found, status, (method, path, headers))
                self.assertEqual(bool(body), method == "GET" and status in (200, 404), (method, path, headers))
                self.assertIn(b" 404 ", peer.get("/nowhere"), "the connection is not in step")

    async def test_made(self) -> None:
        """A body without an ETag and a time is given an ETag: the same for the same, another for another."""
        await self.serve(Service)
        _, text, _ = parse(self.peer().get("/text"))
        _, head, _ = parse(self.peer().get("/text", method="HEAD"))
        _, json, _ = parse(self.peer().get("/json"))
        _, dated, _ = parse(self.peer().get("/dated"))
        self.assertRegex(text["ETag"], r'^"[0-9a-f]{32}"$')
        self.assertEqual(text["ETag"], head["ETag"])
        self.assertNotEqual(text["ETag"], json["ETag"])
        self.assertIsNone(dated["ETag"])
        self.assertEqual(parse(self.peer().get("/text", f"If-None-Match: {text['ETag']}"))[0], 304)

    async def test_headers(self) -> None:
        """A 304 has what caches need, and says nothing of a body."""
        await self.serve(Service)
        answer = self.peer().get("/tagged", 'If-None-Match: "v1"')
        self.assertEqual(
            answer,
            b'HTTP/1.1 304 NOT MODIFIED\r\nETag: "v1"\r\nX-A: a\r\nCache-Control: no-cache\r\nDate: now\r\n\r\n',
        )

    async def test_other_methods(self) -> None:
        """A POST is not changed by it: it has happened."""
        await self.serve(Service)
        self.assertEqual(parse(self.peer().get("/text", "If-None-Match: *", "Range: bytes=0-1", method="POST"))[0], 200)

    async def test_stream_closed(self) -> None:
        """A body that would be made while it is sent is closed, if it is not sent."""
        await self.serve(Service)
        closed.clear()
        self.peer().get("/stream", 'If-None-Match: "s1"')
        self.assertIn("response", closed)


class Ranges(WebTestCase):
    """Parts of a body."""

    async def test_each(self) -> None:
        """Each kind of range has its status, its Content-Range and its bytes."""
        await self.serve(Service)
        for path, headers, status, content_range, body in RANGES:
            peer = self.peer()
            found, message, got = parse(peer.get(path, *headers))
            self.assertEqual(found, status, (path, headers))
            self.assertEqual(message["Content-Range"], content_range, (path, headers))
            if path != "/stream":
                self.assertEqual(got.decode(), body, (path, headers))
                self.assertEqual(message["Content-Length"], None if status == 304 else str(len(body)), (path, headers))
            self.assertIn(b" 404 ", peer.get("/nowhere"), "the connection is not in step")

    async def test_head(self) -> None:
        """HEAD has the head of the whole, and says that parts can be had."""
        await self.serve(Service)
        status, message, body = parse(self.peer().get("/tagged", "Range: bytes=0-3", method="HEAD"))
        self.assertEqual(
            (status, message["Content-Length"], message["Accept-Ranges"], body), (200, "200", "bytes", b"")
        )

    async def test_several(self) -> None:
        """Several parts come in one body, each with its place and its type."""
        await self.serve(Service)
        peer = self.peer()
        status, message, body = parse(peer.get("/tagged", "Range: bytes=0-3, 8-11,-4,500-"))
        self.assertEqual(status, 206)
        self.assertEqual(int(message["Content-Length"]), len(body))
        self.assertIsNone(message["Content-Range"])
        kind = message["Content-Type"].encode()
        self.assertRegex(kind, rb"^multipart/byteranges; boundary=[0-9a-f]{32}$")
        whole = message_from_bytes(b"Content-Type: %b\r\n\r\n%b" % (kind, body))
        parts = [(part["Content-Range"], part["Content-Type"], part.get_payload()) for part in whole.walk()][1:]
        text = "text/plain; charset=utf-8"
        self.assertEqual(
            parts,
            [
                ("bytes 0-3/200", text, "0000"),
                ("bytes 8-11/200", text, "0002"),
                ("bytes 196-199/200", text, "0049"),
            ],
        )
        self.assertIn(b" 404 ", peer.get("/nowhere"))


class Parsing(SynchronousTestCase):
    """The header Range."""

    def test_digits(self) -> None:
        """A range may have so many digits, zeros in front among them; one that has more is none."""
        for more, expected in ((0, [(0, 4)]), (1, None)):
            zeros = "0" * (2 * DIGITS_MAX - len("-3") + more)
            self.assertEqual(ranges_of(f"bytes={zeros}-3", 200), expected)

    @given(st.text(alphabet="bytes=0123456789-, x", max_size=40).map(lambda text: "bytes=" + text), st.integers(1, 300))
    def test_any(self, header: str, length: int) -> None:
        """Whatever it says, the parts lie in the body, and together are not longer than it."""
        found = ranges_of(header, length)
        if found is not None:
            self.assertLessEqual(len(found), RANGES_MAX)
            self.assertTrue(all(0 <= start < stop <= length for start, stop in found))
            self.assertLessEqual(sum(stop - start for start, stop in found), length)
