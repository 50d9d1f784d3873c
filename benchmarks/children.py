"""Processes that are measured. They print a line when they are ready, and are ended by their pid."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.environment import ours_folder

TIMEOUT = 60  # seconds that a service may take to be ready, and a caller longer than it was asked to
LOOK_AGAIN = 0.02


class Failed(Exception):
    """A process did not do its work. The text has its complaint."""


class Child:
    """A process that writes to files and not to pipes, so that it never waits for a reader while it is measured."""

    def __init__(self, argv: list[str]) -> None:
        self.argv = argv
        self.folder = tempfile.TemporaryDirectory(prefix="txservices-benchmark-")
        self.output, self.errors = (os.path.join(self.folder.name, name) for name in ("output", "errors"))
        self.read = 0
        environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
        with open(self.output, "wb") as output, open(self.errors, "wb") as errors:
            self.process = subprocess.Popen(
                argv, cwd=ours_folder(), env=environ, stdin=subprocess.DEVNULL, stdout=output, stderr=errors
            )

    def line(self, pattern: str, seconds: float = TIMEOUT) -> str:
        """Wait for a line that begins like this, behind the line that was waited for last."""
        deadline = time.monotonic() + seconds
        while True:
            ended = self.process.poll() is not None
            for line in self.new_lines():
                if re.match(pattern, line):
                    return line
            if ended:
                raise Failed(f"ended without a line {pattern!r}: {self.complaint()}")
            if time.monotonic() > deadline:
                raise Failed(f"no line {pattern!r} after {seconds} s: {self.complaint()}")
            time.sleep(LOOK_AGAIN)

    def new_lines(self) -> Iterator[str]:
        with open(self.output, "rb") as file:
            file.seek(self.read)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self.read += len(line)
                yield line.decode(errors="replace")

    def json(self, seconds: float = TIMEOUT) -> dict[str, Any]:
        return dict(json.loads(self.line(r"\{", seconds)))

    def complaint(self) -> str:
        with open(self.errors, encoding="utf-8", errors="replace") as file:
            return f"{' '.join(self.argv)}\n{file.read()[-3000:]}"

    def resident(self, most: bool = False) -> float:
        """Its memory, in MB: now, or the most that it has had."""
        with open(f"/proc/{self.process.pid}/status", encoding="utf-8") as file:
            kilobytes = next(line.split()[1] for line in file if line.startswith("VmHWM" if most else "VmRSS"))
        return int(kilobytes) / 1000

    def processor(self) -> float:
        """The processor time that it has taken, in seconds."""
        with open(f"/proc/{self.process.pid}/stat", encoding="utf-8") as file:
            fields = file.read().rpartition(")")[2].split()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.folder.cleanup()


@contextmanager
def running(argv: list[str]) -> Iterator[Child]:
    """A process that runs as long as the block."""
    child = Child(argv)
    try:
        yield child
    finally:
        child.end()
