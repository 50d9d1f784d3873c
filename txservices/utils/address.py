"""Addresses as the configuration has them, read into values: a broker's URI, several for a cluster, and host:port.

``amqp://user:password@host:port/vhost``, every part percent-encoded, as kombu reads it: no path or ``/`` is the virtual
host ``/``. ``pyamqp://`` is what nameko's users have in their files and means the same; ``amqps://`` is over TLS;
``memory://NAME`` is the embedded broker of this process. Several are a list, or one text with ``;`` between them.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

from attrs import field, frozen
from twisted.internet.error import CannotListenError

from txservices.exceptions import ConfigurationError

SCHEMES = {"amqp": 5672, "pyamqp": 5672, "amqps": 5671, "memory": 0}
DEFAULT_USER = "guest"
EXAMPLE = "amqp://guest:guest@localhost:5672/"
LOOPBACK = "127.0.0.1"
PORT_MAX = 65_535
VHOST_MAX = 255  # bytes: AMQP has one byte for its length
# Names of endpoints are no hosts: Twisted's string for one may look like host:port.
ENDPOINTS = ("tcp", "tcp6", "ssl", "tls", "unix", "systemd", "haproxy", "fd")
WEB_ADDRESS = re.compile(
    rf"(?!(?:{'|'.join(ENDPOINTS)}):)(?:(?P<host>[^\s:/@\[\]]+|\[[0-9A-Fa-f:.]+\]):)?(?P<port>\d{{1,5}})", re.ASCII
)
BROKER_ADDRESS = re.compile(r"(?P<host>[^\s/@\[\]]*):(?P<port>\d{1,5})", re.ASCII)  # the host may be an IPv6 address


# By the number of the system's error: what to do about an address that can't be opened.
LISTEN_CURES = {
    errno.EADDRINUSE: "end the program there",
    errno.EACCES: "a port below 1024 takes root, or CAP_NET_BIND_SERVICE",
    errno.EADDRNOTAVAIL: "this machine has no such address: write 0.0.0.0 for all that it has",
}


@frozen
class Address:
    """One broker's address. Its text never shows the password."""

    scheme: str
    host: str
    port: int
    username: str = DEFAULT_USER
    password: str = field(default=DEFAULT_USER, repr=False)
    vhost: str = "/"

    @property
    def tls(self) -> bool:
        return self.scheme == "amqps"

    def __str__(self) -> str:
        if self.scheme == "memory":
            return f"memory://{self.host}"
        vhost = "" if self.vhost == "/" else self.vhost
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{self.username}:********@{host}:{self.port}/{vhost}"


def parse_address(uri: str) -> Address:
    """One URI; ``ConfigurationError`` says what is wrong with it, without its password."""
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:  # its text may have a part of the password in it
        raise ConfigurationError(
            "AMQP_URI can't be parsed: the port is no number up to 65535, or a part is not percent-encoded (/ is %2F,"
            f" # is %23, ? is %3F, [ is %5B): write it like {EXAMPLE}"
        ) from None
    if parts.scheme not in SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise ConfigurationError(f"AMQP_URI begins with {parts.scheme!r}, known are {known}: write it like {EXAMPLE}")
    if parts.scheme == "memory":
        return Address("memory", parts.netloc, 0, vhost=unquote(parts.path[1:]) or "/")
    if parts.query or parts.fragment:
        raise ConfigurationError(
            f"AMQP_URI has {'?' if parts.query else '#'} in it, which means nothing here: percent-encode it if it is"
            " part of the password, and put options into the configuration"
        )
    vhost = unquote(parts.path[1:]) or "/"
    if len(vhost.encode()) > VHOST_MAX:
        raise ConfigurationError(
            f"AMQP_URI: the virtual host has {len(vhost.encode()):,} bytes, and AMQP has room for {VHOST_MAX}: see"
            " what comes after the host"
        )
    return Address(
        scheme=parts.scheme,
        host=unquote(parts.hostname or "localhost"),
        port=port or SCHEMES[parts.scheme],
        username=unquote(parts.username) if parts.username else DEFAULT_USER,
        password=unquote(parts.password) if parts.password is not None else DEFAULT_USER,
        vhost=vhost,
    )


def parse_addresses(uris: str | Sequence[str]) -> tuple[Address, ...]:
    """Every broker of the configuration, in the order they are tried."""
    texts = uris.split(";") if isinstance(uris, str) else list(uris)
    addresses = tuple(parse_address(text.strip()) for text in texts if text and text.strip())
    if not addresses:
        raise ConfigurationError(f"AMQP_URI is empty: write it like {EXAMPLE}")
    return addresses


def cannot_listen(error: CannotListenError) -> str:
    """Why an address can't be opened, and what to do."""
    cure = LISTEN_CURES.get(getattr(error.socketError, "errno", 0), "see the host and the port")
    host = f"[{error.interface}]" if ":" in str(error.interface) else error.interface
    return f"can't listen at {host}:{error.port}: {error.socketError}: {cure}"


def host_and_port(text: object, form: re.Pattern[str]) -> tuple[str, int] | None:
    """An address to listen on, without a host the loopback; None if it is not of that form."""
    match = form.fullmatch(str(text))
    if match is None or int(match["port"]) > PORT_MAX:
        return None
    return (match["host"] or LOOPBACK).strip("[]"), int(match["port"])
