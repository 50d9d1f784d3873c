"""A service that logs, by Twisted's logger and by the standard library's: each line has the id of the call."""

import logging

from twisted.logger import Logger

from txservices import DependencyProvider, rpc
from txservices.log_helpers import make_timing_logger

log = Logger()
logger = logging.getLogger(__name__)
log_time = make_timing_logger(logger, level=logging.INFO)


class Trace(DependencyProvider):
    """Logs each call when it begins, with the id of the call from which all began."""

    def worker_setup(self, worker_ctx):
        log.info("called; it began with {origin}", origin=worker_ctx.origin_call_id)


class Shop:
    name = "shop"

    trace = Trace()

    @rpc
    def sell(self, item):
        with log_time("sold %s", item):
            log.info("packing {item}", item=item)
            logger.warning("out of stock: %s", item)
