"""Small things that belong to no room: ids, deadlines, dotted names, and what must not be shown."""

from __future__ import annotations

import inspect
import itertools
import os
import re
import uuid
from collections.abc import Callable
from copy import deepcopy
from importlib import import_module
from typing import Any, Generic, Protocol, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime

REDACTED = "********"

# Ids --------------------------------------------------------------------------------------------------------


def forget_ids() -> None:
    """Begin anew with a random prefix: after a fork two processes would go on counting from one."""
    global _prefix, _next_number
    _prefix = str(uuid.uuid4())[:24]
    _next_number = itertools.count().__next__


_prefix: str
_next_number: Callable[[], int]
forget_ids()
os.register_at_fork(after_in_child=forget_ids)


def new_id() -> str:
    """An id in the shape of a UUID, unique among all processes: 74 random bits of this one's, and a count.

    One is made for each message, and ``str(uuid4())`` takes ten times as long.
    """
    return "%s%012x" % (_prefix, _next_number())  # noqa: UP031  # an f-string is slower here


# The reactor ------------------------------------------------------------------------------------------------


def default_reactor() -> Any:
    """The process's reactor. Importing it installs it, which is not for a module to do that is only imported."""
    from twisted.internet import reactor

    return reactor


# Deadlines --------------------------------------------------------------------------------------------------

SWEEP_INTERVAL = 0.1  # seconds
SWEEP_RATE = 100_000  # records looked at in a second, at most: with more of them pending the interval grows


class HasDeadline(Protocol):
    """What can be swept: ``deadline`` in seconds of the clock, infinity for none."""

    @property
    def deadline(self) -> float: ...


K = TypeVar("K")
R = TypeVar("R", bound=HasDeadline)


class Sweeper(Generic[K, R]):
    """Takes what is overdue out of a dict of pending records: one delayed call for all of them.

    A ``callLater`` and its cancel for each message cost more than the rest of an RPC's bookkeeping.
    """

    def __init__(
        self,
        clock: IReactorTime,
        pending: dict[K, R],
        expire: Callable[[K, R], None],
        interval: float = SWEEP_INTERVAL,
    ) -> None:
        self.clock = clock
        self.pending = pending
        self.expire = expire
        self.interval = interval
        self.call: IDelayedCall | None = None

    def watch(self) -> None:
        """Sweep from now on, for as long as something is pending. To be called after each addition."""
        if self.call is None:
            delay = max(self.interval, len(self.pending) / SWEEP_RATE)
            self.call = self.clock.callLater(delay, self.sweep)

    def sweep(self) -> None:
        self.call = None
        now = self.clock.seconds()
        pending = self.pending
        overdue = [key for key, record in pending.items() if record.deadline <= now]
        try:
            for key in overdue:
                record = pending.pop(key, None)
                if record is not None:  # else the expiry of one before took it out
                    self.expire(key, record)
        finally:  # also if an expiry raised: the reactor logs that, and the others are due next time
            if pending:
                self.watch()

    def stop(self) -> None:
        """Sweep no more, until the next ``watch``."""
        if self.call is not None:
            self.call.cancel()
            self.call = None


# Dotted names -----------------------------------------------------------------------------------------------


def import_from_path(path: str | None) -> Any:
    """What a dotted path names, ``package.module.thing``; None for None. ``ImportError`` if not there."""
    if path is None:
        return None
    module, _, name = path.rpartition(".")
    if not module:
        raise ImportError(f"{path!r} has no dot in it: write the module, a dot, and the name in it")
    try:
        return getattr(import_module(module), name)
    except AttributeError:
        raise ImportError(f"there is no {name!r} in module {module!r}") from None


# What must not be shown -------------------------------------------------------------------------------------

# A password ends at the last @ of its URI, for one that isn't percent-encoded may have any character in it.
PASSWORD = re.compile(r"(://[^:/@;]*:)(?:(?!;\s*\w+://).)*@", re.DOTALL)
SUBSCRIPT = re.compile(r"\[(\d+)\]|([^.\[\]]+)")


def sanitize_url(url: str) -> str:
    """The URL, or several with ``;`` between them, without passwords: for logs."""
    return PASSWORD.sub(rf"\g<1>{REDACTED}@", url)


def get_redacted_args(entrypoint: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """The arguments of a call by name, those in the entrypoint's ``sensitive_arguments`` as asterisks.

    ``"card"`` hides a whole argument, ``"card.number"`` a key in it, ``"cards[0].number"`` one of an item.
    What is named and isn't there is ignored. The arguments themselves are left as they are.
    """
    method = getattr(entrypoint.container.service_cls, entrypoint.method_name)
    bound = inspect.signature(method).bind(None, *args, **kwargs)
    bound.apply_defaults()
    _, *arguments = bound.arguments.items()  # without self
    redacted = dict(arguments)
    sensitive = entrypoint.sensitive_arguments
    copied: set[str] = set()
    for path in (sensitive,) if isinstance(sensitive, str) else sensitive:
        name, *steps = [int(index) if index else key for index, key in SUBSCRIPT.findall(path)]
        if name not in redacted:
            continue
        if steps and name not in copied:
            try:
                redacted[name] = deepcopy(redacted[name])
            except Exception:  # what can't be copied can't be hidden in part
                steps = []
        copied.add(name)
        redact(redacted, [name, *steps])
    return redacted


def redact(value: Any, steps: list[Any]) -> None:
    *inner, last = steps
    try:
        for step in inner:
            value = value[step]
        value[last]  # only what is there
        value[last] = REDACTED
    except (LookupError, TypeError):
        pass
