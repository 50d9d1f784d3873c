"""Which pages may open a WebSocket, by the origin that their browser sends (RFC 6454). Pure."""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import ip_address
from urllib.parse import urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443}


def is_ours(origin: str, host: str, listens_at: str, allowed: Collection[str] | None) -> bool:
    """Whether a page of ``origin`` may connect: one of the ``allowed`` origins, or else one of our own.

    ``host`` is the request's Host header, and ``listens_at`` the address of our port. A server on the loopback is for
    this machine only, so a page may reach it by the loopback's own names alone: any other name is that of a stranger's
    page, who has it resolved to 127.0.0.1 (DNS rebinding).
    """
    if allowed is not None:
        return "*" in allowed or origin in allowed
    try:
        page, asked = urlsplit(origin), urlsplit(f"//{host}")
        port = DEFAULT_PORTS.get(page.scheme)
        same = page.hostname == asked.hostname and (page.port or port) == (asked.port or port)
    except ValueError:  # no number for a port, for example
        return False
    return same and page.hostname is not None and (is_loopback(page.hostname) or not is_loopback(listens_at))


def is_loopback(host: str) -> bool:
    """Whether a name or an address is of this machine alone."""
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761, 6.3
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
