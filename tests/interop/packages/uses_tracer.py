"""A log of every worker, by nameko-tracer, with the HTTP ones by an adapter of their own."""

import json
import logging
import queue

from nameko.rpc import rpc
from nameko.web.handlers import http
from nameko_tracer import Tracer
from nameko_tracer.formatters import JSONFormatter

traces = queue.Queue()


class Kept(logging.Handler):
    def __init__(self):
        super().__init__()
        self.setFormatter(JSONFormatter())

    def emit(self, record):
        traces.put(json.loads(self.format(record)))


class UsesTracer:
    name = "uses_tracer"

    tracer = Tracer()

    @rpc(sensitive_arguments=["password"], expected_exceptions=ValueError)
    def login(self, user, password):
        if not user:
            raise ValueError("no user")
        return {"user": user}

    @http("POST", "/traced/<int:number>")
    def traced(self, request, number):
        return 201, f"made {number}"


class Traces:
    name = "traces"

    @rpc
    def take(self, count):
        return [traces.get(timeout=60) for _ in range(count)]
