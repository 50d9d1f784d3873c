"""Which pages of other origins may use a URL: cross-origin resource sharing, as the Fetch standard has it. Pure.

    @http("GET", "/items", cors=Cors(["https://shop.example"], credentials=True))

``WEB_CORS`` says it for all URLs of a process, ``cors=`` for one, and ``cors=False`` for one that no other page may
use. Before a request that a form could not make, a browser asks by OPTIONS (a preflight): the router answers that, and
no method runs.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from attrs import field, frozen
from werkzeug.datastructures import Headers
from werkzeug.wrappers import Response

from txservices.exceptions import ConfigurationError
from txservices.web.messages import vary
from txservices.web.returns import empty_response

__all__ = ["Cors"]

MAX_AGE = 600  # seconds that a browser remembers the answer to a preflight
ORIGIN = re.compile(r"[a-z][a-z0-9+.\-]*://(?:[a-z0-9.\-_]+|\[[0-9a-f:.]+\])(?::\d{1,5})?")


def as_tuple(values: str | Iterable[str]) -> tuple[str, ...]:
    return (values,) if isinstance(values, str) else tuple(values)


@frozen
class Cors:
    """Which pages of other origins may use a URL, and for what.

    Attributes:
        origins: these, as ``https://shop.example``; ``*`` for all.
        methods: the methods that they may use, of those that the URL has; all of these if it is empty.
        headers: the headers that they may send, besides those that every page may.
        credentials: whether they may send cookies and passwords along. Not with ``*``: then any page could do in a
            user's name what the user may.
        max_age: seconds for which a browser may remember this.
        expose: the response's headers that they may read, besides those that every page may.
    """

    origins: tuple[str, ...] = field(converter=as_tuple)
    methods: tuple[str, ...] = field(default=(), converter=as_tuple)
    headers: tuple[str, ...] = field(default=("Authorization", "Content-Type"), converter=as_tuple)
    credentials: bool = False
    max_age: int = MAX_AGE
    expose: tuple[str, ...] = field(default=(), converter=as_tuple)

    def __attrs_post_init__(self) -> None:
        if "*" in self.origins and self.credentials:
            raise ConfigurationError(
                "CORS: credentials and the origin * can't go together: any page could act as the user. Name the origins"
            )
        for origin in self.origins:
            if origin != "*" and not ORIGIN.fullmatch(origin):
                raise ConfigurationError(
                    f"CORS: {origin!r} is no origin: write it as a browser does, https://shop.example, in small letters"
                    " and without a path or a slash at its end; or * for all"
                )

    def allow(self, headers: Headers, origin: str | None) -> bool:
        """Tell a browser by a response's headers whether pages of an origin may read it. Gives whether they may."""
        if "*" in self.origins:
            headers.setdefault("Access-Control-Allow-Origin", "*")
        else:
            vary(
                headers, "Origin"
            )  # also without an origin, or a cache would give such an answer to pages that have one
            if origin not in self.origins:
                return False
            headers.setdefault("Access-Control-Allow-Origin", origin)
            if self.credentials:
                headers.setdefault("Access-Control-Allow-Credentials", "true")
        if self.expose:
            headers.setdefault("Access-Control-Expose-Headers", ", ".join(self.expose))
        return origin is not None

    def preflight(self, origin: str | None, methods: Collection[str]) -> Response:
        """The answer to a browser that asks what pages of an origin may do at a URL, which has these methods."""
        response = empty_response(204, {"Allow": ", ".join(sorted({*methods, "OPTIONS"}))})
        if self.allow(response.headers, origin):
            allowed = [each for each in sorted(methods) if each in self.methods or not self.methods]
            response.headers["Access-Control-Allow-Methods"] = ", ".join(allowed)
            if self.headers:
                response.headers["Access-Control-Allow-Headers"] = ", ".join(self.headers)
            response.headers["Access-Control-Max-Age"] = str(self.max_age)
            response.headers.remove("Access-Control-Expose-Headers")
        return response
