"""Bodies that are made while they are sent: from what they can be made, and what cuts them."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.task import Clock, deferLater
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.trial.unittest import TestCase
from werkzeug.wrappers import Response

from tests.web.peer import Conversation, converse
from txservices.callids import this_worker
from txservices.runners import ServiceRunner
from txservices.web import bodies
from txservices.web.handlers import http

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nTransfer-Encoding: chunked\r\nDate: now\r\n%b\r\n"
)
CLOSE = b"Connection: close\r\n"
ONE_TWO = HEAD % b"" + b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"


def later(value: Any) -> Deferred[Any]:
    """A Deferred that fires in the next turn of the real reactor."""
    return deferLater(reactor, 0, lambda: value)


def plain() -> Iterator[Any]:
    yield "one"
    yield b"two"


async def asynchronous() -> AsyncIterator[Any]:
    yield await later("one")
    yield memoryview(b"two")


def deferreds() -> Iterator[Any]:
    yield later("one")
    yield succeed(b"two")


def coroutines() -> Iterator[Any]:
    async def text(value: str) -> Any:
        return await later(value)

    yield text("one")
    yield text("two")


class Iterable:
    """Neither an iterator nor a generator."""

    def __iter__(self) -> Iterator[str]:
        return iter(["one", "", "two"])


KINDS: dict[str, Callable[[], Any]] = {
    "iterator": plain,
    "iterable": Iterable,
    "async iterator": asynchronous,
    "iterator of Deferreds": deferreds,
    "iterator of coroutines": coroutines,
    "list of Deferreds": lambda: [later("one"), later("two")],
    "Deferred of an iterator": lambda: later(plain()),
    "Deferred of an async iterator": lambda: later(asynchronous()),
    "Deferred of a list": lambda: succeed(["one", bytearray(b"two")]),
}


class Given:
    """Gives what a test puts into ``body``, as the body of a Response."""

    name = "given"
    body: Callable[[], Any]
    passthrough = True

    @http("GET", "/")
    def method(self, request):
        return Response(Given.body(), direct_passthrough=Given.passthrough)

    @http("GET", "/tuple")
    async def bare(self, request):
        return 200, Given.body()

    @http("GET", "/generator")
    async def generator(self, request):
        yield "one"
        yield await later("two")


class Blocking(Given):
    name = "blocking"
    blocking = True
    generator = None  # an async generator is the reactor's


def failing(*pieces: Any) -> Callable[[], Iterator[Any]]:
    def make() -> Iterator[Any]:
        yield from pieces
        raise ZeroDivisionError("s3cret")

    return make


def failing_late(*pieces: Any) -> Callable[[], AsyncIterator[Any]]:
    async def make() -> AsyncIterator[Any]:
        for piece in pieces:
            yield await later(piece)
        raise ZeroDivisionError("s3cret")

    return make


# What can't be sent, and the errors that are logged for it
BAD: dict[str, tuple[Callable[..., Callable[[], Any]], type[Exception]]] = {
    "raises": (failing, ZeroDivisionError),
    "raises later": (failing_late, ZeroDivisionError),
    "None": (lambda *before: lambda: iter([*before, None]), TypeError),
    "a number": (lambda *before: lambda: iter([*before, 1]), TypeError),
    "None later": (lambda *before: lambda: iter([*map(succeed, before), later(None)]), TypeError),
    "half a character": (lambda *before: lambda: iter([*before, "\ud800"]), UnicodeEncodeError),
}


class OverTCP(TestCase):
    """With sockets."""

    async def served(self, *services: type[Any]) -> int:
        self.runner = runner = ServiceRunner({"WEB_SERVER_ADDRESS": "0"})
        for each in services:
            runner.add_service(each)
        self.addCleanup(runner.stop)
        await runner.start()
        port: int = runner.containers[0].entrypoints[0].server.port
        return port

    async def test_kinds(self) -> None:
        """Every kind of body arrives, from a method in the reactor and from one in a thread, and from a generator."""
        close = ONE_TWO.replace(b"Date: now\r\n", b"Date: now\r\n" + CLOSE)
        for service in (Given, Blocking):
            port = await self.served(service)
            for name, Given.body in KINDS.items():
                for path in ("/", "/tuple") if service is Given and "iterator" in name and name[0] in "ai" else ("/",):
                    data = f"GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode()
                    self.assertEqual(await converse(port, data), close, (service, name, path))
        port = await self.served(Given)
        data = b"GET /generator HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
        self.assertEqual(await converse(port, data), close)

    async def test_bad(self) -> None:
        """An error before the first piece is answered 500, and one after it cuts the connection, at once."""
        for service in (Given, Blocking):
            port = await self.served(service)
            for name, (make, error) in BAD.items():
                for Given.passthrough in (True, False):
                    Given.body = make()
                    first = await converse(port, b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
                    self.assertTrue(first.startswith(b"HTTP/1.1 500 "), (name, first))
                    self.assertNotIn(b"chunked", first)
                    head, _, body = first.partition(b"\r\n\r\n")
                    self.assertIn(b"Content-Length: %d\r\n" % len(body), head, name)
                    self.assertNotIn(b"s3cret", first)
                    Given.body = make("one")
                    second = await converse(port, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
                    self.assertTrue((HEAD % b"" + b"3\r\none\r\n").startswith(second), (name, second))
                    self.assertEqual(len(self.flushLoggedErrors(error)), 2, name)

    async def test_head(self) -> None:
        """A HEAD takes nothing of the body: a Deferred of one is cancelled, and its error is nobody's."""
        for service in (Given, Blocking):
            port = await self.served(service)
            for Given.passthrough in (True, False):
                cancelled: list[Any] = []
                Given.body = partial(Deferred, cancelled.append)
                answer = await converse(port, b"HEAD / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
                self.assertEqual((answer, len(cancelled)), (HEAD % CLOSE, 1))

    async def test_thread(self) -> None:
        """The iterator of a blocking method runs and ends in threads, in the context of its worker."""
        seen: dict[str, Any] = {}

        class Threaded:
            name = "threaded"
            blocking = True

            @http("GET", "/")
            def method(self, request):
                response = Response(self.pieces())
                response.call_on_close(lambda: seen.update(on_close=threading.current_thread()))
                return response

            def pieces(self):
                try:
                    seen["in"] = threading.current_thread()
                    seen["worker"] = this_worker.get()
                    yield "one"
                finally:
                    seen["closed"] = threading.current_thread()

        port = await self.served(Threaded)
        answer = await converse(port, b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        self.assertEqual(answer, HEAD % CLOSE + b"3\r\none\r\n0\r\n\r\n")
        await self.until(lambda: "on_close" in seen)
        self.assertNotIn(threading.main_thread(), [seen[key] for key in ("in", "closed", "on_close")])
        self.assertEqual(seen["worker"].service_name, "threaded")

    async def until(self, happened: Callable[[], bool]) -> None:
        while not happened():
            await deferLater(reactor, 0.001)

    async def test_wrapped(self) -> None:
        """Every byte of a long body goes through what is around the connection, as TLS."""

        class Shouting(ProtocolWrapper):
            def write(self, data: bytes) -> None:
                super().write(data.upper())

            def writeSequence(self, data: Any) -> None:
                self.write(b"".join(data))

        class Factory(WrappingFactory):
            protocol = Shouting

        await self.served(Given)
        Given.body = lambda: (b"x" * 50_000 for _ in range(80))
        site = self.runner.containers[0].entrypoints[0].server.listener.site
        wrapped = reactor.listenTCP(0, Factory(site), interface="127.0.0.1")
        self.addCleanup(wrapped.stopListening)
        answer = await converse(wrapped.getHost().port, b"GET / HTTP/1.0\r\nHost: h\r\n\r\n")
        self.assertEqual(answer.partition(b"\r\n\r\n")[2], b"X" * 50_000 * 80)

    async def test_left(self) -> None:
        """A client that leaves, or takes nothing for too long, ends the iterator, wherever that runs or waits."""
        ended: list[str] = []
        asleep: list[threading.Event] = []

        def endless(name: str) -> Iterator[Any]:
            try:
                while True:
                    yield b"x" * 10_000
            finally:
                ended.append(name)

        async def waiting(name: str, forever: bool) -> AsyncIterator[Any]:
            try:
                yield b"x"
                while True:
                    yield await (Deferred() if forever else succeed(b"x" * 10_000))
            finally:
                ended.append(name)

        def busy(name: str) -> Iterator[Any]:
            try:
                yield b"x"
                asleep.append(threading.Event())
                asleep[-1].wait(100)
                yield b"y"
            finally:
                ended.append(name)

        cases: list[tuple[type[Any], Callable[[str], Any], tuple[str, ...]]] = [
            (Given, endless, ("leave", "stall")),
            (Given, lambda name: waiting(name, False), ("leave", "stall")),
            (Given, lambda name: waiting(name, True), ("leave",)),
            (Given, lambda name: (Deferred() if i else endless(name) for i in (1,)), ()),
            (Blocking, endless, ("leave", "stall")),
            (Blocking, busy, ("leave",)),
        ]
        for service, make, hows in cases:
            clock = Clock()
            runner = ServiceRunner({"WEB_SERVER_ADDRESS": "0"}, clock)
            runner.add_service(service)
            await runner.start()
            port = runner.containers[0].entrypoints[0].server.port
            for how in hows:
                ended.clear()
                asleep.clear()
                name = f"{service.name} {make} {how}"
                Given.body = lambda make=make, name=name: make(name)
                talk = Conversation(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
                await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), talk)
                await talk.begun
                if make is busy:
                    await self.until(lambda: bool(asleep))
                if how == "leave":
                    talk.transport.abortConnection()
                else:
                    talk.transport.pauseProducing()
                while not ended:
                    clock.advance(1)
                    await deferLater(reactor, 0.001)
                    if asleep and not runner.containers[0].entrypoints[0].server.listener.site.channels:
                        asleep[-1].set()
                self.assertEqual(ended, [name])
                talk.transport.abortConnection()
                await talk.closed
            await runner.stop()


class Closed(TestCase):
    """The end of an iterator that is not at its end."""

    def test_async_generator(self) -> None:
        """Its ``finally`` is waited for, and what was to be called comes after that; an error there is logged."""
        for fails in (False, True):
            told: list[str] = []
            waiting: Deferred[None] = Deferred()

            async def pieces(fails: bool, waiting: Deferred[None], told: list[str]) -> AsyncIterator[str]:
                try:
                    yield "first"
                    yield "second"
                finally:
                    told.append("begins to end")
                    await waiting
                    told.append("has ended")
                    if fails:
                        raise KeyError("at the end")

            body = bodies.Body(pieces(fails, waiting, told))
            self.assertEqual(self.successResultOf(Deferred.fromCoroutine(body.next())), b"first")
            closed = body.close(lambda told=told: told.append("then"))
            self.assertNoResult(closed)
            self.assertEqual(told, ["begins to end"])
            waiting.callback(None)
            self.successResultOf(closed)
            self.assertEqual(told, ["begins to end", "has ended", "then"])
            self.assertEqual(len(self.flushLoggedErrors(KeyError)), fails)

    def test_deferred(self) -> None:
        """A Deferred that would give the pieces is cancelled, and its failure is nobody's."""
        cancelled: list[Deferred[Any]] = []
        for pieces, expected in [
            (Deferred(cancelled.append), 1),
            (fail(KeyError("nobody wants it")), 0),
            (succeed(["one"]), 0),
        ]:
            cancelled.clear()
            self.successResultOf(bodies.Body(pieces).close())
            self.assertEqual(len(cancelled), expected)
