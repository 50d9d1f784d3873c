"""What is done around every method that HTTP calls: ``WEB_MIDDLEWARE`` names functions of the user's.

    async def timed(request, handle):
        began = time.monotonic()
        response = await handle(request)
        response.headers["Server-Timing"] = f"app;dur={(time.monotonic() - began) * 1000:.0f}"
        return response

The first of them is the outermost. Each is given the request and the next one, ``handle``, and returns what a method
may return; it may be ``async``, or return a Deferred. ``handle(request)`` returns a Deferred that fires with the
Response of the method, also if that has failed. A function may answer without it, or raise a werkzeug
``HTTPException``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from werkzeug.wrappers import Response

from txservices import configuration
from txservices.exceptions import ConfigurationError
from txservices.utils import import_from_path, tasks
from txservices.web.returns import response_of

__all__ = ["Middleware"]

Middleware = Callable[[Any, Callable[[Any], "Deferred[Response]"]], Any]


def middleware_of(config: Mapping[str, Any]) -> list[Middleware]:
    """The functions that a configuration names. ``ConfigurationError`` for one that isn't there."""
    key = configuration.WEB_MIDDLEWARE
    found = []
    for path in key.of(config):
        try:
            function = import_from_path(path)
        except ImportError as error:
            raise ConfigurationError(f"{key.name}: {error}: write the dotted path of a function") from error
        if not callable(function):
            raise ConfigurationError(f"{key.name}: {path} is no function")
        found.append(function)
    return found


def wrapped(
    handle: Callable[[Any], Any],
    functions: list[Middleware],
    response_to: Callable[[BaseException, None], Response],
) -> Callable[[Any], Deferred[Response]]:
    """``handle`` with the functions around it. An error of one of them is answered by ``response_to``."""
    inner = partial(tasks.call, handle)
    for function in reversed(functions):
        inner = partial(step, function, inner)

    def failed(failure: Failure) -> Response:
        assert failure.value is not None
        return response_to(failure.value, None)

    return lambda request: inner(request).addErrback(failed)


def step(function: Middleware, inner: Callable[[Any], Deferred[Response]], request: Any) -> Deferred[Response]:
    """Call one of the functions. It may return anything that a method may return."""
    return tasks.call(function, request, inner).addCallback(response_of)
