"""`txservices` as it is typed: what each command prints, and the status it ends with."""

from __future__ import annotations

import re
import time
from typing import Any

import yaml
from twisted.trial.unittest import TestCase

from tests import processes
from tests.command.folder import TypingCase
from tests.rabbitmq import free_port
from tests.services import ServicesCase
from txservices.events import event_handler
from txservices.rpc import rpc
from txservices.testing.waiting import Heard

SERVICE = """
from txservices.events import event_handler
from txservices.rpc import rpc

class Odd:
    name = "odd"

    @rpc
    def add(self, first: int, second: int, third=0): return first + second + third

    @rpc
    def fail(self): raise ValueError("not today")

    @rpc
    def nothing(self): pass

    @event_handler("shop", "sold")
    def sold(self, payload): print("sold:", payload)
"""


class WithoutBroker(TestCase):
    """Commands that call, where no broker answers."""

    def typed(self, command: str, *arguments: str) -> processes.Process:
        broker = f"amqp://guest:s3cret12@127.0.0.1:{free_port()}/"
        return processes.txservices(self, command, "--broker", broker, *arguments)

    async def test_absent(self) -> None:
        """Each ends after five seconds, and says who does not answer and what to do."""
        began = time.monotonic()
        both = [self.typed("call", "a.b"), self.typed("dispatch", "a", "b")]
        for typed in both:
            self.assertEqual(await typed.exit(), 2, str(typed))
            self.assertLess(time.monotonic() - began, 60)
            last = typed.stderr.splitlines()[-1]
            self.assertRegex(last, r"^Error: no broker at amqp://guest:\*+@127.0.0.1:\d+/ .* within the 5.0 s of")
            self.assertIn("start it, or correct AMQP_URI", last)

    async def test_interrupted(self) -> None:
        """One that a signal ends before it is done says so, and its status is not that of success."""
        for typed, signal in [(self.typed("call", "a.b"), signal) for signal in ("INT", "TERM")]:
            await typed.line("Trying again")
            self.assertEqual(await typed.end(signal), 130, str(typed))
            self.assertEqual(
                typed.stderr.splitlines()[-1], "interrupted: whether a method runs all the same is not known"
            )


