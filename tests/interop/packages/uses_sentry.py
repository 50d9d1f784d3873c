"""Errors go to Sentry, by nameko-sentry. A second service is Sentry."""

import json
import queue
import zlib

from nameko.rpc import rpc
from nameko.web.handlers import http
from nameko_sentry import SentryReporter

reports = queue.Queue()


class OutOfStock(Exception):
    pass


class UsesSentry:
    name = "uses_sentry"

    sentry = SentryReporter()

    @rpc(expected_exceptions=OutOfStock)
    def sell(self, thing):
        if thing == "tin":
            raise OutOfStock(thing)
        raise ValueError(thing)

    @rpc
    def tell(self, text):
        self.sentry.captureMessage(text)

    @http("GET", "/broken")
    def broken(self, request):
        raise KeyError("broken")


class Sentry:
    name = "sentry"

    @http("POST", "/api/1/store/")
    def store(self, request):
        reports.put(json.loads(zlib.decompress(request.get_data())))
        return "{}"

    @rpc
    def take(self):
        return reports.get(timeout=60)
