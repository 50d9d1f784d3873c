"""The access log: what a line has, and that no client can forge one."""

from __future__ import annotations

import json
import re
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.web.peer import WebTestCase
from txservices.utils import secrets
from txservices.web.accesslog import FIELD_MAX, escaped
from txservices.web.handlers import http

WHEN = r"\[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d \+0000\]"
waiting: list[Deferred[str]] = []


class Service:
    name = "service"

    @http("GET,POST", "/number/<int:number>")
    def number(self, request: Any, number: int) -> str:
        return str(number)

    @http("GET", "/fails")
    def fails(self, request: Any) -> str:
        raise ValueError("no")

    @http("GET", "/pieces")
    def pieces(self, request: Any) -> Any:
        return iter([b"one", b"two"])

    @http("GET", "/waits")
    def waits(self, request: Any) -> Deferred[str]:
        waiting.append(Deferred())
        return waiting[-1]


class Case(WebTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.lines: list[str] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)

    def observe(self, event: dict[str, Any]) -> None:
        if event.get("log_namespace") == "txservices.web.accesslog":
            self.lines.append(formatEvent(event))


class Lines(Case):
    """A service with an access log."""

    async def test_combined(self) -> None:
        """Client, time, request, status, bytes, referer, user agent, call id and seconds."""
        await self.serve(Service, WEB_ACCESS_LOG="combined")
        self.peer().get("/number/12?x=1", "Referer: http://a/", "User-Agent: curl/8")
        self.assertRegex(
            self.lines[0],
            rf'^192\.168\.1\.1 - - {WHEN} "GET /number/12\?x=1 HTTP/1\.1" 200 2 "http://a/" "curl/8"'
            r' "service\.number\.[^" ]+" \d+\.\d{3}$',
        )
        self.peer().get("/nowhere")
        self.assertRegex(self.lines[1], r'"GET /nowhere HTTP/1\.1" 404 \d+ "-" "-" "-" \d+\.\d{3}$')

    async def test_json(self) -> None:
        """The same as an object, with the route."""
        await self.serve(Service, WEB_ACCESS_LOG="json")
        self.peer().get("/number/12?x=1", 'User-Agent: a "b"')
        line = json.loads(self.lines[0])
        self.assertRegex(line.pop("call_id"), r"^service\.number\.")
        self.assertRegex(f"[{line.pop('time')}]", WHEN)
        self.assertGreaterEqual(line.pop("seconds"), 0)
        self.assertEqual(
            line,
            {
                "client": "192.168.1.1",
                "method": "GET",
                "path": "/number/12?x=1",
                "protocol": "HTTP/1.1",
                "route": "/number/<int:number>",
                "status": 200,
                "bytes": 2,
                "user_agent": "a \\x22b\\x22",
            },
        )

    async def test_off(self) -> None:
        """Without the key, and with off, there is no line."""
        for config in ({}, {"WEB_ACCESS_LOG": "off"}, {"WEB_ACCESS_LOG": False}):
            await self.serve(Service, **config)
            self.peer().get("/number/1")
            await self.runner.stop()
        self.assertEqual(self.lines, [])

    async def test_each_kind_of_answer(self) -> None:
        """One line each: an error, a body in pieces, a request that is too long, one whose client leaves."""
        await self.serve(Service, WEB_ACCESS_LOG="combined", WEB_BODY_MAX=10)
        self.peer().get("/fails")
        self.assertRegex(self.lines.pop(), r'"GET /fails HTTP/1\.1" 500 \d+ .*"service\.fails\.')
        self.flushLoggedErrors(ValueError)
        self.peer().get("/pieces")
        self.assertRegex(self.lines.pop(), r'"GET /pieces HTTP/1\.1" 200 \d+ .*"service\.pieces\.')
        self.peer().send(b"POST /number/1 HTTP/1.1\r\nHost: h\r\nContent-Length: 20\r\n\r\n" + b"x" * 20)
        self.assertRegex(self.lines.pop(), r'"POST /number/1 HTTP/1\.1" 413 ')
        gone = self.peer()
        gone.get("/waits")
        gone.leave()
        self.assertEqual(self.lines, [])
        waiting.pop().callback("late")
        self.assertRegex(self.lines.pop(), r'"GET /waits HTTP/1\.1" 200 .*"service\.waits\.')
        self.assertEqual(self.lines, [])

    async def test_refused(self) -> None:
        """A refused request has a line with its client's address, which a trusted proxy may have said."""
        table: list[tuple[bytes, str]] = [
            (b"POST /number/1 HTTP/1.1\r\nHost: h\r\n%b\r\nContent-Length: 20\r\n\r\n", "POST /number/1 HTTP/1.1"),
            (b"GET /number/1 HTTP/1.1\r\nHost: h\r\nHost: i\r\n%b\r\n\r\n", "GET /number/1 HTTP/1.1"),
            (b"GET / HTTP/2.0\r\n%b\r\n\r\n", ""),
            (b"\x16\x03\x01", ""),
        ]
        forwarded = b"X-Forwarded-For: 198.51.100.9"
        for config, client in (({}, "192.168.1.1"), ({"WEB_TRUSTED_PROXIES": ["192.168.1.1"]}, "198.51.100.9")):
            await self.serve(Service, WEB_ACCESS_LOG="combined", WEB_BODY_MAX=10, **config)
            for data, asked in table:
                answer = self.peer().send(data % forwarded if b"%b" in data else data)
                status, size = answer.split()[1].decode(), len(answer.partition(b"\r\n\r\n")[2])
                address = client if asked else "192.168.1.1"  # no header of one that can't be read is believed
                line = self.lines.pop()
                self.assertRegex(
                    line, rf'^{address} - - {WHEN} "{asked or "-"}" {status} {size} "-" "-" "-" \d+\.\d{{3}}$'
                )
                self.assertEqual(self.lines, [])
            await self.runner.stop()
        await self.serve(Service, WEB_ACCESS_LOG="json")
        self.peer().send(b"\x16\x03\x01")
        line = json.loads(self.lines.pop())
        self.assertEqual((line["client"], line["status"]), ("192.168.1.1", 400))
        self.assertTrue({"method", "path", "protocol", "route"}.isdisjoint(line), line)

    async def test_no_room(self) -> None:
        """A client for whom there is no connection has a line, too."""
        await self.serve(Service, WEB_ACCESS_LOG="combined", WEB_CONNECTIONS_MAX=1)
        self.peer()
        self.peer("192.168.1.2")
        self.assertRegex(self.lines.pop(), rf'^192\.168\.1\.2 - - {WHEN} "-" 503 \d+ ')
        self.assertEqual(self.lines, [])

    async def test_forged(self) -> None:
        """Whatever a client sends, it is one line in which no field ends early."""
        for form in ("combined", "json"):
            await self.serve(Service, WEB_ACCESS_LOG=form)
            for bad in (b'x" 200 1 "', b"\\", b"\x1b[2J", b"\xff\xe2\x80\xa8", b"\x7f\t", b"{line} %s {0}"):
                self.lines.clear()
                self.peer().send(
                    b"GET /number/1?" + bad.replace(b"\t", b"").replace(b" ", b"") + b" HTTP/1.1\r\nHost: h\r\n"
                    b"User-Agent: " + bad + b"\r\nReferer: " + bad + b"\r\n\r\n"
                )
                for line in self.lines:
                    self.assertTrue(line.isascii() and line.isprintable(), line)
                    if form == "json":
                        json.loads(line)
                    else:
                        self.assertEqual(len(re.findall('"', line)), 8, line)
            await self.runner.stop()

    async def test_secret(self) -> None:
        """A secret of the configuration that a client sends is hidden."""
        self.patch(secrets, "learned", set())
        self.patch(secrets, "pattern", None)
        secrets.learn({"API_TOKEN": "very-secret-token"})
        await self.serve(Service, WEB_ACCESS_LOG="combined")
        self.peer().get("/number/1?token=very-secret-token")
        self.assertNotIn("very-secret", self.lines[0])


class Fields(SynchronousTestCase):
    """A field by itself."""

    def test_escaped(self) -> None:
        """Quotes, backslashes and what is not visible ASCII are escaped; a long one is cut."""
        self.assertEqual(escaped(b'a"b\\c\r\n\x00\xff~ '), "a\\x22b\\x5cc\\x0d\\x0a\\x00\\xff~ ")
        self.assertEqual(escaped(b"x" * (FIELD_MAX + 1)), "x" * FIELD_MAX + "...")