class Commands(TypingCase):
    """Commands against processes of services and of brokers."""

    def setUp(self) -> None:
        super().setUp()
        self.config = processes.config_file(self)

    async def services(self, *options: str) -> processes.Process:
        self.write("app.py", SERVICE)
        running = processes.txservices(self, "run", "--config", self.config, *options, "app", cwd=self.folder)
        await running.line("running: odd")
        return running

    async def ends(self, *arguments: str) -> tuple[int, str, str]:
        """Status, stdout and stderr of `txservices ARGUMENTS`."""
        done = processes.txservices(self, *arguments, cwd=self.folder)
        return await done.exit(), done.stdout, done.stderr

    async def call(self, *arguments: str) -> tuple[int, str, str]:
        return await self.ends("call", "--config", self.config, *arguments)

    async def test_call(self) -> None:
        """The result is JSON on stdout, and nothing else is written."""
        running = await self.services()
        self.assertEqual(await self.call("odd.add", "[1, 2]"), (0, "3\n", ""))
        await processes.stopped(running)

    async def test_what_to_type(self) -> None:
        """The lines that `run` prints work as they stand."""
        running = await self.services()
        await running.line("^  .*txservices dispatch .*payload")
        lines = re.findall("^  (.*txservices .*)$", running.stdout, re.MULTILINE)
        self.assertEqual(len(lines), 4, running.stdout)
        for line in lines:
            words = processes.start(self, ["/bin/sh", "-c", f"printf '%s\\0' {line}"])  # as a shell reads it
            done = processes.fork(self, (await processes.succeed(words)).split("\0")[:-1], self.folder)
            status = await done.exit()
            self.assertEqual(status, 1 if "odd.fail" in line else 0, str(done))
        await running.line("sold: payload")
        self.assertEqual(await running.end(), 0)

    async def test_broker(self) -> None:
        """The embedded broker by itself serves services and calls of other processes."""
        port = str(free_port())
        broker = processes.txservices(self, "broker", "--port", port)
        await broker.line(f"broker: amqp://guest:guest@127.0.0.1:{port}/")
        self.config = processes.config_file(self, AMQP_URI=f"amqp://guest:guest@127.0.0.1:{port}/")
        running = await self.services()
        called = await self.client("call", "--config", self.config, "odd.add", "[1, 2]")
        self.assertEqual(called, (0, "3\n", ""))
        await processes.stopped(running, broker)

    async def test_broker_with_users(self) -> None:
        """A broker with users of its own takes those alone, and prints no password."""
        port = str(free_port())
        users = ("-d", "EMBEDDED_BROKER_USERS={ada: s3cret/}", "-d", f"EMBEDDED_BROKER_ADDRESS=127.0.0.1:{port}")
        broker = processes.txservices(self, "broker", *users)
        await broker.line(rf"broker: amqp://ada:\*+@127.0.0.1:{port}/")
        self.assertNotIn("s3cret", broker.stdout)
        status, _, stderr = await self.client("call", "maths.add", "[1, 2]", *users)
        self.assertIn("UnknownService", stderr)
        guest = ("--broker", f"amqp://guest:guest@127.0.0.1:{port}/")
        status, _, stderr = await self.client("call", "maths.add", "[1, 2]", *guest)
        self.assertEqual(status, 2)
        self.assertIn("refuses", stderr)
        await processes.stopped(broker)

    async def test_broker_port_taken(self) -> None:
        """A second broker on one port says so, and ends with 2."""
        port = str(free_port())
        broker = processes.txservices(self, "broker", "--port", port)
        await broker.line("broker: ")
        status, _, stderr = await self.ends("broker", "--port", port)
        self.assertEqual(status, 2)
        self.assertRegex(stderr, f"^Error: .*127.0.0.1:{port}.*in use.*\n$")
        await processes.stopped(broker)

    async def test_define(self) -> None:
        """A definition is taken alike by services and their callers."""
        port = free_port()
        define = ("-d", f"EMBEDDED_BROKER_ADDRESS=127.0.0.1:{port}", "-d", "rpc_exchange=other-rpc")
        running = await self.services(*define, "--define", "password=s3cret")
        await running.line(f"broker: embedded, on 127.0.0.1:{port}")
        await running.line(f"call --config .* {' '.join(define).replace('-d ', '--define ')} odd.add")
        given = ("--config", self.config, *define)
        self.assertEqual(await self.client("call", *given, "odd.add", "[1, 2]"), (0, "3\n", ""))
        self.assertEqual(await self.client("dispatch", *given, "shop", "sold"), (0, "", ""))
        await running.line("sold: None$")
        self.assertNotIn("s3cret", running.stdout + running.stderr)
        await processes.stopped(running)


