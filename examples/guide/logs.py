"""A service that logs, by Twisted's logger and by the standard library's: each line has the id of the call."""

import logging

from twisted.logger import Logger

from txservices import rpc
from txservices.log_helpers import make_timing_logger

log = Logger()
logger = logging.getLogger(__name__)
log_time = make_timing_logger(logger, level=logging.INFO)


class Shop:
    name = "shop"

    @rpc
    def sell(self, item):
        with log_time("sold %s", item):
            log.info("packing {item}", item=item)
            logger.warning("out of stock: %s", item)
