"""WebSocket messages that are large, or that come in many frames: no turn of the reactor is long."""

from __future__ import annotations

import json
from functools import cache, partial
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor as reactor_module
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from tests.turns import TURN_MAX, TurnsCase, least
from tests.web.chat import Client, SocketsCase, failed
from txservices.exceptions import MalformedRequest
from txservices.serialization.bounds import HERE_MAX
from txservices.utils.background import in_background
from txservices.web import sockets
from txservices.web.connection import request_of
from txservices.web.websocket import rpc

reactor: Any = reactor_module

MIB = 1024 * 1024
PIECE = 65_536  # what Twisted reads at once
FRAMES = 20_000  # of a message, in the tests that set the limit to it: they come in two or three pieces
MALFORMED = failed("MalformedRequest", "Invalid JSON data")
CONTINUATION, TEXT, BINARY, PING = 0, 1, 2, 9


def frame(opcode: int, payload: bytes, fin: bool = True) -> bytes:
    """A client's frame, with a mask of zeros."""
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 65_536:
        length = b"\xfe" + size.to_bytes(2, "big")
    else:
        length = b"\xff" + size.to_bytes(8, "big")
    return bytes([opcode | 0x80 * fin]) + length + bytes(4) + payload


def in_frames(payload: bytes, size: int) -> bytes:
    """A text in frames of some bytes each."""
    starts = range(0, len(payload), size)
    return b"".join(frame(CONTINUATION if at else TEXT, payload[at : at + size], at == starts[-1]) for at in starts)


def request(data: Any) -> bytes:
    return json.dumps({"method": "count", "data": data}).encode()


@cache
def cases() -> dict[str, tuple[bytes, Any]]:
    """What the client sends, and what becomes of it: the value that is answered, an answer, or the code of a close."""
    rows = [{f"column_{column}": row * column for column in range(20)} for row in range(20_000)]
    lists = b'{"method":"count","data":{"value":[' + b"[]," * (5 * MIB) + b"[]]}}"
    return {
        "a table": (frame(TEXT, request({"value": rows})), 20_000),
        "a long text": (frame(TEXT, request({"value": "x" * (15 * MIB)})), 15 * MIB),
        "long, as bytes": (frame(BINARY, request({"value": "x" * MIB})), MIB),
        "long, in frames": (in_frames(request({"value": "é" * MIB}), 4096), MIB),
        "lists": (frame(TEXT, lists), MALFORMED),
        "deep": (frame(TEXT, b'{"method":"count","data":' + b"[" * MIB), MALFORMED),
        "short and deep": (frame(TEXT, b'{"method":"count","data":' + b"[" * 200_000), MALFORMED),
        "digits": (frame(TEXT, b"[" + b",".join([b"1" * 4000] * 2000) + b"]"), MALFORMED),
        "no UTF-8": (frame(BINARY, b"\xff" * (16 * MIB)), MALFORMED),
        "too long": (frame(TEXT, b" " * (16 * MIB + 1)), 1009),
        "too long, in frames": (in_frames(b" " * (16 * MIB + 1), PIECE), 1009),
        "a byte a frame": (in_frames(b" " * (FRAMES + 1), 1), 1009),
        "empty frames": (frame(TEXT, b"", False) + frame(CONTINUATION, b"", False) * FRAMES, 1009),
        "messages": (frame(TEXT, b"1") * 5_000, MALFORMED),
        "calls": (frame(TEXT, request({"value": "x"})) * 3_000, 1),
        "pings": (frame(PING, b"") * 10_000 + frame(TEXT, b"1"), MALFORMED),
        "rubbish": (b"\xff" * MIB, 1002),
    }


class Counting:
    """A service whose answers are short."""

    name = "counting"

    @rpc
    def count(self, socket_id, value):
        return len(value)


