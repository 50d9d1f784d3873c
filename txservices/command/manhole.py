"""A way in to a running process: a Python prompt over telnet, on this machine alone.

    telnet 127.0.0.1 3000
    >>> containers["shop"].started

It stands where nameko has its backdoor. Whoever has an account on the machine can get in, and do whatever the process
can: it is opened only where it is asked for. A Deferred at the prompt prints its value once it has one.
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
    """Python, in the reactor's thread; `exit()` and `quit()` end the connection, and not the process."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        super().__init__({**namespace, "exit": self.leave, "quit": self.leave})
        self.left = False

    def leave(self, code: object = None) -> None:
        self.left = True  # lines may have come already that are not to be run any more
        self.handle_QUIT()

    def lineReceived(self, line: bytes) -> None:
        if HTTP_REQUEST.match(line):
            self.leave()  # a page in this machine's browser can send what it likes to this port, but this line first
        elif not self.left:
            try:
                super().lineReceived(line)
            except SystemExit:
                self.leave()


class Transport(TelnetTransport):
    """Telnet with clients that refuse what they are asked for, or never answer, as nc: no error in the log."""

    def do(self, option: bytes) -> Deferred[Any]:
        asked: Deferred[Any] = super().do(option)
        return asked.addErrback(lambda refused: None)

    def will(self, option: bytes) -> Deferred[Any]:
        asked: Deferred[Any] = super().will(option)
        return asked.addErrback(lambda refused: None)


class Manhole:
    """Listens from `listen` on, until it is stopped."""

    def __init__(self, port: int, namespace: dict[str, Any], reactor: Any) -> None:
        self.port = port
        self.reactor = reactor
        self.listening: Any = None
        self.factory = ServerFactory.forProtocol(
            lambda: Transport(TelnetBootstrapProtocol, insults.ServerProtocol, Prompt, namespace)
        )
        self.factory.noisy = False

    def listen(self) -> str:
        """Begin to; gives what telnet has to be told. May raise `CannotListenError`."""
        self.listening = self.reactor.listenTCP(self.port, self.factory, interface=HOST)
        return f"{HOST} {self.listening.getHost().port}"

    def stop(self) -> Deferred[Any]:
        listening, self.listening = self.listening, None
        return maybeDeferred(listening.stopListening if listening else lambda: None)


def port_of(address: str) -> int:
    """`[host:]port` to the port; the host can only be this machine."""
    host, _, port = address.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise CommandError(f"--backdoor-port {address}: no port: write a number, as in 3000")
    if host not in ("", HOST, "localhost"):
        raise CommandError(
            f"--backdoor-port {address}: who gets in can do anything, so it is on {HOST} alone:"
            f" write {port}, and come from elsewhere with `ssh -L {port}:{HOST}:{port}`"
        )
    return int(port)
