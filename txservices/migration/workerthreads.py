"""The threads of workers, and what packages that watch services read of them.

That is nameko's own: a container's ``_worker_pool`` is a ``WorkerPool``, and its ``_worker_threads`` has a
``WorkerThread`` for each worker that runs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextvars import Context, copy_context
from types import FrameType
from typing import Any

from twisted.internet.defer import Deferred

from txservices.migration.green import timeout as green_timeout
from txservices.threads import OneThread, Threads
from txservices.utils import default_reactor
from txservices.workers import Workers


class WorkerThread(OneThread):
    """The thread of one worker: its method and its foreign hooks are called there."""

    def __init__(self, threads: Threads) -> None:
        super().__init__()
        self.threads = threads
        self.context: Context | None = None
        self.ended = False

    def call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Deferred[Any]:
        """``run``, with the context variables of the first call. The thread begins with that."""
        if self.context is None:
            self.context = copy_context()
            default_reactor().getThreadPool().callInThread(self.serve)
        return self.run(self.context.run, (self.threads.in_thread, function, args, kwargs), {})

    def serve(self) -> None:
        green_timeout.forget()
        super().serve()

    def end(self) -> None:
        self.ended = True
        if self.context is not None:
            super().end()

    @property
    def gr_frame(self) -> FrameType | None:
        """What it runs now, as a greenlet says it; None if it doesn't run."""
        return None if self.ended or self.ident is None else sys._current_frames().get(self.ident)


class WorkerPool:
    """A container's workers, as eventlet's pool counts them."""

    def __init__(self, workers: Workers) -> None:
        self.workers = workers

    @property
    def size(self) -> int:
        """How many may run at a time."""
        return self.workers.max_workers

    def running(self) -> int:
        """How many run."""
        return self.workers.running

    def free(self) -> int:
        """How many more may run now."""
        return max(self.size - self.workers.running, 0)

    def waiting(self) -> int:
        """How many wait for their turn."""
        return self.workers.waiting
