"""Calls of other people's HTTP: what is sent, what comes back, what is tried again, and what goes wrong."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from functools import cache
from runpy import run_path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource

from tests.monitoring.scraping import Scrape
from tests.observing import hearing
from tests.processes import EXAMPLES
from tests.services import ServicesCase
from tests.tracing import Recorded
from txservices.exceptions import ConfigurationError, DecodeError, RemoteError
from txservices.extensions import WorkerContext
from txservices.httpclient import (
    REDIRECTS_MAX,
    HttpAnswer,
    HttpBodyTooLarge,
    HttpCallFailed,
    HttpCalling,
    HttpClient,
    HttpConnectionError,
    HttpStatusError,
    HttpTimeout,
    retry_after,
)
from txservices.httppool import CONNECTIONS_PER_ORIGIN_MAX, Body, HttpPool, Target
from txservices.monitoring.metrics import Metrics
from txservices.observers import observers
from txservices.retry import Retry
from txservices.rpc import rpc
from txservices.testing.http import answer_http
from txservices.testing.services import entrypoint_hook, worker_factory
from txservices.testing.waiting import Heard

Weather: Any = run_path(os.path.join(EXAMPLES, "guide", "calling_out.py"))["Weather"]
AT_ONCE = Retry(attempts=3, delay=0)


class Server(Resource):
    """Notes each request, and answers as ``answers`` says, one after the other; the last again and again."""

    isLeaf = True

    def __init__(self, *answers: tuple[int, dict[str, str], bytes]) -> None:
        super().__init__()
        self.answers = list(answers or [(200, {}, b"{}")])
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []

    def render(self, request: Any) -> bytes:
        headers = {name.decode().lower(): b", ".join(values).decode() for name, values in headers_of(request)}
        self.asked.append((request.method.decode(), request.uri.decode(), headers, request.content.read()))
        status, further, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        request.setResponseCode(status)
        for name, value in further.items():
            request.setHeader(name.encode(), value.encode())
        return b"" if request.method == b"HEAD" else body


@cache
def bomb() -> bytes:
    """Some 20 KiB that unpack to 20 MiB."""
    return gzip.compress(bytes(20 * 1024 * 1024))


def headers_of(request: Any) -> Any:
    return request.requestHeaders.getAllRawHeaders()


class Raw(Protocol):
    """Answers the first bytes of each connection with the next of the factory's answers; None closes without one."""

    def dataReceived(self, data: bytes) -> None:
        factory: Any = self.factory
        factory.asked.append(data)
        answer = factory.answers.pop(0) if len(factory.answers) > 1 else factory.answers[0]
        if answer is None:
            self.transport.abortConnection()
        elif answer:
            self.transport.write(answer)


class Shop:
    name = "shop"
    api = HttpClient("http://api.example/v1/", timeout=20, retry=AT_ONCE, headers={"X-Key": "k"}, body_max=1000)

    @rpc(expected_exceptions=Exception)
    async def ask(self, method: str, path: str, options: Any = None) -> Any:
        answer = await self.api.request(method, path, **(options or {}))
        return [answer.status, answer.text()]

    @rpc
    def plain(self, path: str) -> Any:
        return self.api.get(path).addCallback(lambda answer: answer.text())

    @rpc(blocking=True, expected_exceptions=Exception)
    def blocking(self, path: str) -> Any:
        return self.api.get(path).text()


