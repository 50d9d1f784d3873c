"""`txservices parked` as it is typed: what it prints, and the status it ends with."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests import processes
from tests.command.folder import Ended, TypingCase
from tests.rabbitmq import free_port
from tests.retry.test_parked import PARKING, ParkedCase
from tests.services import OnRabbitMQ
from txservices.amqp.entities import Message, Queue
from txservices.broker.server import Broker
from txservices.command import parked
from txservices.retry import marks
from txservices.retry.parked import Selection, Tally
from txservices.utils.address import parse_addresses

SHOP = """
from txservices.amqp.entities import Queue
from txservices.events import BROADCAST, SINGLETON, event_handler
from txservices.messaging import consume
from txservices.rpc import rpc

class Shop:
    name = "shop"

    @rpc
    def sell(self): pass

    @consume(Queue("work"))
    def work(self, body): pass

    @event_handler("a", "b", handler_type=SINGLETON)
    def b(self, payload): pass

    @event_handler("a", "c")
    def c(self, payload): pass

    @event_handler("a", "d")
    def d(self, payload): pass

    @event_handler("a", "e", handler_type=BROADCAST, reliable_delivery=False)
    def e(self, payload): pass
"""
SINCE = "2026-01-02T03:04:00.000+00:00"


class ParkedCommands(ParkedCase, TypingCase):
    """Each of them, against a broker with a parking queue."""

    def setUp(self) -> None:
        ParkedCase.setUp(self)
        TypingCase.setUp(self)

    async def begin(self) -> None:
        """Have a broker that other processes reach, too."""
        broker = Broker("shared")
        port = free_port()
        await broker.listen("127.0.0.1", port)
        self.addCleanup(broker.close)
        self.config["AMQP_URI"] = f"amqp://guest:guest@127.0.0.1:{port}/"

    async def typed(self, *arguments: str) -> Ended:
        return await self.client("parked", *arguments, "--broker", self.config["AMQP_URI"])

    async def test_list(self) -> None:
        """A line a queue; one that is not there is told, and the others are listed."""
        await self.begin()
        await self.park("ab")
        await self.park("c", reason="\x1b[31m")
        await self.connections().publisher.declare(Queue("other.parked"))
        line = f"{PARKING}: 3 messages since {SINCE}: failed 2, \\x1b[31m 1\n"
        self.assertEqual(await self.typed("list", "work", PARKING, "other"), (0, line + "other.parked: empty\n", ""))
        status, out, error = await self.typed("list", "none", "work")
        self.assertEqual((status, out), (2, line))
        self.assertIn("Error: no queue 'none.parked': nothing was parked from 'none'", error)
        status, out, _ = await self.typed("list", "work", "--json")
        reasons = {"failed": 2, "\x1b[31m": 1}
        self.assertEqual(
            json.loads(out), {"queue": PARKING, "messages": 3, "read": 3, "since": SINCE, "reasons": reasons}
        )

    async def test_list_of_a_module(self) -> None:
        """The queues of a module's services are found by their entrypoints; those that nothing was parked from are not
        listed."""
        await self.begin()
        self.write("shop.py", SHOP)
        names = ("rpc-shop", "work", "evt-a-b", "evt-a-c--shop.c", "evt-a-e--shop.e")
        await self.connections().publisher.declare(*(Queue(f"{name}.parked") for name in names))
        out = "".join(f"{name}.parked: empty\n" for name in sorted(names))
        status, printed, error = await self.typed("list", "--module", "shop")
        self.assertEqual((status, "".join(sorted(printed.splitlines(True))), error), (0, out, ""))
        status, _, error = await self.typed("list", "--module", "none")
        self.assertEqual(status, 2)
        self.assertIn("no module named 'none'", error)

    async def test_list_of_the_management(self) -> None:
        """The management's list has the parking queues of our virtual host."""
        await self.begin()
        await self.park("a")
        asked: list[tuple[bytes, str, str]] = []

        class Management(Resource):
            isLeaf = True

            def render_GET(self, request: Any) -> bytes:
                asked.append((request.uri, request.getUser().decode(), request.getPassword().decode()))
                if request.getPassword() == b"wrong":
                    request.setResponseCode(401)
                return b"[" + b", ".join(b'{"name": "%s"}' % name for name in (b"work", b"work.parked")) + b"]"

        port = reactor.listenTCP(0, Site(Management()), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        at = f"127.0.0.1:{port.getHost().port}"
        line = f"{PARKING}: 1 message since {SINCE}: failed 1\n"
        self.assertEqual(await self.typed("list", "--management", f"http://ada:pw%2F@{at}/"), (0, line, ""))
        vhost = quote(parse_addresses(self.config["AMQP_URI"])[0].vhost, safe="").encode()
        self.assertEqual(asked, [(b"/api/queues/%s?columns=name,messages,consumers" % vhost, "ada", "pw/")])
        for url, why in ((f"http://ada:wrong@{at}", "answers 401"), ("http://ada:pw1234@127.0.0.1:1", "no management")):
            status, out, error = await self.typed("list", "--management", url)
            self.assertEqual((status, out), (2, ""))
            self.assertRegex(error, rf"^Error: --management: .*{why}")
            self.assertNotRegex(error, "wrong|pw1234")

    async def test_show(self) -> None:
        """A line a message; with an id everything, and no control character reaches the terminal."""
        await self.begin()
        marked = {marks.ERROR: "\x1b[2J no", marks.ERROR_CLASS: "a.E", marks.TRACEBACK: "Traceback\n  \x07line"}
        await self.park("ab", **marked)
        status, out, _ = await self.typed("show", "work")
        self.assertEqual((status, out.splitlines()[0]), (0, f"a {SINCE} failed after 3 attempts: a.E: \\x1b[2J no"))
        self.assertEqual(len(out.splitlines()), 2)
        status, out, _ = await self.typed("show", "work", "--id", "b")
        self.assertEqual(status, 0)
        for part in (
            "message_id: b\n",
            "plain: 5\n",
            "traceback:\n    Traceback\n      \\x07line\n",
            "1 bytes\n    b\n",
        ):
            self.assertIn(part, out)
        self.assertNotIn("\x1b", out)
        status, out, _ = await self.typed("show", "work", "--json", "--id", "b")
        line = json.loads(out)
        self.assertEqual((line["id"], line["body"], line["attempts"]), ("b", "b", 3))

    async def test_binary(self) -> None:
        """A body that is no text is not printed, and is in the JSON."""
        await self.begin()
        await self.connections().publisher.declare(self.parking)
        await self.connections().publisher.publish("", PARKING, b"\xff\x00", {"message_id": "a"})
        _, out, _ = await self.typed("show", "work", "--id", "a")
        self.assertIn("body: 2 bytes that are no text (--json has them)\n", out)
        _, out, _ = await self.typed("show", "work", "--json")
        self.assertEqual(json.loads(out)["body_base64"], "/wA=")

    async def test_replay(self) -> None:
        """It says how many were replayed and why others stay; the status is 1 if some do."""
        await self.begin()
        await self.came()
        await self.park("ab")
        await self.park("c", queue="gone")
        self.assertEqual(
            await self.typed("replay", "work", "--id", "a"), (0, f"replayed 1 of 3 messages in {PARKING}\n", "")
        )
        status, out, _ = await self.typed("replay", "work", "--all")
        stays = "1 stay parked: there is no queue 'gone' any more: start the service that has it\n"
        self.assertEqual((status, out), (1, f"replayed 1 of 2 messages in {PARKING}\n{stays}"))
        status, out, _ = await self.typed("replay", "work", "--all", "--json", "--rate", "50")
        told = json.loads(out)
        self.assertEqual((status, told["messages"], told["replayed"], sum(told["stayed"].values())), (1, 1, 0, 1))

    async def test_discard(self) -> None:
        """Nothing is deleted without a yes."""
        await self.begin()
        await self.park("ab")
        status, _, error = await self.typed("discard", "work", "--all")
        self.assertEqual(status, 2)
        self.assertEqual(error, f"Error: messages of {PARKING} would be deleted: give --yes\n")
        self.assertEqual(await self.left(), ["a", "b"])
        self.assertEqual(
            await self.typed("discard", "work", "--id", "a", "--yes"),
            (0, f"discarded 1 of 2 messages in {PARKING}\n", ""),
        )
        self.assertEqual(await self.left(), ["b"])

    async def test_export_and_import(self) -> None:
        """What was exported stays, and can be imported when it is gone: bodies, properties and types are the same."""
        await self.begin()
        odd = {"bytes": b"\xff", "time": datetime(2026, 1, 2, tzinfo=timezone.utc), "decimal": Decimal("1.5")}
        await self.park("ab", odd=[odd, {"$bytes": "no"}, None, 1.5, True])
        await self.connections().publisher.publish("", PARKING, b"\xff", {"message_id": "c"})

        async def messages() -> list[tuple[bytes, dict[str, Any]]]:
            seen: list[Message] = []
            await self.operations().look(PARKING, Selection(), seen.append, Tally())
            return [(message.body, message.properties) for message in seen]

        before = await messages()
        out = f"exported 3 of 3 messages in {PARKING}\n"
        self.assertEqual(await self.typed("export", "work", "lines"), (0, "", out))
        self.assertEqual(await messages(), before)
        await self.typed("discard", "work", "--all", "--yes")
        self.assertEqual(await self.typed("import", "lines"), (0, "imported 3 of 3 messages in lines\n", ""))
        self.assertEqual(await messages(), before)
        _, out, _ = await self.typed("import", "lines", "--json")
        counts = {"file": "lines", "messages": 3, "selected": 3, "imported": 3, "unreadable": 0, "stayed": {}}
        self.assertEqual(json.loads(out), counts)

    async def test_export_some(self) -> None:
        """A part of a queue may be exported, to stdout too."""
        await self.begin()
        await self.park("abc")
        status, out, error = await self.typed("export", "work", "-", "--id", "b")
        self.assertEqual((status, json.loads(out)["id"]), (0, "b"))
        self.assertEqual(error, f"exported 1 of 3 messages in {PARKING}\n")

    async def test_export_fails(self) -> None:
        """An export that fails leaves the file as it was that an earlier one has written, and nothing beside it."""
        await self.begin()
        await self.park("ab")
        for arguments in ((), ("--id", "b")):
            await self.typed("export", "work", "lines", *arguments)
            with open("lines", encoding="utf-8") as file:
                exported = file.read()
            self.assertEqual(len(exported.splitlines()), 1 if arguments else 2)
            for mistake in (("wrok", "lines"), ("work", "lines", "--id", "x")):
                self.assertEqual((await self.typed("export", *mistake))[0], 2)
                with open("lines", encoding="utf-8") as file:
                    self.assertEqual(file.read(), exported)
                self.assertEqual(os.listdir(), ["lines"])

    async def test_export_to_a_pipe(self) -> None:
        """A pipe or a device is written to as it is, and not replaced."""
        await self.begin()
        await self.park("a")
        os.mkfifo("pipe")
        end = os.open("pipe", os.O_RDWR | os.O_NONBLOCK)
        self.addCleanup(os.close, end)
        self.assertEqual((await self.typed("export", "work", "pipe"))[0], 0)
        self.assertEqual(json.loads(os.read(end, 100_000))["id"], "a")
        self.assertEqual(os.listdir(), ["pipe"])

    async def test_no_lines(self) -> None:
        """Of a file with a line that is no message nothing is imported, and the line's number is told."""
        await self.begin()
        await self.park("a")
        await self.typed("export", "work", "lines")
        with open("lines", encoding="utf-8") as file:
            good = file.read()
        for bad, why in (
            ("{", "Expecting"),
            ("5", "it is no object"),
            ("[" * 100_000, "nested too deep|Expecting"),
            ('{"queue": "work", "properties": {}, "body": ""}', "ends with .parked"),
            ('{"queue": "work.parked", "body": ""}', "'properties' is no object"),
            ('{"queue": "work.parked", "properties": {}}', "neither a 'body' nor"),
            ('{"queue": "work.parked", "properties": {}, "body_base64": "?"}', "base64|Only|padding"),
            ('{"queue": "work.parked", "properties": {"headers": {"a": {"$x": 1}}}, "body": ""}', "\\$x"),
            ('{"queue": "work.parked", "properties": {"headers": {"a": {"$time": 1}}}, "body": ""}', "\\$time"),
            ('{"queue": "work.parked", "properties": {"headers": {"a": {"$bytes": "?"}}}, "body": ""}', "\\$bytes"),
        ):
            self.write("bad", f"{good}\n{bad}\n{good}")
            status, out, error = await self.typed("import", "bad")
            self.assertEqual((status, out), (2, ""), bad[:100])
            self.assertRegex(error, f"^Error: bad, line 3: no message that was exported: .*({why})")
        with open("bad", "wb") as binary:
            binary.write(b"\xff\n")
        self.assertIn("no message that was exported", (await self.typed("import", "bad"))[2])
        self.assertEqual(await self.left(), ["a"])

    async def test_not_taken(self) -> None:
        """A message that AMQP can't carry is not imported; those around it are, and the status is 1."""
        await self.begin()
        lines = [
            {"queue": PARKING, "properties": {"message_id": name, "headers": {"a": value}}, "body": ""}
            for name, value in (("a", 1), ("b", float("nan")), ("c", 2))
        ]
        lines.append({"queue": PARKING, "properties": {"priority": "high"}, "body": ""})
        lines.append({"queue": PARKING, "properties": {"nothing": 1}, "body": ""})
        self.write("lines", "\n".join(map(json.dumps, lines)))
        status, out, _ = await self.typed("import", "lines")
        self.assertEqual((status, out.splitlines()[0]), (1, "imported 2 of 5 messages in lines"))
        self.assertEqual(len(re.findall("^1 are not imported: ", out, re.MULTILINE)), 3, out)
        self.assertEqual(await self.left(), ["a", "c"])

    async def test_file(self) -> None:
        """A file that can't be read or written is a mistake."""
        await self.begin()
        await self.park("a")
        for arguments in (("import", "nothing"), ("export", "work", os.path.join("no", "folder"))):
            status, _, error = await self.typed(*arguments)
            self.assertEqual(status, 2)
            self.assertRegex(error, "No such file|does not exist")

    async def test_mistakes(self) -> None:
        """Each is a line, with status 2, and nothing is changed."""
        await self.begin()
        await self.park("a")
        no_id = rf"no message in {PARKING} has the id x: see `txservices parked show`"
        for arguments, line in (
            (("replay", "work"), "say which messages: --id, --reason, or --all"),
            (("replay", "work", "--all", "--id", "a"), "say which messages"),
            (("discard", "work", "--yes"), "say which messages"),
            (("replay", "work", "--id", "x"), no_id),
            (("show", "work", "--id", "x"), no_id),
            (("discard", "work", "--id", "x", "--yes"), no_id),
            (("show", "none"), "no queue 'none.parked'"),
            (("replay", "none", "--all"), "no queue 'none.parked'"),
            (("list",), "say which queues: by their names, --module, or --management"),
            (("replay", "work", "--all", "--rate", "0"), "0 is not in the range"),
        ):
            status, out, error = await self.typed(*arguments)
            self.assertEqual((status, out), (2, ""), arguments)
            self.assertRegex(error.replace("0.0", "0"), line)
        self.assertEqual(await self.left(), ["a"])

    async def test_interrupted(self) -> None:
        """Ctrl-C ends a replay in order: it says what is done and what is left."""
        await self.begin()
        came = await self.came()
        await self.park("abc")
        arguments: Any = ("parked", "replay", "work", "--all", "--rate", "0.01", "--broker", self.config["AMQP_URI"])
        typed = processes.txservices(self, *arguments)
        await came.wait()
        self.assertEqual(await typed.end("INT"), 130, str(typed))
        self.assertEqual(typed.stdout, f"replayed 1 of 3 messages in {PARKING}\n")
        self.assertEqual(typed.stderr, f"interrupted: 2 of 3 messages of {PARKING} were not looked at\n")
        self.assertEqual(await self.left(), ["b", "c"])


class ParkedCommandsOnRabbitMQ(OnRabbitMQ, ParkedCommands):
    """The same on a RabbitMQ."""

    async def begin(self) -> None:
        """Nothing is to be done: other processes reach it."""


class ProgressTests(SynchronousTestCase):
    """How far a command has come."""

    def test_bar(self) -> None:
        """A terminal shows a bar once something was read; for a queue that is not there it shows nothing."""
        terminal = io.StringIO()
        terminal.isatty = lambda: True
        self.patch(sys, "stderr", terminal)
        with parked.progress(Tally(), "none.parked"):
            pass
        self.assertEqual(terminal.getvalue(), "")
        tally = Tally(there=4)
        with parked.progress(tally, PARKING):
            for tally.read in (1, 4):
                tally.on_read()
        self.assertRegex(terminal.getvalue(), r"work\.parked .* 25%[^%]*work\.parked .*100%")


class WithoutBroker(TypingCase):
    """Where no broker answers."""

    async def test_interrupted(self) -> None:
        """Ctrl-C while a broker is waited for ends at once, and says that nothing was done."""
        broker = f"amqp://guest:guest@127.0.0.1:{free_port()}/"
        typed = processes.txservices(self, "parked", "list", "work", "--broker", broker)
        await typed.line("Trying again")
        self.assertEqual(await typed.end("INT"), 130, str(typed))
        self.assertEqual(typed.stderr.splitlines()[-1], "interrupted: nothing was done")
