"""Answers of another service that are kept, by nameko-cachetools."""

from nameko.rpc import rpc
from nameko_cachetools import CachedRpcProxy, CacheFirstRpcProxy


class Prices:
    name = "prices"

    asked = 0
    fails = False

    @rpc
    def price(self, thing):
        if Prices.fails:
            raise RuntimeError("no prices today")
        Prices.asked += 1
        return [thing, Prices.asked]

    @rpc
    def fail(self):
        Prices.fails = True


class UsesCachetools:
    name = "uses_cachetools"

    once = CacheFirstRpcProxy("prices")
    sturdy = CachedRpcProxy("prices", failover_timeout=60)

    @rpc
    def first(self, thing):
        return self.once.price(thing)

    @rpc
    def last_known(self, thing):
        return self.sturdy.price(thing)
