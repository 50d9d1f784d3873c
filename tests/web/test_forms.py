"""Forms, queries and JSON of requests that have much in them: the answer is the value, or 413, and comes soon."""

from __future__ import annotations

import gc
import json
import time
from functools import cache
from io import BytesIO
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor as reactor_module
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import FormDataParser

from tests.turns import TURN_MAX, slowness
from tests.web.peer import WebTestCase
from txservices.serialization.bounds import HERE_MAX
from txservices.web.forms import DIGITS_MAX, ESCAPES_MAX, FIELDS_MAX, PARTS_MAX, FormParser, Json
from txservices.web.handlers import http

reactor: Any = reactor_module

MIB = 1024 * 1024
BODY_MAX = 16 * MIB
FORM, MULTIPART, JSON = "application/x-www-form-urlencoded", "multipart/form-data; boundary=bound", "application/json"
FIELD = b'Content-Disposition: form-data; name="f"'
FILE = b'Content-Disposition: form-data; name="f"; filename="x"'


class Counting:
    """Methods that ask for the parts of a request."""

    name = "counting"

    @http("POST", "/form")
    def form(self, request):
        return str(sum(len(values) for values in request.form.listvalues()))

    @http("POST", "/length")
    def length(self, request):
        return str(len(request.form["f"]))

    @http("POST", "/files")
    def files(self, request):
        return str(sum(each.seek(0, 2) for each in request.files.getlist("f")))

    @http("POST", "/json")
    def json(self, request):
        return str(len(request.get_json()))

    @http("POST", "/query")
    def query(self, request):
        return str(sum(len(values) for values in request.args.listvalues()))

    @http("POST", "/cookies")
    def cookies(self, request):
        return str(len(request.cookies))


def parts(*each: tuple[bytes, bytes]) -> bytes:
    whole = b"".join(b"--bound\r\n%b\r\n\r\n%b\r\n" % part for part in each)
    return whole + b"--bound--\r\n"


