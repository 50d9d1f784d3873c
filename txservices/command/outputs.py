"""stdout and stderr of a process that runs on without them: closed, full, a pipe that nobody reads, or ASCII only."""

from __future__ import annotations

import io
import os
import sys
from typing import Any


class Output:
    """A file that may refuse to be written to. A line that it does not take is lost, and nothing else happens."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def write(self, text: str) -> None:
        """Write, and flush."""
        try:
            self.file.write(text)
            self.file.flush()
        except (OSError, ValueError, AttributeError):  # it is broken or full; closed here; None, as Python has it then
            pass

    flush = staticmethod(lambda: None)  # Twisted's observers call it

    def line(self, text: str) -> None:
        """Write a line."""
        self.write(f"{text}\n")


class Lossy(io.RawIOBase):
    """A file in the place of stdout or stderr. Text that it does not take is lost, and whoever prints does not fail."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def write(self, data: Any) -> int:
        try:
            return self.file.write(data) or 0
        except OSError:
            return len(data)

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return bool(self.file.isatty())

    def fileno(self) -> int:
        return int(self.file.fileno())


def lose_what_fails() -> None:
    """Have what methods print be lost if stdout or stderr does not take it: their callers would get the error."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        binary = getattr(stream, "buffer", None)  # a test's own has none, and a closed one is None
        if binary is not None:
            lossy = io.BufferedWriter(Lossy(getattr(binary, "raw", binary)))
            setattr(sys, name, io.TextIOWrapper(lossy, stream.encoding, "backslashreplace", line_buffering=True))


def take_any_text() -> None:
    """Have stdout and stderr escape characters that their encoding lacks, where Python would raise an error."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # a test's own has none, and a closed one is None
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def let_go() -> None:
    """Keep the end of the process from failing if stdout or stderr does not take what is still to be written."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        except AttributeError:
            pass  # closed from the beginning
