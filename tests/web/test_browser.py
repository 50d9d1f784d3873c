"""Server-sent events and WebSockets in a real browser, which connects again when their service comes back."""

from __future__ import annotations

import os
from typing import Any

from twisted.trial.unittest import TestCase

from tests import processes
from tests.page.browser import Browser, missing
from tests.processes import EXAMPLES

GUIDE = os.path.join(EXAMPLES, "guide")


class InBrowser(TestCase):
    """The pages of the guide."""

    timeout = 300
    skip = missing()

    async def begin(self, module: str) -> tuple[Any, Browser]:
        self.config = processes.config_file(self)
        address = processes.read_config(self.config)["WEB_SERVER_ADDRESS"]
        service = await self.run_service(module)
        browser = await Browser.start(self)
        await browser.open(f"http://{address}/")
        return service, browser

    async def run_service(self, module: str) -> Any:
        service = processes.txservices(self, "run", "--config", self.config, module, cwd=GUIDE)
        await service.line("^running:")
        return service

    async def test_events(self) -> None:
        """A page shows how far the job is; after a stop in the middle it goes on where it was, and ends."""
        service, browser = await self.begin("streaming")
        await browser.until("document.getElementById('bar').value === 10")
        await browser.until("source.readyState === EventSource.CLOSED")
        await browser.run(
            """
            window.opened = 0;
            window.last = [];
            window.slow = new EventSource("/progress?again");
            slow.onopen = () => opened++;
            slow.onmessage = ({ data, lastEventId }) => last.push([data, lastEventId]);
            """
        )
        await browser.until("last.length >= 10")
        self.assertEqual(await browser.run("return last"), [[str(step)] * 2 for step in range(1, 11)])
        await processes.stopped(service)
        await browser.until("slow.readyState === EventSource.CONNECTING")
        opened = await browser.run("return opened")
        await self.run_service("streaming")
        await browser.until(f"opened > {opened}")
        self.assertEqual(await browser.run("return last.length"), 10)  # it has them, and said so

    async def test_websocket(self) -> None:
        """A page's WebSocket is closed with 1001 when the service stops, and the page connects again."""
        service, browser = await self.begin("chat")
        await browser.run(
            """
            window.codes = [];
            window.again = () => {
              window.ours = new WebSocket(`ws://${location.host}/ws`);
              ours.onclose = ({ code }) => { codes.push(code); setTimeout(again, 100); };
            };
            again();
            """
        )
        await browser.until("ours.readyState === WebSocket.OPEN")
        await processes.stopped(service)
        await browser.until("codes.length > 0")
        self.assertEqual(await browser.run("return codes[0]"), 1001)
        await self.run_service("chat")
        await browser.until("ours.readyState === WebSocket.OPEN")
