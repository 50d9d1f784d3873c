"""A service of nameko's in two ways: as it was, in threads, and with `await`."""

from txservices.events import EventDispatcher, event_handler
from txservices.rpc import RpcProxy, rpc


class Prices:
    name = "prices"
    blocking = True  # all that is new, besides the imports

    rates = RpcProxy("rates")
    dispatch = EventDispatcher()

    @rpc
    def in_euro(self, amount, currency):
        rate = self.rates.of(currency)
        price = round(amount * rate, 2)
        self.dispatch("asked", {"currency": currency})
        return price


class PricesWithAwait:
    name = "prices_with_await"

    rates = RpcProxy("rates")
    dispatch = EventDispatcher()

    @rpc
    async def in_euro(self, amount, currency):
        rate = await self.rates.of(currency)
        price = round(amount * rate, 2)
        await self.dispatch("asked", {"currency": currency})
        return price


class Rates:
    name = "rates"

    @rpc
    def of(self, currency):  # it calls nothing and does not block: it stays as it was
        return {"usd": 0.92, "gbp": 1.17}[currency]

    @event_handler("prices", "asked")
    def asked(self, payload):
        print("somebody asked for", payload["currency"])
