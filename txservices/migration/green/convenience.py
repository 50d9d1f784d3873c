"""``eventlet.convenience``: sockets, which are those of Python."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

from txservices.migration.green.thread import GreenletExit, GreenThread, getcurrent

__all__ = ["connect", "listen"]

INTERNET = (socket.AF_INET, socket.AF_INET6)


class Listener(socket.socket):
    """A socket that listens. To close it ends the wait of a thread for a connection, and such a thread with it."""

    is_over = False

    def accept(self) -> tuple[socket.socket, Any]:
        """Wait for a connection."""
        try:
            return super().accept()
        except OSError:
            if self.is_over and isinstance(getcurrent(), GreenThread):
                raise GreenletExit from None  # nobody wants its connections any more, as in eventlet after a kill
            raise

    def close(self) -> None:
        """Listen no more."""
        self.is_over = True
        with suppress(OSError):
            self.shutdown(socket.SHUT_RDWR)  # else a thread in accept() would keep the port, and wait on
        super().close()


def listen(
    addr: Any,
    family: int = socket.AF_INET,
    backlog: int = 50,
    reuse_addr: bool = True,
    reuse_port: bool | None = None,
) -> socket.socket:
    """A socket that listens there. Without ``reuse_port`` other processes may share a port that has a number."""
    listener = Listener(family, socket.SOCK_STREAM)
    try:
        if reuse_addr:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        shared = bool(family in INTERNET and addr[1]) if reuse_port is None else reuse_port
        if shared and hasattr(socket, "SO_REUSEPORT"):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(addr)
        listener.listen(backlog)
    except BaseException:
        listener.close()
        raise
    return listener


def connect(addr: Any, family: int = socket.AF_INET, bind: Any = None) -> socket.socket:
    """A socket that is connected to there, from the address ``bind`` if one is given."""
    connected = socket.socket(family, socket.SOCK_STREAM)
    try:
        if bind is not None:
            connected.bind(bind)
        connected.connect(addr)
    except BaseException:
        connected.close()
        raise
    return connected
