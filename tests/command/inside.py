"""Commands that run in this process as in one of their own: what a person sees of each, and the status it ends with.

    running = self.typed("run", "app")        # `txservices run app`, with services that need a reactor
    await running.line("running: shop")
    called = self.typed("call", "shop.sell")
    self.assertEqual(await called.ended, 0)

What is printed and what is logged are one text, in order, as on a terminal.
"""

from __future__ import annotations

import io
import re
import sys
from functools import partial
from types import SimpleNamespace
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.logger import globalLogPublisher

from tests.command.folder import TypingCase
from tests.rabbitmq import free_port
from txservices.command import cli, client, exits, logs, tap
from txservices.command.outputs import Output
from txservices.testing.waiting import Heard


class Inside(exits.Ending):
    """The end of a command that runs here: the reactor stays, and so does the process."""

    told: Deferred[None]

    def end(self, status: int) -> None:
        self.status = self.status or status
        if not self.under_way:
            self.under_way = True
            self.told.callback(None)

    def watch_signals(self) -> None:
        pass

    def services_ended(self, in_order: bool) -> None:
        self.status = self.status or (0 if in_order else exits.CRASH)


class Typed(io.StringIO):
    """One command, and what it writes to.

    Attributes:
        text: what it has printed and logged so far.
        status: that of its end.
        ended: fires with the status.
    """

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.status: int | None = None
        self.stop: Any = lambda: succeed(None)
        self.ended: Deferred[int] = Deferred()
        self.looking: list[tuple[re.Pattern[str], Heard]] = []

    def write(self, text: str) -> int:
        self.text += text
        for pattern, heard in list(self.looking):
            if pattern.search(self.text):
                self.looking.remove((pattern, heard))
                heard()
        return len(text)

    def line(self, pattern: str) -> Deferred[Any]:
        """Fires once a whole line is of that pattern."""
        heard = Heard()
        self.looking.append((re.compile(f"^{pattern}$", re.MULTILINE), heard))
        self.write("")
        return heard.wait()


class InsideCase(TypingCase):
    """Commands in a folder of the test's own, with an embedded broker at a port of its own."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(sys, "dont_write_bytecode", True)  # that of another text in the same second would be taken
        self.ports = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        self.own = [
            *("--define", f"EMBEDDED_BROKER_ADDRESS={self.ports[0]}"),
            *("--define", f"WEB_SERVER_ADDRESS={self.ports[1]}"),
        ]

    def module(self, text: str) -> None:
        """Write the module `shop`, in place of the one before."""
        sys.modules.pop("shop", None)
        self.write("shop.py", text)

    def log_to(self, typed: Typed) -> None:
        """Have the log's lines written, as `txservices run` writes them."""

        def observe(event: dict[str, Any]) -> None:
            event = dict(event)
            logs.notes_call_id(event)
            logs.cleans(event)
            if logs.is_worth_a_line(event) and not (event.get("log_namespace") or "").startswith("twisted"):
                Output(typed).write(logs.one_line(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def typed(self, command: str, *arguments: str) -> Typed:
        """Begin a command. It is stopped when the test is over, if it is still running then."""
        typed = Typed()
        for stream in ("stdout", "stderr", "__stderr__"):
            self.patch(sys, stream, typed)
        if command == "run":
            self.log_to(typed)
        self.patch(exits, "Ending", Inside)
        begun: list[Any] = []
        self.patch(tap, "run", lambda tree, ending: begun.append(partial(self.serve, typed, tree, ending)))
        self.patch(client, "task", SimpleNamespace(react=lambda main: begun.append(partial(self.work, typed, main))))
        self.patch(sys, "argv", ["txservices", command, *self.own, *arguments])
        try:
            cli.main()
        except SystemExit as end:
            if not begun:
                self.end(typed, end)
        for begin in begun:
            Deferred.fromCoroutine(begin())
        return typed

    def end(self, typed: Typed, end: SystemExit) -> None:
        typed.status = end.code if isinstance(end.code, int) else int(end.code is not None)
        typed.ended.callback(typed.status)

    async def serve(self, typed: Typed, tree: Any, ending: Inside) -> None:
        """Run services until an error ends them, or the test."""
        ending.told = Deferred()
        typed.stop = partial(self.stop, typed, tree, ending)
        self.addCleanup(lambda: typed.stop())
        tree.startService()
        await ending.told
        await typed.stop()

    def stop(self, typed: Typed, tree: Any, ending: Inside) -> Deferred[None]:
        """Stop services, as SIGTERM does."""
        typed.stop = lambda: succeed(None)

        def stopped(_: object) -> None:
            typed.status = ending.status
            typed.ended.callback(ending.status)

        stopping: Deferred[None] = tree.stopService()
        return stopping.addCallback(stopped)

    async def work(self, typed: Typed, main: Any) -> None:
        """Run a command that calls."""
        try:
            await main(reactor)
        except SystemExit as end:
            self.end(typed, end)
        else:
            self.end(typed, SystemExit(0))
