"""What a supervisor asks a process by HTTP: whether it runs, and whether it can do its work.

    path, what the client accepts, the reasons -> PAGES[path] -> Page(status, text, content type)

The pages are served by ``web.health``: at ``OPS_ADDRESS``, and with ``WEB_HEALTH`` beside the URLs of services.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from attrs import frozen

from txservices.utils.printable import in_one_line
from txservices.utils.secrets import hide

__all__ = ["PAGES", "Page"]

REASONS_MAX = 100  # reasons that are told; a process with a thousand queues has as many
TEXT = "text/plain; charset=utf-8"
JSON = "application/json"

Reasons = Callable[[], list[str]]


@frozen
class Page:
    """An answer.

    Attributes:
        status: of HTTP.
    """

    status: int
    body: bytes
    content_type: str = TEXT


def healthz(reasons: Reasons, as_json: bool) -> Page:
    """The reactor turns: else nobody would answer."""
    return Page(200, b'{"healthy": true}\n', JSON) if as_json else Page(200, b"ok\n")


def readyz(reasons: Reasons, as_json: bool) -> Page:
    """200 if there is no reason against it, else 503 with a line for each."""
    found = reasons()
    told = [hide(in_one_line(each)) for each in found[:REASONS_MAX]]
    if len(found) > REASONS_MAX:
        told.append(f"and {len(found) - REASONS_MAX} more reasons")
    status = 503 if told else 200
    if as_json:
        return Page(status, json.dumps({"ready": not told, "reasons": told}).encode() + b"\n", JSON)
    return Page(status, "".join(f"{line}\n" for line in told or ["ready"]).encode())


def metrics(reasons: Reasons, as_json: bool) -> Page:
    """What is counted and measured, for Prometheus."""
    try:
        from txservices.monitoring.metrics import exposition  # only here: prometheus-client is an extra
    except ImportError as error:
        return Page(404, f"{error}\n".encode())
    return Page(200, *exposition())


PAGES: Mapping[str, Callable[[Reasons, bool], Page]] = {"/healthz": healthz, "/readyz": readyz, "/metrics": metrics}
