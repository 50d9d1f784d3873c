"""The result of a method as a response: what nameko takes, and bytes, JSON and nothing besides. Pure.

a text              text/plain
bytes               application/octet-stream
a dict, a list, a msgspec Struct, a dataclass       application/json
an iterator, an async iterator                      text/plain, made while it is sent: see ``bodies``
None                204, no content
(status, body)  (status, headers, body)             the same bodies, with a status and headers of their own
a werkzeug Response                                 as it is
"""

from __future__ import annotations

from dataclasses import is_dataclass
from typing import Any

from msgspec import Struct
from msgspec.json import Encoder
from werkzeug.datastructures import Headers
from werkzeug.wrappers import Response

from txservices.safe import brief
from txservices.web.messages import text_response

JSON = "application/json"
BINARY = "application/octet-stream"

encode = Encoder().encode


def response_of(result: Any) -> Response:
    """The response for a method's result. ``TypeError`` or ``ValueError`` if it can't be one."""
    if isinstance(result, Response):
        return result
    status: Any = 200
    headers, body = None, result
    if isinstance(result, tuple):
        if len(result) == 2:
            status, body = result
        elif len(result) == 3:
            status, headers, body = result
        else:
            raise ValueError(f"a tuple of {len(result)}: give (status, body) or (status, headers, body)")
    if isinstance(body, str):
        return text_response(body, status, headers)
    if body is None:
        return empty_response(204 if result is None else status, headers)
    if isinstance(body, bytes):
        return typed_response(body, status, headers, BINARY)
    if is_json(body):
        return typed_response(encode(body), status, headers, JSON)
    if hasattr(body, "__next__") or hasattr(body, "__aiter__"):
        return Response(body, status, headers)
    raise TypeError(f"the body of the response is {brief(body)}: give a str, bytes, dict or list, or else a Response")


def is_json(body: Any) -> bool:
    """Whether it is written as JSON. A number or a set in place of a body is more likely a mistake."""
    return isinstance(body, (dict, list, Struct)) or (is_dataclass(body) and not isinstance(body, type))


def typed_response(body: bytes, status: Any, headers: Any, content_type: str) -> Response:
    """A response of a type, unless the headers name another."""
    named = Headers(headers)
    named.setdefault("Content-Type", content_type)
    return Response(body, status, named)


def empty_response(status: Any, headers: Any) -> Response:
    """A response without a body, and so without a type, unless the headers name one."""
    named = Headers(headers)
    response = Response(b"", status, named)  # it gives the headers a type, if they have none
    if "Content-Type" not in Headers(headers):
        del named["Content-Type"]
    return response
