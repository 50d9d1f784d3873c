"""The operations address: a listener of the process's own, for those who watch it and not for those who use it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from txservices import configuration
from txservices.web.listener import Listener
from txservices.web.server import parse_address
from txservices.web.site import WebSite

CONNECTIONS_MAX = 100  # clients at once


def operations(address: object, not_ready: Callable[[], list[str]], clock: Any) -> Listener:
    """A listener with the pages of ``monitoring.health``, and nothing else. It opens by its ``listen``."""
    host, port = parse_address(address)
    listener = Listener(host, port, WebSite(0, 0, CONNECTIONS_MAX, 0, clock), configuration.OPS_ADDRESS)
    listener.serve_health(not_ready)
    return listener
