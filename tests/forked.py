"""Processes that need not start: children of a Python that has imported the package. See tests/forkserver.py.

A start of Python with the package takes half a second of the processor, and a fork some hundredths. A child runs the
same script, and is like a process of its own: tests/test_forked.py compares the two. But the modules of the package are
loaded already, and what they hold at its end just goes. So a test that looks at what is loaded, or at what Python says
as it takes things apart, starts a real process, with ``processes.start``.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
from functools import cache
from subprocess import PIPE

from twisted.internet import reactor
from twisted.internet.error import ProcessTerminated
from twisted.internet.process import ProcessReader, ProcessWriter
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from tests import forkserver

# Modules that the processes of tests import.
IMPORTED = [
    "encodings.idna",
    "pytest",
    "twisted.internet.default",
    "twisted.protocols.haproxy",
    "twisted.scripts.twistd",
    "txservices.command.cli",
    "txservices.command.whereabouts",
    "txservices.httpclient",
    "txservices.monitoring.metrics",
    "txservices.page.cluster",
    "txservices.standalone.events",
    "txservices.standalone.rpc",
    "txservices.testing.services",
    "txservices.timer",
    "txservices.web.handlers",
    *(["coverage"] if os.environ.get("COVERAGE_PROCESS_CONFIG") else []),
]
STATUS = 3  # the number of its pipe, beside those of stdin, stdout and stderr


class Server:
    """That Python. It ends when this process does."""

    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair()
        number = theirs.fileno()
        argv = [sys.executable, "-m", forkserver.__name__, str(number), *IMPORTED]
        environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        # pipes, since Python makes its stdin, stdout and stderr for what it finds there as it starts
        self.python = subprocess.Popen(
            argv,
            cwd=os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
            env={**environ, "PYTHONUNBUFFERED": "1", "COVERAGE_PROCESS_CONFIG": "", "COVERAGE_PROCESS_START": ""},
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            pass_fds=[number],
        )
        theirs.close()
        atexit.register(self.close)

    def close(self) -> None:
        self.socket.close()
        with self.python:  # which waits for its end
            pass

    def fork(self, argv: list[str], cwd: str, environ: dict[str, str], files: list[int], status: int) -> int:
        """The pid of a child that runs ``argv``, a script for Python. The status comes from that pipe later."""
        request = json.dumps({"argv": argv, "cwd": cwd, "environ": environ}).encode() + b"\n"
        sent = socket.send_fds(self.socket, [request], files)
        self.socket.sendall(request[sent:])
        for file in files:
            os.close(file)
        told = b""
        while not told.endswith(b"\n"):  # and no further: a child that has ended by now has its status behind that
            read = os.read(status, 1)
            if not read:
                raise AssertionError(f"{' '.join(self.python.args)} has ended: {self.python.communicate()}")
            told += read
        return int(told)


@cache
def server() -> Server:
    return Server()


class Child:
    """The transport of a child, as ``spawnProcess`` gives one: as much of it as tests use.

    ``argv`` is a console script and its arguments, or a Python and those.
    """

    def __init__(self, protocol: ProcessProtocol, argv: list[str], cwd: str, environ: dict[str, str]) -> None:
        self.protocol = protocol
        self.status = b""
        (stdin, typed), *read = (os.pipe() for _ in range(4))
        readers = {number: reader for number, (reader, _) in enumerate(read, 1)}
        files = [stdin, *(writer for _, writer in read)]
        if argv[0] == sys.executable:
            argv = argv[1:]
        self.pid = server().fork(argv, os.path.abspath(cwd), environ, files, readers[STATUS])
        self.stdin = ProcessWriter(reactor, self, 0, typed)
        for number, file in readers.items():
            ProcessReader(reactor, self, number, file)
        self.open = {0: typed, **readers}

    def write(self, data: bytes) -> None:
        self.stdin.write(data)

    def closeStdin(self) -> None:
        self.stdin.loseConnection()

    def signalProcess(self, name: str) -> None:
        os.kill(self.pid, signal.Signals[f"SIG{name}"])

    def childDataReceived(self, number: int, data: bytes) -> None:
        if number == STATUS:
            self.status += data
        else:
            self.protocol.childDataReceived(number, data)

    def childConnectionLost(self, number: int, reason: Failure) -> None:
        os.close(self.open.pop(number))
        if not self.open:
            code = os.waitstatus_to_exitcode(int(self.status))
            ended = ProcessTerminated(code) if code >= 0 else ProcessTerminated(signal=-code)
            self.protocol.processEnded(Failure(ended))
