"""Services and a suite that were written for nameko: the same files under the real nameko and under ``--nameko``."""

from __future__ import annotations

import re
import sys

from tests import processes
from tests.interop import nameko_env
from tests.interop.fixtures import InteropCase
from tests.migration.test_as_it_is import FOLDER, OURS

ALONE = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": processes.ROOT}


class AsItIs(InteropCase):
    """Both on RabbitMQ."""

    timeout = 240

    async def outcomes(self, python: str, *options: str, **environ: str) -> dict[str, str]:
        """How each test of the suite has ended, by its name."""
        argv = [python, "-W", "ignore", "-m", "pytest", "-v", "-p", "no:cacheprovider", *options]
        suite = processes.start(self, argv, cwd=FOLDER, **environ)
        await suite.exit(deadline=200)
        found = dict(re.findall(r"^test_shop\.py::(.+?) ([A-Z]+)\b", suite.stdout, re.MULTILINE))
        self.assertEqual(set(found.values()), {"PASSED"}, suite.stdout + suite.stderr)
        return found

    async def test_suite(self) -> None:
        """Each of its tests passes under both."""
        uri = self.config["AMQP_URI"]
        theirs = await self.outcomes(nameko_env.python(self.version), AMQP_URI=uri)
        ours = await self.outcomes(sys.executable, *OURS, AMQP_URI=uri, **ALONE)
        self.assertEqual(ours, theirs)
        self.assertGreater(len(ours), 20)
