"""The peers' virtual environment, and the versions and the machine that the results name."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent
VENV = FOLDER / ".venv"
REQUIREMENTS = FOLDER / "requirements.txt"

PEERS = ["nameko", "eventlet", "kombu", "aio-pika", "uvloop", "faststream", "fastapi", "uvicorn", "httptools"]
OURS = ["txservices", "twisted", "txamqp", "klein", "werkzeug", "msgspec"]
VERSIONS_OF = "import json, sys; from importlib.metadata import version; print(json.dumps({n: version(n) for n in %r}))"


def peers_python() -> str:
    """The interpreter that has the peers. Its environment is made first if it is missing or its list has changed."""
    python, stamp = VENV / "bin" / "python", VENV / "installed"
    wanted = REQUIREMENTS.read_text()
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"installing the peers in {VENV.relative_to(ROOT)}", flush=True)
        venv.create(VENV, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", str(REQUIREMENTS)], check=True)
        stamp.write_text(wanted)
    return str(python)


def versions(rabbitmq: str, load: str) -> dict[str, str]:
    asked = subprocess.run([peers_python(), "-c", VERSIONS_OF % PEERS], check=True, capture_output=True)
    ours = {name: version(name) for name in OURS}
    return {"python": platform.python_version(), "rabbitmq": rabbitmq, **ours, **json.loads(asked.stdout), "http": load}


def machine() -> str:
    return f"{processor()}, {os.cpu_count()} cores, {memory()} GiB, {platform.system()} {platform.release()}"


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**30


def today() -> str:
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def ours_python() -> str:
    """The interpreter of the checkout that is measured."""
    return measured.python


def ours_folder() -> Path:
    """The checkout that is measured, from which its processes are started."""
    return measured.folder


class Checkout:
    """A checkout of txservices with an environment of its own in `.venv`. By default it is the one that runs this."""

    def __init__(self, folder: Path, python: str = "") -> None:
        self.folder = folder
        self.python = python or str(folder / ".venv" / "bin" / "python")


measured = Checkout(ROOT, sys.executable)


@contextmanager
def checkout(folder: Path) -> Iterator[None]:
    """Measure that checkout inside the block."""
    global measured
    ours, measured = measured, Checkout(folder)
    try:
        yield
    finally:
        measured = ours
