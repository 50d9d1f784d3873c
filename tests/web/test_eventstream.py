"""Server-sent events: their bytes, signs of life, and how a stream ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from twisted.internet.defer import Deferred, DeferredQueue
from twisted.trial.unittest import SynchronousTestCase

from tests.web.peer import WebTestCase
from txservices import EventStream, ServerSentEvent
from txservices.web.eventstream import KEEP_ALIVE, encoded
from txservices.web.handlers import http

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-store\r\n"
    b"X-Accel-Buffering: no\r\nTransfer-Encoding: chunked\r\nDate: now\r\n\r\n"
)
SILENCE = b"3\r\n:\n\n\r\n"
END = b"0\r\n\r\n"

ENCODED: list[tuple[Any, bytes]] = [
    ("text", b"data: text\n\n"),
    ("", b"data: \n\n"),
    ("süß", "data: süß\n\n".encode()),
    ("one\ntwo\r\nthree\rfour\n", b"data: one\ndata: two\ndata: three\ndata: four\ndata: \n\n"),
    ("id: 1\n\ndata: 2", b"data: id: 1\ndata: \ndata: data: 2\n\n"),
    (ServerSentEvent("x", event="price"), b"event: price\ndata: x\n\n"),
    (ServerSentEvent("x", id="7"), b"id: 7\ndata: x\n\n"),
    (ServerSentEvent("x", id=""), b"id: \ndata: x\n\n"),
    (ServerSentEvent("x", retry=0.25), b"retry: 250\ndata: x\n\n"),
    (ServerSentEvent("a\nb", "e", "é", 2), "retry: 2000\nevent: e\nid: é\ndata: a\ndata: b\n\n".encode()),
]
REFUSED: list[tuple[Any, type[Exception]]] = [
    (None, TypeError),
    (b"bytes", TypeError),
    ({}, TypeError),
    (ServerSentEvent(7), TypeError),
    (ServerSentEvent("x", event="a\nb"), ValueError),
    (ServerSentEvent("x", id="a\rb"), ValueError),
    (ServerSentEvent("x", id="a\0b"), ValueError),
    ("\ud800", UnicodeEncodeError),
]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Format(SynchronousTestCase):
    """An event's bytes."""

    def test_encoded(self) -> None:
        """Each line of the data is a line of its own, so no data can look like a field or like another event."""
        for event, data in ENCODED:
            self.assertEqual(encoded(event), data, event)

    def test_refused(self) -> None:
        """What can't be an event is an error, which says what to give."""
        for event, error in REFUSED:
            self.assertRaises(error, encoded, event)


class Streaming(WebTestCase):
    """A stream, in memory."""

    def setUp(self) -> None:
        super().setUp()
        self.queue: DeferredQueue[Any] = DeferredQueue()
        self.ended: list[str] = []
        self.asked: list[str | None] = []

    def events(self) -> Any:
        """Events as a test puts them into the queue."""

        async def asynchronous() -> AsyncIterator[Any]:
            try:
                while True:
                    yield await self.queue.get()
            finally:
                self.ended.append("ended")

        return asynchronous()

    def deferreds(self) -> Iterator[Any]:
        try:
            while True:
                yield self.queue.get()
        finally:
            self.ended.append("ended")

    async def begin(self, events: Callable[[], Any], **options: Any) -> Any:
        """A service that streams them."""
        asked = self.asked

        class Service:
            name = "service"

            @http("GET", "/")
            def method(self, request):
                asked.append(request.last_event_id)
                return EventStream(events(), **options)

        return await self.serve(Service)

    async def test_events(self) -> None:
        """The head goes out at once, and each event when it is there."""
        for events in (self.events, self.deferreds):
            self.queue = DeferredQueue()
            await self.begin(events)
            peer = self.peer()
            self.assertEqual(peer.get("/"), HEAD + SILENCE)
            for event in ("one", ServerSentEvent("two", id="2")):
                self.queue.put(event)
                self.assertEqual(peer.received(), chunk(encoded(event)))
            await self.runner.stop()

    async def test_retry(self) -> None:
        """``retry`` comes first, and headers may be added or replaced."""
        await self.begin(self.events, retry=1.5, headers={"Cache-Control": "no-cache"})
        answer = self.peer().get("/")
        self.assertIn(b"Cache-Control: no-cache\r\n", answer)
        self.assertNotIn(b"no-store", answer)
        self.assertTrue(answer.endswith(chunk(b"retry: 1500\n\n")), answer)

    async def test_last_event_id(self) -> None:
        """The method is told which event came last, as the client says it."""
        await self.begin(self.events)
        self.peer().get("/")
        self.peer().send("GET / HTTP/1.1\r\nHost: h\r\nLast-Event-ID: nº 7\r\n\r\n".encode())
        self.assertEqual(self.asked, [None, "nº 7"])

    async def test_silence(self) -> None:
        """A silent stream has a comment from time to time, unless its client takes nothing."""
        await self.begin(self.events)
        peer = self.peer()
        peer.get("/")
        self.reactor.pump([1] * int(KEEP_ALIVE * 3 + 3))
        self.assertEqual(peer.received(), SILENCE * 3)
        self.queue.put("x")
        self.assertNotEqual(peer.received(), b"")
        self.reactor.pump([1] * int(KEEP_ALIVE - 1))
        self.assertEqual(peer.received(), b"")
        peer.channel.pauseProducing()
        self.reactor.pump([1] * 5)
        self.assertEqual(peer.received(), b"")
        self.assertTrue(peer.transport.connected)

    async def test_left(self) -> None:
        """A client that leaves ends the iterator, which waits."""
        for events in (self.events, self.deferreds):
            self.ended.clear()
            await self.begin(events)
            peer = self.peer()
            peer.get("/")
            peer.leave()
            self.assertEqual(self.ended, ["ended"])
            await self.runner.stop()

    async def test_half_closed(self) -> None:
        """A client that ends its side of such a stream has left: a browser that is closed looks like that."""
        await self.begin(self.events)
        peer = self.peer()
        peer.get("/")
        peer.channel.readConnectionLost()
        self.assertEqual(self.ended, ["ended"])
        self.assertFalse(peer.transport.connected)

    async def test_stop(self) -> None:
        """A stop ends the stream in order: the iterator first, then the response, then the connection."""
        for events in (self.events, self.deferreds):
            self.ended.clear()
            runner = await self.begin(events)
            peer = self.peer()
            peer.get("/")
            await runner.stop()
            self.assertEqual(self.ended, ["ended"])
            self.assertEqual(peer.received(), END)
            self.assertFalse(peer.transport.connected)

    async def test_over(self) -> None:
        """An iterator that is over ends the response, and one that fails cuts the connection."""
        await self.begin(lambda: iter(["x"]))
        self.assertEqual(self.peer().get("/"), HEAD + SILENCE + chunk(b"data: x\n\n") + END)
        await self.runner.stop()
        await self.begin(lambda: iter(["x", 1]))
        peer = self.peer()
        peer.get("/")
        self.assertFalse(peer.transport.connected)
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    async def test_waiting_for_the_first(self) -> None:
        """A method may wait before it gives its stream; a kill ends the iterator too."""
        first: Deferred[Any] = Deferred()
        events = self.events

        class Service:
            name = "service"

            @http("GET", "/")
            async def method(self, request):
                return EventStream(await first)

        runner = await self.serve(Service)
        peer = self.peer()
        self.assertEqual(peer.get("/"), b"")
        first.callback(events())
        self.assertEqual(peer.received(), HEAD + SILENCE)
        await runner.kill()
        self.assertEqual(self.ended, ["ended"])
