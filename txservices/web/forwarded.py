"""Who a request is from, if it comes through proxies: as they say it, if they are trusted.

    peer is in WEB_TRUSTED_PROXIES -> X-Forwarded-For, or Forwarded (RFC 7239), read from the right
                                   -> the first hop that is not trusted is the client; scheme and host as it used them

Anything that a client itself has written there stands further left, and is never reached.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import islice
from typing import Any, NamedTuple

from twisted.internet.address import IPv4Address
from twisted.internet.address import IPv6Address as PeerAddress
from twisted.internet.interfaces import ISSLTransport

HOPS_MAX = 20  # proxies that a request is followed back through
UNIX = "unix"  # stands for whoever may open our socket in the file system
X_FORWARDED = "X-Forwarded"

SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
HOST = re.compile(r"(?:[A-Za-z0-9.\-_]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?")
NODE = re.compile(
    r"\[(?P<six>[0-9A-Fa-f:.]+)\](?::\d+)?|(?P<four>\d+\.\d+\.\d+\.\d+)(?::\d+)?|(?P<bare>[0-9A-Fa-f:.]+)"
)
ELEMENT = re.compile(r"[^,\"]*(?:\"[^\"]*\"[^,\"]*)*")
PAIR = re.compile(r"\s*([A-Za-z]+)=(?:\"((?:[^\"\\]|\\.)*)\"|([^\s;,\"]*))\s*(?:;|$)")


class Hop(NamedTuple):
    """What one proxy says of the one before it."""

    address: str | None
    scheme: str | None
    host: str | None


NO_HOP = Hop(None, None, None)


class Trusted:
    """The proxies that are believed: networks as text, and ``unix``. False if nobody is believed."""

    def __init__(self, networks: Iterable[str]) -> None:
        self.networks: list[IPv4Network | IPv6Network] = [ip_network(each, False) for each in networks if each != UNIX]
        self.unix = UNIX in networks

    def __bool__(self) -> bool:
        return bool(self.networks) or self.unix

    def has(self, peer: Any) -> bool:
        """Whether that address of Twisted's is a proxy's."""
        host = getattr(peer, "host", None)
        return self.unix if host is None else self.has_address(host)

    def has_address(self, text: str) -> bool:
        try:
            address: Any = ip_address(text.partition("%")[0])
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self.networks)


class Forwarded:
    """Puts client, scheme and host of requests right.

    Args:
        x_forwarded: whether ``X-Forwarded-For``, ``-Proto`` and ``-Host`` are read; ``Forwarded`` if not.
    """

    def __init__(self, trusted: Trusted, x_forwarded: bool = True) -> None:
        self.trusted = trusted
        self.hops_in = x_forwarded_hops if x_forwarded else forwarded_hops

    def see(self, received: Any) -> None:
        """Called with each ``site.Received`` before it is handled."""
        transport = received.channel.transport
        received.client = peer = transport.getPeer()  # with the PROXY protocol, known since the first bytes
        received.scheme = "https" if ISSLTransport.providedBy(transport) else "http"
        if not self.trusted or not self.trusted.has(peer):
            return
        hops = self.hops_in(received.requestHeaders)
        said = hops[0] if hops else NO_HOP
        for hop in hops:
            if hop.address is None:
                break
            said = hop
            if not self.trusted.has_address(hop.address):
                break
        if said.address is not None:
            kind = PeerAddress if ":" in said.address else IPv4Address
            received.client = kind("TCP", said.address, 0)
        if said.scheme in SCHEMES:
            received.scheme = SCHEMES[said.scheme]
        if said.host is not None and HOST.fullmatch(said.host):
            received.requestHeaders.setRawHeaders(b"host", [said.host.encode()])


def texts(headers: Any, name: bytes) -> list[str]:
    """The elements of a header, over all its lines, from the right; no more than HOPS_MAX."""
    line = ",".join(value.decode("latin-1") for value in headers.getRawHeaders(name, ()) or ())
    return [each.strip() for each in reversed(line.rsplit(",", HOPS_MAX)[-HOPS_MAX:])] if line else []


def x_forwarded_hops(headers: Any) -> list[Hop]:
    """What X-Forwarded-For, -Proto and -Host say, the nearest hop first."""
    addresses, schemes, hosts = (texts(headers, b"x-forwarded-" + name) for name in (b"for", b"proto", b"host"))
    count = max(len(addresses), 1)

    def of_hop(found: list[str], number: int) -> str | None:
        # Proxies that overwrite these leave one; those that append leave as many as there are addresses.
        return (found[number] if len(found) == count else found[0]) if found else None

    return [
        Hop(
            address_in(addresses[number]) if addresses else None,
            (of_hop(schemes, number) or "").lower() or None,
            of_hop(hosts, number),
        )
        for number in range(count)
    ]


def forwarded_hops(headers: Any) -> list[Hop]:
    """What Forwarded says, the nearest hop first. An element that can't be read is the last."""
    line = ",".join(value.decode("latin-1") for value in headers.getRawHeaders(b"forwarded", ()) or ())
    # Elements, too, are told apart from the right: a quote that a client left open must not swallow what comes after.
    elements = (found[0][::-1] for found in ELEMENT.finditer(line[::-1]) if found[0].strip())
    hops = []
    for element in islice(elements, HOPS_MAX):
        pairs = {
            name.lower(): re.sub(r"\\(.)", r"\1", quoted) or plain for name, quoted, plain in PAIR.findall(element)
        }
        hops.append(Hop(address_in(pairs.get("for", "")), pairs.get("proto", "").lower() or None, pairs.get("host")))
    return hops


def address_in(text: str) -> str | None:
    """The address in a node's name, without its port; None for ``unknown`` and the like."""
    node = NODE.fullmatch(text.strip())
    if node is None:
        return None
    try:
        return str(ip_address(node["six"] or node["four"] or node["bare"]))
    except ValueError:
        return None
