"""The result of a method as a response: what nameko takes, and bytes, JSON and nothing besides. Pure.

a text              text/plain
bytes               application/octet-stream
a dict, a list, a msgspec Struct, a dataclass       application/json
an iterator, an async iterator                      text/plain, made while it is sent: see ``bodies``
None                204, no content
(status, body)  (status, headers, body)             the same bodies, with a status and headers of their own
a werkzeug Response                                 as it is

Making a Response of werkzeug's and encoding its head takes longer than all else that a quick request needs. So a result
that is no Response becomes ``Plain`` where it can, with a head that was encoded before for the same status and headers.
"""

from __future__ import annotations

from dataclasses import is_dataclass
from typing import Any

from msgspec import Struct
from msgspec.json import Encoder
from werkzeug.datastructures import Headers
from werkzeug.wrappers import Response

from txservices.safe import brief
from txservices.web.messages import BODYLESS, Plain, head_of, text_response

JSON = "application/json"
BINARY = "application/octet-stream"

HEADS_MAX = 256  # heads that are kept encoded
HEAD_MAX = 1_024  # bytes of one

encode = Encoder().encode
heads: dict[Any, tuple[int, bytes, bool]] = {}  # by type of the body, status and headers


def plain_of(result: Any) -> Plain | None:
    """The response for a method's result, None if only ``response_of`` can make it."""
    status: Any = 200
    headers, body = None, result
    if type(result) is tuple:
        if len(result) == 2:
            status, body = result
        elif len(result) == 3:
            status, headers, body = result
    kind = type(body)
    if kind is str:
        data = body.encode()
    elif kind is bytes:
        data = body
    elif is_json(body):
        kind, data = dict, encode(body)
    else:
        return None
    if headers is None:
        key: Any = (kind, status)
    elif type(headers) is dict:
        key = (kind, status, *headers.items())
        for name, value in key[2:]:  # of equal keys, as 1 and True, the texts may differ
            if type(name) is not str or type(value) is not str:
                return None
    else:
        return None
    if type(status) is not int and type(status) is not str:
        return None
    found = heads.get(key)
    if found is None:
        found = encoded_head(key, response_of((status, headers, {} if kind is dict else kind())))
        if found is None:
            return None
    return Plain(*found, data)


def encoded_head(key: Any, response: Response) -> tuple[int, bytes, bool] | None:
    """The head of a response, which is kept. None if it can't be sent, or depends on more than the key."""
    if response.status_code in (*BODYLESS, 205):  # the body is left out when it is sent
        return None
    try:
        head, closing = head_of(response)
    except ValueError:  # it is told when the response is sent
        return None
    found = response.status_code, head, closing
    if len(head) <= HEAD_MAX:
        if len(heads) >= HEADS_MAX:
            heads.clear()
        heads[key] = found
    return found


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
