"""The operations address of a process: what it answers from the start to the end, and an address that is taken."""

from __future__ import annotations

import os
import socket
from typing import Any

import treq
from twisted.trial.unittest import TestCase

from tests import processes
from tests.command.inside import InsideCase
from tests.rabbitmq import free_port

TICKS = """
from twisted.internet.defer import Deferred
from txservices.timer import timer

class Ticks:
    name = "ticks"

    @timer(interval=100, eager=True)
    def tick(self):
        print("it hangs")
        return Deferred()
"""
SHOP = """
from txservices.rpc import rpc

class Shop:
    name = "shop"

    @rpc
    def sell(self): pass
"""


async def ask(port: int, path: str, method: str = "GET", **options: Any) -> tuple[int, str]:
    """The status and the text of the answer to a request."""
    response = await treq.request(method, f"http://127.0.0.1:{port}{path}", persistent=False, **options)
    return response.code, await response.text()


class Operations(InsideCase, TestCase):
    """A process with an operations address."""

    def setUp(self) -> None:
        super().setUp()
        self.module(TICKS.replace("eager=True", ""))
        self.port = free_port()
        self.ops = ("--ops", str(self.port))

    async def test_from_start_to_end(self) -> None:
        """It answers before the services have started, and until they have stopped."""
        self.module(SHOP)
        broker = free_port()
        running = self.typed("run", "shop", *self.ops, "--broker", f"amqp://ada:s3cret12@127.0.0.1:{broker}/")
        await running.line(r".*no connection to the broker at.*")
        self.assertEqual(await ask(self.port, "/healthz"), (200, "ok\n"))
        status, text = await ask(self.port, "/readyz")
        self.assertEqual(status, 503)
        self.assertRegex(text, r"^shop: it is starting\nshop: not consumed: queue rpc-shop: ")
        self.assertRegex(text, rf"no connection to the broker at amqp://ada:\*+@127\.0\.0\.1:{broker}/: .*refused")
        await running.stop()
        self.assertEqual(await running.ended, 0)
        with self.assertRaises(Exception):  # noqa: B017  # treq's errors have no common class
            await ask(self.port, "/healthz")

    async def test_ready(self) -> None:
        """It is ready when the services run; other paths are 404, other methods 405, a body is refused."""
        running = self.typed("run", "shop", *self.ops)
        await running.line("running: ticks")
        self.assertIn(f"listening at http://127.0.0.1:{self.port}/", running.text)
        self.assertEqual(await ask(self.port, "/readyz"), (200, "ready\n"))
        status, text = await ask(self.port, "/metrics")
        self.assertEqual((status, "txservices_workers_running" in text), (200, True), text)
        as_json = {"headers": {"Accept": "application/json"}}
        self.assertEqual(await ask(self.port, "/readyz", **as_json), (200, '{"ready": true, "reasons": []}\n'))
        for path, method, status in [
            ("/readyz", "HEAD", 200),
            ("/readyz", "POST", 405),
            ("/healthz", "DELETE", 405),
            ("/", "GET", 404),
            ("/readyz/", "GET", 404),
            ("/readyz?" + 20_000 * "x", "GET", 414),
        ]:
            self.assertEqual((await ask(self.port, path, method))[0], status, path)
        self.assertEqual((await ask(self.port, "/readyz", data=b"x"))[0], 413)

    async def test_taken(self) -> None:
        """An address in use ends the start with one line, which says which it is and what to do."""
        taken = socket.socket()
        self.addCleanup(taken.close)
        taken.bind(("127.0.0.1", self.port))
        taken.listen()
        running = self.typed("run", "shop", *self.ops)
        self.assertEqual(await running.ended, 2)
        self.assertRegex(
            running.text,
            rf"\nError: can't listen at 127\.0\.0\.1:{self.port}: .*in use: end the program there, or set"
            r" OPS_ADDRESS to another host:port \(port 0 is any free one\)\n$",
        )

    def test_mistake(self) -> None:
        """An address that can't be is told, by the option and by the key."""
        for given in (("--ops", ""), ("--ops", "here"), ("--define", "OPS_ADDRESS=a:b")):
            status, _, told = self.txservices("run", "shop", *given)
            self.assertEqual(status, 2)
            self.assertRegex(
                told, r"^Error: OPS_ADDRESS: '.*' is no address: write host:port or port, as 0\.0\.0\.0:9100"
            )


class Stopping:
    """A process of its own, which is told to stop."""

    async def test_while_it_stops(self) -> None:
        """From SIGTERM on it is healthy and not ready, until the last worker has ended and with it the process."""
        folder, port = self.mktemp(), free_port()
        os.makedirs(folder)
        with open(os.path.join(folder, "app.py"), "w", encoding="utf-8") as file:
            file.write(TICKS)
        process = self.face(["app"], folder, "--ops", str(port))
        await process.line("it hangs")
        await process.line("running: ticks")
        self.assertEqual(await ask(port, "/readyz"), (200, "ready\n"))
        process.signal("TERM")
        await process.line("SIGTERM: stopping")
        self.assertEqual(await ask(port, "/readyz"), (503, "the process is stopping\n"))
        self.assertEqual(await ask(port, "/healthz"), (200, "ok\n"))
        process.signal("INT")
        await process.exit()


class ByRun(Stopping, processes.ByRun, TestCase):
    """By `txservices run`."""


class ByTwistd(Stopping, processes.ByTwistd, TestCase):
    """By twistd."""
