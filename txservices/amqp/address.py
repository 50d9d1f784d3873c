"""Where a broker is: ``AMQP_URI`` read into values, several of them for a cluster.

``amqp://user:password@host:port/vhost``, every part percent-encoded, as kombu reads it: no path or ``/`` is the virtual
host ``/``. ``pyamqp://`` is what nameko's users have in their files and means the same; ``amqps://`` is over TLS;
``memory://NAME`` is the embedded broker of this process. Several are a list, or one text with ``;`` between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

from attrs import field, frozen

from txservices.exceptions import ConfigurationError

SCHEMES = {"amqp": 5672, "pyamqp": 5672, "amqps": 5671, "memory": 0}
DEFAULT_USER = "guest"
EXAMPLE = "amqp://guest:guest@localhost:5672/"


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
    except ValueError as error:
        raise ConfigurationError(f"AMQP_URI can't be parsed ({error}): write it like {EXAMPLE}") from None
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
    return Address(
        scheme=parts.scheme,
        host=unquote(parts.hostname or "localhost"),
        port=port or SCHEMES[parts.scheme],
        username=unquote(parts.username) if parts.username else DEFAULT_USER,
        password=unquote(parts.password) if parts.password is not None else DEFAULT_USER,
        vhost=unquote(parts.path[1:]) or "/",
    )


def parse_addresses(uris: str | Sequence[str]) -> tuple[Address, ...]:
    """Every broker of the configuration, in the order they are tried."""
    texts = uris.split(";") if isinstance(uris, str) else list(uris)
    addresses = tuple(parse_address(text.strip()) for text in texts if text and text.strip())
    if not addresses:
        raise ConfigurationError(f"AMQP_URI is empty: write it like {EXAMPLE}")
    return addresses
