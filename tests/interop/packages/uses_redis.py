"""A cache, by nameko-redis."""

from nameko.rpc import rpc
from nameko_redis import Redis


class UsesRedis:
    name = "uses_redis"

    cache = Redis("cache")

    @rpc
    def put(self, key, value, seconds=None):
        self.cache.set(key, value, ex=seconds)

    @rpc
    def get(self, key):
        return self.cache.get(key)

    @rpc
    def drop(self, key):
        return self.cache.delete(key)
