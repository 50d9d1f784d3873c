"""Twisted's request to werkzeug's, and werkzeug's response to what Twisted writes. Pure: nothing here waits.

Only the parts that a method asks for are made of a request: most methods ask for none or one.
"""

from __future__ import annotations

import re
import sys
from io import BytesIO
from typing import IO, Any

from werkzeug.datastructures import EnvironHeaders, Headers
from werkzeug.utils import cached_property
from werkzeug.wrappers import Request, Response

TEXT = "text/plain; charset=utf-8"
STATUS = re.compile(r"[2-5]\d\d [^\x00-\x1f\x7f]*", re.ASCII)
HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, 5.6.2
HEADER_VALUE = re.compile(r"[^\x00\r\n]*")
FRAMING = {"content-length", "transfer-encoding", "connection", "keep-alive"}  # how a response ends is ours to say
LOCATIONS = ("location", "content-location")
BODYLESS = (204, 304)  # RFC 9110, 6.4.1: neither a body nor, here, a length
RETRY_AFTER = 5  # seconds: by then another instance, or this one anew, answers


class HttpRequest(Request):
    """werkzeug's Request, made of what Twisted has parsed.

    It has the attributes that werkzeug's ``__init__`` sets. ``environ``, and with it headers and body, is made when it
    is first asked for, since making it costs much more than the rest.

    Attributes:
        path_values: the URL's variables.
    """

    scheme = "http"
    root_path = ""
    shallow = False

    def __init__(self, received: Any, method: str, path: str, path_values: dict[str, Any]) -> None:
        self.received = received
        # Taken from Twisted, which would close it when the client leaves: the worker goes on, and may outlive that.
        self.body: IO[bytes] | None = received.content
        received.content = None
        self.method = method
        self.path = path
        self.path_values = path_values

    @cached_property
    def query_string(self) -> bytes:
        query: bytes = self.received.uri.partition(b"?")[2]
        return query

    @cached_property
    def remote_addr(self) -> str | None:
        return getattr(self.received.client, "host", None)

    @cached_property
    def server(self) -> tuple[str, int | None]:
        here = self.received.host
        return getattr(here, "host", "localhost"), getattr(here, "port", None)

    @cached_property
    def headers(self) -> Headers:
        return EnvironHeaders(self.environ)

    @cached_property
    def environ(self) -> dict[str, Any]:
        """The request as WSGI has it, PEP 3333."""
        name, port = self.server
        environ: dict[str, Any] = {
            "REQUEST_METHOD": self.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": self.path.encode().decode("latin-1"),
            "QUERY_STRING": self.query_string.decode("latin-1"),
            "SERVER_NAME": name,
            "SERVER_PORT": str(port),
            "SERVER_PROTOCOL": self.received.clientproto.decode("ascii"),
            "REMOTE_ADDR": self.remote_addr,
            "REMOTE_PORT": getattr(self.received.client, "port", None),
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": self.scheme,
            "wsgi.input": BytesIO() if self.body is None else self.body,
            "wsgi.input_terminated": True,  # Twisted has taken the transfer encoding off
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": False,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        for header, values in self.received.requestHeaders.getAllRawHeaders():
            if b"_" in header:
                continue  # in an environ X_User would be X-User, which a proxy before us may have vouched for
            key = header.decode("ascii").upper().replace("-", "_")
            if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
                key = f"HTTP_{key}"
            environ[key] = (b"; " if header == b"Cookie" else b",").join(values).decode("latin-1")
        return environ


class BadResponse(ValueError):
    """A response that HTTP has no form for."""


def head_of(response: Response) -> tuple[bytes, bool]:
    """Status line and headers, without those of framing, and whether the response wants the connection closed.

    ``BadResponse`` if they can't be sent as they are: nothing that a method puts into a status or a header is ever read
    by a client as a header of its own.
    """
    status = response.status
    if not STATUS.fullmatch(status):
        raise BadResponse(f"status {status!r}: give a number from 200 to 599, or one and a text after it")
    lines = [f"HTTP/1.1 {status}\r\n"]
    closing = False
    for name, value in final_headers(response):
        if not HEADER_NAME.fullmatch(name) or not HEADER_VALUE.fullmatch(value):
            raise BadResponse(f"header {name!r}: {value!r} has characters that no header can have")
        key = name.lower()
        if key not in FRAMING:
            lines.append(f"{name}: {value}\r\n")
        elif key == "connection":
            closing = value.lower() == "close"
    try:
        return "".join(lines).encode("latin-1"), closing
    except UnicodeEncodeError as error:
        raise BadResponse(f"{error.object[error.start]!r} in a header: encode it, HTTP has ISO-8859-1 there") from None


def final_headers(response: Response) -> Headers:
    """The headers as werkzeug would send them. It copies them all, to change Location and lengths alone."""
    headers = response.headers
    as_they_are = (
        type(response) is Response
        and response.status_code not in BODYLESS
        and not any(name.lower() in LOCATIONS for name, _ in headers)
    )
    return headers if as_they_are else response.get_wsgi_headers({})


def text_response(text: str, status: int | str = 200, headers: Any = None) -> Response:
    """A response of plain text, as most are here."""
    return Response(text, status=status, headers=headers)  # werkzeug's default type is text/plain


def unavailable() -> Response:
    """What is said for a service that has stopped while its process goes on, or goes on for a moment."""
    return text_response(
        "Error: the service is stopping, try again\n", 503, {"Retry-After": str(RETRY_AFTER), "Connection": "close"}
    )
