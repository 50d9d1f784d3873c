"""nameko 2.14.1, as its documentation sets it up: `@rpc`, `@event_handler`, `@http`, ServiceRunner, max_workers 10.

The caller is its standalone `ClusterRpcProxy`; several calls in flight are its `call_async`, the oldest result waited
for first. Events come from the standalone `event_dispatcher`, from as many green threads as are to be in flight, since
each dispatch waits for its confirm; that is the fastest way that it has. Nothing is logged, `nameko run` would.
"""

from __future__ import annotations

import eventlet

eventlet.monkey_patch()

import json  # noqa: E402
import time  # noqa: E402
from collections import deque  # noqa: E402

from nameko.events import event_handler  # noqa: E402
from nameko.rpc import RpcProxy, rpc  # noqa: E402
from nameko.runners import ServiceRunner  # noqa: E402
from nameko.standalone.events import event_dispatcher  # noqa: E402
from nameko.standalone.rpc import ClusterRpcProxy  # noqa: E402
from nameko.web.handlers import http  # noqa: E402

from benchmarks.peers import contract  # noqa: E402

handled = contract.Handled()


class Echo:
    name = contract.NAME

    @rpc
    def echo(self, text):
        return text


class Listener:
    name = "listener"

    @event_handler(contract.NAME, "tick")
    def tick(self, payload):
        handled(payload)


class Web:
    name = "web"

    @http("GET", "/items/<int:number>")
    def get(self, request, number):
        return 200, {"Content-Type": "application/json"}, json.dumps({"id": number, "name": "item"})

    @http("POST", "/items")
    def post(self, request):
        text = json.loads(request.get_data(as_text=True))["text"]
        return 200, {"Content-Type": "application/json"}, json.dumps({"length": len(text)})


class Relay:
    name = "relay"
    benchmark = RpcProxy(contract.NAME)

    @http("GET", "/call/<int:number>")
    def call(self, request, number):
        text = self.benchmark.echo(contract.TEXT)
        return 200, {"Content-Type": "application/json"}, json.dumps({"id": number, "text": text})


SERVICES = {"rpc": Echo, "events": Listener, "http": Web, "http-rpc": Relay}


def serve(options):
    config = {"AMQP_URI": options.uri, "WEB_SERVER_ADDRESS": f"127.0.0.1:{options.port}"}
    runner = ServiceRunner(config)
    runner.add_service(SERVICES[options.work])
    runner.start()
    contract.ready()
    runner.wait()


def call_rpc(options):
    with ClusterRpcProxy({"AMQP_URI": options.uri}) as cluster:
        proxy, text = cluster[contract.NAME], "x" * options.size
        warm_until = time.perf_counter() + contract.WARM_UP
        while time.perf_counter() < warm_until:
            proxy.echo(text)
        waiting, times, clock = deque(), contract.Times(), time.perf_counter
        for _ in options.amount():
            if len(waiting) == options.in_flight:
                began, reply = waiting.popleft()
                reply.result()
                times.took.append(clock() - began)
            waiting.append((clock(), proxy.echo.call_async(text)))
        for began, reply in waiting:
            reply.result()
            times.took.append(clock() - began)
        times.figures()


def call_events(options):
    dispatch = event_dispatcher({"AMQP_URI": options.uri})
    count = contract.Dispatched()

    def one():
        count.sent += 1
        dispatch(contract.NAME, "tick", 0)

    warm_until = time.perf_counter() + contract.WARM_UP
    while time.perf_counter() < warm_until:
        one()
    count.begin()
    turns = options.amount()

    def one_after_another():
        for _ in turns:
            one()

    pool = eventlet.GreenPool(options.in_flight)
    for _ in range(options.in_flight):
        pool.spawn_n(one_after_another)
    pool.waitall()
    count.sent += 1
    dispatch(contract.NAME, "tick", count.sent)
    count.figures()


if __name__ == "__main__":
    options = contract.arguments()
    {"serve": serve, "call": {"rpc": call_rpc, "events": call_events}.get(options.work)}[options.action](options)
