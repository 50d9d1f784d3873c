"""Observers of one's own: numbers for StatsD by UDP, and errors for a service that collects them, such as Sentry."""

import json
import socket
from urllib.request import Request, urlopen

from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from txservices import Observer

log = Logger()


class StatsD(Observer):
    """Counts and times workers and calls. A packet that can't be sent is dropped."""

    def __init__(self, config):
        host, port = config.get("STATSD", "127.0.0.1:8125").split(":")
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.connect((host, int(port)))

    def worker_ended(self, worker, outcome, waited, seconds, error):
        name = f"workers.{worker.service_name}.{worker.entrypoint.method_name}"
        self.send(f"{name}.{outcome}:1|c\n{name}:{seconds * 1000:.0f}|ms")

    def call_ended(self, call, outcome, seconds, error):
        self.send(f"calls.{call.service}.{outcome}:1|c\ncalls.{call.service}:{seconds * 1000:.0f}|ms")

    def send(self, text):
        try:
            self.socket.send(text.encode())
        except OSError:  # nobody listens there
            pass

    def stop(self):
        self.socket.close()


class Errors(Observer):
    """Sends each error of a worker, but not those of its callers, as JSON to an address."""

    def worker_ended(self, worker, outcome, waited, seconds, error):
        if outcome == "error":
            what = {"error": repr(error), "call_id": worker.call_id, "calls": worker.call_id_stack}
            deferToThread(self.send, json.dumps(what).encode()).addErrback(self.not_sent)

    def send(self, body):
        urlopen(Request(self.config["ERRORS_TO"], body, {"Content-Type": "application/json"}), timeout=5).close()

    def not_sent(self, failure):
        log.warn("an error was not sent: {error}", error=failure.value)
