"""Bodies that wait for asyncio, on its reactor. `tests.test_asyncio` runs these."""

from __future__ import annotations

import asyncio
from typing import Any

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

from tests.on_asyncio import later
from tests.services import ServicesCase
from tests.web.peer import Conversation
from txservices.runners import run_services
from txservices.testing.waiting import Heard
from txservices.web.eventstream import EventStream
from txservices.web.handlers import http

heard = Heard()


class Streams:
    """Bodies that wait for asyncio, both ways."""

    name = "streams"

    @http("GET", "/pieces")
    async def pieces(self, request: Any) -> Any:
        for number in range(3):
            await asyncio.sleep(0)
            yield f"{number}"
            await later()

    @http("GET", "/fails")
    async def fails(self, request: Any) -> Any:
        await asyncio.sleep(0)
        raise KeyError("before the head")
        yield "never"

    @http("GET", "/events")
    async def events(self, request: Any) -> Any:
        async def silent() -> Any:
            try:
                await asyncio.sleep(60)
                yield "never"
            finally:
                await asyncio.sleep(0)
                heard("ended")

        return EventStream(silent())

    @http("POST", "/upload", stream=True)
    async def upload(self, request: Any) -> str:
        size = 0
        async for piece in request.stream:
            await asyncio.sleep(0)
            size += len(piece)
        return str(size)


class Streaming(ServicesCase):
    """What ``web.bodies`` and ``web.uploads`` send and read."""

    async def test_streams(self) -> None:
        """Pieces may wait for asyncio's futures and for Deferreds, and an error before the first is a 500."""
        await self.start(Streams)
        session = self.web_session()
        self.assertEqual(await (await session.get("/pieces")).text(), "012")
        self.assertEqual((await session.get("/fails")).code, 500)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.assertEqual(await (await session.post("/upload", data=b"x" * 300_000)).text(), "300000")

    async def test_ended(self) -> None:
        """An iterator that waits is cancelled when its client leaves, and when the service stops."""
        heard.things.clear()
        async with run_services({"WEB_SERVER_ADDRESS": "0"}, Streams) as runner:
            for end in ("leave", "stop"):
                talk = Conversation(b"GET /events HTTP/1.1\r\nHost: h\r\n\r\n")
                port = runner.containers[0].entrypoints[0].server.port
                await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), talk)
                await talk.begun
                if end == "leave":
                    talk.transport.loseConnection()
                else:
                    await runner.stop()
                self.assertEqual(await heard.wait(), ["ended"])
                heard.things.clear()
                await talk.closed
