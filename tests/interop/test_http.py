"""HTTP as the real nameko answers it and as we do: the same requests, in one run, and the same answers."""

from __future__ import annotations

import os
import sys

from twisted.trial.unittest import TestCase

from tests import processes
from tests.interop import nameko_env
from tests.test_examples import curl

SOURCE = os.path.join(os.path.dirname(__file__), "web.py")

# nameko says in a debug line that it listens
TOLD = {
    "LOGGING": {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"console": {"class": "logging.StreamHandler"}},
        "root": {"level": "DEBUG", "handlers": ["console"]},
    }
}
REQUESTS = [
    ("GET", "/get/42", ""),
    ("GET", "/get/42?a=1&b=%C3%BC&a=2&c", ""),
    ("HEAD", "/get/42", ""),
    ("GET", "/get/-1", ""),
    ("GET", "/get/x", ""),
    ("POST", "/post", "a=1&b=two+words"),
    ("PUT", "/post", "plain"),
    ("DELETE", "/post", ""),
    ("GET", "/status", ""),
    ("GET", "/headers", ""),
    ("GET", "/response", ""),
    ("GET", "/streamed", ""),
    ("GET", "/seen?x=%20y", ""),
    ("GET", "/slash/", ""),
    ("GET", "/bad", ""),
    ("GET", "/known", ""),
    ("GET", "/nowhere", ""),
    ("GET", "/", ""),
]


class Http(TestCase):
    """One service, run by nameko and by us."""

    timeout = 300

    async def serve(self, framework: str) -> str:
        """Its address, once it listens there."""
        folder = self.mktemp()
        os.mkdir(folder)
        with (
            open(SOURCE, encoding="utf-8") as source,
            open(os.path.join(folder, "web.py"), "w", encoding="utf-8") as out,
        ):
            out.write(source.read().replace("FRAMEWORK", framework))
        config = processes.config_file(self, **(TOLD if framework == "nameko" else {}))
        address = str(processes.read_config(config)["WEB_SERVER_ADDRESS"])
        if framework == "nameko":
            command = [os.path.join(os.path.dirname(nameko_env.python(nameko_env.NAMEKO_2)), "nameko"), "run", "web"]
            begun = "services started"
        else:
            command = [os.path.join(os.path.dirname(sys.executable), "txservices"), "run", "web"]
            begun = "running: web"
        process = processes.start(self, [*command, "--config", config], cwd=folder)
        await process.line(begun)
        return address

    async def test_same_answers(self) -> None:
        """Status line, headers and body of each answer are nameko's, and come in any order of headers."""
        theirs, ours = await self.serve("nameko"), await self.serve("txservices")
        for method, path, body in REQUESTS:
            expected = await self.answer(theirs, method, path, body)
            found = await self.answer(ours, method, path, body)
            self.assertEqual(found, expected, f"{method} {path}")

    async def answer(self, address: str, method: str, path: str, body: str) -> tuple[str, list[str], str]:
        status, headers, content = await curl(address, method, path, body)
        kept = [in_order(each.replace(address, "HERE")) for each in headers]
        return status, kept, content.replace(address, "HERE")


def in_order(header: str) -> str:
    """A header, whose methods nameko has in the order of a set."""
    name, _, value = header.partition(": ")
    return f"Allow: {', '.join(sorted(value.split(', ')))}" if name == "Allow" else header
