"""Where HTTP listens: host:port, and any endpoint that Twisted has a string for; several of them at once.

127.0.0.1:8000   8000   [::1]:8000              as nameko has it
ssl:8443:privateKey=key.pem:certKey=cert.pem    HTTPS; the files are read again when they change
tls:/etc/certificates:port=8443                 HTTPS by Twisted, by name, from a directory
unix:/run/web.sock   systemd:domain=INET:index=0   tcp:8000   tcp6:8000
haproxy:tcp:8000                                with the PROXY protocol before each connection
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

from attrs import field, frozen
from OpenSSL.SSL import Connection
from OpenSSL.SSL import Error as TlsError
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IReactorTCP,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.internet.ssl import Certificate, CertificateOptions, KeyPair
from twisted.logger import Logger
from twisted.protocols.haproxy import proxyEndpoint
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from txservices.exceptions import ConfigurationError
from txservices.utils import default_reactor
from txservices.utils.address import WEB_ADDRESS, cannot_listen, host_and_port
from txservices.web.forwarded import Trusted

BACKLOG = 1024  # connections that may wait to be accepted, if the system allows as many
LOOK_AT_FILES_EVERY = 1.0  # seconds, while clients connect
UNTRUSTED_TOLD_EVERY = 60.0  # seconds between two lines of the log

NOBODY = Trusted(())
SSL_OPTIONS = {"privateKey", "certKey", "extraCertChain", "interface", "backlog"}

log = Logger()


@frozen
class Place:
    """One address to listen at.

    Attributes:
        text: as it is configured; the host and the port of one that is host:port.
        host, port: of that form; None for an endpoint's string.
    """

    text: str
    host: str | None = None
    port: int | None = field(default=None, eq=False)

    @property
    def tls(self) -> bool:
        return self.text.removeprefix("haproxy:").startswith(("ssl:", "tls:"))

    def shown(self, listening: Any = None) -> str:
        """It as a URL, with the real port if it is open."""
        here = None if listening is None else listening.getHost()
        host, port = getattr(here, "host", self.host), getattr(here, "port", self.port)
        if self.host is not None:
            host = self.host
        if host is None or port is None:
            return self.text
        scheme = "https" if self.tls else "http"
        return f"{scheme}://[{host}]:{port}/" if ":" in host else f"{scheme}://{host}:{port}/"

    def listen(self, site: Any, clock: Any, key: str) -> Any:
        """Open it. Gives the port; ``ConfigurationError`` if it can't be opened."""
        reactor: Any = clock if IReactorTCP.providedBy(clock) else default_reactor()
        try:
            if self.host is not None:
                return reactor.listenTCP(self.port, site, BACKLOG, self.host)
            trusted = NOBODY if site.forwarded is None else site.forwarded.trusted
            return opened(endpoint_of(self.text, reactor, trusted).listen(site))
        except CannotListenError as error:
            raise ConfigurationError(
                f"{cannot_listen(error)}, or set {key} to another host:port (port 0 is any free one)"
            ) from error
        except ConfigurationError as error:
            raise ConfigurationError(f"{key}: {self.text}: {error}") from error
        except Exception as error:
            raise ConfigurationError(f"{key}: {self.text}: {error}: see the endpoint's string") from error


def places_of(value: object) -> list[Place]:
    """The addresses that a configuration has, which has been checked."""
    texts = value if isinstance(value, (list, tuple)) else [value]
    places = []
    for text in texts:
        address = host_and_port(text, WEB_ADDRESS)
        if address is None:
            places.append(Place(str(text)))
        else:
            host, port = address
            places.append(Place(f"{host}:{port}", host, port))
    return places


def opened(listening: Deferred[IListeningPort]) -> IListeningPort:
    """The port that an endpoint gives. All of Twisted's own give it at once."""
    found: list[Any] = []
    listening.addBoth(found.append)
    if not found:
        raise ConfigurationError("it does not open at once")
    if isinstance(found[0], Failure):
        found[0].raiseException()
    port: IListeningPort = found[0]
    return port


def endpoint_of(text: str, reactor: Any, trusted: Trusted) -> IStreamServerEndpoint:
    """The endpoint for a string: ours for ``ssl:`` and ``haproxy:``, else Twisted's."""
    kind, _, rest = text.partition(":")
    if kind == "haproxy":
        if not trusted:
            raise ConfigurationError("anybody could claim any address: write the proxies into WEB_TRUSTED_PROXIES")
        proxied: IStreamServerEndpoint = proxyEndpoint(Gated(endpoint_of(rest, reactor, trusted), trusted))
        return proxied
    if kind == "ssl":
        return files_endpoint(rest, reactor)
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, text)
    except LookupError:
        if kind != "systemd":
            raise
        no_socket = "systemd has given this process no such socket: is it started by a unit with Sockets=?"
        raise ConfigurationError(no_socket) from None
    return endpoint


