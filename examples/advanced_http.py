"""A method may return a status with a body, headers between the two, or a whole response."""

from werkzeug.wrappers import Response

from txservices.web.handlers import http


class Service:
    name = "advanced_http_service"

    @http("GET", "/privileged")
    def forbidden(self, request):
        return 403, "Forbidden"

    @http("GET", "/headers")
    def redirect(self, request):
        return 201, {"Location": "https://www.example.com/widget/1"}, ""

    @http("GET", "/custom")
    def custom(self, request):
        return Response("payload")