def escaped(number: int) -> bytes:
    return b"f=" + b"%C3%A9" * (number // 2)


@cache
def table() -> bytes:
    return json.dumps([{f"column_{column}": row * column for column in range(20)} for row in range(5_000)]).encode()


@cache
def cases() -> dict[str, tuple[str, str, bytes, Any]]:
    """Path, content type, body, and the answer: a text, or a status."""
    return {
        "fields": ("/form", FORM, b"&".join([b"f=v"] * FIELDS_MAX), str(FIELDS_MAX)),
        "too many fields": ("/form", FORM, b"&".join([b"f=v"] * (FIELDS_MAX + 1)), 413),
        "a form of 15 MB": ("/form", FORM, b"a&" * (7 * MIB), 413),
        "empty fields": ("/form", FORM, b"&" * (15 * MIB), 413),
        "a long field": ("/length", FORM, b"f=" + b"x" * (15 * MIB), str(15 * MIB)),
        "plus": ("/length", FORM, b"f=" + b"+" * (15 * MIB), str(15 * MIB)),
        "escapes": ("/length", FORM, escaped(ESCAPES_MAX), str(ESCAPES_MAX // 2)),
        "too many escapes": ("/length", FORM, escaped(ESCAPES_MAX + 2), 413),
        "percents": ("/length", FORM, b"f=" + b"%" * ESCAPES_MAX, str(ESCAPES_MAX)),
        "too many percents": ("/length", FORM, b"f=" + b"%" * (15 * MIB), 413),
        "parts": ("/form", MULTIPART, parts(*[(FIELD, b"x")] * PARTS_MAX), str(PARTS_MAX)),
        "too many parts": ("/form", MULTIPART, parts(*[(FIELD, b"x")] * (PARTS_MAX + 1)), 413),
        "a file": ("/files", MULTIPART, parts((FILE, b"\0" * (15 * MIB))), str(15 * MIB)),
        "a file of newlines": ("/files", MULTIPART, parts((FILE, b"\r\n" * (7 * MIB))), str(14 * MIB)),
        "a file of boundaries": ("/files", MULTIPART, parts((FILE, b"x--bound" * 100)), "800"),
        "a file of near boundaries": ("/files", MULTIPART, parts((FILE, b"\r\n--boun" * MIB)), str(8 * MIB)),
        "files": ("/files", MULTIPART, parts(*[(FILE, b"x" * 150_000)] * PARTS_MAX), str(150_000 * PARTS_MAX)),
        "files with many newlines": ("/files", MULTIPART, parts(*[(FILE, b"\r\n" * 90_000)] * 15), str(180_000 * 15)),
        "files with too many": ("/files", MULTIPART, parts(*[(FILE, b"\r\n" * 90_000)] * PARTS_MAX), 413),
        "long headers": ("/form", MULTIPART, parts(*[(FIELD + b"\r\na: b" * 80, b"x")] * PARTS_MAX), str(PARTS_MAX)),
        "too long headers": ("/form", MULTIPART, parts(*[(FIELD + b"\r\na: b" * 2_000, b"x")] * 100), 413),
        "endless headers": ("/form", MULTIPART, b"--bound\r\n" + b"a: b\r\n" * (2 * MIB), 413),
        "other newlines": ("/form", MULTIPART, parts(*[(FIELD, b"x")] * 9).replace(b"\r\n", b"\n"), "9"),
        "other newlines, too many": ("/form", MULTIPART, parts(*[(FIELD, b"x")] * 900).replace(b"\r\n", b"\r"), 413),
        "a preamble": ("/form", MULTIPART, b"\r\n" * (7 * MIB), 413),
        "json": ("/json", JSON, b"[" + b",".join([b"1"] * 90_000) + b" " * HERE_MAX + b"]", "90000"),
        "short json of lists": ("/json", JSON, b"[" + b",".join([b"[]"] * 87_000) + b"]", "87000"),
        "json of keys": ("/json", JSON, b"{" + b",".join(b'"%07d":1' % n for n in range(49_000)) + b"}", "49000"),
        "json of a long text": ("/json", JSON, b'"' + b"x" * (15 * MIB) + b'"', str(15 * MIB)),
        "json of escapes": ("/json", JSON, b'"' + b"\\u00e9" * (2 * MIB) + b'"', str(2 * MIB)),
        "json of long numbers": ("/json", JSON, b"[" + b",".join([b"1" * DIGITS_MAX] * 99_000) + b"]", "99000"),
        "json of too long numbers": ("/json", JSON, b"[" + b",".join([b"1" * 4000] * 4_000) + b"]", 413),
        "json of lists": ("/json", JSON, b"[" + b"[]," * (5 * MIB) + b"[]]", 413),
        "deep json": ("/json", JSON, b"[" * (5 * MIB), 413),
        "json of a table": ("/json", JSON, table(), 413),
        "query": (f"/query?{'&'.join(['a'] * 8_000)}", FORM, b"", "8000"),
        "escapes of a query": (f"/query?a={'%41' * 5_000}", FORM, b"", "1"),
        "cookies": ("/cookies", "text/plain\r\nCookie: " + "; ".join(f"c{n}=v" for n in range(1_500)), b"", "1500"),
    }


class Bounds(WebTestCase):
    """Requests within the limits, and beyond."""

    timeout = 600  # trial's

    async def setUp(self) -> None:
        super().setUp()
        gc.collect()
        gc.freeze()
        self.addCleanup(gc.unfreeze)
        await deferLater(reactor, 0)  # the reactor knows its thread once it has run

    async def test_table(self) -> None:
        """Each is answered, and no answer takes 0.1 s of the reactor."""
        await self.serve(Counting)
        times: dict[str, float] = {}
        for name, case in cases().items():
            # other processes on this processor only add to the time: the least of ten counts
            for _ in range(10):
                seconds = self.answered(name, *case)
                times[name] = min(times.get(name, 10.0), seconds if seconds < TURN_MAX else seconds / slowness())
                if times[name] < TURN_MAX:
                    break
        self.flushLoggedErrors()
        self.assertEqual({name: seconds for name, seconds in times.items() if seconds > TURN_MAX}, {})

    def answered(self, name: str, path: str, content_type: str, body: bytes, expected: Any) -> float:
        """Send a request; gives the seconds of processor time from its last byte to the answer."""
        peer = self.peer()
        head = f"POST {path} HTTP/1.1\r\nHost: here\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}"
        whole = head.encode() + b"\r\n\r\n" + body
        for at in range(0, len(whole) - 1, 65_536):
            peer.channel.dataReceived(whole[at : min(at + 65_536, len(whole) - 1)])
        began = time.process_time()
        answer = peer.send(whole[-1:])
        seconds = time.process_time() - began
        head, _, text = answer.decode().partition("\r\n\r\n")
        self.assertEqual(text if head.split()[1] == "200" else int(head.split()[1]), expected, (name, answer[:500]))
        return seconds

    async def test_too_large(self) -> None:
        """The answer says what is too much, and what to do."""
        await self.serve(Counting)
        answer = self.peer().get("/form", f"Content-Type: {FORM}", method="POST", body="a&" * FIELDS_MAX)
        self.assertTrue(answer.startswith(b"HTTP/1.1 413 "), answer)
        self.assertIn(b"over 5000 fields; a method with blocking = True may read more", answer)
        self.flushLoggedErrors()

    async def test_in_a_thread(self) -> None:
        """In a thread a method is given more, up to ten times as much, and of JSON up to ``VALUES_MAX`` values."""
        loads = Json(1_000_000).loads
        self.assertEqual(len(await deferToThread(loads, table())), 5_000)
        await self.assertFailure(deferToThread(Json(100_000).loads, b"[" + b"[]," * 100_000 + b"1]"), ValueError)

        def fields(number: int) -> int:
            parsed = FormParser().parse(BytesIO(b"&".join([b"f=v"] * number)), FORM, None)
            return len(parsed[1].getlist("f"))

        self.assertEqual(await deferToThread(fields, 10 * FIELDS_MAX), 10 * FIELDS_MAX)
        await self.assertFailure(deferToThread(fields, 10 * FIELDS_MAX + 1), RequestEntityTooLarge)


def outcome(parser: FormDataParser, body: bytes, mimetype: str) -> Any:
    """The form and the files that a parser finds, or its error."""
    try:
        _, form, files = parser.parse(BytesIO(body), mimetype, len(body), {"boundary": "b"})
    except RequestEntityTooLarge:
        return RequestEntityTooLarge
    return list(form.items(multi=True)), [(name, each.filename, each.read()) for name, each in files.items(multi=True)]


TOKENS = [
    b"--b",
    b"--b--",
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"Content-Disposition: form-data; name=f",
    b"; filename=x",
]


class AsWerkzeug(SynchronousTestCase):
    """Forms within the limits are what werkzeug makes of them."""

    @settings(max_examples=300, deadline=None)
    @given(st.lists(st.sampled_from(TOKENS) | st.binary(max_size=5), max_size=30).map(b"".join))
    def test_multipart(self, body: bytes) -> None:
        """Multipart forms, right and wrong."""
        self.assertEqual(*(outcome(kind(), body, "multipart/form-data") for kind in (FormParser, FormDataParser)))

    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.sampled_from([b"&", b"=", b"%", b"%41", b"+", b";"]) | st.binary(max_size=5)).map(b"".join))
    def test_urlencoded(self, body: bytes) -> None:
        """Urlencoded forms."""
        try:
            body.decode()
        except UnicodeDecodeError:
            return
        self.assertEqual(
            *(outcome(kind(), body, "application/x-www-form-urlencoded") for kind in (FormParser, FormDataParser))
        )

    @settings(max_examples=200, deadline=None)
    @given(
        st.recursive(
            st.none() | st.integers() | st.text(max_size=20),
            lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=6), inner, max_size=6),
            max_leaves=20,
        )
    )
    def test_json(self, value: Any) -> None:
        """A long JSON is what a short one is."""
        body = json.dumps(value).encode()
        self.assertEqual(Json(1_000_000).loads(body + b" " * HERE_MAX), json.loads(body))
