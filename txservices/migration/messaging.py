"""``nameko.messaging``: ours, with a consumer whose subclasses may wait in ``handle_result``."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from txservices import messaging
from txservices.messaging import __all__ as __all__
from txservices.migration.messages import HandlesMessages


def __getattr__(name: str) -> Any:
    return getattr(import_module("txservices.messaging"), name)


class Consumer(HandlesMessages, messaging.Consumer):
    """Runs the method with the body of each message of a queue."""


consume = Consumer.decorator
