"""A method that runs by a crontab's line, by nameko-cron."""

import queue

from nameko.rpc import rpc
from nameko_cron import ConcurrencyPolicy, cron

ticks = queue.Queue()


class UsesCron:
    name = "uses_cron"

    @cron("* * * * * */1")
    def waits(self):
        ticks.put("waits")

    @cron("* * * * * */1", tz="Europe/Rome", concurrency=ConcurrencyPolicy.SKIP)
    def skips(self):
        ticks.put("skips")

    @rpc
    def take(self):
        return ticks.get(timeout=60)
