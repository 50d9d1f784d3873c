"""Calls of other people's HTTP: what is sent, and what comes back."""

from __future__ import annotations

import gzip
import json
import zlib
from functools import cache
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from tests.calling_out import Case, Raw, Shop
from tests.observing import hearing
from tests.tracing import Recorded
from txservices.exceptions import ConfigurationError, DecodeError
from txservices.extensions import WorkerContext
from txservices.httpclient import (
    REDIRECTS_MAX,
    HttpAnswer,
    HttpBodyTooLarge,
    HttpCallFailed,
    HttpClient,
    HttpConnectionError,
    HttpStatusError,
    HttpTimeout,
)
from txservices.httppool import CONNECTIONS_PER_ORIGIN_MAX, Body, Target
from txservices.testing.waiting import Heard


@cache
def bomb() -> bytes:
    """Some 20 KiB that unpack to 20 MiB."""
    return gzip.compress(bytes(20 * 1024 * 1024))


class Requests(Case):
    """What is sent."""

    async def test_request(self) -> None:
        """The path is put behind the address, and the client's headers and the call's are sent."""
        server = await self.serve((201, {}, b"made"))
        options = {"params": {"q": "a b&c"}, "json": {"n": 1}, "headers": {"X-Own": "o"}}
        self.assertEqual(await self.ask("post", "/things", options), [201, "made"])
        ((method, uri, headers, body),) = server.asked
        self.assertEqual((method, uri, json.loads(body)), ("POST", "/v1/things?q=a+b%26c", {"n": 1}))
        self.assertEqual((headers["x-key"], headers["x-own"]), ("k", "o"))
        self.assertIn("application/json", headers["content-type"])

    async def test_context(self) -> None:
        """The ids of the calls that led here and the trace go along, without what can't be in a header."""
        server = await self.serve()
        trace = f"00-{'a' * 32}-{'b' * 16}-01"
        stack = ["web.order.1", "evil\r\nX: y", 5, "a,b", "web.pay.2"]
        await self.ask("get", "/", context={"call_id_stack": stack, "traceparent": trace, "tracestate": "v=1"})
        (_, _, headers, _) = server.asked[0]
        self.assertRegex(headers["x-call-id-stack"], r"^web\.order\.1, web\.pay\.2, shop\.ask\.[^,]+$")
        self.assertEqual((headers["traceparent"], headers["tracestate"]), (trace, "v=1"))
        await self.ask("get", "/", context={"traceparent": "00-evil\r\nX: y"})
        self.assertNotIn("traceparent", server.asked[1][2])

    async def test_without_context(self) -> None:
        """An API of strangers can be asked without them, and without a trace."""

        class Asks(Shop):
            api = HttpClient("http://api.example", send_context=False)

        Recorded(self)
        server = await self.serve(service=Asks)
        await self.ask("get", "/", context={"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"})
        self.assertFalse({"x-call-id-stack", "traceparent"} & set(server.asked[0][2]))

    async def test_kinds_of_methods(self) -> None:
        """A plain method has a Deferred, and a blocking one waits for the answer and has it."""
        await self.serve((200, {}, b"yes"))
        self.assertEqual(await self.ask("/", method="plain"), "yes")
        self.assertEqual(await self.ask("/", method="blocking"), "yes")

    async def test_blocking_error(self) -> None:
        """In a blocking method an error is raised there."""
        await self.over_tcp(f"http://127.0.0.1:{self.listen(None).port}")
        with self.assertRaises(HttpConnectionError):
            await self.ask("/", method="blocking")

    async def test_bad_paths(self) -> None:
        """A path can't lead to another host, and what can't be asked is told at the call."""
        server = await self.serve()
        for path in ("http://evil/", "@evil/", ".evil/", "evil", "//evil/"):
            try:
                await self.ask("get", path)
            except ValueError as error:
                self.assertIn("begins with a slash", str(error))
        self.assertEqual([headers["host"] for _, _, headers, _ in server.asked], ["api.example"])
        with self.assertRaises(ValueError):
            await self.ask("get", "/", {"timeout": 0})
        with self.assertRaises(TypeError):
            await self.ask("get", "/", {"retry": 3})

    async def test_mistakes_at_the_start(self) -> None:
        """A client that can't be is told at the start, with its place."""
        for client in (
            HttpClient("ftp://x"),
            HttpClient("api.example"),
            HttpClient("http://"),
            HttpClient("http://x", timeout=0),
            HttpClient("http://x", timeout=float("inf")),
            HttpClient("http://x", retry=True),
        ):
            asks = type("Asks", (Shop,), {"api": client})
            container = self.container(asks)
            self.addCleanup(container.stop)
            with self.assertRaises(ConfigurationError) as caught:
                await container.start()
            self.assertIn("shop.api: ", str(caught.exception))

    async def test_secrets(self) -> None:
        """Password and query of a URL are sent, and are in no line of the log, no error, and not observed."""
        lines: list[str] = []

        def observe(event: dict[str, Any]) -> None:
            lines.append(f"{formatEvent(event)} {event}")

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        told = hearing(self, "http_call_started", "http_call_ended")
        listening = self.listen(None)
        await self.over_tcp(f"http://user:secret1@127.0.0.1:{listening.port}")
        with self.assertRaises(HttpConnectionError) as caught:
            await self.ask("get", "/x?token=secret2")
        self.assertIn(b"dXNlcjpzZWNyZXQx", listening.asked[0])
        self.assertIn(b"secret2", listening.asked[0])
        seen = [*lines, str(caught.exception), *(str(each[1].url) for each in told.told)]
        self.assertEqual([text for text in seen if "secret1" in text or "secret2" in text], [])
        self.assertIn(f"(call of GET http://127.0.0.1:{listening.port}/x)", str(caught.exception))


