"""Small things that belong to no room: the reactor and its clock, dotted names, and arguments that are not shown."""

from __future__ import annotations

import inspect
import re
import time
from contextvars import copy_context
from functools import partial
from importlib import import_module
from typing import Any

from twisted.python import runtime

from txservices.utils.secrets import REDACTED, sanitize_url

__all__ = ["default_reactor", "get_redacted_args", "import_from_path", "sanitize_url"]

# The reactor ------------------------------------------------------------------------------------------------


def default_reactor(clock: Any = None) -> Any:
    """The clock that is given, or else the process's reactor.

    A reactor is made to follow a clock that nobody sets. Twisted's follows the wall clock: if that is set forward by an
    hour, all that waits ends, and connections look silent; if it is set back, nothing is due for an hour.
    """
    if clock is None:
        from twisted.internet import reactor as clock  # this installs it: not for a module to do that is only imported
    if clock.seconds is runtime.seconds:
        leave_wall_clock(clock)
        if hasattr(clock, "_asyncioEventloop"):
            clock.callWhenRunning(leave_contexts, clock)
    return clock


def leave_wall_clock(reactor: Any) -> None:
    """Have the reactor go on from its present time by the monotonic clock, with its delayed calls."""
    ahead = runtime.seconds() - time.monotonic()

    def seconds() -> float:
        return time.monotonic() + ahead

    for call in reactor.getDelayedCalls():
        call.seconds = seconds  # it is asked again by a call that is reset
    reactor.seconds = seconds


def leave_contexts(reactor: Any) -> None:
    """Have asyncio's reactor call everything in the context in which it runs, as other reactors do.

    asyncio calls in the context in which it was asked. So what reads from a connection would have the context variables
    of the worker that has opened it, for as long as it lives, and so would the workers for messages that come there.
    """
    context = copy_context()
    for name in ("addReader", "addWriter", "_reschedule"):  # all that ask asyncio for more than one call
        setattr(reactor, name, partial(context.run, getattr(reactor, name)))


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

SUBSCRIPT = re.compile(r"\[(\d+)\]|([^.\[\]]+)")


def get_redacted_args(entrypoint: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """The arguments of a call by name, those in the entrypoint's ``sensitive_arguments`` as asterisks.

    ``"card"`` hides a whole argument, ``"card.number"`` a key in it, ``"cards[0].number"`` one of an item.
    A name that isn't there is ignored. The arguments themselves are left as they are.
    """
    method = getattr(entrypoint.container.service_cls, entrypoint.method_name)
    bound = inspect.signature(method).bind(None, *args, **kwargs)
    bound.apply_defaults()
    _, *arguments = bound.arguments.items()  # without self
    redacted = dict(arguments)
    sensitive = entrypoint.sensitive_arguments
    for path in (sensitive,) if isinstance(sensitive, str) else sensitive:
        steps = [int(index) if index else key for index, key in SUBSCRIPT.findall(path)]
        if steps and steps[0] in redacted:
            redacted[steps[0]] = hide(redacted[steps[0]], steps[1:])
    return redacted


def hide(value: Any, steps: list[Any]) -> Any:
    """The value with asterisks where the steps lead. Only the containers on the way there are copied.

    Where it can't be hidden in part, all of it is hidden; what isn't there is no error.
    """
    if not steps:
        return REDACTED
    if value is None or isinstance(value, (int, float)):
        return value
    if isinstance(value, (str, bytes)):
        return REDACTED if isinstance(steps[0], int) and steps[0] < len(value) else value
    if not isinstance(value, (dict, list, tuple)):
        return REDACTED
    copied: Any = dict(value) if isinstance(value, dict) else list(value)
    try:
        copied[steps[0]] = hide(copied[steps[0]], steps[1:])
    except (LookupError, TypeError):
        return value
    return tuple(copied) if isinstance(value, tuple) else copied
