"""A service of HTTP, as users write it for nameko and for us: the text is the same but for ``FRAMEWORK``.

``nameko_env``'s nameko runs a copy in which ``FRAMEWORK`` is ``nameko``; ours is ``txservices``.
"""

import json

from FRAMEWORK.exceptions import BadRequest  # type: ignore[import-not-found]  # it stands for a name
from FRAMEWORK.web.handlers import http  # type: ignore[import-not-found]  # it stands for a name
from werkzeug.wrappers import Response


class Known(Exception):
    pass


class Web:
    name = "web"

    @http("GET", "/get/<int:value>")
    def get(self, request, value):
        return json.dumps({"value": value, "asked": sorted(request.args.items(multi=True))})

    @http("POST,PUT", "/post")
    def post(self, request):
        return f"{request.method} {request.get_data(as_text=True)} {request.form.to_dict()}"

    @http("GET", "/status")
    def status(self, request):
        return 201, "made"

    @http("GET", "/headers")
    def headers(self, request):
        return 302, {"Location": "https://example.com/x", "X-Own": "a, b"}, ""

    @http("GET", "/response")
    def response(self, request):
        answer = Response(b"\x00\x01", mimetype="application/octet-stream", status=203)
        answer.set_cookie("a", "b c")
        return answer

    @http("GET", "/streamed")
    def streamed(self, request):
        return Response(["one", "two"], mimetype="text/plain")

    @http("GET", "/seen")
    def seen(self, request):
        return "|".join([request.path, request.query_string.decode(), request.headers.get("X-Own", "-"), request.host])

    @http("GET", "/slash/")
    def slash(self, request):
        return "slash"

    @http("GET", "/bad")
    def bad(self, request):
        raise BadRequest("no sügar")

    @http("GET", "/known", expected_exceptions=Known)
    def known(self, request):
        raise Known("expected")
