"""The ids by which one call is found in all logs: its own, and that of the first call, which led to it.

``this_worker`` is the worker in whose context a line is logged. Nothing is noted for each message: a line takes the ids
from there when it is written. Code that logs about a worker from elsewhere does so ``on_behalf_of`` it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar

from txservices.extensions import WorkerContext
from txservices.utils.printable import in_one_line
from txservices.utils.secrets import hide

ORIGIN_MAX = 255  # characters of an origin's id that are shown: it may be a stranger's
UNKNOWN = "?"  # written for an origin that is not a text

T = TypeVar("T")

# each gives further fields for the log lines of a worker, as traces do
further_ids: list[Callable[[WorkerContext], Mapping[str, str]]] = []
this_worker: ContextVar[WorkerContext | None] = ContextVar("this_worker", default=None)


def on_behalf_of(worker: WorkerContext | None, call: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    """Call that as if the worker did: lines that are logged meanwhile bear its ids."""
    context = copy_context()
    context.run(this_worker.set, worker)
    return context.run(call, *args, **kwargs)


def origin_of(worker: WorkerContext) -> str:
    """The id of the first call that led to this worker, as far back as calls are tracked; its own if it is the first.

    It has come with a message, and is made fit for the log here: not every output of the log does that.
    """
    origin = worker.origin_call_id
    if origin is None:
        return worker.call_id
    return hide(in_one_line(origin[:ORIGIN_MAX])) if isinstance(origin, str) else UNKNOWN


def ids_of(worker: WorkerContext) -> str:
    """Both ids of a worker, for a line of text: ``ID from ORIGIN``, or ``ID`` alone if that is the first call."""
    call_id, origin = worker.call_id, origin_of(worker)
    return call_id if origin == call_id else f"{call_id} from {origin}"
