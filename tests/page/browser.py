"""A real browser: Chromium, driven over its driver's plain HTTP (W3C WebDriver).

browser = await Browser.start(self)
await browser.open("http://127.0.0.1:8008/")
await browser.until("document.querySelectorAll('table tr').length > 3")
"""

from __future__ import annotations

import os
import shutil
import time
from base64 import b64decode
from typing import Any

import treq
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests import processes

ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",  # it refuses to run as root with one
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
)
PATIENCE = 60.0  # seconds for the browser to come up, and for each of its answers
LOOK_EVERY = 0.05  # seconds between two looks at a condition


def missing() -> str | None:
    """Why there is no browser; None if there is one, and where a skipped test counts as failed, as in CI."""
    if "TXSERVICES_NO_SKIPS" in os.environ or all(map(shutil.which, ("chromium", "chromedriver"))):
        return None
    return "no Chromium with its driver: apt-get install chromium chromium-driver"


class Browser:
    """One window. It ends with the test that it was started for."""

    def __init__(self, base: str) -> None:
        self.base = base

    @classmethod
    async def start(cls, test: TestCase) -> Browser:
        folder = os.path.abspath(test.mktemp())
        os.makedirs(folder)
        driver = processes.start(test, ["chromedriver", "--port=0"], cwd=folder)
        port = (await driver.line(r"started successfully on port (\d+)", PATIENCE))[1]
        browser = cls(f"http://127.0.0.1:{port}")
        options = {"binary": shutil.which("chromium"), "args": list(ARGUMENTS)}
        asked = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        made = await browser.send("POST", "/session", capabilities={"alwaysMatch": asked})
        browser.base += f"/session/{made['sessionId']}"
        test.addCleanup(browser.end)
        return browser

    async def end(self) -> None:
        await self.send("DELETE", "")

    async def send(self, verb: str, path: str, **body: Any) -> Any:
        """One command of WebDriver, and the value of its answer."""
        options: dict[str, Any] = {} if verb in ("GET", "DELETE") else {"json": body}
        response = await treq.request(verb, self.base + path, persistent=False, timeout=PATIENCE, **options)
        value = (await response.json())["value"]
        if response.code != 200:
            raise AssertionError(f"{path}: {value['error']}: {value['message']}")
        return value

    async def open(self, url: str) -> None:
        await self.send("POST", "/url", url=url)

    async def run(self, script: str, *arguments: Any) -> Any:
        """Run a function's body in the page, and give what it returns."""
        return await self.send("POST", "/execute/sync", script=script, args=list(arguments))

    async def value(self, expression: str) -> Any:
        return await self.run(f"return {expression}")

    async def until(self, expression: str, patience: float = PATIENCE) -> float:
        """Wait until an expression is true in the page, and give how many seconds that took."""
        begun = time.monotonic()
        while not await self.value(expression):
            if time.monotonic() - begun > patience:
                text = await self.value("document.body.innerText")
                raise AssertionError(f"not within {patience} s: {expression}\n{text}\n{await self.console()}")
            await deferLater(reactor, LOOK_EVERY)
        return time.monotonic() - begun

    async def text(self, selector: str = "body") -> str:
        """What a person reads there."""
        read: str = await self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector)
        return read

    async def click(self, selector: str) -> None:
        await self.run("document.querySelector(arguments[0]).click()", selector)

    async def console(self) -> list[str]:
        """The errors and warnings in the browser's console since the last look."""
        lines = await self.send("POST", "/se/log", type="browser")
        return [line["message"] for line in lines if line["level"] in ("SEVERE", "WARNING")]

    async def tell(self, command: str, **parameters: Any) -> Any:
        """A command of Chromium's own."""
        return await self.send("POST", "/goog/cdp/execute", cmd=command, params=parameters)

    async def look(self, width: int, height: int, dark: bool = False) -> None:
        """Have a screen of that size, with dark or light colours preferred."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        await self.tell("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.tell("Emulation.setEmulatedMedia", features=[scheme])

    async def picture(self) -> bytes:
        """What is on the screen, as PNG."""
        return b64decode(await self.send("GET", "/screenshot"))
