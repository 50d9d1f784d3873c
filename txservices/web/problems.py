"""Errors as responses: a line of text, as nameko has it, or problem details as JSON (RFC 9457). Pure.

``WEB_PROBLEM_DETAILS`` decides; ``as_problem`` is its value everywhere. A werkzeug ``HTTPException`` has a status,
headers and a page of HTML of its own, which are kept, unless it is one of ours: see ``ours``. As a problem, and as a
line of text, it keeps its status and headers.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from txservices.web.messages import RETRY_AFTER, text_response
from txservices.web.ours import is_ours

PROBLEM = "application/problem+json"


def error_response(text: str | None, status: int, as_problem: bool, headers: Any = None) -> Response:
    """The response for an error of ours."""
    if as_problem:
        return problem(status, text, headers)
    return text_response(f"Error: {text}\n", status, headers)


def http_response(error: HTTPException, as_problem: bool) -> Response:
    """The response of a werkzeug exception. One that was given a ready response keeps it."""
    if error.response is None and error.code is None:
        raise TypeError(f"{type(error).__name__} has no status: give its class a code")
    mine = is_ours(error)
    if (as_problem or mine) and error.response is None and error.code is not None and error.code >= 400:
        headers = [(name, value) for name, value in error.get_headers() if name.lower() != "content-type"]
        return error_response(error.description, error.code, as_problem, headers)
    response = error.get_response()
    if not isinstance(response, Response):
        raise TypeError(f"the response of {type(error).__name__} is not werkzeug's")
    return response


def problem(status: int, detail: str | None, headers: Any = None) -> Response:
    """Problem details. Their type is ``about:blank``: the status says all that a program has to know."""
    try:
        title = HTTPStatus(status).phrase
    except ValueError:  # a status of the user's own
        title = "Unknown"
    members = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    body = json.dumps({name: value for name, value in members.items() if value is not None})
    return Response(body, status, headers, content_type=PROBLEM)


def status_of(error: BaseException) -> int | None:
    """The status of a werkzeug exception, 500 if it has none that can be; None for any other error."""
    if not issubclass(type(error), HTTPException):  # not isinstance, which asks the error
        return None
    try:
        response: Any = error.response  # type: ignore[attr-defined]
        code: Any = error.code if response is None else response.status_code  # type: ignore[attr-defined]
    except BaseException:
        return 500
    return code if type(code) is int and 200 <= code < 600 else 500


def unavailable(as_problem: bool = False) -> Response:
    """The response if the service has stopped but its process still runs."""
    headers = {"Retry-After": str(RETRY_AFTER), "Connection": "close"}
    return error_response("the service is stopping, try again", 503, as_problem, headers)
