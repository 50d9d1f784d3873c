"""Log lines in JSON, by nameko-structlog."""

import json
import logging
import queue

from nameko.rpc import rpc
from nameko_structlog import StructlogDependency

lines = queue.Queue()


class Kept(logging.Handler):
    def emit(self, record):
        lines.put(json.loads(record.getMessage()))


class UsesStructlog:
    name = "uses_structlog"

    log = StructlogDependency()

    @rpc
    def order(self, thing):
        log = self.log.bind(thing=thing)
        log.info("ordered")
        return lines.get(timeout=60)
