"""`--reactor`: which names there are, and when it is installed."""

from __future__ import annotations

import os

from twisted.trial.unittest import TestCase

from tests import processes
from tests.command.folder import TypingCase

SHOWS = """
from twisted.internet import reactor  # as users' modules may, before anything of ours

from txservices.timer import timer

class Shop:
    name = "shop"

    @timer(60)
    def tick(self): pass

print("reactor:", type(reactor).__name__)
"""


class Names(TypingCase):
    """A name that can't be is a mistake of the user's, told in one line."""

    def test_mistakes(self) -> None:
        """There is no such reactor; there is, but not here; another one is there already."""
        for name, pattern in [
            ("asynco", "there is no such reactor: write one of asyncio, .*epoll, .*select"),
            ("", "there is no such reactor"),
            ("win32", "can't run here: "),
            ("asyncio", "can't run here: ReactorAlreadyInstalledError: "),  # this process has trial's
        ]:
            status, stdout, stderr = self.txservices("run", "--reactor", name, "app")
            self.assertEqual((status, stdout), (2, ""), stderr)
            self.assertRegex(stderr, f"^Error: --reactor {name}:? ?.*{pattern}.*\n$")


class Installed(TestCase):
    """The reactor is the one that was named."""

    async def test_before_modules(self) -> None:
        """It is there before a module of the user's asks for one; with --reload, again after the restart."""
        folder = os.path.abspath(self.mktemp())
        os.makedirs(folder)
        path = os.path.join(folder, "app.py")
        with open(path, "w", encoding="utf-8") as file:
            file.write(SHOWS)
        for name, options, cls in [
            ("select", (), "SelectReactor"),
            ("asyncio", ("--reload",), "AsyncioSelectorReactor"),
        ]:
            running = processes.txservices(self, "run", "--reactor", name, *options, "app", cwd=folder)
            await running.line(f"reactor: {cls}")
            await running.line("running: shop")
            if options:
                with open(path, "a", encoding="utf-8") as file:
                    file.write("# changed\n")
                await running.line(f"restarting[\\s\\S]*reactor: {cls}")
                await running.line("restarting[\\s\\S]*running: shop")
            await processes.stopped(running)
