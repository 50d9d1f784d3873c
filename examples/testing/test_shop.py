"""Services that run, in memory. Run it with `trial test_shop`."""

from txservices.events import EventDispatcher, event_handler
from txservices.rpc import rpc
from txservices.testing import TestCase
from txservices.testing.services import entrypoint_hook, entrypoint_waiter, replace_dependencies
from txservices.web.handlers import http


class Shop:
    name = "shop"
    dispatch = EventDispatcher()

    @rpc
    async def sell(self, item):
        await self.dispatch("sold", item)
        return "sold"

    @http("GET", "/items/<int:item>")
    def show(self, request, item):
        return f"item {item}"


class Stock:
    name = "stock"

    @event_handler("shop", "sold")
    def sold(self, item):
        return f"one {item} less"


class ShopTests(TestCase):
    async def test_call_and_event(self):
        _, stock = await self.start(Shop, Stock)
        cluster = await self.cluster()
        async with entrypoint_waiter(stock, "sold") as waited:
            self.assertEqual(await cluster.shop.sell(7), "sold")
        self.assertEqual(waited.get(), "one 7 less")

    async def test_event_alone(self):
        [stock] = await self.start(Stock)
        async with entrypoint_waiter(stock, "sold"):
            await self.dispatch("shop", "sold", 7)

    async def test_what_is_dispatched(self):
        await self.start(Shop)
        events = await self.tap("shop.events")
        cluster = await self.cluster()
        await cluster.shop.sell(7)
        [message] = await events.wait()
        self.assertEqual(message.body, b"7")

    async def test_with_a_double(self):
        container = self.container(Shop)
        dispatch = replace_dependencies(container, "dispatch")
        await container.start()
        with entrypoint_hook(container, "sell") as sell:
            await sell(7)
        dispatch.assert_called_once_with("sold", 7)

    async def test_http(self):
        await self.start(Shop)
        response = await self.web_session().get("/items/7")
        self.assertEqual(await response.text(), "item 7")
