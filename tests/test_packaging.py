"""The package as it is delivered: a wheel, in an environment of its own, gives twistd its `txservices`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests import processes

NOT_COPIED = shutil.ignore_patterns(".*", "build", "_trial_temp*", "__pycache__", "dropin.cache")
# what hatchling imports, as far as it is there: tomli is before Python 3.11
BACKEND = ("hatchling", "packaging", "pathspec", "pluggy", "tomli", "tomlkit", "trove_classifiers")
PATIENCE = 200  # seconds: pip fetches a score of packages


class Packaging(TestCase):
    """One environment, and the package in it in three ways."""

    timeout = 300

    async def run_ok(self, *argv: str, **environ: str) -> str:
        """The output of `argv`, which must end with 0."""
        # where nothing compiled is kept, as in many containers, each of the processes would compile a score of packages
        kept = {"PYTHONDONTWRITEBYTECODE": "", **environ}
        done = processes.start(self, list(argv), self.folder, **processes.UNMEASURED, **kept)
        status = await done.exit(PATIENCE)
        self.assertEqual(status, 0, str(done))
        return done.stdout

    async def test_wheel_checkout_and_editable(self) -> None:
        """twistd lists and explains `txservices` from a wheel, a checkout, and an editable install."""
        self.folder = os.path.abspath(self.mktemp())
        os.makedirs(self.folder)
        source = os.path.join(self.folder, "source")
        shutil.copytree(processes.ROOT, source, ignore=NOT_COPIED)
        # hatchling is here: `make` has installed the checkout with one that pip fetched by pyproject.toml
        await self.run_ok(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", self.folder, source)
        [wheel] = [name for name in os.listdir(self.folder) if name.endswith(".whl")]
        self.check_contents(os.path.join(self.folder, wheel))

        # The pip of these tests serves the other environment as well, and compiles nothing that is not imported there.
        await self.run_ok(sys.executable, "-m", "venv", "--without-pip", "empty")
        python, twistd = (os.path.join(self.folder, "empty", "bin", name) for name in ("python", "twistd"))
        pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "--quiet"]
        await self.run_ok(*pip, "install", "--no-compile", wheel)
        await self.explained(twistd)
        help_text = await self.run_ok(os.path.join(self.folder, "empty", "bin", "txservices"), "--help")
        self.assertIn("show-config", help_text)

        await self.run_ok(*pip, "uninstall", "--yes", "txservices")
        self.assertNotIn("txservices", await self.run_ok(twistd, "--help"))
        await self.explained(twistd, PYTHONPATH=source)

        install = [*pip, "install", "--no-deps", "--no-build-isolation", "--editable", source]
        await self.run_ok(*install, PYTHONPATH=self.backend())
        await self.explained(twistd)

    def backend(self) -> str:
        """A folder with what builds the package, and nothing else of these tests' environment."""
        folder = os.path.join(self.folder, "backend")
        os.makedirs(folder)
        for name in BACKEND:
            if spec := find_spec(name):
                os.symlink(os.path.dirname(str(spec.origin)), os.path.join(folder, name))
        return folder

    async def explained(self, twistd: str, **environ: str) -> None:
        self.assertRegex(await self.run_ok(twistd, "--help", **environ), r"txservices +Run service classes")
        self.assertIn("--module", await self.run_ok(twistd, "txservices", "--help", **environ))

    def check_contents(self, wheel: str) -> None:
        """The plugin, the types' mark, the page's files, and no package that is not ours."""
        names = zipfile.ZipFile(wheel).namelist()
        self.assertIn("twisted/plugins/txservices_plugin.py", names)
        self.assertIn("txservices/py.typed", names)
        assets = os.path.join(processes.ROOT, "txservices", "page", "assets")
        self.assertLessEqual({f"txservices/page/assets/{name}" for name in os.listdir(assets)}, set(names))
        self.assertNotIn("twisted/__init__.py", names)
        self.assertNotIn("twisted/plugins/__init__.py", names)
        rooms = {name.split("/")[0] for name in names if ".dist-info/" not in name}
        self.assertEqual(rooms, {"txservices", "twisted"})


class Bounds(SynchronousTestCase):
    """The versions that the package allows."""

    def test_oldest(self) -> None:
        """`make oldest` takes the lower bound of each dependency, and of each one of an extra."""
        folder = Path(self.mktemp())
        folder.mkdir()
        for name in ("Makefile", "pyproject.toml"):
            shutil.copy(Path(processes.ROOT, name), folder)
        subprocess.run(["make", "--silent", "-C", folder, "build/oldest.txt"], check=True)
        pins = (folder / "build/oldest.txt").read_text().split()
        text = re.sub("#.*", "", (folder / "pyproject.toml").read_text())
        text = text.partition("\ndependencies = [")[2].partition("\n[project.scripts]")[0]
        found = [each for each in re.findall(r'"(.+?)"', text) if not each.startswith("txservices[")]
        self.assertIn("h11==0.16", pins)
        self.assertLessEqual({re.sub(r"\[.*\]", "", each).replace(">=", "==") for each in found}, set(pins))
