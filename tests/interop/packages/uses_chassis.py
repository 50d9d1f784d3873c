"""nameko-chassis: the methods that its base class has, which look into the container.

The libraries that it sends to (Sentry, a collector of spans, RabbitMQ's management) are not there: nothing asks them.
"""

import sys
from unittest.mock import MagicMock

import requests
from nameko import config
from nameko.rpc import RpcProxy, rpc
from nameko.web.handlers import http

for name in (
    "opentelemetry.exporter",
    "opentelemetry.exporter.otlp",
    "opentelemetry.exporter.otlp.proto",
    "opentelemetry.exporter.otlp.proto.http",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "pyrabbit",
    "pyrabbit.api",
    "sentry_sdk",
    "sentry_sdk.integrations",
    "sentry_sdk.integrations.opentelemetry",
    "sentry_sdk.utils",
):
    sys.modules.setdefault(name, MagicMock())

from nameko_chassis import health, service  # noqa: E402


class UsesChassis(service.Service):  # imported by its own name, the class would run as a service, too
    name = "uses_chassis"

    me = RpcProxy("uses_chassis")

    @rpc
    def responsive(self):
        return health.is_service_responsive(self.me)

    @rpc
    def seen(self, number):
        """The answer of another worker that is asked about this one while it runs."""
        state = self.me.query_state()
        (own,) = (each for each in state["worker_states"] if each["method_name"] == "seen")
        stack = "".join(own["stacktrace"])
        return [state["running_workers"], own["args"], "in seen" in stack and "query_state" in stack]

    @http("GET", "/metrics/chassis")  # other services of this process have the base class's URL
    def serve_metrics(self, request):
        return self.metrics.expose_metrics(request)

    @rpc
    def metrics_page(self):
        return requests.get(f"http://{config['WEB_SERVER_ADDRESS']}/metrics/chassis").text