class Answers(Case):
    """What comes back, and what goes wrong."""

    async def test_errors(self) -> None:
        """Each error says whom was asked for what, and how it went wrong."""
        closed = self.listen(b"")
        table: list[tuple[Any, Any, str]] = [
            (None, HttpConnectionError, "Connection"),
            (b"SMTP hello\r\n\r\n", HttpConnectionError, ""),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", HttpTimeout, "no answer within 0.3 s"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + b"x" * 1500, HttpBodyTooLarge, "over 1000 bytes"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n800\r\n" + b"x" * 1500, HttpBodyTooLarge, "over"),
            (b"", HttpTimeout, "no answer within 0.3 s"),
        ]
        for answer, kind, words in table:
            listening = self.listen(answer)
            late = kind is HttpTimeout
            await self.over_tcp(f"http://127.0.0.1:{listening.port}", timeout=0.3 if late else 20, body_max=1000)
            with self.assertRaises(kind) as caught:
                await self.ask("post", "/x")
            self.assertIn(words, str(caught.exception))
            self.assertIn(f"(call of POST http://127.0.0.1:{listening.port}/x)", str(caught.exception))
        self.assertEqual(closed.asked, [])

    async def test_gzip(self) -> None:
        """A body in gzip is unpacked, and no further than to the limit; one that is no gzip, or not whole, is told."""
        text = gzip.compress(b"x" * 1000)
        table: list[tuple[str, bytes, Any, str]] = [
            ("gzip", text, None, "x" * 1000),
            ("GZip", text + b"more", None, "x" * 1000),
            ("x-gzip", text, None, "x" * 1000),
            ("gzip", b"", None, ""),
            ("identity", b"plain", None, "plain"),
            ("gzip", gzip.compress(b"x" * 1001), HttpBodyTooLarge, "over 1000 bytes"),
            ("gzip", bomb(), HttpBodyTooLarge, "over 1000 bytes"),
            ("gzip", b"plain", HttpCallFailed, "is not in gzip, as it says"),
            ("gzip", text[:-1], HttpConnectionError, "ends early"),
            ("gzip", text[:1], HttpConnectionError, "ends early"),
            ("gzip, gzip", gzip.compress(text), HttpCallFailed, "is packed 2 times"),
        ]
        for coding, body, kind, expected in table:
            head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            await self.over_tcp(f"http://127.0.0.1:{self.listen(head + body).port}", body_max=1000, retry=None)
            if kind is None:
                self.assertEqual(await self.ask("get", "/"), [200, expected], coding)
            else:
                with self.assertRaisesRegex(kind, expected) as caught:
                    await self.ask("get", "/")
                self.assertIs(type(caught.exception), kind)

    def test_bomb(self) -> None:
        """Of what one read brings no more is unpacked than the limit, and one byte."""
        unpacked = []

        class Counting:
            def __init__(self) -> None:
                self.real = zlib.decompressobj(16 + zlib.MAX_WBITS)

            def __getattr__(self, name: str) -> Any:
                return getattr(self.real, name)

            def decompress(self, data: bytes, most: int) -> bytes:
                unpacked.append(self.real.decompress(data, most))
                return unpacked[-1]

        body = Body(100_000)
        body.unpacker = Counting()
        body.dataReceived(bomb())
        body.dataReceived(bomb())
        self.failureResultOf(body.done, HttpBodyTooLarge)
        self.assertEqual(sum(map(len, unpacked)), 100_001)

    async def test_ipv6(self) -> None:
        """An address of IPv6 is asked, with its port and its parameters; Host has it in brackets."""
        listening = self.listen(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", interface="::1")
        await self.over_tcp(f"http://[::1]:{listening.port}/v1")
        self.assertEqual(await self.ask("get", "/x y", {"params": {"a": "é"}}), [200, "hi"])
        head = listening.asked[0].decode()
        self.assertTrue(head.startswith("GET /v1/x%20y?a=%C3%A9 HTTP/1.1\r\n"), head)
        self.assertIn(f"\r\nHost: [::1]:{listening.port}\r\n", head)

    async def test_nobody_there(self) -> None:
        """A port where nobody listens is told with its address."""
        port = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        number = port.getHost().port
        await port.stopListening()
        await self.over_tcp(f"http://127.0.0.1:{number}")
        with self.assertRaisesRegex(HttpConnectionError, rf"refused.*\(call of GET http://127\.0\.0\.1:{number}/\)"):
            await self.ask("get", "/")

    def test_values(self) -> None:
        """Text by its charset, JSON, statuses that are errors if one asks for that."""

        def answer(body: bytes, status: int = 200, kind: str = "") -> HttpAnswer:
            return HttpAnswer(status, Headers({"Content-Type": [kind]}), body, "GET http://x/", "http://x/?a=b")

        self.assertEqual(answer("é".encode("latin-1"), kind='text/plain; charset="latin-1"; x=y').text(), "é")
        self.assertEqual(answer("é".encode(), kind="text/plain; charset=nonsense").text(), "é")
        self.assertEqual(answer(b'{"a": 1}').json(), {"a": 1})
        for body in (b"", b"<html>", b"[" * 100_000, b"\xff"):
            with self.assertRaisesRegex(DecodeError, "GET http://x/, 200, is no JSON"):
                answer(body).json()
        self.assertEqual(answer(b"", 399).raise_for_status().status, 399)
        with self.assertRaisesRegex(HttpStatusError, r"it has answered 404 \(call of GET http://x/\)"):
            answer(b"", 404).raise_for_status()

    async def test_deadline(self) -> None:
        """A worker whose caller has less time than the client's timeout gives up with its caller."""
        await self.over_tcp(f"http://127.0.0.1:{self.listen(b'').port}")
        cluster = await self.cluster(timeout=30)
        error = await self.assertFailure(cluster.shop.ask.options(timeout=0.5)("get", "/"), Exception)
        self.assertRegex(str(error), r"no answer within 0\.\d+ s|no reply|within 0\.5")
        with self.assertRaisesRegex(HttpTimeout, "the worker's own caller's time is over"):
            await self.ask("get", "/", context={"call_deadline": 1.0, "call_time_left": -1.0})

    async def test_cancelled(self) -> None:
        """A call that its worker cancels ends at once, is not made again, and its connection is closed."""
        listening = self.listen(b"")
        await self.over_tcp(f"http://127.0.0.1:{listening.port}")
        told = hearing(self, "http_call_ended")
        client = self.container_of.dependencies[0]
        worker = WorkerContext(self.container_of, None, self.container_of.entrypoints[0])
        calling: Deferred[Any] = client.get_dependency(worker).get("/")
        calling.cancel()
        self.failureResultOf(calling)
        self.assertEqual([each[2] for each in told.told], ["cancelled"])
        self.assertEqual(client.pool.lines, {})

    async def test_redirects(self) -> None:
        """A GET follows up to REDIRECTS_MAX redirects; a POST none; secrets do not go to another host."""
        here, there = {"Location": "/v1/next?a=b"}, {"Location": "http://other.example/x"}
        server = await self.serve((302, here, b""), (307, there, b""), (200, {}, b"got it"))
        self.assertEqual(
            await self.ask("get", "/", {"headers": {"Authorization": "s", "Accept": "a"}}), [200, "got it"]
        )
        self.assertEqual([each[1] for each in server.asked], ["/v1/", "/v1/next?a=b", "/x"])
        self.assertEqual([("authorization" in each[2], "x-key" in each[2]) for each in server.asked],
                         [(True, True), (True, True), (False, False)])  # fmt: skip
        self.assertEqual((server.asked[2][2]["accept"], "x-call-id-stack" in server.asked[2][2]), ("a", False))
        server.answers = [(302, here, b"moved")]
        self.assertEqual(await self.ask("post", "/"), [302, "moved"])
        before = len(server.asked)
        with self.assertRaisesRegex(HttpCallFailed, f"redirected {REDIRECTS_MAX} times"):
            await self.ask("get", "/")
        self.assertEqual(len(server.asked) - before, REDIRECTS_MAX + 1)
        for location, words in (("ftp://x/", "no URL"), ("http://[", "no URL")):
            server.answers = [(302, {"Location": location}, b"")]
            with self.assertRaisesRegex(HttpCallFailed, words):
                await self.ask("get", "/")

    async def test_not_from_https_to_http(self) -> None:
        """A redirect from https to http is not followed."""

        class Asks(Shop):
            api = HttpClient("https://api.example")

        await self.serve((302, {"Location": "http://api.example/"}, b""), service=Asks)
        with self.assertRaisesRegex(HttpCallFailed, "not safe"):
            await self.ask("get", "/")

    async def test_connection_is_kept(self) -> None:
        """Two calls share a connection, and the stop of the process closes it."""
        connections: list[Any] = []

        class Kept(Raw):
            def connectionMade(self) -> None:
                connections.append(self)
                self.gone: Deferred[None] = Deferred()

            def connectionLost(self, reason: Any = None) -> None:
                self.gone.callback(None)

        listening = self.listen(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        listening.protocol = Kept
        await self.over_tcp(f"http://127.0.0.1:{listening.port}")
        self.assertEqual(await self.ask("get", "/"), [200, "ok"])
        self.assertEqual(await self.ask("get", "/"), [200, "ok"])
        self.assertEqual(len(connections), 1)
        await self.stage.stop()
        await connections[0].gone

    async def test_bound_of_connections(self) -> None:
        """No more than CONNECTIONS_PER_ORIGIN_MAX requests are under way to one server; further ones wait."""
        began = Heard()

        class Silent(Raw):
            def dataReceived(self, data: bytes) -> None:
                began(self)

        listening = self.listen(b"")
        listening.protocol = Silent
        await self.over_tcp(f"http://127.0.0.1:{listening.port}")
        client = self.container_of.dependencies[0]
        worker = WorkerContext(self.container_of, None, self.container_of.entrypoints[0])
        api = client.get_dependency(worker)
        calls = [api.get("/") for _ in range(CONNECTIONS_PER_ORIGIN_MAX + 1)]
        asked = await began.wait(CONNECTIONS_PER_ORIGIN_MAX)
        (line,) = client.pool.lines.values()
        self.assertEqual(len(line.waiting), 1)
        asked[0].transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await began.wait(CONNECTIONS_PER_ORIGIN_MAX + 1)
        self.assertEqual(len(line.waiting), 0)
        for each in calls:
            each.addErrback(lambda _: None).cancel()
        self.assertEqual(client.pool.lines, {})


class Urls(SynchronousTestCase):
    """URLs as they are sent and as they are shown."""

    def test_table(self) -> None:
        """User, password and fragment are not sent as such, and the query is not shown."""
        target = Target("https://us%40er:p%3Aw@h.example/a b?t=s#f")
        self.assertEqual(target.url, "https://h.example/a%20b?t=s")
        self.assertEqual(target.shown, "https://h.example/a%20b")
        self.assertEqual(target.auth, ("us@er", "p:w"))
        self.assertEqual(target.origin, ("https", "h.example", 443))
        target = Target("http://u@[::1]:8080/a b?t=s").joined("/é")
        self.assertEqual((target.url, target.shown), ("http://[::1]:8080/%C3%A9",) * 2)
        self.assertEqual((target.auth, target.origin), (("u", ""), ("http", "::1", 8080)))
        for bad in (
            "",
            "/x",
            "x",
            "http://",
            "file:///etc/passwd",
            "http://x:port/",
            "http://[::1",
            "http://[::g]/",
            "http://::1/",
            "http://" + "x" * 20_000,
        ):
            self.assertRaises(ValueError, Target, bad)
