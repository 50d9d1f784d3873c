"""The table of raw requests: ours in memory, ours over a socket, and h11."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.web.peer import Conversation, Service, WebTestCase
from tests.web.raw import Row, rows, second_opinion
from txservices.runners import run_services

STATUS = re.compile(rb"HTTP/1\.1 (\d\d\d) ")


def last_status(answer: bytes) -> int:
    """The status of the last response, of which each has one Date."""
    statuses = [int(status) for status in STATUS.findall(answer) if status != b"100"]
    assert answer.count(b"\r\nDate: ") == len(statuses), answer
    return statuses[-1] if statuses else 0


def wrong(given: Row, status: int) -> list[Any]:
    return [] if status == given.status else [(given.section, given.data[:100], f"{status}, not {given.status}")]


class InMemory(WebTestCase):
    """Over a transport in memory."""

    async def test_table(self) -> None:
        """Each row has its status, in one piece and byte by byte, and nothing is logged as an error."""
        await self.serve(Service)
        found = []
        for given in rows:
            peer = self.peer()
            answer = peer.send(given.data) + peer.end()
            self.reactor.advance(0)
            found += wrong(given, last_status(answer + peer.received()))
            if len(given.data) < 300:
                peer = self.peer()
                answer = b"".join(peer.send(given.data[at : at + 1]) for at in range(len(given.data))) + peer.end()
                found += wrong(given, last_status(answer))
        self.assertEqual(found, [])
        self.assertEqual(self.flushLoggedErrors(), [])


class OverSockets(TestCase):
    """Over TCP, where the client ends its side when it has sent the request."""

    async def test_table(self) -> None:
        """Each row has its status, and then the connection ends."""
        async with run_services({"WEB_SERVER_ADDRESS": "0"}, Service) as runner:
            port = runner.containers[0].entrypoints[0].server.port
            found = []
            for given in rows:
                talk = Conversation(given.data)
                await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), talk)
                talk.transport.loseWriteConnection()
                answer = await talk.closed.addTimeout(100, reactor)
                found += wrong(given, last_status(answer))
        self.assertEqual(found, [])


class SecondOpinion(SynchronousTestCase):
    """h11's."""

    def test_table(self) -> None:
        """h11 says the same of each row, or what the row says that h11 says."""
        found = [(given.section, given.data[:100], second_opinion(given.data), given.h11) for given in rows]
        self.assertEqual([each for each in found if each[2] != each[3]], [])
