"""Real processes under trial: start `txservices` or `twistd`, wait for a line, end them by their pid.

    service = processes.txservices(self, "run", "rpc", cwd=EXAMPLES)
    await service.line("services: service_y")
    await service.end()

Each is ended when its test is over, whatever the test did. ``txservices``, ``twistd``, ``python`` and ``pytest`` are
forked from a Python that has imported the package, which takes a tenth of the time: see tests/forked.py. The others
start anew.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import yaml
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.forked import Child
from tests.rabbitmq import free_port

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
EXAMPLES = os.path.join(ROOT, "examples")
SCRIPTS = os.path.dirname(sys.executable)
DEADLINE = 100  # seconds for whatever is waited for; a healthy machine needs two
# The environment of a Python that runs nothing of ours, such as pip: coverage would only make it slower.
UNMEASURED = {"COVERAGE_PROCESS_CONFIG": "", "COVERAGE_PROCESS_START": ""}
# Variables that Python reads as it starts: a process that is given one starts anew.
READ_AT_START = ("PYTHON", "LC_", "LANG", "TZ")


class Process(ProcessProtocol):
    """One process and what it has written so far; on a terminal, if it has one, all of it is its stdout.

    ``files`` are further file descriptors that it has, by their numbers there: those of ours.
    """

    def __init__(
        self,
        argv: list[str],
        cwd: str,
        environ: dict[str, str],
        terminal: bool = False,
        files: Mapping[int, int] | None = None,
        forked: bool = False,
    ) -> None:
        self.argv = argv
        self.outputs = {1: b"", 2: b""}
        self.waiting: list[tuple[re.Pattern[str], Deferred[re.Match[str]]]] = []
        self.status: int | None = None
        self.ended: Deferred[int] = Deferred()
        # A worker of `trial -j` has the modules of trial's own process in PYTHONPATH.
        outer = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        env = {**outer, "PYTHONUNBUFFERED": "1", **environ}
        fds = None if terminal else {0: "w", 1: "r", 2: "r", **(files or {})}
        self.process = (
            Child(self, argv, cwd, env)
            if forked
            else reactor.spawnProcess(self, argv[0], argv, env=env, path=cwd, usePTY=terminal, childFDs=fds)
        )
        self.pid = self.process.pid

    @property
    def stdout(self) -> str:
        return self.outputs[1].decode(errors="replace")

    @property
    def stderr(self) -> str:
        return self.outputs[2].decode(errors="replace")

    def line(self, pattern: str, deadline: float = DEADLINE) -> Deferred[re.Match[str]]:
        """Fires with the first match of `pattern` in what was or will be written, on stdout or stderr."""
        compiled = re.compile(pattern, re.MULTILINE)
        found: Deferred[re.Match[str]] = Deferred()
        self.waiting.append((compiled, found))
        self.look()
        return found.addTimeout(deadline, reactor, self.too_late(f"no line {pattern!r}"))

    def exit(self, deadline: float = DEADLINE) -> Deferred[int]:
        """Fires with the exit status, negative for the signal that killed it, once it has ended."""
        answer: Deferred[int] = Deferred()

        def tell(status: int) -> int:
            if not answer.called:
                answer.callback(status)
            return status

        self.ended.addCallback(tell)
        return answer.addTimeout(deadline, reactor, self.too_late("has not ended"))

    def signal(self, name: str) -> None:
        """Send TERM, INT, KILL, … to this process, by its pid."""
        if self.status is None:
            self.process.signalProcess(name)

    def end(self, name: str = "TERM") -> Deferred[int]:
        """Signal it, and fire with its exit status."""
        self.signal(name)
        return self.exit()

    async def clean_up(self) -> None:
        """Nothing of it is left: killed if asking does not help."""
        if self.status is None:
            self.signal("KILL")
            await self.exit()

    def too_late(self, what: str) -> Any:
        def fail(result: object, seconds: float) -> None:
            raise AssertionError(f"{what} after {seconds} s: {self}")

        return fail

    def look(self) -> None:
        text = self.stdout + "\n" + self.stderr
        for entry in list(self.waiting):
            pattern, found = entry
            if found.called:
                self.waiting.remove(entry)
            elif match := pattern.search(text):
                self.waiting.remove(entry)
                found.callback(match)
            elif self.status is not None:
                self.waiting.remove(entry)
                found.errback(AssertionError(f"ended without a line {pattern.pattern!r}: {self}"))

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self.outputs[childFD] += data
        self.look()

    def processEnded(self, reason: Failure) -> None:
        ended = reason.value
        self.status = -ended.signal if ended.signal else (ended.exitCode or 0)
        self.look()
        self.ended.callback(self.status)

    def __str__(self) -> str:
        parts = [
            " ".join(self.argv),
            f"status {self.status}",
            "-- stdout",
            self.stdout,
            "-- stderr",
            self.stderr,
        ]
        return "\n".join(parts)


def ended_with(test: TestCase, process: Process) -> Process:
    test.addCleanup(lambda: Deferred.fromCoroutine(process.clean_up()))
    return process


def start(test: TestCase, argv: list[str], cwd: str | None = None, **environ: str) -> Process:
    """Start `argv`; it ends with the test."""
    return ended_with(test, Process(argv, cwd or ROOT, environ))


def fork(test: TestCase, argv: list[str], cwd: str | None = None, **environ: str) -> Process:
    """Run `argv`, a console script or Python, in a child of a Python that has imported the package.

    It ends with the test.
    """
    if any(name.startswith(READ_AT_START) for name in environ):
        return start(test, argv, cwd, **environ)
    return ended_with(test, Process(argv, cwd or ROOT, environ, forked=True))


def script(name: str) -> str:
    """A console script of the environment that the tests run in."""
    path = os.path.join(SCRIPTS, name)
    if not os.path.exists(path):
        raise AssertionError(f"no {path}: install the package first (pip install -e '.[test]'), as `make test` does")
    return path


def txservices(test: TestCase, *arguments: str, cwd: str | None = None, **environ: str) -> Process:
    return fork(test, [script("txservices"), *arguments], cwd, **environ)


def twistd(test: TestCase, *arguments: str, cwd: str | None = None, reactor: str = "", **environ: str) -> Process:
    """`twistd -n txservices …`, with no pid file left in the folder."""
    options = ["-n", "--pidfile=", *(["--reactor", reactor] if reactor else [])]
    return fork(test, [script("twistd"), *options, "txservices", *arguments], cwd, **environ)


def pytest(test: TestCase, *arguments: str, cwd: str, **environ: str) -> Process:
    """pytest in a folder. It keeps no cache there, and loads no plugins but those that the arguments name."""
    options = ["-q", "-p", "no:cacheprovider", *arguments]
    return python(test, "-m", "pytest", *options, cwd=cwd, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1", **environ)


def on_terminal(test: TestCase, *arguments: str, columns: int = 80) -> Process:
    """`txservices …` on a terminal of its own."""
    size = {"COLUMNS": str(columns), "LINES": "24", "TERM": "xterm"}
    return ended_with(test, Process([script("txservices"), *arguments], ROOT, size, terminal=True))


def by_systemd(test: TestCase, listening: int, *arguments: str, cwd: str | None = None) -> Process:
    """`txservices …` as systemd would start it for a socket, which is the one of that number here, by the name web."""
    # A process is told its own id, so that its children do not take the sockets for theirs.
    command = 'LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web exec "$@"'
    process = Process(["/bin/sh", "-c", command, "sh", script("txservices"), *arguments], cwd or ROOT, {},
                      files={3: listening})  # fmt: skip
    return ended_with(test, process)


def python(test: TestCase, *arguments: str, cwd: str | None = None, **environ: str) -> Process:
    """Python with a file, with `-m` and a module, or with `-c` and code."""
    return fork(test, [sys.executable, *arguments], cwd, **environ)


class ByTwistd:
    """Modules are run by `twistd -n txservices`."""

    def face(self, modules: Iterable[str], folder: str, *options: str, reactor: str = "") -> Process:
        return twistd(self, *options, *(f"--module={module}" for module in modules), cwd=folder, reactor=reactor)


class ByRun:
    """Modules are run by `txservices run`."""

    def face(self, modules: Iterable[str], folder: str, *options: str, reactor: str = "") -> Process:
        on = ["--reactor", reactor] if reactor else []
        return txservices(self, "run", *options, *on, *modules, cwd=folder)


async def succeed(process: Process) -> str:
    """The output of the process, once it has ended with 0."""
    status = await process.exit()
    if status != 0:
        raise AssertionError(str(process))
    return process.stdout


async def stopped(*running: Process) -> None:
    """They stop when asked to, one after the other, with 0 and without a traceback."""
    for process in running:
        status = await process.end()
        if status != 0 or "Traceback" in process.stdout + process.stderr:
            raise AssertionError(str(process))


def config_file(test: TestCase, **config: Any) -> str:
    """A config file for a process: HTTP and the embedded broker on free ports, and `config`."""
    ports = {
        "WEB_SERVER_ADDRESS": f"127.0.0.1:{free_port()}",
        "EMBEDDED_BROKER_ADDRESS": f"127.0.0.1:{free_port()}",
    }
    path: str = os.path.abspath(test.mktemp()) + ".yaml"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        yaml.safe_dump({**ports, **config}, file)
    return path


def read_config(path: str) -> dict[str, Any]:
    with open(path, encoding="utf-8") as file:
        return dict(yaml.safe_load(file))


def broker_uri(path: str) -> str:
    """Where the services that run with the config at `path` have their broker."""
    config = read_config(path)
    return str(config.get("AMQP_URI") or f"amqp://guest:guest@{config['EMBEDDED_BROKER_ADDRESS']}/")
