"""Who may read the page's data, and who may change something by it. Pure.

    the page's own files    everybody whose request names our host
    reading                 this machine, by a name of the loopback; others with the token
    changing                the token, always

A stranger's page in a browser on this machine can send requests here, too. It is told by the Origin, by Sec-Fetch-Site,
which pages can't set, and by the Host where its own name was made to lead here (DNS rebinding). It has no token, which
is in the address that a person was given, after the #: no browser sends that part anywhere.
"""

from __future__ import annotations

from enum import IntEnum
from hmac import compare_digest
from urllib.parse import urlsplit

from attrs import field, frozen
from werkzeug.datastructures import Headers

from txservices.web.origins import is_loopback, is_ours

OTHER_PAGES = ("cross-site", "same-site")  # of Sec-Fetch-Site, W3C Fetch Metadata

Refusal = tuple[int, str]  # the status, and why


class Use(IntEnum):
    """What a request is for."""

    FILES = 0
    READING = 1
    CHANGING = 2


@frozen
class Access:
    """The rules of one page.

    Attributes:
        listens_at: the address of its port, without the port.
        token: what its user was given.
    """

    listens_at: str
    token: str = field(repr=False)

    def refusal(self, use: Use, headers: Headers, peer: str) -> Refusal | None:
        """Why a request is refused, with the status of HTTP; None if it is not. ``peer`` is the client's address."""
        host = headers.get("Host") or ""
        by_local_name = is_loopback(name_in(host))
        if is_loopback(self.listens_at) and not by_local_name:
            return 421, "this page is at 127.0.0.1 alone: open it by that name"
        origin = headers.get("Origin")
        if origin is not None and not is_ours(origin, host, self.listens_at, None):
            return 403, "a page of another address may not use this one"
        if use is Use.FILES:
            return None
        if headers.get("Sec-Fetch-Site") in OTHER_PAGES:
            return 403, "a page of another address may not use this one"
        given = headers.get("Authorization")
        if given is not None:
            return None if self.is_right(given) else (401, "the token is not the one of this run")
        if use is Use.READING and by_local_name and is_loopback(peer):
            return None
        return 401, "the token is missing: open the address that was printed at the start"

    def is_right(self, authorization: str) -> bool:
        scheme, _, token = authorization.partition(" ")
        return scheme.lower() == "bearer" and compare_digest(token.strip().encode(), self.token.encode())


def name_in(host: str) -> str:
    """The name or the address in a Host header, without the port; empty if the header has neither."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
