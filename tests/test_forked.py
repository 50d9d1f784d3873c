"""A process that is forked, and one that starts: a program sees no difference."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

from twisted.trial.unittest import TestCase

from tests import forked, processes

# What a program sees of its process, in JSON. The last line is what it was given on stdin.
SEES = """
import json, os, signal, sys, threading

def opened(number):
    try:
        return os.readlink(f"/proc/self/fd/{number}") != globals().get("__file__")  # which a Python may keep open
    except OSError:
        return False

print(json.dumps({
    "arguments": sys.argv,
    "command line": sys.orig_argv,
    "path": sys.path,
    "environment": dict(os.environ),
    "folder": os.getcwd(),
    "name": __name__,
    "file": globals().get("__file__"),
    "names": [name for name in globals() if name[:2] != "__"],
    "main": sys.modules["__main__"].__dict__ is globals(),
    "tests": [name for name in sys.modules if name.startswith("tests")],
    "reactor": "twisted.internet.reactor" in sys.modules,
    "flags": repr(sys.flags),
    "handlers": [str(signal.getsignal(number)) for number in sorted(signal.valid_signals())],
    "blocked": [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
    "wakeup": signal.set_wakeup_fd(-1),
    "files": [number for number in range(100) if opened(number)],
    "group": os.getpgid(0),
    "session": os.getsid(0),
    "mask": os.umask(0),
    "threads": threading.active_count(),
    "main thread": threading.current_thread() is threading.main_thread(),
    "streams": [
        [type(each.buffer).__name__, each.name, each.mode, each.encoding, each.errors, each.line_buffering,
         each.write_through, each.newlines, each.isatty()]
        for each in (sys.stdin, sys.stdout, sys.stderr)
    ],
}))
print(input())
"""


class Forked(TestCase):
    """Each behaves as one that has started."""

    def both(self, text: str, *arguments: str, way: str = "script", **environ: str) -> list[processes.Process]:
        """The same program by both ways: a script, a module, a file, or code."""
        folder = os.path.abspath(self.mktemp())
        os.makedirs(folder)
        path = os.path.join(folder, "program.py")
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"#!{sys.executable}\n{text}")
        os.chmod(path, 0o755)
        argv = {
            "script": [path],
            "module": [sys.executable, "-m", "program"],
            "file": [sys.executable, "program.py"],
            "code": [sys.executable, "-c", text],
        }[way]
        return [each(self, [*argv, *arguments], folder, **environ) for each in (processes.start, processes.fork)]

    async def test_what_it_sees(self) -> None:
        """It has the same arguments, environment, folder, files, streams, signals and names."""
        for way in ("script", "module", "file", "code"):
            seen: list[Any] = []
            for process in self.both(SEES, "one", "--two=ü", way=way, GIVEN="yes"):
                process.process.write(b"typed\n")
                output = (await processes.succeed(process)).splitlines()
                self.assertEqual((output[-1], process.stderr), ("typed", ""))
                seen.append(json.loads(output[0]))
            started, forked = seen
            self.assertEqual(started.keys(), forked.keys())
            for what, expected in started.items():
                self.assertEqual(forked[what], expected, (way, what))
            self.assertEqual(started["environment"]["GIVEN"], "yes")
            self.assertFalse(started["reactor"])

    async def test_how_it_ends(self) -> None:
        """Its status is the same: of sys.exit, of an error, of its last line, and of a signal; its last words come."""
        for text, status in (
            ("import sys; sys.exit(3)", 3),
            ("import sys; sys.exit('a mistake')", 1),
            ("import atexit; atexit.register(print, 'the last')", 0),
            ("import sys; sys.stdout = open(1, 'w', closefd=False); print('kept'); sys.exit(256 + 4)", 4),
            ("import sys; sys.stdout = open('/dev/full', 'w'); print('lost')", 120),
            ("import sys; sys.stdout.close()", 0),
            ("import threading; threading.Timer(0.1, print, ['late']).start()", 0),
            ("class Last:\n    def __del__(self): print('gone')\nlast = Last()", 0),
            ("1 / 0", 1),
            ("import os; os._exit(7)", 7),
            ("import os; os.kill(os.getpid(), 9)", -9),
            ("import os; os.execv('/bin/sh', ['sh', '-c', 'exit 5'])", 5),
        ):
            started, forked = self.both(text)
            self.assertEqual((await started.exit(), await forked.exit()), (status, status), text)
            self.assertEqual(forked.stdout, started.stdout, text)
            # an error has lines of the fork server in its traceback, too
            self.assertEqual(forked.stderr.splitlines()[-1:], started.stderr.splitlines()[-1:], text)

    async def test_signals(self) -> None:
        """A signal reaches it, and an interrupt is its KeyboardInterrupt."""
        for name, status in (("TERM", -15), ("INT", -2), ("KILL", -9)):
            for process in self.both("import time; print('begun'); time.sleep(100)"):
                await process.line("begun")
                self.assertEqual(await process.end(name), status, str(process))

    async def test_ignored(self) -> None:
        """It listens to a signal that the tests ignore, as they do in the background of a shell."""
        self.patch(forked, "IMPORTED", [])  # it is there sooner
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        server = forked.Server()
        signal.signal(signal.SIGINT, handler)
        self.addCleanup(server.close)
        self.patch(forked, "server", lambda: server)
        for process in self.both("import time; print('begun'); time.sleep(100)"):
            await process.line("begun")
            self.assertEqual(await process.end("INT"), -2, str(process))

    async def test_chance(self) -> None:
        """Each has random numbers and ids of its own."""
        text = "import random; from txservices.utils.ids import new_id; print(random.random(), new_id())"
        printed = [await processes.succeed(self.both(text)[1]) for _ in range(3)]
        self.assertEqual(len(set(printed)), 3)
