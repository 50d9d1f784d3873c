"""Programs that are no services and have no reactor: nameko's standalone client and our blocking one, with one text."""

from __future__ import annotations

import json
import sys
from typing import Any

from tests import processes
from tests.interop import nameko_env
from tests.interop.fixtures import InteropCase
from tests.interop.fleet import SIDES

SERVICES = [f"answers_{side}" for side in SIDES]


class Programs(InteropCase):
    """The same program with nameko's import and with ours, against nameko's service and ours."""

    async def run_program(self, framework: str) -> dict[str, Any]:
        told = {"framework": framework, "config": self.config, "services": SERVICES}
        python = nameko_env.python(self.version) if framework == "nameko" else sys.executable
        argv = [python, "-W", "ignore", "-m", "tests.interop.program", json.dumps(told)]
        printed = await processes.succeed(processes.start(self, argv, PYTHONPATH=processes.ROOT))
        seen: dict[str, Any] = json.loads(printed)
        return seen

    async def test_blocking_client(self) -> None:
        """It makes no difference who calls: results, errors, replies had late, and calls in threads are the same."""
        heard = await self.witness()
        await self.start_ours("Answers", "Listener")
        theirs = await self.run_program("nameko")
        ours = await self.run_program("txservices")
        self.assertEqual(theirs, ours)
        self.assertEqual(ours["answers_n"], ours["answers_t"])
        self.assertEqual(ours["answers_n"][0], {"result": [[1, "ü", None], {"key": [1.5]}]})
        self.assertEqual(ours["nobody"]["error"], "UnknownService")
        told = await heard.wait(8)  # the events of two tellers from two programs, to two listeners
        self.assertEqual(
            sorted((who, what, data) for who, what, data, _ in told),
            sorted(
                (f"listener_{side}", "wild", framework) for side in SIDES for framework in ("nameko", "txservices") * 2
            ),
        )


class ProgramsWithNameko3(Programs):
    """The same with 3.0.0rc11."""

    version = nameko_env.NAMEKO_3
