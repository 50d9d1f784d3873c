"""A working folder of a test's own, and what is typed there as a call of a function in this process."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import TestCase

from txservices.command import cli, client, exits, logs, tap

Ended = tuple[int, str, str]  # the status, stdout and stderr


class FolderCase(TestCase):
    """A folder, whose modules are forgotten when the test is over."""

    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        os.makedirs(self.folder)
        path, modules = list(sys.path), set(sys.modules)

        def restore() -> None:
            sys.path[:] = path
            for name in set(sys.modules) - modules:
                if (getattr(sys.modules[name], "__file__", None) or "").startswith(self.folder):
                    del sys.modules[name]

        self.addCleanup(restore)

    def write(self, name: str, text: str) -> None:
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        importlib.invalidate_caches()


class TypingCase(FolderCase):
    """Run a command in that folder: one that ends before it needs a reactor, or one that only calls services."""

    def setUp(self) -> None:
        super().setUp()
        for name in ("begin", "join"):
            self.patch(logs, name, lambda *config: None)  # trial has the log already
        self.patch(exits.Ending, "leave_at_exit", lambda ending: None)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.folder)

    def txservices(self, *arguments: str) -> Ended:
        self.patch(sys, "argv", ["txservices", *arguments])
        return self.ended(cli.main)

    def twistd(self, *arguments: str) -> Ended:
        """twistd reads the options, and makes the service of them."""
        options = tap.Options()
        options.parseOptions(list(arguments))
        return self.ended(lambda: tap.makeService(options))

    def ended(self, run: Callable[[], object]) -> Ended:
        with self.captured() as outputs:
            status = status_of(run)
        return status, *outputs()

    @contextmanager
    def captured(self) -> Iterator[Callable[[], tuple[str, str]]]:
        """What is written in the block; gives a function that tells stdout and stderr."""
        out, err = io.StringIO(), io.StringIO()
        self.patch(sys, "__stderr__", err)
        with redirect_stdout(out), redirect_stderr(err):
            yield lambda: (out.getvalue(), err.getvalue())

    async def client(self, *arguments: str) -> Ended:
        """Run a command that calls services, with this reactor for its own."""
        mains: list[Callable[[Any], Awaitable[None]]] = []
        self.patch(client, "task", SimpleNamespace(react=mains.append))
        with self.captured() as outputs:
            self.patch(sys, "argv", ["txservices", *arguments])
            status = status_of(cli.main)
            for main in mains:
                try:
                    await main(None)
                except SystemExit as end:
                    status = int(end.code or 0)
        return status, *outputs()


def status_of(run: Callable[[], object]) -> int:
    """The status with which a program ends that runs this."""
    try:
        run()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0