class Case(ServicesCase):
    """One service, and what it asks."""

    async def serve(self, *answers: tuple[int, dict[str, str], bytes], service: Any = Shop, **config: Any) -> Server:
        self.container_of = self.container(service, **config)
        server = Server(*answers)
        answer_http(self.container_of, server)
        await self.container_of.start()
        self.addCleanup(self.container_of.stop)
        return server

    async def ask(self, *args: Any, method: str = "ask", context: dict[str, Any] | None = None) -> Any:
        with entrypoint_hook(self.container_of, method, context) as entrypoint:
            return await entrypoint(*args)

    def listen(self, *answers: bytes | None, interface: str = "127.0.0.1") -> Any:
        """A server that speaks raw bytes, at ``port``."""
        factory: Any = Factory.forProtocol(Raw)
        factory.answers, factory.asked = list(answers), []
        port = reactor.listenTCP(0, factory, interface=interface)
        self.addCleanup(port.stopListening)
        factory.port = port.getHost().port
        return factory

    async def over_tcp(self, url: str, **options: Any) -> None:
        class Asks(Shop):
            api = HttpClient(url, **{"timeout": 20, "retry": AT_ONCE, **options})

        self.container_of = self.container(Asks)
        await self.container_of.start()
        self.addCleanup(self.container_of.stop)


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


class Retries(Case):
    """What is made again."""

    async def test_statuses(self) -> None:
        """An answer that says "not now" is followed by another attempt, for methods that may be repeated."""
        for status in (429, 502, 503, 504):
            server = await self.serve((status, {}, b"no"), (200, {}, b"yes"))
            self.assertEqual(await self.ask("get", "/"), [200, "yes"])
            self.assertEqual(len(server.asked), 2)
            await self.container_of.stop()
        for method in ("get", "head", "options", "put", "delete", "post", "patch"):
            server = await self.serve((503, {}, b"no"))
            self.assertEqual((await self.ask(method, "/"))[0], 503)
            self.assertEqual(len(server.asked), 1 if method in ("post", "patch") else 3, method)
            await self.container_of.stop()
        for status in (200, 400, 404, 500, 501):
            server = await self.serve((status, {}, b"no"))
            self.assertEqual((await self.ask("get", "/"))[0], status)
            self.assertEqual(len(server.asked), 1)
            await self.container_of.stop()

    async def test_lost_connections(self) -> None:
        """A lost connection is as such an answer; a POST's is an error at once."""
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
        listening = self.listen(None, None, answer)
        await self.over_tcp(f"http://127.0.0.1:{listening.port}")
        self.assertEqual(await self.ask("get", "/"), [200, "ok"])
        self.assertEqual(len(listening.asked), 3)
        listening.answers = [None]
        with self.assertRaises(HttpConnectionError):
            await self.ask("post", "/")
        self.assertEqual(len(listening.asked), 4)
        with self.assertRaises(HttpConnectionError):
            await self.ask("get", "/", {"retry": None})
        self.assertEqual(len(listening.asked), 5)

    def delay(self, answer: HttpAnswer | None, left: float = 100, attempt: int = 1) -> float | None:
        client = HttpClient("http://x", retry=Retry(attempts=3, delay=1, growth=2, delay_max=10, jitter=0))
        client.pool = HttpPool()
        clock = Clock()
        context: Any = type("Context", (), {"container": type("Container", (), {"clock": clock})})
        calling = HttpCalling(client, context, "GET", "/", {})
        calling.attempt, calling.ends = attempt, left
        return calling.delay_after(answer, HttpConnectionError("gone") if answer is None else None)

    def test_delays(self) -> None:
        """The policy's delays, Retry-After if that is longer, and no attempt that could not end in time."""

        def answer(wish: str = "", status: int = 503) -> HttpAnswer:
            headers = Headers({"Retry-After": [wish], "Date": ["Wed, 21 Oct 2015 07:28:00 GMT"]})
            return HttpAnswer(status, headers, b"", "", "")

        table: list[tuple[Any, float | None]] = [
            (self.delay(None), 1),
            (self.delay(None, attempt=2), 2),
            (self.delay(None, attempt=3), None),
            (self.delay(None, left=1), None),
            (self.delay(answer()), 1),
            (self.delay(answer("7")), 7),
            (self.delay(answer("0")), 1),
            (self.delay(answer("11")), None),  # over delay_max: the answer is the caller's
            (self.delay(answer("7"), left=5), None),
            (self.delay(answer("Wed, 21 Oct 2015 07:28:05 GMT")), 5),
            (self.delay(answer("Wed, 21 Oct 2015 07:20:05 GMT")), 1),
            (self.delay(answer("-5")), 1),
            (self.delay(answer("9" * 5000)), None),
            (self.delay(answer("soon")), 1),
            (self.delay(answer("²")), 1),
            (self.delay(answer("5", status=404)), None),
        ]
        for row, (found, expected) in enumerate(table):
            self.assertEqual(found, expected, row)
        self.assertIsNone(retry_after(HttpAnswer(503, Headers(), b"", "", "")))


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


