"""txservices with nothing but its defaults: `@rpc`, `@event_handler`, `@http`, run by `txservices run`, everything on.

The caller is the standalone `ClusterRpcProxy`, events come from the standalone `event_dispatcher`. With a URI of
`embedded` the service's process is the broker too, and the caller joins it over TCP.
"""

from __future__ import annotations

import json
import os
import sys
from itertools import cycle
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react

from benchmarks.peers import contract
from txservices.events import event_handler
from txservices.observers import observers
from txservices.rpc import RpcProxy, rpc
from txservices.standalone.events import event_dispatcher
from txservices.standalone.rpc import ClusterRpcProxy
from txservices.utils import import_from_path
from txservices.web.handlers import http
from txservices.web.static import Static

handled = contract.Handled()
JSON = {"Content-Type": "application/json"}
METRICS = "txservices.monitoring.metrics.Metrics"
SAMPLED = 0.1  # of the traces
MODULE = "benchmarks.peers.txservices_peer"
EMBEDDED = "embedded"
CONFIG = os.path.join(os.path.dirname(__file__), "txservices.yaml")


class Echo:
    name = contract.NAME

    @rpc
    def echo(self, text: str) -> str:
        return text


class Listener:
    name = "listener"

    @event_handler(contract.NAME, "tick")
    def tick(self, payload: int) -> None:
        handled(payload)


class Web:
    name = "web"
    assets = Static("/assets", contract.assets())

    @http("GET", "/items/<int:number>")
    def get(self, request: Any, number: int) -> Any:
        return 200, JSON, json.dumps({"id": number, "name": "item"})

    @http("POST", "/items")
    def post(self, request: Any) -> Any:
        text = json.loads(request.get_data(as_text=True))["text"]
        return 200, JSON, json.dumps({"length": len(text)})

    @http("POST", "/upload", stream=True)
    async def upload(self, request: Any) -> Any:
        length = 0
        async for piece in request.stream:
            length += len(piece)
        return {"length": length}

    @http("GET", "/download/<int:pieces>")
    async def download(self, request: Any, pieces: int) -> Any:
        for _ in range(pieces):
            yield contract.PIECE


class Relay:
    name = "relay"
    benchmark = RpcProxy(contract.NAME)

    @http("GET", "/call/<int:number>")
    async def call(self, request: Any, number: int) -> Any:
        text = await self.benchmark.echo(contract.TEXT)
        return 200, JSON, json.dumps({"id": number, "text": text})


SERVICES = {"rpc": Echo, "events": Listener, "http": Web, "http-rpc": Relay}


def serve(options: Any) -> None:
    """Become `txservices run`; its line `running:` stands for the line `ready` of the others."""
    os.environ |= {
        "BENCHMARK_PORT": str(options.port),
        "BENCHMARK_METHODS": str(options.methods),
        "BENCHMARK_SERVICES": str(options.services),
        "BENCHMARK_OBSERVED": options.observed or "",
    }
    services = [f"{MODULE}:{SERVICES[options.work].__name__}"]
    if options.methods > 1 or options.services > 1:
        services = ["benchmarks.peers.many"]
    txservices = os.path.join(os.path.dirname(sys.executable), "txservices")
    broker = [] if options.uri == EMBEDDED else ["--broker", options.uri]
    observed = [f"--define={key}={json.dumps(value)}" for key, value in observers_of(options.observed).items()]
    reactor = os.environ.get("BENCHMARK_REACTOR")
    on = ["--reactor", reactor] if reactor else []
    os.execv(txservices, [txservices, "run", "--config", CONFIG, *broker, *observed, *on, *services])


async def call(options: Any) -> None:
    uri = f"amqp://guest:guest@127.0.0.1:{options.port}/" if options.uri == EMBEDDED else options.uri
    if options.work == "events":
        async with event_dispatcher({"AMQP_URI": uri}) as dispatch:
            one = lambda payload: dispatch(contract.NAME, "tick", payload)  # noqa: E731
            await contract.dispatched(one, options.amount, options.in_flight, gather)
        return
    config = {"AMQP_URI": uri, "RPC_PERSISTENT": not options.transient, **observers_of(options.observed)}
    if options.observed:
        trace_some(options.observed)
        observers.add(import_from_path(METRICS)(config))
    async with ClusterRpcProxy(config) as cluster:
        text = "x" * options.size
        methods = proxies(cluster, options.services, options.methods)
        following = cycle(methods)
        one = (lambda: methods[0](text)) if len(methods) == 1 else (lambda: next(following)(text))
        await contract.timed(one, options.amount, options.in_flight, gather)


def observers_of(observed: str | None) -> dict[str, Any]:
    """The keys of the configuration that switch metrics on, and traces."""
    return {"OBSERVERS": [METRICS], "TRACES": observed == "traces"} if observed else {}


def trace_some(observed: str) -> None:
    """Have one trace in ten recorded, and thrown away in batches: what sends them on is not ours."""
    if observed != "traces":
        return
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    class Nowhere(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(SAMPLED)))
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    trace.set_tracer_provider(provider)


def proxies(cluster: Any, services: int, methods: int) -> list[Any]:
    if services == methods == 1:
        return [cluster[contract.NAME].echo]
    names = [(f"many_{service}", f"method_{method}") for service in range(services) for method in range(methods)]
    return [getattr(cluster[service], method) for service, method in names]


def gather(*coroutines: Any) -> Deferred[Any]:
    return gatherResults([Deferred.fromCoroutine(each) for each in coroutines], consumeErrors=True)


trace_some(os.environ.get("BENCHMARK_OBSERVED", ""))  # in the service, which imports this before it starts

if __name__ == "__main__":
    options = contract.arguments()
    if options.action == "serve":
        serve(options)
    react(lambda _: Deferred.fromCoroutine(call(options)))
