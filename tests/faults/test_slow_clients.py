"""HTTP clients that are slow on purpose, by slowhttptest. In the long form only: it takes a minute and a half.

FAULTS_FULL=1 python -m twisted.trial tests.faults.test_slow_clients
"""

from __future__ import annotations

import re
from shutil import which
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase

from tests.faults.scene import FULL
from tests.web.peer import converse
from txservices.runners import run_services
from txservices.web.handlers import http

CLIENTS = 300  # of each kind
SECONDS = 100  # longer than any of them may stay
COLOURS = re.compile(r"\x1b\[[\d;]*m")
# heads that do not end, bodies that do not, ranges, and answers that are read byte by byte
KINDS = {"-H": "No open connections left", "-B": "No open connections left", "-R": "", "-X": ""}


class Site:
    """A page that is long enough to be read slowly."""

    name = "site"

    @http("GET,POST", "/")
    def page(self, request: Any) -> str:
        return "x" * 500_000

    @http("GET", "/ping")
    def ping(self, request: Any) -> str:
        return "pong"


class SlowClients(TestCase):
    """All of them at once."""

    timeout = 3 * SECONDS  # trial's

    async def test_slow_clients(self) -> None:
        """Another client is answered all the time, and those that send slowly are disconnected."""
        program = which("slowhttptest")
        assert program, "slowhttptest is missing: apt-get install slowhttptest"
        async with run_services({"WEB_SERVER_ADDRESS": "0"}, Site) as runner:
            port = runner.containers[0].entrypoints[0].server.port

            def attack(kind: str) -> Deferred[Any]:
                url = f"http://127.0.0.1:{port}/"
                options = f"{kind} -c {CLIENTS} -r {CLIENTS} -i 5 -x 10 -l {SECONDS} -p 5 -u {url}"
                attacking: Deferred[Any] = getProcessOutputAndValue(program, options.split())
                return attacking

            over = gatherResults([attack(kind) for kind in KINDS], consumeErrors=True)
            answered = 0
            while not over.called:
                answer = await converse(port, b"GET /ping HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
                self.assertTrue(answer.endswith(b"pong"), answer)
                answered += 1
                await deferLater(reactor, 0.1)
            for (kind, ended), (out, _, _) in zip(KINDS.items(), await over, strict=True):
                told = COLOURS.sub("", out.decode())
                available = re.findall(r"service available:\s*(\w+)", told)
                self.assertEqual(set(available), {"YES"}, kind)
                self.assertIn(ended, told.rpartition("Exit status")[2], kind)
            self.assertGreater(answered, 10)

    if not FULL:
        del test_slow_clients  # not skipped: where a skipped test counts as failed there must not be one
