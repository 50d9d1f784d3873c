"""In a real browser: CORS as Chromium enforces it, its cache, its decoding of compressed files, and its cookies."""

from __future__ import annotations

import os
from typing import Any

from twisted.trial.unittest import TestCase

from tests.observing import Observer, observers
from tests.page.browser import Browser, missing
from txservices.runners import run_services
from txservices.web.cors import Cors
from txservices.web.handlers import http
from txservices.web.sessions import Sessions
from txservices.web.static import Static

SCRIPT = "window.loaded = (window.loaded ?? 0) + 1; // " + "x" * 5000
PAGE = '<!doctype html><link rel="icon" href="data:,"><script src="/assets/app.js"></script>'
FETCH = """
const [url, options] = arguments;
return fetch(url, options).then(
    async (response) => [response.status, await response.text(), response.headers.get("X-Secret")],
    (error) => [error.name, "", null],
);
"""
CONFIG: dict[str, Any] = {
    "WEB_SERVER_ADDRESS": "0",
    "WEB_COMPRESS_FROM": 100,
    "WEB_SESSION_SECRET": "a secret of the tests",
}


def shop(folder: str) -> type[Any]:
    class Shop:
        name = "shop"
        assets = Static("/assets", folder)
        session = Sessions()

        @http("GET", "/")
        def page(self, request):
            return 200, {"Content-Type": "text/html"}, PAGE

        @http("GET", "/tagged", conditional=True)
        def tagged(self, request):
            return "y" * 1000

        @http("GET", "/count")
        def count(self, request):
            self.session["count"] = self.session.get("count", 0) + 1
            return str(self.session["count"])

    return Shop


def api(origin: str) -> type[Any]:
    class Api:
        name = "api"
        allowed = Cors([origin], credentials=True, expose="X-Secret")

        @http("GET, PUT", "/items", cors=allowed)
        def items(self, request):
            return 200, {"X-Secret": "exposed"}, {"body": request.get_data(as_text=True), "method": request.method}

        @http("GET", "/missing", cors=allowed)
        def missing(self, request):
            return 404, "not there"

        @http("GET", "/all", cors=Cors("*"))
        def all(self, request):
            return 200, {"X-Secret": "hidden"}, "for all"

        @http("GET, PUT", "/others", cors=Cors("https://another.example"))
        def others(self, request):
            Api.others_ran += request.method == "PUT"
            return "not for this page"

        @http("GET", "/never")
        def never(self, request):
            return "for no page"

        others_ran = 0

    return Api


class InBrowser(TestCase):
    """Two origins, and a page of one of them."""

    timeout = 300
    skip = missing()

    async def test_everything(self) -> None:
        """A page reads what it may and nothing else; what has not changed is not sent again; sessions are kept."""
        told: list[tuple[str, Any, int]] = []

        class Noting(Observer):
            def request_ended(self, method, route, status, seconds, scheme):
                told.append((method, route, status))

        noting = Noting({})
        observers.add(noting)
        self.addCleanup(observers.remove, noting)
        folder = self.mktemp()
        os.makedirs(folder)
        with open(os.path.join(folder, "app.js"), "w") as file:
            file.write(SCRIPT)
        async with run_services(CONFIG, shop(folder)) as runner:
            here = f"http://127.0.0.1:{runner.containers[0].entrypoints[0].server.port}"
            service = api(here)
            async with run_services(CONFIG, service) as other:
                there = f"http://127.0.0.1:{other.containers[0].entrypoints[0].server.port}"
                self.browser = await Browser.start(self)
                await self.browser.open(here)
                await self.cors(there)
                self.assertEqual(service.others_ran, 0, "a preflight was refused, and the request sent")
                await self.caching(here, told)
                await self.sessions()

    async def fetch(self, url: str, **options: Any) -> list[Any]:
        answer: list[Any] = await self.browser.run(FETCH, url, options)
        return answer

    async def cors(self, there: str) -> None:
        put = {
            "method": "PUT",
            "body": "[1]",
            "headers": {"Content-Type": "application/json"},
            "credentials": "include",
        }
        self.assertEqual(await self.fetch(f"{there}/items", **put), [200, '{"body":"[1]","method":"PUT"}', "exposed"])
        self.assertEqual((await self.fetch(f"{there}/items"))[0], 200)
        self.assertEqual(await self.fetch(f"{there}/missing"), [404, "not there", None])
        self.assertEqual(await self.fetch(f"{there}/all"), [200, "for all", None])
        refused = ["TypeError", "", None]
        self.assertEqual(await self.fetch(f"{there}/all", credentials="include"), refused)
        self.assertEqual(await self.fetch(f"{there}/others"), refused)
        self.assertEqual(await self.fetch(f"{there}/others", **put), refused)
        self.assertEqual(await self.fetch(f"{there}/never"), refused)
        foreign = {**put, "headers": {"X-Foreign": "1"}}
        self.assertEqual(await self.fetch(f"{there}/items", **foreign), refused)

    async def caching(self, here: str, told: list[tuple[str, Any, int]]) -> None:
        self.assertEqual(await self.browser.value("window.loaded"), 1)
        await self.fetch("/tagged")
        told.clear()
        await self.browser.open(here)
        self.assertEqual(await self.browser.value("window.loaded"), 1)
        self.assertEqual((await self.fetch("/assets/app.js"))[:2], [200, SCRIPT])
        self.assertEqual((await self.fetch("/tagged", cache="no-cache"))[:2], [200, "y" * 1000])
        statuses = [(route, status) for _, route, status in told if route != "/"]
        assets = "/assets<below:path>"
        self.assertEqual(statuses, [(assets, 304), (assets, 304), ("/tagged", 304)])
        part = await self.fetch("/assets/app.js", headers={"Range": "bytes=0-5"}, cache="no-store")
        self.assertEqual(part[:2], [206, SCRIPT[:6]])

    async def sessions(self) -> None:
        counts = [(await self.fetch("/count"))[1] for _ in range(3)]
        self.assertEqual(counts, ["1", "2", "3"])
        self.assertEqual(await self.browser.value("document.cookie"), "", "a script can read it")
