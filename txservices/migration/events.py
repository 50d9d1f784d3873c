"""``nameko.events``: ours, with a handler that is a consumer of ``nameko.messaging``."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from txservices import events
from txservices.events import __all__ as __all__
from txservices.migration.messaging import Consumer


def __getattr__(name: str) -> Any:
    return getattr(import_module("txservices.events"), name)


class EventHandler(events.EventHandler, Consumer):
    """Runs the method for each event of a type that a service dispatches."""


event_handler = EventHandler.decorator
