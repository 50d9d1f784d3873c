"""`run --reload`: what counts as a change, and what the process does then."""

from __future__ import annotations

import os
import types

from twisted.trial.unittest import TestCase

from tests import processes
from txservices.command.reloading import Watcher, sources, sources_of_error

APP = """
from helper import VERSION
from txservices.dependency_providers import Config
from txservices.timer import timer

class Tells:
    name = "tells"
    config = Config()

    @timer(interval=60, eager=True)
    def tell(self): print("version", VERSION, "key", self.config.get("key"))
"""

RESTARTS = """
import os, signal
from twisted.internet import reactor
from txservices.command import reloading

if "AGAIN" in os.environ:
    os.kill(os.getpid(), signal.SIGTERM)  # before it has any handler
    reloading.keep_serving(lambda ending: print("served"), [], reactor)
os.environ["AGAIN"] = "yes"
reloading.restart(os.getcwd())
"""


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


class Changes(TestCase):
    """The changes that the watcher sees."""

    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        os.makedirs(self.folder)
        self.path = self.file("one.py", "a")
        self.modules: dict[str, types.ModuleType | None] = {}
        self.watcher = Watcher([self.path], self.modules)

    def file(self, name: str, text: str) -> str:
        path = os.path.join(self.folder, name)
        write(path, text)
        return path

    def looks(self, number: int) -> list[bool]:
        return [self.watcher.look() for _ in range(number)]

    def test_none(self) -> None:
        """Nothing is seen without a change, even when a module is loaded later."""
        self.modules["late"] = types.ModuleType("late")
        self.modules["late"].__file__ = self.file("late.py", "a")
        self.assertEqual(self.looks(3), [False, False, False])
        self.file("late.py", "longer")
        self.assertEqual(self.looks(2), [False, True])

    def test_waits_until_it_is_over(self) -> None:
        """A change is acted on only after a look that finds no further one."""
        for text in ("longer", "longer still"):
            self.file("one.py", text)
            self.assertEqual(self.looks(1), [False])
        self.assertEqual(self.looks(1), [True])

    def test_same_size(self) -> None:
        """A file of the same size has changed if it was written at another time."""
        os.utime(self.path, ns=(1, 1))
        self.assertEqual(self.looks(2), [False, True])

    def test_gone_and_back(self) -> None:
        """A file that disappears has changed, and so has one that appears."""
        os.remove(self.path)
        self.assertEqual(self.looks(2), [False, True])
        self.assertEqual(self.looks(1), [True])  # until the process restarts
        self.file("one.py", "b")
        self.assertEqual(self.looks(2), [False, True])

    def test_what_is_installed(self) -> None:
        """Installed modules and modules without a source are left out."""
        modules = {"os": os, "nothing": None, "bare": types.ModuleType("bare"), "here": types.ModuleType("here")}
        modules["here"].__file__ = self.path
        self.assertEqual(list(sources(modules)), [self.path])

    def test_error(self) -> None:
        """The files of an error are those it passed through, and the one that could not be compiled."""
        path = self.file("broken.py", "def")
        try:
            compile("def", path, "exec")
        except SyntaxError as error:
            try:
                raise ImportError("no") from error
            except ImportError as outer:
                files = list(sources_of_error(outer))
        self.assertEqual({os.path.basename(file) for file in files}, {"test_reloading.py", "broken.py"})


class Runs(TestCase):
    """A process with --reload."""

    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        os.makedirs(self.folder)
        write(os.path.join(self.folder, "app.py"), APP)
        self.version("1")
        self.config = processes.config_file(self, key="a")

    def version(self, value: str) -> None:
        write(os.path.join(self.folder, "helper.py"), f"VERSION = {value}")

    def start(self) -> processes.Process:
        return processes.txservices(self, "run", "--reload", "--config", self.config, "app", cwd=self.folder)

    async def test_changes(self) -> None:
        """A change of an imported module or of the config restarts the process, and Ctrl-C still ends it."""
        running = self.start()
        await running.line("^version 1 key a")
        self.version("2")
        await running.line("^version 2 key a")
        with open(self.config, "a") as file:
            file.write("key: b\n")
        await running.line("^version 2 key b")
        self.assertEqual(await running.end("INT"), 0, str(running))
        self.assertIn("changed: helper.py", running.stdout)
        self.assertNotIn("Traceback", str(running))

    async def test_mistakes(self) -> None:
        """A mistake is told, and the process waits for the next change, at the start and later."""
        self.version("'")
        running = self.start()
        await running.line("Error: module 'app' could not be imported: SyntaxError")
        await running.line("waiting for a change")
        self.version("1")
        await running.line("^version 1 key a")
        self.version("nothing_like_it")
        await running.line("Error: module 'app' could not be imported: NameError")
        write(self.config, "key: [\n")
        await running.line("Error: .*yaml, line 2")
        self.assertEqual(await running.end(), 0, str(running))

    async def test_crash(self) -> None:
        """A service that dies does not end the process either."""
        write(
            os.path.join(self.folder, "app.py"),
            APP.replace("class Tells", "class Config(Config):\n    def start(self): 1 / 0\n\nclass Tells"),
        )
        running = self.start()
        await running.line("ZeroDivisionError")
        await running.line("waiting for a change")
        write(os.path.join(self.folder, "app.py"), APP)
        await running.line("^version 1 key a")
        self.assertEqual(await running.end(), 0, str(running))

    async def test_leaving_while_it_stops(self) -> None:
        """Ctrl-C while a change waits for a worker to finish ends the process, and at once."""
        waits = APP.replace("def tell(self): ", "def tell(self): from_now = Deferred(); ")
        waits = waits.replace('("key"))', '("key")); return from_now')
        write(os.path.join(self.folder, "app.py"), "from twisted.internet.defer import Deferred\n" + waits)
        running = self.start()
        await running.line("^version 1 key a")
        await running.line("running: tells")
        self.version("2")
        await running.line("restarting")
        self.assertEqual(await running.end("INT"), 0, str(running))
        self.assertNotIn("version 2", running.stdout)

    async def test_leaving_while_it_restarts(self) -> None:
        """A SIGTERM that comes before the new program can handle it ends the process in order."""
        running = processes.python(self, "-c", RESTARTS)
        self.assertEqual(await running.exit(), 0, str(running))
        self.assertNotIn("served", running.stdout)

    async def test_leaving_while_it_loads(self) -> None:
        """So does one that comes while the services' modules are loaded."""
        write(os.path.join(self.folder, "app.py"), "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n" + APP)
        running = self.start()
        self.assertEqual(await running.exit(), 0, str(running))
        self.assertNotIn("version", running.stdout)
