"""Names that a broker shows: the services of a connection or a consumer, and the process in which they run."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterable

SERVICES_MAX = 100  # bytes of the services' names; with the rest and an id this fits into a consumer tag, which has 255
HOST_MAX = 64  # bytes of the host's name; Linux allows no more


def process_of(services: Iterable[str]) -> str:
    """``shop, stock on web-1, pid 4242``: where a connection or a consumer comes from. A program has no services."""
    names = ", ".join(services) or os.path.basename(sys.argv[0]) or "python"
    return f"{shortened(names, SERVICES_MAX)} on {shortened(socket.gethostname(), HOST_MAX)}, pid {os.getpid()}"


def shortened(text: str, most: int) -> str:
    """The text in no more than so many bytes."""
    encoded = text.encode("utf-8", "replace")
    return encoded.decode() if len(encoded) <= most else encoded[: most - 3].decode(errors="ignore") + "…"
