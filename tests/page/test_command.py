"""`txservices page` and `run --page`, as they are typed."""

from __future__ import annotations

import json
from typing import Any

import treq
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests import processes
from tests.rabbitmq import free_port

ADDRESS = r"^page: (http://127\.0\.0\.1:\d+)/#token=([\w-]+)$"


class Command(TestCase):
    """Processes, on an embedded broker."""

    timeout = 120

    def setUp(self) -> None:
        self.config = processes.config_file(self)

    def typed(self, *arguments: str) -> processes.Process:
        return processes.txservices(self, *arguments, "--config", self.config, cwd=processes.EXAMPLES)

    async def services_at(self, base: str) -> list[str]:
        """The names that a page shows, once there are any."""
        while True:
            response = await treq.get(f"{base}/state.json", persistent=False, reactor=reactor)
            state: dict[str, Any] = json.loads(await treq.content(response))
            if state["services"]:
                return [each["name"] for each in state["services"]]
            await deferLater(reactor, 0.05)

    async def test_both(self) -> None:
        """Both print an address where the cluster is shown, and end in order; methods are called with the token."""
        run = self.typed("run", "--page", "rpc")
        base, token = (await run.line(ADDRESS)).groups()
        self.assertEqual(await self.services_at(base), ["service_x", "service_y"])
        alone = self.typed("page", "--port", str(free_port()))
        other, _ = (await alone.line(ADDRESS)).groups()
        self.assertEqual(await self.services_at(other), ["service_x", "service_y"])
        call = {"service": "service_x", "method": "remote_method", "arguments": '["hello"]'}
        headers = {"Authorization": f"Bearer {token}"}
        for at, code in ((base, 200), (other, 401)):
            response = await treq.post(f"{at}/call", json=call, headers=headers, persistent=False, reactor=reactor)
            text = (await treq.content(response)).decode()
            self.assertEqual(response.code, code, text)
            if code == 200:
                self.assertEqual(json.loads(text)["result"], '"hello-x-y"')
        taken = self.typed("page", "--port", other.rpartition(":")[2])
        self.assertEqual(await taken.exit(), 2)
        [line] = taken.stderr.splitlines()
        self.assertRegex(
            line, r"^Error: can't listen at 127\.0\.0\.1:\d+: .*in use.*: end the program there, or choose"
        )
        await processes.stopped(alone, run)
        self.assertEqual([line for line in run.stdout.splitlines() if token in line], [f"page: {base}/#token={token}"])

    async def test_mistakes(self) -> None:
        """A mistake is one line, and status 2."""
        for arguments, text in (
            (("--port", "x"), r"Error: --port x: write a port, or host:port"),
            (("--port", "70000"), r"Error: --port 70000: write a port, or host:port"),
            ((), r"Error: no broker on 127\.0\.0\.1:\d+: start one"),
        ):
            process = self.typed("page", *arguments)
            self.assertEqual(await process.exit(), 2, str(process))
            [line] = process.stderr.splitlines()
            self.assertRegex(line, f"^{text}")
