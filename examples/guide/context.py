"""A request comes in by HTTP, for a user of a customer; the services behind it know both without being told."""

from txservices import ContextDataProvider, RpcProxy, UserId, http, rpc
from txservices.web.handlers import HttpRequestHandler
from txservices.web.server import WebServer

TOKENS = {"secret-of-ada": {"user_id": "ada", "customer": "acme"}}  # a real service asks who knows


class OurServer(WebServer):
    def context_data_from_headers(self, request):
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        return dict(TOKENS.get(token, {}))


class OurHttp(HttpRequestHandler):
    server = OurServer()


our_http = OurHttp.decorator


class Front:
    name = "front"

    user_id = UserId()
    greetings = RpcProxy("greetings")

    @our_http("GET", "/greeting")
    async def greeting(self, request):
        if self.user_id is None:
            return 401, "who are you?"
        return await self.greetings.greet()

    @http("GET", "/health")
    def health(self, request):
        return "fine"


class Greetings:
    name = "greetings"

    user_id = UserId()
    customer = ContextDataProvider("customer")

    @rpc
    def greet(self):
        return f"Hello {self.user_id} of {self.customer}!"
