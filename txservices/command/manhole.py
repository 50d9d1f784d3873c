"""A Python prompt inside a running process, reached by telnet from the same machine. It is nameko's backdoor.

    telnet 127.0.0.1 3000
    >>> containers["shop"].started

Every user of the machine can open it and do there whatever the process can do, so it is there only on request.
If an expression gives a Deferred, its value is printed when it fires.
"""

from __future__ import annotations

import re
from typing import Any

from twisted.conch import manhole
from twisted.conch.insults import insults
from twisted.conch.telnet import TelnetBootstrapProtocol, TelnetTransport
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import ServerFactory

from txservices.exceptions import CommandError

HOST = "127.0.0.1"
HTTP_REQUEST = re.compile(rb"\w+ \S+ HTTP/\d")


class Prompt(manhole.Manhole):
    """Runs Python in the reactor's thread. `exit()` and `quit()` end the connection, not the process."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        super().__init__({**namespace, "exit": self.close, "quit": self.close})
        self.closed = False

    def close(self, code: object = None) -> None:
        self.closed = True  # further lines may have arrived already, and must not be run
        self.handle_QUIT()

    def lineReceived(self, line: bytes) -> None:
        if HTTP_REQUEST.match(line):
            # A web page in a browser on this machine could send Python to this port, but only after such a line.
            self.close()
        elif not self.closed:
            try:
                super().lineReceived(line)
            except SystemExit:
                self.close()


class Transport(TelnetTransport):
    """Telnet that logs no error if a client, such as nc, refuses an option or never answers."""

    def do(self, option: bytes) -> Deferred[Any]:
        asked: Deferred[Any] = super().do(option)
        return asked.addErrback(lambda refused: None)

    def will(self, option: bytes) -> Deferred[Any]:
        asked: Deferred[Any] = super().will(option)
        return asked.addErrback(lambda refused: None)


class Manhole:
    """The port of the prompt: open from ``listen`` to ``close``. Port 0 is any free one."""

    def __init__(self, port: int, namespace: dict[str, Any], reactor: Any) -> None:
        self.port = port
        self.reactor = reactor
        self.listening: Any = None
        self.factory = ServerFactory.forProtocol(
            lambda: Transport(TelnetBootstrapProtocol, insults.ServerProtocol, Prompt, namespace)
        )
        self.factory.noisy = False

    def listen(self) -> str:
        """Open the port. Gives the arguments for telnet, as "127.0.0.1 3000". May raise ``CannotListenError``."""
        self.listening = self.reactor.listenTCP(self.port, self.factory, interface=HOST)
        return f"{HOST} {self.listening.getHost().port}"

    def close(self) -> Deferred[Any]:
        """Close the port. Fires when it is closed; prompts that are open stay open."""
        listening, self.listening = self.listening, None
        return maybeDeferred(listening.stopListening if listening else lambda: None)


def port_of(address: str) -> int:
    """The port in `[host:]port`. ``CommandError`` if the host is not this machine."""
    host, _, port = address.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise CommandError(f"--backdoor-port {address}: not a port: write a number, as in 3000")
    if host not in ("", HOST, "localhost"):
        raise CommandError(
            f"--backdoor-port {address}: whoever reaches it can do anything, so it is on {HOST} only:"
            f" write {port}, and from elsewhere use `ssh -L {port}:{HOST}:{port}`"
        )
    return int(port)
