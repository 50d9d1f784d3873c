"""Type checkers, over the programs in tests/typing: a user's own checks say what these say."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.processes import ROOT, UNMEASURED

PROGRAMS = os.path.join(ROOT, "tests", "typing")
MYPY = ["-m", "mypy", "--strict", "--no-error-summary", "--config-file", os.devnull]
PYRIGHT = ["-m", "pyright", "--pythonpath", sys.executable]
COMPLAINT = re.compile(r"^.*?(\w+\.py):(\d+)(?::\d+)?:? (?:- )?error", re.MULTILINE)
PATIENCE = 300  # seconds, on a machine with a cold cache that does much else


def complaints(checker: list[str], *programs: str) -> tuple[dict[str, set[int]], str]:
    """The lines of each program that a checker finds wrong, and all that it says."""
    argv = [sys.executable, *checker, *(os.path.join(PROGRAMS, program) for program in programs)]
    environ = {**os.environ, **UNMEASURED}
    done = subprocess.run(argv, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=PATIENCE)
    said = done.stdout + done.stderr
    found = COMPLAINT.findall(said)
    return {program: {int(line) for name, line in found if name == program} for program in programs}, said


def marked(program: str) -> set[int]:
    """The lines marked as wrong."""
    with open(os.path.join(PROGRAMS, program), encoding="utf-8") as file:
        return {number for number, line in enumerate(file, 1) if line.rstrip().endswith("# wrong")}


class Checked(SynchronousTestCase):
    """The complaints of each checker about each program."""

    timeout = PATIENCE

    def check(self, checker: list[str]) -> None:
        found, said = complaints(checker, "service.py", "wrong.py")
        self.assertEqual(found, {"service.py": set(), "wrong.py": marked("wrong.py")}, said)

    def test_mypy(self) -> None:
        """mypy --strict takes the service, and finds each mistake."""
        self.check(MYPY)

    def test_pyright(self) -> None:
        """pyright takes the service, and finds each mistake."""
        self.check(PYRIGHT)
