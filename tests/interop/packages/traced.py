"""opentelemetry-instrumentation-nameko: a span for each worker, event and message, with the trace of its caller.

And that for nameko-grpc. Calls by RPC are not among the spans: the package asks nameko 3's own classes for those.
It is about all services of its process, so this one runs apart.
"""

import threading

import requests
from nameko import config
from nameko.events import EventDispatcher, event_handler
from nameko.messaging import Publisher
from nameko.rpc import rpc
from nameko.web.handlers import http
from nameko_grpc_opentelemetry import NamekoGrpcInstrumentor
from nameko_opentelemetry import active_tracer, entrypoints, events, messaging
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

changed = threading.Condition()


class Exporter(InMemorySpanExporter):
    def export(self, spans):
        with changed:
            exported = super().export(spans)
            changed.notify_all()
        return exported

    def named(self, names):
        """All spans, once there are some of each of these names."""
        with changed:
            changed.wait_for(lambda: {*names} <= {each.name for each in self.get_finished_spans()})
        return self.get_finished_spans()


exporter = Exporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
PLAIN = "nameko_opentelemetry.entrypoints.EntrypointAdapter"  # the others want nameko 3's consumers
ADAPTERS = {f"nameko.{name}": PLAIN for name in ("rpc.Rpc", "events.EventHandler", "messaging.Consumer")}
ADAPTERS["nameko_grpc.entrypoint.Grpc"] = "nameko_grpc_opentelemetry.GrpcEntrypointAdapter"
for each in (entrypoints, events, messaging):
    each.instrument(active_tracer(), {"entrypoint_adapters": ADAPTERS, "send_response_payloads": True})
NamekoGrpcInstrumentor().instrument()


class Traced:
    name = "traced"

    dispatch = EventDispatcher()
    publish = Publisher()

    @rpc
    def sell(self, number):
        self.dispatch("sold", number)
        return {"sold": number}

    @event_handler("traced", "sold")
    def heard(self, number):
        self.publish(number, routing_key="nowhere")

    @http("GET", "/traced")
    def get(self, request):
        return 202, "traced"

    @rpc
    def fail(self):
        raise KeyError("nobody")

    @rpc
    def request(self):
        return requests.get(f"http://{config['WEB_SERVER_ADDRESS']}/traced").status_code

    @rpc
    def spans(self, names):
        """Each span's name, its parent's, its kind and its status, once there are some of each of these names."""
        found = exporter.named(names)
        known = {each.context.span_id: each.name for each in found}
        return [
            [each.name, each.parent and known.get(each.parent.span_id), each.kind.name, each.status.status_code.name]
            for each in found
        ]