def files_endpoint(text: str, reactor: Any) -> IStreamServerEndpoint:
    """The endpoint for ``ssl:``, without the kind."""
    port, *options = text.replace("\\:", "\0").split(":")
    given = {name: value.replace("\0", ":") for name, _, value in (each.partition("=") for each in options)}
    given["port"] = given.get("port", port.removeprefix("port="))
    unknown = sorted(set(given) - SSL_OPTIONS - {"port"})
    if unknown:
        raise ConfigurationError(f"there is no {', '.join(unknown)}: there are {', '.join(sorted(SSL_OPTIONS))}")
    key = given.get("privateKey", "server.pem")
    files = Files(key, given.get("certKey", key), given.get("extraCertChain"), reactor.seconds)
    interface = given.get("interface", "").replace("\\", "")
    backlog = given.get("backlog", str(BACKLOG))
    inner = serverFromString(
        reactor,
        f"{'tcp6' if ':' in interface else 'tcp'}:{given['port']}:backlog={backlog}"
        + (f":interface={interface.replace(':', chr(92) + ':')}" if interface else ""),
    )
    return Wrapped(inner, lambda site: TLSMemoryBIOFactory(files, False, Negotiated(site)))


@implementer(IStreamServerEndpoint)
class Wrapped:
    """An endpoint whose connections go through a factory of another's."""

    def __init__(self, endpoint: IStreamServerEndpoint, wrap: Callable[[Any], Any]) -> None:
        self.endpoint = endpoint
        self.wrap = wrap

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        found: Deferred[IListeningPort] = self.endpoint.listen(self.wrap(protocolFactory))
        return found


class Negotiated(Factory):
    """A site whose protocol over TLS is chosen already, by the context of ``Files``.

    If Twisted can ask the site for it, versions before 26.4 write the answer into the context for each connection. A
    newer pyOpenSSL refuses that, since the context is in use.
    """

    noisy = False

    def __init__(self, site: IProtocolFactory) -> None:
        self.site = site

    def buildProtocol(self, addr: Any) -> Any:
        return self.site.buildProtocol(addr)


class Gated(Wrapped):
    """An endpoint that only trusted proxies may connect to: anybody else is cut off."""

    def __init__(self, endpoint: IStreamServerEndpoint, trusted: Trusted) -> None:
        super().__init__(endpoint, partial(Gate, trusted))


class Gate(Factory):
    noisy = False

    def __init__(self, trusted: Trusted, wrapped: Any) -> None:
        self.trusted = trusted
        self.wrapped = wrapped
        self.tell_at = 0.0

    def doStart(self) -> None:
        self.wrapped.doStart()

    def doStop(self) -> None:
        self.wrapped.doStop()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        if self.trusted.has(addr):
            return self.wrapped.buildProtocol(addr)
        now = default_reactor().seconds()
        if now >= self.tell_at:
            self.tell_at = now + UNTRUSTED_TOLD_EVERY
            log.warn("{peer} is not in WEB_TRUSTED_PROXIES, and speaks the PROXY protocol: it is cut off", peer=addr)
        return None


@implementer(IOpenSSLServerConnectionCreator)
class Files:
    """Makes TLS connections with the key and the certificates in files, which are read again when they change.

    If they can't be read then, the log says so, and those read before stay in use.

    Args:
        chain: a file of further certificates, up to the authority's; they may also stand in ``certificate``.
        seconds: gives the time.
    """

    def __init__(self, key: str, certificate: str, chain: str | None, seconds: Callable[[], float]) -> None:
        self.key = key
        self.certificate = certificate
        self.chain = chain
        self.seconds = seconds
        self.look_at = seconds() + LOOK_AT_FILES_EVERY
        self.state = self.stamp()
        try:
            self.context = self.read()
        except (OSError, ValueError, TlsError) as error:
            raise ConfigurationError(f"the key or the certificate can't be read: {error}") from error

    def stamp(self) -> list[tuple[int, int, int] | None]:
        return [stamp_of(path) for path in (self.key, self.certificate, self.chain) if path is not None]

    def read(self) -> Any:
        """The context for connections."""
        with open(self.key, "rb") as file:
            key = KeyPair.load(file.read(), format=1).original  # 1 is PEM
        pem = b""
        for path in filter(None, (self.certificate, self.chain)):
            with open(path, "rb") as file:
                pem += file.read() + b"\n"
        end = b"-----END CERTIFICATE-----"
        first, *others = [Certificate.loadPEM(each + end).original for each in pem.split(end)[:-1]] or [None]
        if first is None:
            raise ValueError(f"{self.certificate} has no certificate in PEM")
        options = CertificateOptions(
            privateKey=key, certificate=first, extraCertChain=others, acceptableProtocols=[b"http/1.1"]
        )
        return options.getContext()

    def serverConnectionForTLS(self, protocol: Any) -> Connection:
        """TLSMemoryBIOFactory calls this for each connection."""
        now = self.seconds()
        if now >= self.look_at:
            self.look_at = now + LOOK_AT_FILES_EVERY
            state = self.stamp()
            if state != self.state:
                self.state = state
                try:
                    self.context = self.read()
                except Exception as error:
                    text = "{certificate} and {key} have changed and can't be read: those from before stay: {error}"
                    log.error(text, certificate=self.certificate, key=self.key, error=error)
                else:
                    log.info("{certificate} has changed: new clients get it", certificate=self.certificate)
        return Connection(self.context, None)


def stamp_of(path: str) -> tuple[int, int, int] | None:
    """What changes with a file; None if it isn't there."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
