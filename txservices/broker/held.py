"""Counts the bytes that clients take in a virtual host, besides messages, up to a limit. Pure.

The number of exchanges, queues and bindings is limited, too. That says nothing of names, keys and arguments: a
hundred thousand bindings with keys of many words take 4 GB, and with arguments of one frame each 200 GB.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from txservices.exceptions import AmqpError
from txservices.wire.spec import ReplyCode

HELD_MAX = 536_870_912  # bytes, estimated, that a virtual host holds besides messages
CHANNEL_COST = 1500  # bytes of a channel
CONSUMER_COST = 1000  # bytes of a consumer, its tag included
EXCHANGE_COST = 1000  # bytes of an exchange, its name included
QUEUE_COST = 3300  # bytes of a queue, its name included
BINDING_COST = 900  # bytes of a binding, its key included
WORD_COST = 330  # bytes of each word in the key of a binding to a topic exchange
ARGUMENT_COST = 20  # bytes for each character of arguments when they are written as text


def arguments_cost(arguments: Mapping[str, Any]) -> int:
    return ARGUMENT_COST * len(repr(arguments)) if arguments else 0


def binding_cost(type: str, key: str, arguments: Mapping[str, Any]) -> int:
    """What a binding to an exchange of that type takes."""
    return BINDING_COST + arguments_cost(arguments) + (WORD_COST * (key.count(".") + 1) if type == "topic" else 0)


class Held:
    """The count of a virtual host."""

    __slots__ = ("bytes", "vhost")

    def __init__(self, vhost: str) -> None:
        self.vhost = vhost
        self.bytes = 0

    def take(self, what: str, size: int, code: ReplyCode = ReplyCode.PRECONDITION_FAILED) -> None:
        """Count something that is about to be made. An ``AmqpError`` of that code if there is no room for it."""
        if self.bytes + size > HELD_MAX:
            raise AmqpError(code, f"cannot {what}: memory limit in vhost '{self.vhost}' ({HELD_MAX} bytes) is reached")
        self.bytes += size

    def give(self, size: int) -> None:
        """Count that much less: it is gone."""
        self.bytes -= size
