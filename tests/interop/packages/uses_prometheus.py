"""Metrics at ``/metrics``, by nameko-prometheus."""

from nameko.events import EventDispatcher, event_handler
from nameko.rpc import rpc
from nameko.web.handlers import http
from nameko_prometheus import PrometheusMetrics
from prometheus_client import Counter

sold = Counter("things_sold", "Things that were sold")


class UsesPrometheus:
    name = "uses_prometheus"

    metrics = PrometheusMetrics()
    dispatch = EventDispatcher()

    @rpc
    def sell(self, count):
        sold.inc(count)
        self.dispatch("sold", count)

    @event_handler("uses_prometheus", "sold")
    def note(self, count):
        pass

    @http("GET", "/missing/<thing>")
    def missing(self, request, thing):
        return 404, f"no {thing}"

    @http("GET", "/metrics")
    def expose(self, request):
        return self.metrics.expose_metrics(request)
