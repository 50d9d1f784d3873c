"""The real nameko, from PyPI, each version in a virtual environment of its own, made once: ``.nameko-2.14.1/`` in the
checkout's folder. 2.14.1 is there twice, once with a kombu of its own time.

It is run by the Python that runs the tests. 3.10 to 3.13 have been tried, with eventlet 0.41, kombu 5.7 (5.2 in the old
one) and greenlet 3.5. Where it can't be made, for want of a network or because eventlet has come to its end on that
Python, the tests are skipped and say why; with ``TXSERVICES_NO_SKIPS`` they fail.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any
from unittest import SkipTest

from tests.processes import ROOT

NAMEKO_2 = "2.14.1"
NAMEKO_3 = "3.0.0rc11"
OLD_KOMBU = "2.14.1-kombu-5.2"
ENVELOPES = "kombu>=5.4,<6"  # their JSON has envelopes, as ours writes; that of 5.2 and earlier has none
VERSIONS = {
    NAMEKO_2: ("nameko==2.14.1", ENVELOPES),
    NAMEKO_3: ("nameko==3.0.0rc11", ENVELOPES),
    OLD_KOMBU: ("nameko==2.14.1", "kombu>=5.2,<5.3"),
}
REQUIREMENTS = (
    "werkzeug<3",  # from 3.1 on nameko.web.websocket can't be imported
    "eventlet>=0.36",  # the first that imports on Python 3.12
    "setuptools<81",  # nameko's command line asks for pkg_resources
    "pytest>=8",  # for a suite in nameko's style, with its client of WebSockets
    "websocket-client>=1",
)
# kombu 5.2 asks Python for entry points in a way that went with 3.12
AT_START = """
from importlib import metadata

if not hasattr(metadata.EntryPoints, "get"):
    metadata.EntryPoints.get = lambda self, group, default=(): self.select(group=group) or default
"""
WRITE_AT_START = """
import os, sys, sysconfig

# no sitecustomize: Debian's Python has one of its own, before this
for name, text in (("at_start.py", sys.argv[1]), ("at_start.pth", "import at_start\\n")):
    with open(os.path.join(sysconfig.get_path("purelib"), name), "w") as file:
        file.write(text)
"""
MINUTES = 5 * 60  # for pip, 15 seconds on a good line


def once(function: Callable[..., Any]) -> Callable[..., Any]:
    """``functools.cache`` for errors too: what takes a minute to fail is not tried again by the next test."""
    outcomes: dict[tuple[str, ...], Any] = {}

    def cached(*args: str) -> Any:
        if args not in outcomes:
            try:
                outcomes[args] = function(*args)
            except (AssertionError, SkipTest) as error:
                outcomes[args] = error
        if isinstance(outcomes[args], Exception):
            raise outcomes[args]
        return outcomes[args]

    return cached


@once
def python(version: str) -> str:
    """The interpreter that can ``import nameko``. ``SkipTest`` where there is none to be had."""
    return or_skipped(f"nameko {version}", lambda: made(os.path.join(ROOT, f".nameko-{version}"), version))


def or_skipped(what: str, make: Callable[[], str]) -> str:
    """The interpreter that was made. ``SkipTest`` where that can't be, and a failure with ``TXSERVICES_NO_SKIPS``."""
    try:
        return make()
    except (OSError, subprocess.SubprocessError) as error:
        said = str(getattr(error, "output", None) or error)[-2000:]
        reason = f"no {what} for Python {sys.version.split()[0]}, is there a network? {said}"
    if os.environ.get("TXSERVICES_NO_SKIPS"):
        raise AssertionError(reason)
    raise SkipTest(reason)


def made(folder: str, version: str) -> str:
    interpreter = os.path.join(folder, "bin", "python")
    marker = os.path.join(folder, f"installed-with-pytest-{sys.version_info.major}.{sys.version_info.minor}")
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run of the tests may be making it
        if not os.path.exists(marker):
            shutil.rmtree(folder, ignore_errors=True)
            run(sys.executable, "-m", "venv", folder)
            pip = (interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
            run(*pip, *VERSIONS[version], *REQUIREMENTS)
            if version == OLD_KOMBU:
                run(interpreter, "-c", WRITE_AT_START, AT_START)
            run(interpreter, "-W", "ignore", "-c", "import nameko.runners, nameko.standalone.rpc")
            open(marker, "w").close()
    return interpreter


def run(*argv: str) -> None:
    subprocess.run(argv, check=True, timeout=MINUTES, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
