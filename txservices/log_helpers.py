"""How long things take, in a log of the standard library's: nameko's ``log_helpers``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from time import perf_counter


def make_timing_logger(
    logger: logging.Logger, precision: int = 3, level: int = logging.DEBUG
) -> Callable[..., AbstractContextManager[None]]:
    """Gives ``log_time``: ``with log_time("sold %s", item):`` logs the message and the seconds that the block took.

    Also if it raises, and across an ``await`` in it.
    """

    @contextmanager
    def log_time(message: str, *args: object) -> Iterator[None]:
        began = perf_counter()
        try:
            yield
        finally:
            logger.log(level, f"{message} in %.{precision}fs", *args, perf_counter() - began)

    return log_time
