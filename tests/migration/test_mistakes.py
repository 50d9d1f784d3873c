"""Modules that can't run here: each is told in one line, with the line that it is in and what to do."""

from __future__ import annotations

import os
import sys
import time
from types import ModuleType
from typing import Any

from twisted.logger import LogLevel, capturedLogs, formatEvent

from tests import processes
from tests.command.folder import FolderCase
from tests.migration.test_imports import HookCase
from txservices.command import loading
from txservices.exceptions import CommandError, ConfigurationError
from txservices.migration import imports, mistakes
from txservices.migration.beginning import begin

SERVICE = """
from nameko.rpc import rpc
class S:
    name = "s"
    @rpc
    def m(self):
        return 1
"""
PYTHON_2 = "it is Python 2: move it to Python 3 first"
GEVENT = "gevent patches the process in its own way: take it out"
PRIVATE = "is private to nameko, or of another version, so what patches or wraps it can't run. See docs/"

# A module -> the line that is wrong, and how the message begins
MODULES: dict[str, tuple[int, str]] = {
    "from gevent import monkey": (1, GEVENT),
    "import gevent.pool": (1, GEVENT),
    "import patches_gevent": (1, GEVENT),
    "print 'hello'": (1, PYTHON_2),
    "\nexec 'x = 1'": (2, PYTHON_2),
    "try:\n    x = 1\nexcept ValueError, e:\n    pass": (3, PYTHON_2),
    "try:\n    x = 1\nexcept (KeyError, ValueError), e:\n    pass": (3, PYTHON_2),
    "raise ValueError, 'x'": (1, PYTHON_2),
    "mode = 0755": (1, PYTHON_2),
    "big = 1L": (1, PYTHON_2),
    "if 1 <> 2: pass": (1, PYTHON_2),
    "x = `1`": (1, PYTHON_2),
    "x = ur'a'": (1, PYTHON_2),
    "if 1:\n        x = 1\n\ty = 1": (3, PYTHON_2),
    "import urllib2": (1, PYTHON_2),
    "from itertools import izip": (1, PYTHON_2),
    "class Text(unicode): pass": (1, PYTHON_2),
    "import nameko.nonsense": (1, "nameko.nonsense has no counterpart in txservices: see docs/migrating.md"),
    "from nameko.rpc import MethodProxyX": (1, f"nameko.rpc has no MethodProxyX here: it {PRIVATE}"),
    "from nameko.containers import ServiceContainer as C\nC._run_worker": (
        2,
        f"ServiceContainer has no _run_worker here: it {PRIVATE}",
    ),
    "import nameko.rpc\nnameko.rpc.Nonsense": (2, f"nameko.rpc has no Nonsense here: it {PRIVATE}"),
    "import eventlet.wsgi": (1, "eventlet.wsgi has no counterpart with --nameko: use @http"),
    "from eventlet.pools import Pool": (1, "eventlet.pools has no counterpart with --nameko: use a queue.Queue"),
    "import eventlet\neventlet.hubs.get_hub()": (2, "eventlet.hubs has no counterpart with --nameko: leave it out"),
    "from eventlet.hubs import trampoline": (1, "eventlet.trampoline has no counterpart with --nameko: use select"),
    "from eventlet.greenio import GreenSocket": (
        1,
        "eventlet.greenio has no counterpart with --nameko: use the socket",
    ),
    "from eventlet.event import Event\nEvent().foo": (2, "eventlet.Event.foo has no counterpart with --nameko: use th"),
    "from eventlet import serve": (1, "eventlet.serve has no counterpart with --nameko: use a thread of `threading`"),
    "import eventlet\neventlet.backdoor": (2, "eventlet.backdoor has no counterpart with --nameko: run with --backd"),
}
# These are errors as any other, with their tracebacks
OTHERS = (
    "def",
    "1 / 0",
    "import nonsense_that_is_not_there",
    "class A: pass\nA.nonsense",
    "x = {}['a']",
    "raise NameError",
)


