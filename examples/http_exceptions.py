"""Errors in a form of your own: a subclass of the entrypoint makes the response to an exception."""

import json

from werkzeug.wrappers import Response

from txservices.exceptions import safe_for_serialization
from txservices.web.handlers import HttpRequestHandler


class HttpError(Exception):
    error_code = "BAD_REQUEST"
    status_code = 400


class InvalidArgumentsError(HttpError):
    error_code = "INVALID_ARGUMENTS"


class HttpEntrypoint(HttpRequestHandler):
    def response_from_exception(self, exc):
        if not isinstance(exc, HttpError):
            return super().response_from_exception(exc)
        answer = {"error": exc.error_code, "message": safe_for_serialization(exc)}
        return Response(json.dumps(answer), status=exc.status_code, mimetype="application/json")


http = HttpEntrypoint.decorator


class Service:
    name = "http_service"

    @http("GET", "/custom_exception")
    def custom_exception(self, request):
        raise InvalidArgumentsError("Argument `foo` is required.")
