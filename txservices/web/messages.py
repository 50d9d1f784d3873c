"""Turns Twisted's request into werkzeug's, and werkzeug's response into the bytes that Twisted writes. Pure.

The parts of a request are made when a method asks for them: most methods ask for one or for no part.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from io import BytesIO
from tempfile import SpooledTemporaryFile
from typing import IO, Any, NamedTuple, cast

from werkzeug.datastructures import EnvironHeaders, Headers
from werkzeug.utils import cached_property
from werkzeug.wrappers import Request, Response
from werkzeug.wsgi import get_input_stream

from txservices.web.forms import FormParser, Json

__all__ = ["BadResponse", "HttpRequest"]

TEXT = "text/plain; charset=utf-8"
STATUS = re.compile(r"[2-5]\d\d [^\x00-\x1f\x7f]*", re.ASCII)
HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, 5.6.2
HEADER_VALUE = re.compile(r"[^\x00\r\n]*")
FRAMING = {"content-length", "transfer-encoding", "connection", "keep-alive", "date"}  # headers that only we may set
LOCATIONS = ("location", "content-location")
BODYLESS = (204, 304)  # statuses without a body, RFC 9110, 6.4.1
RETRY_AFTER = 5  # seconds; by then another instance or a restarted one can answer


class HttpRequest(Request):
    """werkzeug's Request. ``environ``, and with it headers and body, is made when it is first used.

    Attributes:
        path_values: the values of the URL's variables, by name.
        user: who it is, as ``auth=`` of the URL has found.
        finishers: each is called with the response, before that is sent; None for none.
    """

    # It is made of what Twisted has parsed, and sets the attributes that werkzeug's __init__ would set from an environ:
    # to make an environ costs much more than all the rest.

    root_path = ""
    shallow = False
    form_data_parser_class = FormParser
    user: Any = None
    finishers: list[Callable[[Response], None]] | None = None

    def __init__(self, received: Any, method: str, path: str, path_values: dict[str, Any]) -> None:
        self.received = received
        self.scheme: str = received.scheme
        # Taken away from Twisted, which would close the body when the client leaves, while the worker may still read.
        self.body: IO[bytes] | None = received.content
        received.content = None
        self.method = method
        self.path = path
        self.path_values = path_values

    def _get_file_stream(self, *_: Any, **__: Any) -> IO[bytes]:
        """Where a form's file is kept. werkzeug would open a file on disk for each of many short ones."""
        return cast("IO[bytes]", SpooledTemporaryFile(self.max_form_memory_size or 0, "w+b"))

    @cached_property
    def stream(self) -> IO[bytes]:
        """The body as a file."""
        if self.max_content_length is not None:  # which a method may set
            return get_input_stream(self.environ, max_content_length=self.max_content_length)
        return BytesIO() if self.body is None else self.body

    @cached_property
    def json_module(self) -> Json:  # type: ignore[override]  # of the module, werkzeug uses only `loads`
        return Json(self.received.site.values_max)

    @cached_property
    def query_string(self) -> bytes:
        query: bytes = self.received.uri.partition(b"?")[2]
        return query

    @cached_property
    def remote_addr(self) -> str | None:
        return getattr(self.received.client, "host", None)

    @property
    def last_event_id(self) -> str | None:
        """The id of the last event that the client has of an ``EventStream``; None if it says none."""
        value = self.headers.get("Last-Event-ID")
        return None if value is None else value.encode("latin-1").decode("utf-8", "replace")

    @cached_property
    def server(self) -> tuple[str, int | None]:
        here = self.received.host
        return getattr(here, "host", "localhost"), getattr(here, "port", None)

    @cached_property
    def headers(self) -> Headers:
        return EnvironHeaders(self.environ)

    @cached_property
    def environ(self) -> dict[str, Any]:
        """The environment of WSGI, PEP 3333."""
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
            "wsgi.input_terminated": True,  # Twisted has decoded the transfer encoding
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": False,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        for header, values in self.received.requestHeaders.getAllRawHeaders():
            if b"_" in header:
                continue  # X_User would look like X-User in an environ, and a proxy before us may vouch for that one
            key = header.decode("ascii").upper().replace("-", "_")
            if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
                key = f"HTTP_{key}"
            environ[key] = (b"; " if header == b"Cookie" else b",").join(values).decode("latin-1")
        return environ


class Plain(NamedTuple):
    """A response whose body is complete, and of which no werkzeug ``Response`` was made.

    Attributes:
        head: as ``head_of`` gives it.
        closing: whether the connection is to be closed.
    """

    status_code: int
    head: bytes
    closing: bool
    body: bytes


class BadResponse(ValueError):
    """A response that can't be sent: HTTP does not allow its status or one of its headers."""


def head_of(response: Response) -> tuple[bytes, bool]:
    """The status line and the headers, without those in ``FRAMING``, and whether the connection is to be closed.

    ``BadResponse`` if HTTP does not allow them. So a line break in a header's value can't add a header.
    """
    status = response.status
    if not STATUS.fullmatch(status):
        raise BadResponse(f"status {status!r}: give a number from 200 to 599, or one and a text after it")
    lines = [f"HTTP/1.1 {status}\r\n"]
    closing = False
    for name, value in final_headers(response):
        if not HEADER_NAME.fullmatch(name) or not HEADER_VALUE.fullmatch(value):
            raise BadResponse(f"header {name!r}: {value!r} has characters that are not allowed in a header")
        key = name.lower()
        if key not in FRAMING:
            lines.append(f"{name}: {value}\r\n")
        elif key == "connection":
            closing = value.lower() == "close"
    try:
        return "".join(lines).encode("latin-1"), closing
    except UnicodeEncodeError as error:
        raise BadResponse(f"{error.object[error.start]!r} in a header: encode it, HTTP allows ISO-8859-1") from None


def final_headers(response: Response) -> Headers:
    """The headers as werkzeug would send them."""
    # werkzeug copies all headers, only to change Location and lengths: where it would change nothing, we do not ask it
    headers = response.headers
    as_they_are = (
        type(response) is Response
        and response.status_code not in BODYLESS
        and not any(name.lower() in LOCATIONS for name, _ in headers)
    )
    return headers if as_they_are else response.get_wsgi_headers({})


def text_response(text: str, status: int | str = 200, headers: Any = None) -> Response:
    """A response with plain text."""
    return Response(text, status=status, headers=headers)  # werkzeug's default type is text/plain


def vary(headers: Headers, name: str) -> None:
    """Tell caches that the response depends on a header of the request."""
    named = {each.strip().lower() for each in ",".join(headers.getlist("Vary")).split(",")}
    if "*" not in named and name.lower() not in named:
        headers.add("Vary", name)
