"""One call is found in all logs: the lines that people see, in each of the places where they look."""

from __future__ import annotations

import os
import re
import socket
from typing import Any

from twisted.internet.defer import gatherResults
from twisted.trial.unittest import TestCase

from tests import processes
from tests.rabbitmq import free_port
from txservices.testing.stage import Stage

APP = """
import logging
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from txservices import lines
from txservices.rpc import RpcProxy, rpc

lines.BUSY_AFTER = 0.1  # a test has no time for five seconds

class Shop:
    name = "shop"
    stock = RpcProxy("stock")

    @rpc
    async def sell(self):
        logging.getLogger("app.shop").warning("sell one")
        self.stock.count()
        await self.stock.take()

class Stock:
    name = "stock"

    @rpc
    async def take(self):
        Logger("app.stock").info("taken")
        await deferLater(reactor, 0.4)

    @rpc(expected_exceptions=ValueError)
    def count(self):
        raise ValueError("none left")
"""

ID = "[0-9a-f-]{36}"
SELL, TAKE, CALLER = rf"shop\.sell\.{ID}", rf"stock\.take\.{ID}", rf"standalone_rpc_proxy\.call\.{ID}"
LOGGING = {
    "version": 1,
    "formatters": {"ours": {"format": "%(levelname)s %(name)s %(call_id)s %(origin)s %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "ours"}},
    "root": {"handlers": ["console"], "level": "INFO"},
}
UNAWAITED = r"the call of stock\.count failed, and nobody awaited it: RemoteError: ValueError none left"
BUSY = r"all 1 workers of shop have been busy for"


class Case(TestCase):
    """Two services in a process. Both sell and take, with one worker each, take longer than SLOW_WORKER."""

    config: dict[str, Any] = {"max_workers": 1, "SLOW_WORKER": 0.2, "RPC_TIMOUT": 3}

    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        os.makedirs(self.folder)
        with open(os.path.join(self.folder, "app.py"), "w", encoding="utf-8") as file:
            file.write(APP)
        self.path = processes.config_file(self, **self.config)

    async def said(self) -> processes.Process:
        """The process, when it has answered two calls and has ended."""
        running: processes.Process = self.face(["app"], self.folder, "--config", self.path)
        await running.line("running: shop, stock")
        stage = Stage(AMQP_URI=processes.broker_uri(self.path))
        self.addCleanup(stage.stop)
        cluster = await stage.cluster()
        await gatherResults([cluster.shop.sell(), cluster.shop.sell()])
        await stage.stop()
        self.assertEqual(await running.end(), 0)
        return running

    def match(self, running: processes.Process, table: dict[str, str]) -> None:
        """Both calls have a line with each of these texts, which looks like that."""
        lines = (running.stdout + running.stderr).splitlines()
        for text, pattern in table.items():
            found = [line for line in lines if text in line]
            self.assertEqual(len(found), 2, running)
            for line in found:
                self.assertRegex(line, rf"^{pattern}$")
        self.assertEqual([line for line in lines if not line.strip()], [])


class ByRun(processes.ByRun, Case):
    """`txservices run`."""

    async def test_lines(self) -> None:
        """A line has the ids of its worker and of the origin, if it is about one, and else of those that it names."""
        running = await self.said()
        start, origin = r"\d\d:\d\d:\d\d", f"from {CALLER}"
        slow = r"\d+\.\d s, after \d+\.\d s of waiting for its turn"
        self.match(
            running,
            {
                "sell one": rf"{start} warn app\.shop \[{SELL} {origin}\]: sell one",
                "nobody awaited": rf"{start} error txservices\.awaited \[{SELL} {origin}\]: {UNAWAITED}",
                "taken": rf"{start} info app\.stock \[{TAKE} {origin}\]: taken",
                "shop.sell took": rf"{start} warn txservices\.busy \[{SELL} {origin}\]: slow: shop\.sell took {slow}",
                "stock.take took": rf"{start} warn txservices\.busy \[{TAKE} {origin}\]: slow: stock\.take took {slow}",
            },
        )
        self.assertRegex(
            running.stdout,
            rf"(?m)^{start} warn txservices\.lines: {BUSY} \d+\.\d s, 1 calls wait, the first for \d+\.\d s\. Oldest:"
            rf" shop\.sell for \d+\.\d s \[{SELL} {origin}\]$",
        )
        name = rf"'txservices: publishes \(\S+ on {re.escape(socket.gethostname())}, pid {os.getpid()}\)'"
        line = rf"{start} info txservices\.broker\.handshake: a connection from 127\.0\.0\.1:\d+: user 'guest', {name}"
        self.assertRegex(running.stdout, rf"(?m)^{line}$")


class ByTwistd(processes.ByTwistd, Case):
    """twistd's own log."""

    async def test_lines(self) -> None:
        """It has the ids, too."""
        running = await self.said()
        self.match(
            running,
            {
                "sell one": rf"\S+ \[app\.shop#warn {SELL} from {CALLER}\] sell one",
                "nobody awaited": rf"\S+ \[txservices\.awaited#error {SELL} from {CALLER}\] {UNAWAITED}",
                "taken": rf"\S+ \[app\.stock#info {TAKE} from {CALLER}\] taken",
                "stock.take took": rf"\S+ \[txservices\.busy#warn {TAKE} from {CALLER}\] slow: stock\.take took .*",
            },
        )
        self.assertRegex(running.stdout, rf"(?m)^\S+ \[txservices\.lines#warn\] {BUSY} .* \[{SELL} from {CALLER}\]$")


class Once:
    """LOGGING."""

    config = {**Case.config, "LOGGING": LOGGING}

    async def test_once(self) -> None:
        """Each line is there once, be it logged before or after the log begins, and has the ids that its format has."""
        running = await self.said()
        self.match(
            running,
            {
                "sell one": rf"WARNING app\.shop {SELL} {CALLER} sell one",
                "nobody awaited": rf"ERROR txservices\.awaited {SELL} {CALLER} {UNAWAITED}",
                "taken": rf"INFO app\.stock {TAKE} {CALLER} taken",
                "stock.take took": rf"WARNING txservices\.busy {TAKE} {CALLER} slow: stock\.take took .*",
            },
        )
        self.assertRegex(running.stderr, rf"(?m)^WARNING txservices\.lines - - {BUSY} .*$")
        lines = (running.stdout + running.stderr).splitlines()
        for text in ("'RPC_TIMOUT' means nothing here", "starting services: ", "running: ", "stopping"):
            self.assertEqual(len([line for line in lines if text in line]), 1, text)


class OnceByRun(Once, processes.ByRun, Case):
    """`txservices run`."""


class OnceByTwistd(Once, processes.ByTwistd, Case):
    """twistd, whose own log on stdout would have each line once more."""


class Attempts:
    """A broker that is not there."""

    config = {"AMQP_URI": f"amqp://127.0.0.1:{free_port()}/"}

    async def test_lines(self) -> None:
        """Each attempt to connect is one line, and nothing else is logged until the stop."""
        running = self.face(["app"], self.folder, "--config", self.path)
        purpose = r"\(txservices: .*(?:consumes|publishes)\)"
        attempt = rf"no connection to the broker at \S+ {purpose}: .*Trying again in \d+\.\d s"
        await running.line(rf"(?:.*{attempt}\n){{8}}")
        await processes.stopped(running)
        lines = (running.stdout + running.stderr).splitlines()
        (begin,), (end,) = ([n for n, line in enumerate(lines) if text in line] for text in ("broker: ", "stopping"))
        self.assertEqual([line for line in lines[begin + 1 : end] if not re.search(rf"{attempt}$", line)], [])


class AttemptsByRun(Attempts, processes.ByRun, Case):
    """`txservices run`."""


class AttemptsByTwistd(Attempts, processes.ByTwistd, Case):
    """twistd."""
