"""Where nameko 3 has ``Consumer``, so that imports of it stay as they are: it is one of ``standalone.consume``."""

from __future__ import annotations

from importlib import import_module
from typing import Any

# It stands above this row, among the programs that are no services: it is found by name.
CONSUMER = "txservices.standalone.consume:Consumer"


def __getattr__(name: str) -> Any:
    module, _, there = CONSUMER.partition(":")
    if name != there:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(module), there)
