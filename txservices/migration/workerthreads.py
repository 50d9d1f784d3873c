"""The threads of workers, and what packages that watch services read of them.

That is nameko's own: a container's ``_worker_pool`` is a ``WorkerPool``, and its ``_worker_threads`` has a
``WorkerThread`` for each worker that runs.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextvars import Context, copy_context
from queue import SimpleQueue
from types import FrameType
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txservices.migration.green import timeout as green_timeout
from txservices.threads import Threads
from txservices.utils import default_reactor
from txservices.workers import Workers


class WorkerThread:
    """The thread of one worker, which is the same for all that is called for it."""

    ident: int | None = None  # of the thread, once it runs

    def __init__(self, threads: Threads) -> None:
        self.threads = threads
        self.jobs: SimpleQueue[Any] = SimpleQueue()
        self.context: Context | None = None
        self.ended = False

    def call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Deferred[Any]:
        """Call that in the thread. Fires with its result, or fails with its error."""
        if self.context is None:
            self.context = copy_context()
            default_reactor().getThreadPool().callInThread(self.run, self.context)
        called: Deferred[Any] = Deferred()
        self.jobs.put((called, function, args, kwargs))
        return called

    def run(self, context: Context) -> None:
        """The life of the thread."""
        reactor = default_reactor()
        green_timeout.forget()
        self.ident = threading.get_ident()
        while True:
            job = self.jobs.get()
            if job is None:
                return
            called, function, args, kwargs = job
            try:
                result = context.run(self.threads.in_thread, function, args, kwargs)
            except BaseException:
                result = Failure()
            reactor.callFromThread(called.callback, result)

    def end(self) -> None:
        """Let the thread go, once it has done what it was given."""
        self.ended = True
        if self.context is not None:
            self.jobs.put(None)

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
