"""pytest's option ``--nameko``, beside plugins of packages for nameko."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from tests import processes

FILES = {
    "eventlet/__init__.py": "",  # as if it were installed
    "package.py": "from nameko.extensions import DependencyProvider\n",
    "early.py": "import eventlet\n",
    "test_it.py": """
import package
from txservices.extensions import DependencyProvider

def test_it():
    assert package.DependencyProvider is DependencyProvider
""",
}
OURS = ("txservices.testing.plugin", "txservices.migration.plugin")


class Plugins(TestCase):
    """Which import nameko."""

    async def run_pytest(
        self, *plugins: str, option: tuple[str, ...] = (), ini: str = "", **environ: str
    ) -> tuple[int, str]:
        folder = os.path.abspath(self.mktemp())
        os.makedirs(os.path.join(folder, "eventlet"))
        for name, text in {**FILES, "pytest.ini": f"[pytest]\n{ini}\n"}.items():
            with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                file.write(text)
        named = [part for plugin in plugins for part in ("-p", plugin)]
        process = processes.pytest(self, *named, *option, cwd=folder, **environ)
        return await process.exit(), process.stdout + process.stderr

    async def test_later(self) -> None:
        """One that is loaded after ours imports ours, however the option was given."""
        given: tuple[dict[str, Any], ...] = (
            {"option": ("--nameko",)},
            {"ini": "nameko = true"},
            {"ini": "addopts = --nameko"},
            {"PYTEST_ADDOPTS": "--nameko"},
        )
        runs = [Deferred.fromCoroutine(self.run_pytest(*OURS, "package", **each)) for each in given]
        for status, printed in await gatherResults(runs):
            self.assertEqual(status, 0, printed)

    async def test_earlier(self) -> None:
        """After one that has imported eventlet nothing runs, and pytest says what to write."""
        status, printed = await self.run_pytest("early", *OURS, option=("--nameko",))
        self.assertEqual(status, 4, printed)
        self.assertIn("pytest -p txservices_nameko --nameko", printed)
        self.assertNotIn("Traceback", printed)
