"""stdout and stderr of a process that runs on without them: closed, full, a pipe that nobody reads, or ASCII only."""

from __future__ import annotations

import os
import sys
from typing import Any


class Output:
    """A file to which lines are written as far as it takes them. What it does not take is lost, and nothing else."""

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


def take_any_text() -> None:
    """Have stdout and stderr write what their encoding lacks as escapes, where Python would raise an error."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # a test's own has none, and a closed one is None
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def let_go() -> None:
    """Have the end of the process not fail by what stdout or stderr still has to write and does not take."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        except AttributeError:
            pass  # closed from the beginning
