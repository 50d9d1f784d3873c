"""A Python that has imported the package, and forks a child for each process that a test needs. Each runs a
script, or what is given to Python.

`python -m tests.forkserver SOCKET MODULE…` is that Python. A request is a line of JSON with argv, cwd and environ, and
four files: stdin, stdout, stderr, and a pipe. The child's pid is written there, and its status once it has ended,
as ``os.waitpid`` gives it. The server ends when nobody can ask any more. The other end is tests/forked.py.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
import types
from collections.abc import Iterator
from importlib import import_module
from typing import Any

AT_ONCE = 65536  # bytes
REACTOR = "twisted.internet.reactor"


def asked(server: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """The next request, and its files; None once nobody can ask any more."""
    request, files, _, _ = socket.recv_fds(server, AT_ONCE, 4)
    while request and not request.endswith(b"\n"):
        request += server.recv(AT_ONCE)
    return json.loads(request) if request else None, files


def serve(server: socket.socket) -> dict[str, Any] | None:
    """Fork a child for each request. Gives the request in the child, and None here at the end."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    pipes: dict[int, int] = {}
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready, _, _ = select.select([server.fileno(), woken], [], [])
        if woken in ready:
            os.read(woken, AT_ONCE)
            for pid, status in ended():
                tell(pipes[pid], status)
                os.close(pipes.pop(pid))
        if server.fileno() not in ready:
            continue
        request, files = asked(server)
        if request is None:
            return None
        pid = os.fork()
        if not pid:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.set_wakeup_fd(-1)
            server.close()
            for number, file in enumerate(files[:3]):
                os.dup2(file, number)
            for file in (woken, wake, *files, *pipes.values()):
                os.close(file)
            return request
        for file in files[:3]:
            os.close(file)
        pipes[pid] = files[3]
        tell(files[3], pid)


def ended() -> Iterator[tuple[int, int]]:
    """The children that have ended, each with its status."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        yield pid, status


def tell(pipe: int, number: int) -> None:
    try:
        os.write(pipe, b"%d\n" % number)
    except BrokenPipeError:
        pass  # the test is over


def become(argv: list[str], cwd: str, environ: dict[str, str]) -> None:
    """Do what a Python does that has just started, with a script, with ``-m`` and a module, or with ``-c`` and code."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environ)
    sys.orig_argv = [sys.executable, *argv]
    for name in [each for each in sys.modules if each.partition(".")[0] == "tests"]:
        del sys.modules[name]
    if environ.get("COVERAGE_PROCESS_CONFIG"):
        import coverage

        coverage.process_startup()
    sys.modules["__main__"] = main = types.ModuleType("__main__")
    vars(main).update(__builtins__=__builtins__)
    status = 0
    try:
        if argv[0] == "-m":
            sys.argv, sys.path[0] = ["-m", *argv[2:]], os.getcwd()
            runpy._run_module_as_main(argv[1])  # Python itself begins with it
        elif argv[0] == "-c":
            sys.argv, sys.path[0] = ["-c", *argv[2:]], ""
            exec(compile(argv[1], "<string>", "exec"), vars(main))
        else:
            path = os.path.abspath(argv[0])
            sys.argv, sys.path[0] = argv, os.path.dirname(path)
            vars(main).update(__file__=path)
            with open(path, "rb") as file:
                exec(compile(file.read(), path, "exec"), vars(main))
    except SystemExit as ended:
        if not isinstance(ended.code, int | None):
            raise
        status = ended.code or 0
    leave(status)


def leave(status: int) -> None:
    """End as a Python does, but take nothing apart: most of a child's processor time would go into that.

    Each module and each object would be written to, and so each page of the server's memory copied.
    """
    threading._shutdown()  # as multiprocessing ends its forks
    atexit._run_exitfuncs()
    vars(sys.modules["__main__"]).clear()
    gc.collect()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        sys.exit(status)  # Python's own end says what is lost
    os._exit(status & 0xFF)


class Reactor(types.ModuleType):
    """Stands for the reactor in modules that name it as they are imported, as Klein does. Each child makes its own."""

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self.__name__), name)


def load(modules: list[str]) -> None:
    """Import them, and no reactor."""
    sys.modules[REACTOR] = Reactor(REACTOR)
    for module in modules:
        import_module(module)
    del sys.modules[REACTOR]


def listen_to_signals() -> None:
    """Ignore no signal that a Python by itself listens to. A shell has what it runs in the background ignore some.

    Twisted does the same for the processes that it starts.
    """
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


if __name__ == "__main__":
    listen_to_signals()
    load(sys.argv[2:])
    gc.collect()
    gc.freeze()  # also in the children, for which each page that the collector touches would be copied
    if request := serve(socket.socket(fileno=int(sys.argv[1]))):
        become(**request)
