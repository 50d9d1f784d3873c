"""Routing key to queues: exchanges, and exchanges bound to exchanges. Pure: no Twisted here.

route(exchange, keys, headers, find) -> exchange.match(key, headers) -> Queues, and Exchanges to go on from
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from txservices.broker.bindings import TYPES, Binding, Destination, Headers
from txservices.broker.queues import Queue


class Exchange:
    """An exchange with its bindings. ``incoming`` are those by which other exchanges lead to it."""

    def __init__(
        self,
        name: str,
        type: str,
        durable: bool = True,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.type = type
        self.durable = durable
        self.auto_delete = auto_delete
        self.internal = internal
        self.arguments = arguments or {}
        self.alternate: str | None = self.arguments.get("alternate-exchange")
        self.matching = TYPES[type]()
        self.bindings: dict[tuple[Destination, str, str], Binding] = {}
        self.incoming: dict[Binding, None] = {}

    def bind(self, destination: Destination, key: str, arguments: Mapping[str, Any]) -> None:
        """Lead to ``destination``; the same binding a second time is one binding."""
        identity = (destination, key, in_order(arguments))
        if identity not in self.bindings:
            binding = self.bindings[identity] = Binding(self.name, destination, key, arguments)
            self.matching.add(binding)
            destination.incoming[binding] = None

    def unbind(self, destination: Destination, key: str, arguments: Mapping[str, Any]) -> bool:
        """Undo ``bind``. Gives whether there was something to undo."""
        binding = self.bindings.pop((destination, key, in_order(arguments)), None)
        if binding is None:
            return False
        self.matching.remove(binding)
        del destination.incoming[binding]
        return True

    def match(self, key: str, headers: Headers) -> list[Destination]:
        return [binding.destination for binding in self.matching.match(key, headers)]


def in_order(arguments: Mapping[str, Any]) -> str:
    """Arguments as something to compare by: tables can't be keys of a dict."""
    return repr(sorted(arguments.items())) if arguments else ""


def route(
    start: Exchange, keys: tuple[str, ...], headers: Headers, find: Callable[[str], Exchange | None]
) -> tuple[list[Queue], bool]:
    """The queues that a message to ``start`` goes to, each once, and whether every message of its key goes to the same.

    The message may have several keys: those of CC and BCC. ``find`` gives an exchange by name, for the alternates.
    Exchanges bound in a circle are each passed once.
    """
    queues: dict[Queue, None] = {}
    seen = {start}
    todo = [start]
    by_key_alone = len(keys) == 1
    while todo:
        exchange = todo.pop()
        by_key_alone &= exchange.type != "headers"
        reached: list[Destination] = [found for key in keys for found in exchange.match(key, headers)]
        if not reached and exchange.alternate is not None and (alternate := find(exchange.alternate)) is not None:
            reached = [alternate]
        for destination in reached:
            if isinstance(destination, Queue):
                queues[destination] = None
            elif isinstance(destination, Exchange) and destination not in seen:
                seen.add(destination)
                todo.append(destination)
    return list(queues), by_key_alone
