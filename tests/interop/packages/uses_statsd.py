"""Numbers for statsd, by nameko-statsd."""

from nameko.rpc import rpc
from nameko_statsd import StatsD


class UsesStatsd:
    name = "uses_statsd"

    statsd = StatsD("metrics")

    @rpc
    def sell(self, count):
        self.statsd.incr("sold", count)

    @rpc
    @statsd.timer("delivery")
    def deliver(self):
        return "delivered"
