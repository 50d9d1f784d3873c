"""The answer of an HTTP API, as ``HttpClient`` gives it: read as text or JSON, and when it wants to be asked again."""

from __future__ import annotations

import json
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.web.http_headers import Headers

from txservices.exceptions import DecodeError
from txservices.httppool import HttpStatusError


@frozen
class HttpAnswer:
    """The answer to a call.

    Attributes:
        status: 404, and so on. Those are answers, too: ``raise_for_status`` makes an error of them.
        headers: Twisted's ``Headers``.
        body: bytes.
        call: the method and the URL, without what may be secret in it.
        url: the whole URL that has answered, after redirects.
    """

    status: int
    headers: Headers
    body: bytes = field(repr=False)
    call: str
    url: str = field(repr=False)

    def header(self, name: str) -> str | None:
        """The last value of a header, or None."""
        values = self.headers.getRawHeaders(name)
        return values[-1] if values else None

    def text(self) -> str:
        """The body as text, by the charset of its type, else as UTF-8. What is no character becomes U+FFFD."""
        _, _, charset = (self.header("content-type") or "").lower().partition("charset=")
        try:
            return self.body.decode(charset.partition(";")[0].strip(" \"'") or "utf-8", "replace")
        except LookupError:
            return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body read as JSON. ``DecodeError`` if it is no JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise DecodeError(f"the answer to {self.call}, {self.status}, is no JSON: {error}") from None

    def raise_for_status(self) -> HttpAnswer:
        """This answer. ``HttpStatusError`` if its status is 400 or more."""
        if self.status >= 400:
            raise HttpStatusError(self)
        return self


if TYPE_CHECKING:

    class Answering(HttpAnswer, Deferred[HttpAnswer]):
        """A call's Deferred; in a method with ``blocking = True`` it is the answer itself."""

else:
    Answering = HttpAnswer


def retry_after(answer: HttpAnswer) -> float | None:
    """The seconds of an answer's Retry-After. A date there is reckoned by the server's own, in Date."""
    text = (answer.header("retry-after") or "").strip()
    if text.isdecimal() and text.isascii():
        return float(text[:10])
    try:
        until, now = parsedate_to_datetime(text), parsedate_to_datetime(answer.header("date") or "")
        return max((until - now).total_seconds(), 0.0)
    except (ValueError, TypeError, OverflowError):  # no date, or one with a zone and one without
        return None
