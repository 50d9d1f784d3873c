"""``eventlet.tpool``: everything is in a thread already."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Proxy", "execute", "killall", "set_num_threads"]


def execute(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call that here."""
    return function(*args, **kwargs)


def Proxy(thing: Any, *args: Any, **kwargs: Any) -> Any:  # eventlet's name
    """The thing itself."""
    return thing


def killall() -> None:
    """Does nothing: there is no pool."""


def set_num_threads(number: int) -> None:
    """Does nothing: there is no pool."""
