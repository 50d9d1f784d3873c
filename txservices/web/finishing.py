"""What is done to the answer of a URL before it is sent: conditions and parts, compression, CORS.

    response -> ETag -> coding -> 304, 206 or as it is -> compressed -> CORS -> response

A URL for which nothing is to be done has no ``Finishing``, and its plain results take their quick way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen
from werkzeug.wrappers import Response

from txservices import configuration
from txservices.exceptions import ConfigurationError
from txservices.web.compression import coding_of, compress, weaken
from txservices.web.conditional import Stored, add_etag, conditional
from txservices.web.cors import Cors
from txservices.web.messages import BODYLESS, HttpRequest


@frozen
class Finishing:
    """What is done to the answers of a URL.

    Attributes:
        cors: which other pages may use it; None if no page may.
        conditional: whether the answers depend on what a client has already, and have an ETag.
        compress_from: bytes from which on a body is compressed; None if it is not.
    """

    cors: Cors | None
    conditional: bool
    compress_from: int | None

    def finish(self, request: HttpRequest, response: Response, stored: Stored | None = None) -> Response:
        """The response as it is to be sent. ``stored`` is its body, if that is complete and not in the response."""
        if self.conditional or self.compress_from is not None:
            if stored is None and is_complete(response):
                stored = Stored(response.get_data())
                if self.conditional and response.status_code == 200:
                    add_etag(response, stored.body)
            self.shorten(request, response, stored)
        if self.cors is not None:
            self.cors.allow(response.headers, request.headers.get("Origin"))
        return response

    def shorten(self, request: HttpRequest, response: Response, stored: Stored | None) -> None:
        """Send no more than is needed of a body."""
        coding = None
        if stored is not None and self.compress_from is not None:
            coding = coding_of(request, response, stored, self.compress_from)
            if self.conditional and "Range" in request.headers:
                coding = None  # parts are of the body as it is
        if coding is not None:
            weaken(response)
        status = response.status_code
        if self.conditional:
            conditional(request, response, stored)
        if coding is not None and stored is not None and response.status_code == status:
            compress(response, stored, coding)


def is_complete(response: Response) -> bool:
    """Whether all of its body is there, and is the whole."""
    return response.is_sequence and not response.direct_passthrough and response.status_code not in (*BODYLESS, 206)


def finishing_of(
    config: Mapping[str, Any], cors: Cors | bool | None, is_conditional: bool, is_compressed: bool
) -> Finishing | None:
    """What is to be done, by a configuration and the options of a URL. None if that is nothing."""
    allowed = cors_of(cors, config)
    compress_from = configuration.WEB_COMPRESS_FROM.of(config) if is_compressed else None
    if allowed is None and not is_conditional and compress_from is None:
        return None
    return Finishing(allowed, is_conditional, compress_from)


def cors_of(own: Cors | bool | None, config: Mapping[str, Any]) -> Cors | None:
    """What holds for a URL: its own, or the configuration's. None if no other page may use it."""
    if own is False:
        return None
    if isinstance(own, Cors):
        return own
    if own is not None:
        raise ConfigurationError("cors= takes a Cors, or False for none")
    configured = configuration.WEB_CORS.of(config)
    return Cors(**configured) if configured else None
