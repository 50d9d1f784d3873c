"""Redis tells of its keys, by nameko-rediskn."""

import queue

from nameko.rpc import rpc
from nameko_redis import Redis
from nameko_rediskn import REDIS_PMESSAGE_TYPE, rediskn

events = queue.Queue()
subscribed = queue.Queue()


class UsesRediskn:
    name = "uses_rediskn"

    redis = Redis("watched")

    @rediskn.subscribe(uri_config_key="watched", keys="watched/*", events=["del"])
    def changed(self, message):
        (events if message["type"] == REDIS_PMESSAGE_TYPE else subscribed).put(message)

    @rpc
    def wait_until_subscribed(self):
        return sorted(subscribed.get(timeout=60)["channel"] for _ in range(2))

    @rpc
    def put(self, key):
        self.redis.set(key, "1")

    @rpc
    def drop(self, key):
        self.redis.delete(key)

    @rpc
    def next_event(self):
        event = events.get(timeout=60)
        return [event["channel"], event["data"]]
