"""The access log: a line for each request that is answered, in the log of the process, as this module's logger.

    combined    client - - [time] "GET /path HTTP/1.1" 200 12 "referer" "user agent" "call id" 0.003
    json        {"time": …, "client": …, "method": …, "path": …, "status": …, "bytes": …, "seconds": …, …}

The first is Apache's combined format with two more fields. A client can forge no line and no field: quotes, backslashes
and all that is not visible in ASCII are escaped, and no field is longer than ``FIELD_MAX``.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.logger import Logger
from twisted.web.http import datetimeToLogString

from txservices.utils.secrets import hide

COMBINED, JSON = "combined", "json"
FIELD_MAX = 2_048  # bytes
NOTHING = "-"  # for what is not there

log = Logger()
ESCAPED = {code: f"\\x{code:02x}" for code in range(256) if not 32 <= code < 127 or chr(code) in '"\\'}


def escaped(data: bytes) -> str:
    """Bytes of a client as a field of the line."""
    text = data[:FIELD_MAX].decode("latin-1").translate(ESCAPED)
    return text if len(data) <= FIELD_MAX else f"{text}..."


def header_of(request: Any, name: bytes) -> bytes | None:
    values = request.requestHeaders.getRawHeaders(name)
    return values[-1] if values else None


class AccessLog:
    """Writes the lines. ``form`` is ``combined`` or ``json``."""

    def __init__(self, form: str) -> None:
        self.line_of = as_json if form == JSON else combined

    def answered(self, request: Any, seconds: float) -> None:
        """Write the line of a ``site.Received``."""
        log.info("{line}", line=hide(self.line_of(request, seconds)))


def combined(request: Any, seconds: float) -> str:
    client = getattr(request.client, "host", None) or NOTHING
    asked = b" ".join((request.method, request.uri, request.clientproto)) if request.method else NOTHING.encode()
    referer, agent = (escaped(header_of(request, name) or NOTHING.encode()) for name in (b"referer", b"user-agent"))
    return (
        f'{client} - - {datetimeToLogString()} "{escaped(asked)}" {request.code} {request.sentLength or NOTHING}'
        f' "{referer}" "{agent}" "{request.call_id or NOTHING}" {seconds:.3f}'
    )


def as_json(request: Any, seconds: float) -> str:
    referer, agent = header_of(request, b"referer"), header_of(request, b"user-agent")
    fields = {
        "time": datetimeToLogString()[1:-1],
        "client": getattr(request.client, "host", None),
        **asked_of(request),
        "route": request.route,
        "status": request.code,
        "bytes": request.sentLength,
        "seconds": round(seconds, 6),
        "referer": None if referer is None else escaped(referer),
        "user_agent": None if agent is None else escaped(agent),
        "call_id": request.call_id,
    }
    return json.dumps({name: value for name, value in fields.items() if value is not None})


def asked_of(request: Any) -> dict[str, str]:
    """The line of the request; empty if it could not be read."""
    fields = {"method": request.method, "path": request.uri, "protocol": request.clientproto}
    return {name: escaped(value) for name, value in fields.items()} if request.method else {}