class Clients(ServicesCase, TypingCase):
    """Commands that call services of this process, and use its reactor."""

    async def setUp(self) -> None:
        ServicesCase.setUp(self)
        TypingCase.setUp(self)
        self.sold = sold = Heard()

        class Odd:
            name = "odd"

            @rpc
            def add(self, first: int, second: int, third: int = 0) -> int:
                return first + second + third

            @rpc
            def nothing(self) -> None:
                pass

            @rpc
            def fail(self) -> None:
                raise ValueError("not today")

            @event_handler("shop", "sold")
            def sold(self, payload: Any) -> None:
                sold(payload)

        await self.start(Odd)
        self.broker = ("--broker", await self.stage.listen())

    async def test_call(self) -> None:
        """An array holds positional arguments, an object keyword ones, and the result is JSON on stdout."""
        for target, arguments, printed in [
            ("odd.add", "[1, 2]", "3\n"),
            ("odd.add", '{"first": 1, "second": 2, "third": 3}', "6\n"),
            ("odd.nothing", "[]", "null\n"),
        ]:
            self.assertEqual(await self.client("call", *self.broker, target, arguments), (0, printed, ""))

    async def test_remote_errors(self) -> None:
        """An error that the other side answers in place of a result is one line on stderr, with status 1."""
        for target, expected in [
            ("odd.fail", "RemoteError: ValueError not today\n"),
            ("odd.absent", "MethodNotFound: absent (call of odd.absent)\n"),
            ("odd.add", "IncorrectSignature: "),
            ("nobody.add", "UnknownService: Unknown service `nobody` (call of nobody.add)\n"),
        ]:
            status, stdout, stderr = await self.client("call", *self.broker, target)
            self.assertEqual((status, stdout), (1, ""), target)
            self.assertTrue(stderr.startswith(expected), stderr)
            self.assertEqual(len(stderr.splitlines()), 1, stderr)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    async def test_dispatch(self) -> None:
        """An event goes to whoever handles it; one that nobody handles is no mistake."""
        nobody = "nobody hears the event 'nothing_heard' of 'shop': see the name, or start a service that handles it\n"
        for event, told in (("nothing_heard", nobody), ("sold", "")):
            self.assertEqual(await self.client("dispatch", *self.broker, "shop", event, '{"a": 1}'), (0, "", told))
        self.assertEqual(await self.sold.wait(), [{"a": 1}])

    async def test_dispatch_for_nobody(self) -> None:
        """An event of a service that this broker does not know is a mistake, and says whose."""
        status, _, stderr = await self.client("dispatch", *self.broker, "nobody", "sold")
        self.assertEqual(status, 2, stderr)
        self.assertIn("Error: no service 'nobody' has dispatched events on this broker, so nobody hears them", stderr)

    async def test_no_broker(self) -> None:
        """If there is no broker, or the address is not one, that is told in one line, with status 2."""
        for arguments, pattern in [
            (("--broker", "ftp://host/"), "AMQP_URI"),
            (("--config", processes.config_file(self)), "no broker on 127.0.0.1:.*txservices run"),
        ]:
            status, stdout, stderr = await self.client("call", *arguments, "odd.add")
            self.assertEqual((status, stdout), (2, ""), stderr)
            self.assertRegex(stderr, f"^Error: .*{pattern}.*\n$")


class Typed(TypingCase):
    """Commands that need no reactor."""

    def test_mistakes(self) -> None:
        """A mistyped command is answered in one line, with status 2."""
        for arguments, pattern in [
            (("call", "odd.add", "[1, 2"), r"\[1, 2 is not JSON"),
            (("call", "odd.add", "hello"), "hello is not JSON.*'\"hello\"'"),
            (("call", "odd.add", "1"), r"arguments 1: write an array, as in '\[1\]', or an object"),
            (("call", "odd"), "'odd' names no method: write service.method"),
            (("dispatch", "shop", "sold", "{"), "{ is not JSON"),
            (("show-config",), "cannot read the config file config.yaml"),
        ]:
            status, stdout, stderr = self.txservices(*arguments)
            self.assertEqual((status, stdout), (2, ""), stderr)
            self.assertRegex(stderr, f"^Error: .*{pattern}.*\n$")

    def test_show_config(self) -> None:
        """The config is printed as services get it, the environment in it, passwords in addresses hidden."""
        self.write("config.yaml", "AMQP_URI: amqp://me:${PW:s3cret}@host/\nmax_workers: ${WORKERS:7}\n")
        status, stdout, _ = self.txservices("show-config")
        self.assertEqual(status, 0)
        self.assertEqual(yaml.safe_load(stdout), {"AMQP_URI": "amqp://me:********@host/", "max_workers": 7})

    def test_define(self) -> None:
        """A definition goes before the file."""
        self.write("config.yaml", "max_workers: 3\n")
        status, stdout, _ = self.txservices("show-config", "-d", "rpc_exchange=other", "--define", "max_workers=7")
        self.assertEqual((status, yaml.safe_load(stdout)), (0, {"max_workers": 7, "rpc_exchange": "other"}))

    def test_help(self) -> None:
        """The help names every command; the version is that of the package."""
        _, stdout, _ = self.txservices("--help")
        self.assertIn('\n    eval "$(_TXSERVICES_COMPLETE=bash_source txservices)"\n', stdout)  # a line to copy
        for name in ("run", "call", "dispatch", "shell", "broker", "show-config"):
            self.assertRegex(stdout, f"\n  {name} ")
        self.assertRegex(self.txservices("--version")[1], r"txservices, version \d")
