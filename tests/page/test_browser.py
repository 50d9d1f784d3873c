"""The page in a real browser: services in processes under load, of which one is killed and one fails.

With PAGE_PICTURES=FOLDER it also writes the pictures of the guide, as `make pictures` does.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests import processes
from tests.page.browser import Browser, missing
from tests.page.fleets import failure, three_hundred
from tests.page.shop import SCRIPT
from tests.rabbitmq import free_port
from tests.turns import slowness
from txservices.page.picture import EDGES_SHOWN, Picture
from txservices.page.server import Page
from txservices.page.watch import EVERY

HERE = os.path.dirname(os.path.abspath(__file__))
SHOWN_WITHIN = 3.0  # seconds in which the page shows what has happened, on a machine that is quick enough
# Draws calls and events between three services, and gives which numbers of theirs are on top of each other.
OVERLAPPING = """
const narrow = NARROW;
const { graph } = await import("/graph.js");
const { patch } = await import("/dom.js");
const numbers = { rate: 5, p99: 0.148, error_rate: 1, count: 9, methods: [], up: 1, instances: [{ status: "up" }] };
const services = ["orders", "stock", "billing"].map((name) => ({ name, ...numbers }));
const pairs = [["stock", "event"], ["stock", "rpc"], ["billing", "rpc"]];
const edges = pairs.map(([to, kind]) => ({ from: "orders", to, kind, ...numbers }));
const place = document.body.appendChild(document.createElement("div"));
patch(place, [graph(services, edges, narrow).picture]);
const drawn = place.querySelector("svg").getBoundingClientRect();
const texts = [...place.querySelectorAll(".edge text")].map((each) => [each.textContent, each.getBoundingClientRect()]);
place.remove();
const apart = (a, b) => a.right <= b.left || b.right <= a.left || a.bottom <= b.top + 4 || b.bottom <= a.top + 4;
const inside = (a) => a.left >= drawn.left && a.right <= drawn.right && a.top >= drawn.top && a.bottom <= drawn.bottom;
const over = ([, at], i) => texts.slice(0, i).filter(([, other]) => !apart(at, other));
const found = texts.flatMap((each, i) => over(each, i).map(([other]) => [each[0], other]));
return [texts.length, found, texts.filter(([, at]) => !inside(at)).map(([what]) => what)];
"""
ROWS = "[...document.querySelectorAll('.services tbody tr')]"


def row(service: str) -> str:
    """What a person reads in the row of a service, as an expression of the page."""
    return f"({ROWS}.find((row) => row.innerText.startsWith({json.dumps(service)}))?.innerText ?? '')"


class InBrowser(TestCase):
    """A cluster on an embedded broker, its page, and a browser that looks at it."""

    timeout = 300
    skip = missing()

    async def begin(self) -> None:
        config = processes.config_file(self)
        broker = processes.txservices(self, "broker", "--config", config)
        await broker.line("broker:")
        self.services = {
            name: processes.txservices(self, "run", f"shop:{name.title()}", "--config", config, cwd=HERE)
            for name in ("billing", "stock", "orders")
        }
        for process in self.services.values():
            await process.line("^running:")
        page = processes.txservices(self, "page", "--port", str(free_port()), "--config", config)
        self.address = (await page.line(r"^page: (\S+)$"))[1]
        self.browser = await Browser.start(self)

    async def now(self) -> tuple[float, int]:
        """The time, and the number of the state that the page shows."""
        return time.monotonic(), await self.browser.value("Number(document.documentElement.dataset.number ?? 0)")

    async def shown(self, what: str, since: tuple[float, int], condition: str) -> None:
        """Wait until the page shows something, and see that it did so in time.

        A slow machine has as many times longer as the page's states came further apart than they should.
        """
        await self.browser.until(condition)
        seconds, number = await self.now()
        took, states = seconds - since[0], number - since[1]
        slow = max(1.0, took / max(states, 1) / EVERY)
        print(f"the page shows {what} after {took:.1f} s, {states} states")
        self.assertLessEqual(took, SHOWN_WITHIN * slow * slowness() + EVERY, what)

    async def picture(self, name: str, width: int = 1440, height: int = 900, dark: bool = False) -> None:
        folder = os.environ.get("PAGE_PICTURES")
        if folder:
            await self.browser.look(width, height, dark)
            await deferLater(reactor, 1.5)
            with open(os.path.join(folder, f"page-{name}.png"), "wb") as file:
                file.write(await self.browser.picture())
            await self.browser.look(1440, 900)

    async def go(self, place: str) -> None:
        await self.browser.run("location.hash = arguments[0]", f"#/{place}")

    async def test_everything(self) -> None:
        """What happens is shown live, a script in an error as text, and the console has no error."""
        await self.begin()
        browser = self.browser
        await browser.look(1440, 900)
        await browser.open(self.address)
        await browser.until("document.querySelectorAll('.services tbody tr').length === 3")
        await browser.until(f"/^\\s*stock\\s*up\\s/.test({row('stock')})")
        self.assertEqual(await browser.value("location.hash"), "#/", "the token stays in the address bar")
        await browser.until("document.querySelectorAll('.edge text').length >= 2")
        if "PAGE_PICTURES" in os.environ:
            await deferLater(reactor, 40)  # so that the lines of the last minute are there

        await self.call_from_the_page()
        await self.go("")
        await self.shown("that stock fails", self.failing_since, f"{row('stock')}.includes('failing')")
        await browser.until("document.querySelector('.failures')?.innerText.includes('<script>')")
        await self.picture("overview")
        await self.picture("dark", dark=True)
        await self.picture("narrow", 400, 1400)
        await self.a_failure()
        await self.go("")
        killed = await self.now()
        self.services["billing"].signal("KILL")
        await self.shown("that billing was killed", killed, f"/no answer|gone/.test({row('billing')})")
        await browser.until(f"{row('billing')}.includes('gone')")
        self.assertIn("billing is gone", await browser.text(".attention"))
        for width in (400, 1600):
            await browser.look(width, 900)
            self.assertEqual(await browser.value("document.documentElement.scrollWidth"), width)
        await browser.look(1440, 900)

        await self.parked()
        self.assertEqual(await browser.value("window.broken ?? null"), None)
        self.assertEqual(await browser.value("document.querySelectorAll('main script, main img').length"), 0)
        self.assertEqual(await browser.console(), [])
        await self.reading_only()

    async def call_from_the_page(self) -> None:
        """Call a method as a person does: two clicks, and arguments that are typed."""
        browser = self.browser
        await self.go("service/stock")
        button = "[...document.querySelectorAll('.methods > li')].find((e) => e.innerText.includes('fail('))"
        await browser.until(f"{button}?.querySelector('button')")
        await browser.run(f"{button}.querySelector('button').click()")
        await browser.until("document.querySelector('form.call textarea')")
        form = "document.querySelector('form.call')"
        await browser.run(f"{form}.elements.arguments.value = '[1'; {form}.requestSubmit()")
        await browser.until("document.querySelector('form.call .notice')?.innerText.includes('no arguments in JSON')")
        typed = json.dumps([SCRIPT])
        self.failing_since = await self.now()
        await browser.run(f"{form}.elements.arguments.value = arguments[0]; {form}.requestSubmit()", typed)
        await browser.until("document.querySelector('.answer pre')")
        self.assertEqual(json.loads(await browser.text(".answer pre")), SCRIPT)
        await self.picture("service")

    async def a_failure(self) -> None:
        """The failure of a call, with the calls above it."""
        browser = self.browser
        await self.go("failures")
        await browser.until("document.querySelector('.failures a')")
        await browser.click(".failures a")
        await browser.until("document.querySelector('.tree .meant')")
        tree = await browser.text(".tree")
        self.assertRegex(tree, r"(?s)orders\.customers.*stock\.reserve.*LookupError")
        self.assertIn(SCRIPT, tree)
        self.assertIn("LookupError", await browser.text(".trace"))
        await self.picture("failure", 1440, 760)

    async def parked(self) -> None:
        """Parked messages are shown with their reason, and discarded after a second click."""
        browser = self.browser
        queue = "evt-orders-placed--stock.placed.parked"
        path = await self.dispatched()
        self.assertEqual(path.status, 0, str(path))
        await self.go(f"parked/{queue}")
        await browser.until("document.querySelector('.title').innerText.includes('2 messages now')")
        await browser.run("[...document.querySelectorAll('.actions button')].at(-1).click()")
        await browser.until("document.querySelectorAll('.parked li').length === 2")
        self.assertIn(SCRIPT, await browser.text(".parked"))
        await self.picture("parked", 1440, 620)
        await browser.click(".parked input")
        await browser.until("document.querySelector('.actions').innerText.includes('Replay 1 message')")
        discard = "[...document.querySelectorAll('.actions button')].find((b) => /^(Discard|Delete)/.test(b.innerText))"
        await browser.until(f"!{discard}.disabled")  # another look may still be under way
        await browser.run(f"{discard}.click()")
        await browser.until(f"{discard}.innerText === 'Delete 1 message for good'")
        await browser.run(f"{discard}.click()")
        await browser.until("document.querySelector('.notice.good')?.innerText.includes('Discarded 1 message.')")
        await browser.until("document.querySelectorAll('.parked li').length === 1")
        await browser.run("document.querySelector('.actions button').click()")  # it fails again, and is parked again
        await browser.until("document.querySelector('.notice.good')?.innerText.includes('Replayed 1 message.')")

    async def dispatched(self) -> Any:
        """Two events that no handler can handle."""
        config = self.services["stock"].argv[self.services["stock"].argv.index("--config") + 1]
        payload = json.dumps({"items": ["piano"]})
        for _ in range(2):
            process = processes.txservices(self, "dispatch", "orders", "placed", payload, "--config", config)
            await process.exit()
        return process

    async def reading_only(self) -> None:
        """Without the token, and with an old one, the page is read, nothing can be done, and it says why."""
        browser, base = self.browser, self.address.partition("#")[0]
        await browser.run("sessionStorage.clear()")
        for address in (base, f"{base}#token=wrong"):
            await browser.open("about:blank")
            await browser.open(address)
            await browser.until("document.querySelectorAll('.services tbody tr').length === 3")
            self.assertIn("reading only", await browser.text("header"))
            await self.go("service/stock")
            await browser.until("document.querySelector('.methods')")
            self.assertEqual(await browser.value("document.querySelectorAll('.methods button').length"), 0)


class ManyInBrowser(TestCase):
    """The page of a fleet that there is not."""

    timeout = 300
    skip = missing()

    async def test_three_hundred(self) -> None:
        """Of three hundred processes all services are shown, and what is left out is said; the console has no error.

        Numbers of calls and of events between the same services stand side by side. Failures of one kind are one there.
        """
        picture = Picture()
        answers = three_hundred()
        stack = [f"service_00.find.{number}" for number in range(2)]
        failures = [failure(number, *stack, f"service_01.find.x{number}") for number in range(300)]
        answers[0]["failures"], answers[1]["failures"], answers[2]["failures"] = (failures[n::3] for n in range(3))
        picture.add(answers, time.time())
        broker = {"address": "nowhere", "away": ""}
        queues = {"queues": [], "more_queues": 0, "parked": [], "queues_problem": "", "queues_by_management": False}

        async def state() -> dict[str, Any]:
            return {"at": time.time(), "asked": 0.0, "broker": broker, **picture.state(), **queues}

        page = Page({}, state, picture.failure, {}, reactor)
        self.addCleanup(page.stop)
        page.listen("127.0.0.1", 0)
        browser = await Browser.start(self)
        await browser.look(1440, 900)
        await browser.open(page.address)
        await browser.until("document.querySelectorAll('.services tbody tr').length === 30")
        await browser.until("document.querySelectorAll('.edge').length > 100")
        self.assertIn(f"{30 * 29 - EDGES_SHOWN} more lines between services", await browser.text("section .cut"))
        self.assertEqual(await browser.value("document.querySelectorAll('.failures li').length"), 1)
        self.assertRegex(await browser.text(".failures li"), r"and \d+ more like it$")
        await browser.run("location.hash = arguments[0]", "#/failures")
        await browser.until("document.querySelectorAll('.failures li').length > 1")
        await browser.click(".failures a")
        await browser.until("document.querySelector('.tree .meant')")
        self.assertRegex(await browser.text(".tree + .cut"), r"^and \d+ more calls$")
        for narrow in (False, True):
            script = OVERLAPPING.replace("NARROW", str(narrow).lower())
            self.assertEqual(await browser.run(f"return (async () => {{{script}}})()"), [6, [], []])
        self.assertEqual(await browser.console(), [])
