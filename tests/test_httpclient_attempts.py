"""Calls of other people's HTTP: what is tried again, and what observers and tests see of them."""

from __future__ import annotations

import os
from runpy import run_path
from typing import Any

from twisted.internet.task import Clock
from twisted.web.http_headers import Headers

from tests.calling_out import Case, Server
from tests.monitoring.scraping import Scrape
from tests.processes import EXAMPLES
from tests.tracing import Recorded
from txservices.exceptions import RemoteError
from txservices.httpanswer import retry_after
from txservices.httpclient import HttpAnswer, HttpCalling, HttpClient, HttpConnectionError
from txservices.httppool import HttpPool
from txservices.monitoring.metrics import Metrics
from txservices.observers import observers
from txservices.retry import Retry
from txservices.testing.http import answer_http
from txservices.testing.services import worker_factory

Weather: Any = run_path(os.path.join(EXAMPLES, "guide", "calling_out.py"))["Weather"]


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
