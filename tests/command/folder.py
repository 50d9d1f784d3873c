"""A working folder of a test's own, and what is typed there as a call of a function in this process."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout

from twisted.trial.unittest import TestCase

from txservices.command import cli, exits, logs, tap

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
    """Run a command in that folder that ends before it needs a reactor."""

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
        out, err = io.StringIO(), io.StringIO()
        self.patch(sys, "__stderr__", err)
        status = 0
        with redirect_stdout(out), redirect_stderr(err):
            try:
                run()
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else int(end.code is not None)
        return status, out.getvalue(), err.getvalue()