class BigMessages(SocketsCase, TurnsCase):
    """Against our server."""

    async def setUp(self) -> None:
        await super().setUp()
        TurnsCase.setUp(self)
        later = self.reactor.callLater

        def turn(seconds: float, *call: Any) -> Any:
            return later(seconds, *call) if seconds else reactor.callLater(0, *call)

        self.patch(self.reactor, "callLater", turn)  # a turn of the server's is one of the reactor

    async def outcome(self, client: Client, data: bytes) -> Any:
        """What a client gets at last, for the data that it sends in a piece a turn."""
        transport = client.peer.transport
        at, last = 0, None
        while True:
            sends = transport.producerState == "producing" and at < len(data) and transport.connected
            if sends:
                client.peer.channel.dataReceived(data[at : at + PIECE])
                at += PIECE
            messages = client.messages()
            if client.protocol.close_rcvd:
                return client.protocol.close_rcvd.code
            if messages:
                last = messages[-1]
            elif last is not None and at >= len(data) and transport.producerState == "producing":
                return last if "error" in last else last["data"]
            await deferLater(reactor, 0 if sends else 0.001)  # a thread may read what has come

    async def turn(self, name: str, data: bytes, expected: Any) -> float:
        """Seconds of the longest turn while a client sends that."""
        client, _ = self.connected()
        outcome = Deferred.fromCoroutine(self.outcome(client, data))
        seconds = await self.longest_turn(outcome)
        self.assertEqual(await outcome, expected, name)
        client.peer.leave()
        return seconds

    async def test_turns(self) -> None:
        """Each is answered, or the socket is closed, and no turn takes 0.1 s."""
        self.patch(sockets, "FRAGMENTS_MAX", FRAMES)
        await self.serve(Counting)
        turns = {name: await least(partial(self.turn, name, *case)) for name, case in cases().items()}
        self.assertEqual({name: seconds for name, seconds in turns.items() if seconds > TURN_MAX}, {})

    async def test_fragments_max(self) -> None:
        """A message in ``FRAGMENTS_MAX`` frames arrives."""
        await self.serve(Counting)
        client, _ = self.connected()
        message = request({"value": "xy"}).ljust(sockets.FRAGMENTS_MAX)
        data = in_frames(message, 1)
        self.assertEqual(await self.outcome(client, data), 2)

    async def test_bytes_are_counted(self) -> None:
        """``WEB_BODY_MAX`` is for the bytes of a text."""
        await self.serve(Counting, WEB_BODY_MAX=1_000)
        for text, expected in (("é" * 400, 400), ("é" * 500, 1009)):
            client, _ = self.connected()
            data = json.dumps({"method": "count", "data": {"value": text}}, ensure_ascii=False).encode()
            self.assertEqual(await self.outcome(client, frame(TEXT, data)), expected)

    async def test_order(self) -> None:
        """Requests behind a long one are handled after it."""
        heard: list[int] = []

        class Hearing:
            name = "hearing"

            @rpc
            def count(self, socket_id, value):
                heard.append(len(value))

        await self.serve(Hearing)
        client, _ = self.connected()
        data = b"".join(frame(TEXT, request({"value": "x" * size})) for size in (1, MIB, 2, MIB + 1, 3))
        while len(heard) < 5:
            client.peer.channel.dataReceived(data)
            data = b""
            await deferLater(reactor, 0)
        self.assertEqual(heard, [1, MIB, 2, MIB + 1, 3])

    async def test_left(self) -> None:
        """A client that leaves while its request is read, or while its frames wait, is not heard of any more."""
        await self.serve(Counting)
        for data in (frame(TEXT, request({"value": "x" * MIB})), frame(TEXT, b"1") * 9_000):
            client, _ = self.connected()
            client.peer.channel.dataReceived(data)
            client.peer.leave()
            await in_background(int)  # its turn comes after that of the request


class Requests(SynchronousTestCase):
    """What is read of a message."""

    @settings(max_examples=200, deadline=None)
    @given(st.binary(max_size=100) | st.text(max_size=60).map(lambda text: json.dumps({"method": text}).encode()))
    def test_short_as_long(self, message: bytes) -> None:
        """A long message is read as a short one is, and is a ``MalformedRequest`` where that is one."""

        def outcome(message: bytes) -> Any:
            try:
                return request_of(message, 1_000)
            except MalformedRequest:
                return MalformedRequest

        self.assertEqual(outcome(message + b" " * (HERE_MAX + 800_000)), outcome(message))
