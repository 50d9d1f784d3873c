"""GET with a value in the path, POST with a body."""

import json

from txservices.web.handlers import http


class HttpService:
    name = "http_service"

    @http("GET", "/get/<int:value>")
    def get_method(self, request, value):
        return json.dumps({"value": value})

    @http("POST", "/post")
    def do_post(self, request):
        return f"received: {request.get_data(as_text=True)}"