class Folder(HookCase):
    """A test with a folder of modules."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = self.mktemp()
        os.mkdir(self.folder)
        self.folder = os.path.abspath(self.folder)
        self.patch(sys, "path", [*sys.path, self.folder])
        before = set(sys.modules)
        self.addCleanup(lambda: [sys.modules.pop(each) for each in set(sys.modules) - before if "mistaken" in each])
        self.patch(sys, "dont_write_bytecode", True)

    def write(self, name: str, text: str) -> str:
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)
        return path


class Modules(Folder):
    """What is found while a module is imported."""

    def setUp(self) -> None:
        super().setUp()
        self.write("gevent/__init__.py", "")
        self.write("gevent/monkey.py", "")
        self.patches = self.write("patches_gevent.py", f"{'#' * 9}\nimport gevent\n")

    def test_each(self) -> None:
        """Its file, the line, what is wrong and what to do, all in one line."""
        for number, (text, (line, words)) in enumerate(MODULES.items()):
            path = self.write(f"mistaken_{number}.py", text + SERVICE)
            told = str(self.assertRaises(CommandError, loading.find_services, f"mistaken_{number}", self.folder))
            if "patches_gevent" in text:
                path, line = self.patches, 2
            self.assertTrue(told.startswith(f"{path}, line {line}: {words}"), (text, told))

    def test_others(self) -> None:
        """Any other error is told as it is."""
        for number, text in enumerate(OTHERS):
            self.write(f"mistaken_other_{number}.py", text + SERVICE)
            found = loading.find_services
            self.assertRaises(loading.BrokenModule, found, f"mistaken_other_{number}", self.folder)

    def test_without_gevent(self) -> None:
        """A package that can do without gevent does so, and may ask whether it is there."""
        self.write(
            "mistaken_optional.py",
            "from importlib.util import find_spec\nthere = bool(find_spec('gevent'))\n"
            f"try:\n    import gevent\nexcept ImportError:\n    gevent = None\n{SERVICE}",
        )
        (service,) = loading.find_services("mistaken_optional", self.folder)
        self.assertEqual(service.name, "s")
        module = sys.modules["mistaken_optional"]
        self.assertEqual((vars(module)["there"], vars(module)["gevent"]), (True, None))

    def test_not_ours(self) -> None:
        """Where nameko's names don't lead here, the message says how they do."""
        error = ModuleNotFoundError("No module named 'nameko'", name="nameko")
        self.assertRegex(mistakes.why(error) or "", "^nameko is not installed: `txservices run --nameko`.*NAMEKO: true")
        imports.uninstall()
        self.assertIsNone(mistakes.why(ImportError("cannot import name 'x' from 'txservices.rpc'", name="x")))


class Patched(Folder):
    """Packages that replace parts of the standard library."""

    def test_told(self) -> None:
        """A module that has the process patched is named in the log, with what was replaced."""
        self.patch(time, "sleep", time.sleep)
        self.write("mistaken_patch.py", "import time\ndef sleep(seconds): pass\ntime.sleep = sleep\n")
        self.write("mistaken_patched.py", f"import mistaken_patch\n{SERVICE}")
        with capturedLogs() as logged:
            loading.find_services("mistaken_patched", self.folder)
        told = [formatEvent(each) or "" for each in logged if each["log_level"] >= LogLevel.warn]
        self.assertEqual(len(told), 1)
        self.assertRegex(
            told[0], "^importing 'mistaken_patched' has replaced time.sleep by those of mistaken_patch: .*Take out"
        )

    def test_green(self) -> None:
        """Nothing runs where eventlet or gevent has patched it."""
        self.patch(time, "sleep", time.sleep)
        text = "import time\ndef sleep(seconds): pass\nsleep.__module__ = 'gevent.hub'\ntime.sleep = sleep\n"
        self.write("mistaken_green.py", text + SERVICE)
        error = self.assertRaises(CommandError, loading.find_services, "mistaken_green", self.folder)
        self.assertIn("has replaced time.sleep by those of gevent", str(error))

    def test_before(self) -> None:
        """So it is where that has happened before."""
        monkey: Any = ModuleType("gevent.monkey")
        monkey.saved = {"time": {}}
        sys.modules["gevent.monkey"] = monkey
        self.addCleanup(sys.modules.pop, "gevent.monkey")
        with self.assertRaisesRegex(ConfigurationError, "^this process is patched already: gevent"):
            imports.install()


class Configurations(HookCase):
    """What a configuration has from a pre-release of nameko 3."""

    def test_told(self) -> None:
        """A key that means nothing any more is told with what to do."""
        with capturedLogs() as logged:
            begin({"CONCURRENCY_BACKEND": "gevent"})
        told = [formatEvent(each) or "" for each in logged if each["log_level"] >= LogLevel.warn]
        self.assertEqual(len(told), 1)
        self.assertRegex(told[0], "^CONCURRENCY_BACKEND is of a pre-release of nameko 3, .*Take it out$")


class Commands(FolderCase):
    """The commands that run services of nameko's."""

    async def test_one_line(self) -> None:
        """Each tells a module that can't run in one line, with status 2."""
        for name, text in (("gevents", "import gevent"), ("python_2", "print 1"), ("patches", "import nameko.nope")):
            self.write(f"{name}.py", text + SERVICE)
        self.write("gevent.py", "")
        self.write("config.yaml", "NAMEKO: true\n")
        for words, run, *arguments in (
            (GEVENT, processes.txservices, "run", "--nameko", "gevents"),
            ("nameko.nope has no counterpart", processes.txservices, "run", "--config", "config.yaml", "patches"),
            (PYTHON_2, processes.twistd, "--nameko", "--module", "python_2"),
            (f"line 1: {PYTHON_2}", processes.python, "-m", "txservices", "nameko", "run", "python_2"),
        ):
            running = run(self, *arguments, cwd=self.folder)
            self.assertEqual(await running.exit(), 2, str(running))
            told = running.stdout + running.stderr
            self.assertRegex(told, rf"^Error: {self.folder}/\w+\.py, line 1: .*\n$")
            self.assertIn(words, told)
