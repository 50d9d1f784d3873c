"""nameko's ``log_helpers``: logs how long something takes, with the standard library's logging."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from time import perf_counter

__all__ = ["make_timing_logger"]


def make_timing_logger(
    logger: logging.Logger, precision: int = 3, level: int = logging.DEBUG
) -> Callable[..., AbstractContextManager[None]]:
    """Make ``log_time``: ``with log_time("sold %s", item):`` logs the message and the seconds that the block took.

    It logs if the block raises, too, and the block may ``await``.
    """

    @contextmanager
    def log_time(message: str, *args: object) -> Iterator[None]:
        began = perf_counter()
        try:
            yield
        finally:
            logger.log(level, f"{message} in %.{precision}fs", *args, perf_counter() - began)

    return log_time
