"""``nameko.testing.websocket``: see ``txservices.testing.websocket``, whose client this is, waiting."""

from __future__ import annotations

from collections.abc import Callable

from txservices.migration.waiting import Waiting, in_reactor
from txservices.testing import websocket

__all__ = ["VirtualSocket", "make_virtual_socket"]


class VirtualSocket(Waiting):
    """An open WebSocket: ``rpc`` and ``wait_for_event`` wait and give values."""

    app: App

    def get_event_queue(self, event_type: str) -> Waiting:
        """The events of that type that have arrived: ``get()`` takes one, and waits for it."""
        return Waiting(in_reactor(self.of.get_event_queue, event_type))


class App:
    """Stands for the ``WebSocketApp`` that nameko's gives: it is open until ``close``."""

    def __init__(self, host: str, port: int, path: str) -> None:
        self.address = host, port, path
        self.socket: VirtualSocket | None = None

    def connect(self) -> VirtualSocket:
        """Open it."""
        if self.socket is None:
            self.socket = VirtualSocket(in_reactor(websocket.make_virtual_socket, *self.address))
            self.socket.app = self
        return self.socket

    def run_forever(self) -> None:
        """Does nothing: the reactor serves it."""

    def close(self) -> None:
        """Close it."""
        if self.socket is not None:
            self.socket.close()


def make_virtual_socket(host: str, port: int, path: str = "/ws") -> tuple[App, Callable[[], VirtualSocket]]:
    """What stands for the WebSocket's application, and a function that waits until it is open and gives the socket."""
    app = App(host, port, path)
    return app, app.connect
