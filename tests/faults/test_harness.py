"""The harness itself: a proxy that does what it is told, and a checker that sees what went wrong."""

from __future__ import annotations

import os
import re
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from tests.faults.checker import CALL, EVENT, Checker
from tests.faults.growth import Growth
from tests.faults.proxy import Proxy, Quiet
from tests.faults.scene import until
from tests.processes import ROOT


class Recorder(Protocol):
    """Keeps what it gets and how it ended."""

    def __init__(self, echo: bool = False) -> None:
        self.echo = echo
        self.data = b""
        self.ended: Deferred[type[BaseException]] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        if self.echo:
            self.transport.write(data)

    def connectionLost(self, reason: Any) -> None:
        self.ended.callback(reason.type)


class ProxyTests(TestCase):
    """Each fault, on a server that echoes."""

    timeout = 20

    async def setUp(self) -> None:
        self.servers: list[Recorder] = []

        def serve() -> Recorder:
            self.servers.append(Recorder(echo=True))
            return self.servers[-1]

        listener = reactor.listenTCP(0, Quiet.forProtocol(serve), interface="127.0.0.1")
        self.addCleanup(listener.stopListening)
        self.proxy = await Proxy(listener.getHost().port).listen()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.proxy.shut()))

    async def connect(self) -> Recorder:
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.proxy.port)
        client: Recorder = await endpoint.connect(Factory.forProtocol(Recorder))
        await until(lambda: self.servers)
        return client

    async def test_cut(self) -> None:
        """Both sides see a FIN, or a RST."""
        for reset, kind in ((False, ConnectionDone), (True, ConnectionLost)):
            self.servers.clear()
            client = await self.connect()
            self.proxy.cut(reset)
            self.assertEqual((await client.ended, await self.servers[0].ended), (kind, kind))

    async def test_cut_after(self) -> None:
        """Exactly as many bytes pass as were asked for, either way."""
        for way in (self.proxy.up, self.proxy.down):
            self.servers.clear()
            way.cut_after = 7
            client = await self.connect()
            client.transport.write(b"0123456789")
            await client.ended
            await self.servers[0].ended
            received = self.servers[0].data if way is self.proxy.up else client.data
            self.assertEqual(received, b"0123456")
            way.cut_after = None

    async def test_black_hole(self) -> None:
        """Bytes vanish on the way that is told, and later ones pass."""
        client = await self.connect()
        self.proxy.black_hole(up=False, down=True)
        client.transport.write(b"gone")
        await until(lambda: self.proxy.links[0].down.swallowed == 4)
        self.proxy.heal()
        client.transport.write(b"here")
        await until(lambda: client.data)
        self.assertEqual((self.servers[0].data, client.data), (b"gonehere", b"here"))

    async def test_freeze(self) -> None:
        """Bytes and ends wait, and come in order when it thaws."""
        client = await self.connect()
        self.proxy.freeze()
        client.transport.write(b"late")
        client.transport.loseConnection()
        await client.ended
        self.assertEqual((self.servers[0].data, self.servers[0].ended.called), (b"", False))
        self.proxy.heal()
        await self.servers[0].ended
        self.assertEqual(self.servers[0].data, b"late")

    async def test_slow(self) -> None:
        """A delay and a throttle cost what they say."""
        client = await self.connect()
        self.proxy.up.delay, self.proxy.down.rate = 0.2, 1000
        began = reactor.seconds()
        client.transport.write(b"x" * 300)
        await until(lambda: len(client.data) == 300)
        self.assertGreater(reactor.seconds() - began, 0.2 + 0.2)


class CheckerTests(TestCase):
    """The checker's books."""

    def setUp(self) -> None:
        self.checker = Checker(self.mktemp())

    def test_all_well(self) -> None:
        """Acknowledged and handled, some twice, some failed and said so: nothing to complain of."""
        self.checker.event(1, succeed(None))
        self.checker.note(EVENT, "handled", 1)
        self.checker.note(EVENT, "handled", 1)
        self.checker.call(1, fail(ValueError()), 1)
        report = self.checker.check()
        self.assertEqual(
            str(report), "attempted 2, acknowledged 1, failed 1, handled 1, lost 0, duplicated 1, unanswered 0"
        )

    def test_parked(self) -> None:
        """An event that was parked is not lost, and one that was handled as well is a duplicate."""
        for number in (1, 2, 3):
            self.checker.event(number, succeed(None))
        self.checker.note(EVENT, "handled", 1)
        self.checker.note(EVENT, "parked", 1)
        self.checker.note(EVENT, "parked", 2)
        self.assertEqual(self.checker.missing(), [(EVENT, 3)])
        self.checker.note(EVENT, "handled", 3)
        self.assertIn("handled 2, parked 1, lost 0, duplicated 1", str(self.checker.check()))

    def test_lost(self) -> None:
        """An event that was confirmed and not handled fails the check."""
        self.checker.event(7, succeed(None))
        self.assertIn("lost [('event', 7)]", str(self.assertRaises(AssertionError, self.checker.check)))

    def test_unanswered(self) -> None:
        """A call without an end fails it, too."""
        self.checker.call(8, Deferred(), 1)
        self.checker.note(CALL, "handled", 8)
        self.assertIn("unanswered [8]", str(self.assertRaises(AssertionError, self.checker.check)))


class Promises(TestCase):
    """Each promise of docs/guarantees.md has a test that exists."""

    def test_each_test_is_there(self) -> None:
        """Every file and every test that the page names exists."""
        with open(os.path.join(ROOT, "docs", "guarantees.md"), encoding="utf-8") as file:
            page = file.read()
        paths = set(re.findall(r"`([\w/]+\.py)`", page))
        self.assertGreater(len(paths), 5)
        sources = ""
        for path in paths:
            with open(os.path.join(ROOT, "tests", path), encoding="utf-8") as file:
                sources += file.read()
        tests = set(re.findall(r"`(test_\w+)`", page))
        self.assertEqual(tests - set(re.findall(r"def (test_\w+)", sources)), set())


class GrowthTests(TestCase):
    """A soak's verdict on its samples."""

    def test_warm_up_and_peaks_count_for_nothing(self) -> None:
        """A figure that rose only in the beginning, or for a moment, is flat."""
        growth = Growth.of("files of it", [1, 5, 9, *[10] * 9, 99, 10, 10], 0)
        self.assertEqual((str(growth), growth.flat), ("files of it: 10, then 10 (+0, at most +0)", True))

    def test_a_slow_rise_is_seen(self) -> None:
        """A bit more with each sample is growth, if it is beyond the bound."""
        rising = [0.5 * number for number in range(20)]
        self.assertEqual([Growth.of("it", rising, bound).flat for bound in (1, 10)], [False, True])
