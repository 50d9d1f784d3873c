"""The fleet's commands as they are typed: what they print, and the status they end with."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import Any

import click
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from tests import processes
from tests.command.folder import Ended, TypingCase
from tests.monitoring.test_fleet import FleetCase, Shop, Stock
from tests.rabbitmq import free_port
from txservices import configuration
from txservices.broker.server import Broker
from txservices.command import fleet, tables
from txservices.exceptions import RemoteError
from txservices.monitoring.answers import Process
from txservices.rpc import rpc

CONTROL = re.compile(r"\x1b\[[?0-9;]*[a-zA-Z]")  # of a terminal


class Slow:
    name = "slow"

    @rpc
    def wait(self, fails: bool = False) -> Deferred[str]:
        if fails:
            raise ValueError("no \x1b[31m tea")
        return deferLater(reactor, 0.01, lambda: "done")  # else to measure it would take all of a processor


class CommandsCase(FleetCase, TypingCase):
    """Commands against a broker that other processes reach, too."""

    def setUp(self) -> Any:
        TypingCase.setUp(self)
        self.patch(fleet, "MEASURED", 0.05)
        return FleetCase.setUp(self)

    async def begin(self) -> None:
        broker = Broker("shared")
        port = free_port()
        await broker.listen("127.0.0.1", port)
        self.addCleanup(broker.close)
        self.uri = self.config[configuration.AMQP_URI.name] = f"amqp://guest:guest@127.0.0.1:{port}/"
        await super().begin()

    async def typed(self, *arguments: str) -> Ended:
        return await self.client(*arguments, "--broker", self.uri)

    async def interrupted(self, method: str, *command: str) -> Ended:
        """A command that goes on until Ctrl-C, which comes when it has printed its line of a method that is called."""
        begun: Deferred[fleet.Interrupt] = Deferred()
        printed: Deferred[None] = Deferred()
        begin, echo = fleet.Interrupt.__init__, click.echo

        def noted(interrupt: fleet.Interrupt) -> None:
            begin(interrupt)
            begun.callback(interrupt)

        def told(text: str, err: bool = False) -> None:
            echo(text, err=err)
            if not err and line in text and not printed.called:
                printed.callback(None)

        self.patch(fleet.Interrupt, "__init__", noted)
        self.patch(fleet, "click", SimpleNamespace(echo=told))
        service, _, name = method.partition(".")
        line = {"tail": f" worker {method} ", "top": f"{service} "}[command[0]]
        call = getattr((await self.cluster())[service], name)
        ending = Deferred.fromCoroutine(self.typed(*command))
        interrupt = await begun
        while not printed.called:
            await call().addErrback(lambda failure: failure.trap(RemoteError))
        interrupt.begin()
        return await ending


class Commands(CommandsCase):
    """Each of them."""

    async def test_services(self) -> None:
        """A line a service, in a table or as JSON, with what both instances of it do together."""
        for service in (Stock, Stock, Shop):
            await self.run_process(service)
        status, out, err = await self.typed("services")
        self.assertEqual((status, err), (0, ""))
        heading, shop, stock = out.splitlines()
        self.assertEqual(heading.split(), list(tables.HEADINGS))
        self.assertEqual((shop.split()[:3], stock.split()[:3]), (["shop", "1", "3"], ["stock", "2", "3"]))
        newest = tables.date_and_time(self.processes[1].since)
        self.assertEqual(" ".join(stock.split()[-2:]), newest)
        cluster = await self.cluster()
        for _ in range(4):
            await cluster.stock.take("tea")
        status, out, err = await self.typed("services", "--json")
        self.assertEqual((status, err), (0, ""))
        stock = json.loads(out.splitlines()[1])
        self.assertEqual((stock["service"], stock["instances"], stock["count"]), ("stock", 2, 4))
        self.assertEqual({each["id"] for each in stock["processes"]}, {each.id for each in self.processes[:2]})

    async def test_describe(self) -> None:
        """All about a service, and its failures; control characters are escaped."""
        await self.run_process(Stock)
        cluster = await self.cluster()
        await self.assertFailure(cluster.stock.fail("tea", card="4711"), RemoteError)
        self.flushLoggedErrors(ValueError)
        status, out, err = await self.typed("describe", "stock")
        self.assertEqual((status, err), (0, ""))
        for text in (
            "stock: 1 instance\n    Knows what there is.",
            "1 failure, running, 0 of 10 workers run, 0 wait, version 7",
            "take(item: str, count: int = 1) -> int [Rpc]",
            "Latest failures",
            "arguments: item='tea', card='********'",
            r"ValueError: no tea \x1b <script>",
        ):
            self.assertIn(text, out)
        self.assertNotIn("\x1b", out)
        status, out, err = await self.typed("describe", "sto\x1bck")
        self.assertEqual((status, out), (2, ""))
        self.assertIn("there are stock", err)
        self.assertNotIn("\x1b", err)

    async def test_ping(self) -> None:
        """A line an instance, with its round trips."""
        await self.run_process(Stock)
        status, out, err = await self.typed("ping", "stock", "--count", "2")
        self.assertEqual((status, err), (0, ""))
        self.assertRegex(out, r"^stock on \S+ pid \d+: [\d.]+ \w+, [\d.]+ \w+\n$")

    async def test_nobody(self) -> None:
        """Without a process there is nothing to print, and a line says why that may be."""
        for arguments, expected in ((("services",), 1), (("ping", "stock"), 2), (("describe", "stock"), 1)):
            status, out, err = await self.typed(*arguments)
            self.assertEqual((status, out), (expected, ""))
            self.assertIn("no process", err)

    async def test_interrupted_at_once(self) -> None:
        """A Ctrl-C before the reactor runs ends a command with one line, too, and not with a traceback."""

        def interrupt(connections: object) -> None:
            raise KeyboardInterrupt

        self.patch(fleet, "Fleet", interrupt)
        self.assertEqual(await self.typed("services"), (130, "", f"{fleet.INTERRUPTED}\n"))

    async def test_interrupted(self) -> None:
        """A command that a signal ends closes its connections itself, so that the log calls no connection lost."""
        async with fleet.interruptible() as interrupt:
            ended = interrupt.begin()
        self.assertFalse(ended.called)
        await ended

    async def test_bench(self) -> None:
        """Calls a second, times and errors; status 1 if some calls have failed, or the first has."""
        await self.run_process(Slow)
        status, out, err = await self.typed("bench", "slow.wait", "--seconds", "0.3", "--in-flight", "3")
        self.assertEqual(status, 0, err)
        self.assertRegex(out, r"^[\d,]+ calls in [\d.]+ s: [\d,.]+ calls/s\np50 .*, longest .*\n0 errors\n$")
        self.assertRegex(err, r"calls/s  p50 .*, p99 .*  0 errors\n$")
        status, out, err = await self.typed("bench", "slow.wait", "[true]")
        self.flushLoggedErrors(ValueError)
        self.assertEqual((status, out), (1, ""))
        self.assertIn(r"no \x1b[31m tea", err)
        for wrong in (["slow"], ["slow.wait", "5"], ["slow.wait", "{"]):
            status, out, err = await self.typed("bench", *wrong)
            self.assertEqual((status, out), (2, ""))

    async def test_bench_on_a_terminal(self) -> None:
        """There it has a progress bar, in one line that is drawn again and again. Else it has lines, and no bar."""
        await self.run_process(Slow)
        typed = ["bench", "slow.wait", "--seconds", "2", "--in-flight", "1", "--broker", self.uri]
        shown = (await processes.succeed(processes.on_terminal(self, *typed))).replace("\r\n", "\n")
        *bar, last = shown.partition("calls in")[0].split("\r")
        self.assertRegex(bar[-1] + last, r"calls/s  p50 .* errors  \[#+\] +100%")
        for each in bar:
            self.assertLessEqual(len(CONTROL.sub("", each)), 80, "it would need a second line")
        piped = processes.txservices(self, *typed)
        await processes.succeed(piped)
        self.assertNotRegex(piped.stdout + piped.stderr, r"\x1b|\r|\[[#-]+\]")
        self.assertRegex(piped.stderr, r"(?m)^ +\d s +[\d,.]+ calls/s")

    async def test_top_on_a_terminal(self) -> None:
        """There the table is drawn in the same place, and Ctrl-C ends it. Else it is printed again and again."""
        await self.run_process(Slow)
        shown = processes.on_terminal(self, "top", "--broker", self.uri)
        await shown.line(r"(?s)(\x1b\[2J.*SERVICE.*slow +1 +1.*){2}")
        self.assertEqual(await shown.end("INT"), 0, str(shown))
        printed = processes.txservices(self, "top", "--broker", self.uri)
        await printed.line(r"^slow +1 +1 ")
        self.assertEqual(await printed.end("INT"), 0, str(printed))
        self.assertNotIn("\x1b", printed.stdout)

    async def test_tail(self) -> None:
        """It prints what happens until it is interrupted, and that is no error."""
        await self.run_process(Slow)
        status, out, err = await self.interrupted("slow.wait", "tail")
        self.assertEqual((status, err), (0, ""))
        self.assertIn(" worker slow.wait ok ", out)

    async def test_top(self) -> None:
        """It prints the table until it is interrupted, likewise."""
        await self.run_process(Slow)
        status, out, err = await self.interrupted("slow.wait", "top")
        self.assertEqual((status, err), (0, ""))
        self.assertRegex(out, r"(?m)^slow +1 +1 ")


class Lines(SynchronousTestCase):
    """What is printed of one answer."""

    def test_numbers(self) -> None:
        """Times and rates have a unit and a length that suit them."""
        self.assertEqual(
            [tables.seconds(each) for each in (None, 0.0000421, 0.0123, 2.34, 3600.0)],
            ["-", "42 µs", "12.3 ms", "2.3 s", "3600.0 s"],
        )
        self.assertEqual([tables.rate(each) for each in (0.0, 0.51, 99.0, 1234.5)], ["0.0", "0.5", "99.0", "1,234"])

    def test_long_name(self) -> None:
        """A service's name that is too long for a table is cut there, with a mark."""
        _, first, second = tables.table_of([tables.Group("a" * 60), tables.Group("b" * 61)])
        self.assertEqual([first.split()[0], second.split()[0]], ["a" * 60, "b" * 60 + "…"])

    def test_happened(self) -> None:
        """A line each for workers, calls and events, and one for those that are not shown."""
        process: Process = {
            "id": "a",
            "host": "we\x1bb",
            "pid": 1,
            "since": 0.0,
            "now": 0.0,
            "txservices": "",
            "python": "",
            "services": [],
            "failed": 0,
        }
        one: Any = {"at": 0.25, "service": "shop", "outcome": "ok", "seconds": 0.5, "call_id": "", "error": ""}
        tailed: Any = {
            "version": 1,
            "process": process,
            "dropped": 3,
            "happened": [
                {**one, "kind": "event", "name": "sold"},
                {**one, "kind": "call", "name": "stock.take"},
                {**one, "kind": "worker", "name": "sell\n", "outcome": "error", "error": "E: \x1b", "call_id": "c"},
            ],
        }
        lines = [line.partition(".250 ")[2] or line for line in tables.happened_lines(tailed)]
        self.assertEqual(
            lines,
            [
                "event shop.sold",
                "call shop -> stock.take ok 500.0 ms",
                r"worker shop.sell error 500.0 ms c: E: \x1b",
                r"… 3 more of we\x1bb pid 1 are not shown",
            ],
        )