class Seen(Case):
    """What observers make of it."""

    async def test_metrics(self) -> None:
        """Each attempt is counted, by the host that was asked, the status and the error."""
        self.patch(observers, "containers", [])
        metrics = Metrics({}, Clock())
        observers.add(metrics)
        self.addCleanup(metrics.stop)
        self.addCleanup(observers.remove, metrics)
        await self.serve((503, {}, b""), (200, {}, b""))
        await self.ask("get", "/")
        found = {
            (labels["http_response_status_code"], labels.get("error_type")): number
            for _, labels, number in Scrape().found(
                "http_client_request_duration_seconds_count", service_name="shop", server_address="api.example"
            )
        }
        self.assertEqual(found, {("503", "503"): 1, ("200", None): 1})

    async def test_spans(self) -> None:
        """A request is a span of its worker's trace, and its traceparent is that span's."""
        recorded = Recorded(self)
        server = await self.serve((404, {}, b""))
        await self.ask("get", "/a?secret=1")
        span = recorded.named("GET", "CLIENT")
        worker = recorded.named("shop.ask", "SERVER")
        assert span.context is not None and span.parent is not None and worker.context is not None
        self.assertEqual(span.parent.span_id, worker.context.span_id)
        self.assertEqual(
            server.asked[0][2]["traceparent"][3:52], f"{span.context.trace_id:032x}-{span.context.span_id:016x}"
        )
        attributes = dict(span.attributes or {})
        self.assertEqual(attributes["url.full"], "http://api.example/v1/a")
        self.assertEqual((attributes["http.response.status_code"], attributes["error.type"]), (404, "404"))


class Doubles(Case):
    """How services that call out are tested."""

    async def test_example(self) -> None:
        """The guide's example against a server in memory."""
        rain, sun = b'{"tomorrow": "rain"}', b'{"tomorrow": "sun"}'
        server = await self.serve((200, {}, rain), (404, {}, b""), (200, {}, sun), (201, {}, b""), service=Weather)
        self.assertEqual(await self.ask("Berlin", method="tomorrow"), "rain")
        self.assertEqual(await self.ask("Atlantis", method="tomorrow"), "nobody knows")
        self.assertEqual(await self.ask("Bonn", method="in_a_thread"), "sun")
        self.assertEqual(await self.ask("Bonn", 20, method="report"), 201)
        self.assertEqual(server.asked[0][1], "/forecast?city=Berlin")

    async def test_mock(self) -> None:
        """Without a container, a double gives Deferreds."""
        service = worker_factory(Weather)
        service.api.get.return_value = HttpAnswer(200, Headers(), b'{"tomorrow": "fog"}', "", "")
        self.assertEqual(await service.tomorrow("Ulm"), "fog")

    async def test_too_late(self) -> None:
        """After the start it is too late to put a server in memory there."""
        await self.over_tcp("http://127.0.0.1:1")
        with self.assertRaises(RuntimeError):
            answer_http(self.container_of, Server())

    async def test_remote_error(self) -> None:
        """An error that a method lets go reaches its caller with its class and its text."""
        await self.over_tcp(f"http://127.0.0.1:{self.listen(None).port}")
        cluster = await self.cluster()
        error = await self.assertFailure(cluster.shop.ask("post", "/"), RemoteError)
        self.assertEqual(error.exc_type, "HttpConnectionError")
        self.assertIn("call of POST http://127.0.0.1:", str(error))
