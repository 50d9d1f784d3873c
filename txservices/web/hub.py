"""A hub sends events to one client of a WebSocket, or to all that are subscribed to a channel.

A client is subscribed to at most ``SUBSCRIPTIONS_MAX`` channels, and all clients of an address together to at most
``SUBSCRIPTIONS_IN_ALL_MAX``. A channel's name has at most ``CHANNEL_NAME_MAX`` characters. ``subscribe`` raises
``ValueError`` beyond that: often a client says what it wants to hear.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from txservices.exceptions import ConnectionNotFound
from txservices.threads import in_reactor

SUBSCRIPTIONS_MAX = 1000  # channels of a client, of all services together
SUBSCRIPTIONS_IN_ALL_MAX = 1_000_000  # of all clients of an address
CHANNEL_NAME_MAX = 255  # characters


def written(message: Any) -> str:
    """A message as JSON. ``ValueError`` for NaN, which browsers can't read."""
    return json.dumps(message, allow_nan=False)


class Connection(Protocol):
    """A client, as its hubs know it. ``subscriptions`` are pairs of a service's name and a channel."""

    socket_id: str
    subscriptions: set[tuple[str, str]]
    socket: Any

    def send_event(self, event: str, data: Any) -> None: ...


class Clients(dict[str, Connection]):
    """The clients of an address, by their socket ids. ``subscriptions`` is how many they have together."""

    subscriptions = 0

    def gone(self, connection: Connection) -> None:
        self.subscriptions -= len(connection.subscriptions)
        del self[connection.socket_id]


class WebSocketHub:
    """Sends events to one client, by the ``socket_id`` that methods get, or to all that are subscribed to a channel."""

    def __init__(self, service_name: str, connections: Clients) -> None:
        self.service_name = service_name
        self.connections = connections

    def connection(self, socket_id: str) -> Connection:
        try:
            return self.connections[socket_id]
        except KeyError:
            raise ConnectionNotFound(socket_id) from None

    def get_subscriptions(self, socket_id: str) -> list[str]:
        """The channels of a socket, sorted. ``ConnectionNotFound`` if the socket is gone."""
        subscriptions = self.connection(socket_id).subscriptions
        return sorted(channel for service_name, channel in subscriptions if service_name == self.service_name)

    def subscribe(self, socket_id: str, channel: str) -> None:
        """Send the socket every event that is broadcast on the channel.

        ``ConnectionNotFound`` if it is gone, ``ValueError`` for a name that is too long and for too many channels.
        """
        subscriptions = self.connection(socket_id).subscriptions
        subscription = (self.service_name, channel)
        if subscription in subscriptions:
            return
        if len(str(channel)) > CHANNEL_NAME_MAX:
            raise ValueError(f"a channel's name has up to {CHANNEL_NAME_MAX} characters")
        if len(subscriptions) >= SUBSCRIPTIONS_MAX:
            raise ValueError(f"a client can be subscribed to {SUBSCRIPTIONS_MAX} channels: unsubscribe it from others")
        if self.connections.subscriptions >= SUBSCRIPTIONS_IN_ALL_MAX:
            raise ValueError(f"all clients together can be subscribed to {SUBSCRIPTIONS_IN_ALL_MAX} channels")
        subscriptions.add(subscription)
        self.connections.subscriptions += 1

    def unsubscribe(self, socket_id: str, channel: str) -> None:
        """Undo ``subscribe``. Does nothing if the socket is gone or was not subscribed."""
        connection = self.connections.get(socket_id)
        subscription = (self.service_name, channel)
        if connection is not None and subscription in connection.subscriptions:
            connection.subscriptions.remove(subscription)
            self.connections.subscriptions -= 1

    def broadcast(self, channel: str, event: str, data: Any) -> None:
        """Send an event to every socket that is subscribed to the channel. ``data`` is anything that JSON can have."""
        text = written({"type": "event", "event": event, "data": data})
        for connection in list(self.connections.values()):
            if (self.service_name, channel) in connection.subscriptions:
                connection.socket.send(text)

    def unicast(self, socket_id: str, event: str, data: Any) -> bool:
        """Send an event to one socket. Gives False if the socket is gone."""
        connection = self.connections.get(socket_id)
        if connection is None:
            return False
        connection.send_event(event, data)
        return True


class BlockingHub:
    """The hub for a method that runs in a thread: it calls the hub's methods in the reactor's thread."""

    def __init__(self, hub: WebSocketHub) -> None:
        self.hub = hub

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return partial(in_reactor, getattr(self.hub, name))
