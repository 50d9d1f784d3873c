"""Server-sent events: a response that is never complete, from which a browser's ``EventSource`` reads events.

    @http("GET", "/prices")
    def prices(self, request):
        return EventStream(self.prices_since(request.last_event_id))

    async def prices_since(self, last):
        async for number, price in ...:
            yield ServerSentEvent(price, id=str(number))

HTML's standard has the format, in 9.2: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, Iterable
from dataclasses import dataclass
from typing import Any

from werkzeug.wrappers import Response

from txservices.safe import brief
from txservices.web.bodies import Body

__all__ = ["EventStream", "ServerSentEvent"]

KEEP_ALIVE = 15.0  # seconds of silence before a comment; many proxies close a connection after 60 silent seconds
COMMENT = b":\n\n"
LINES = re.compile("\r\n|\r|\n")
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # the second has nginx pass events on at once


@dataclass(frozen=True)
class ServerSentEvent:
    """An event for a browser.

    Args:
        data: a text of any number of lines.
        event: its name, for ``addEventListener``. Without one it is a ``message``.
        id: what the browser sends as ``Last-Event-ID`` when it connects again.
        retry: seconds after which it does so, from now on.
    """

    data: str
    event: str | None = None
    id: str | None = None
    retry: float | None = None


Events = Iterable[ServerSentEvent | str] | AsyncIterable[ServerSentEvent | str]


class EventStream(Response):
    """A response of server-sent events. A browser that loses the connection connects again, and says which came last.

    A stop of the service ends it in order, and so does the end of the iterator; the browser then connects again. When
    the client leaves, the iterator is ended. ``request.last_event_id`` is the id of the last event that a client has.

    Args:
        events: an iterator or an async iterator of ``ServerSentEvent``, or of texts, each of which is an event's data.
        retry: seconds after which a browser connects again; None leaves that to the browser.
        headers: further headers.
    """

    def __init__(self, events: Events, retry: float | None = None, headers: Any = None) -> None:
        super().__init__(headers=headers, content_type="text/event-stream; charset=utf-8")
        for name, value in HEADERS.items():
            self.headers.setdefault(name, value)
        # sent at once: a browser takes the connection for open when it has the head
        first = COMMENT if retry is None else retry_line(retry) + b"\n"
        body: Any = Body(events, encoded, first, KEEP_ALIVE, COMMENT, endless=True)
        self.response = body


def encoded(event: Any) -> bytes:
    """An event as it is sent. ``TypeError`` or ``ValueError`` if it can't be."""
    if isinstance(event, str):
        event = ServerSentEvent(event)
    if not isinstance(event, ServerSentEvent) or not isinstance(event.data, str):
        raise TypeError(
            f"an event of the stream is {brief(event)}: give a str, or a ServerSentEvent with one as its data"
        )
    fields = [retry_line(event.retry)] if event.retry is not None else []
    for name, value in (("event", event.event), ("id", event.id)):
        if value is not None:
            if LINES.search(value) or "\0" in value:
                raise ValueError(f"{name} of a server-sent event is {brief(value)}: it is one line, without a NUL")
            fields.append(f"{name}: {value}\n".encode())
    fields += [f"data: {line}\n".encode() for line in LINES.split(event.data)]
    return b"".join([*fields, b"\n"])


def retry_line(seconds: float) -> bytes:
    return b"retry: %d\n" % round(seconds * 1000)
