"""Where nameko has ``Publisher`` and ``UndeliverableMessage``, so that imports of them stay as they are."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from txservices.exceptions import UndeliverableMessage

__all__ = ["UndeliverableMessage"]

# What publishes stands above this row, where services are written: it is found by name.
PUBLISHER = "txservices.sending:Publisher"


def __getattr__(name: str) -> Any:
    module, _, there = PUBLISHER.partition(":")
    if name != there:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(module), there)
