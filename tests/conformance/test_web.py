"""HTTP and WebSockets: lines 64 to 66."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from werkzeug.wrappers import Response

from tests.web.chat import Client, event, succeeded
from tests.web.peer import WebTestCase, text
from txservices.exceptions import BadRequest, ConfigurationError, ConnectionNotFound
from txservices.extensions import DependencyProvider
from txservices.web.handlers import HttpRequestHandler, http
from txservices.web.server import WebServer, parse_address
from txservices.web.websocket import WebSocketHubProvider
from txservices.web.websocket import rpc as websocket_rpc

LOGGED = rb"\r\n\r\nError: internal error, the log has it as call service.[a-z_]+.[0-9a-f-]{36}\n$"


class Service:
    """Answers in every way that there is."""

    name = "service"

    @http("GET", "/param/<int:number>/<string:word>")
    def param(self, request, number, word):
        return f"{number + 1} {word} {request.args.get('q')} {request.path_values['word']}"

    @http("POST", "/post")
    def post(self, request):
        return json.loads(request.get_data(as_text=True))["value"]

    @http("GET,PUT", "/several")
    def several(self, request):
        return request.method

    @http("GET", "/status")
    def status(self, request):
        return 201, "created"

    @http("GET", "/headers")
    def headers(self, request):
        return 202, {"X-One": "1"}, "with headers"

    @http("GET", "/response")
    def response(self, request):
        return Response(b"\x00", status=418, mimetype="application/octet-stream")

    @http("GET", "/unexpected")
    def unexpected(self, request):
        raise ValueError("s3cret")

    @http("GET", "/expected", expected_exceptions=ValueError)
    def expected(self, request):
        raise ValueError("told")

    @http("GET", "/bad")
    def bad(self, request):
        raise BadRequest("told")

    @http("GET", "/payload/<int:which>")
    def payload(self, request, which):
        return [5, {1}, (200, object()), (200,), (200, {}, "", "")][which]


class Handlers(WebTestCase):
    """Line 64."""

    async def test_line_64_requests(self) -> None:
        """Parameters, a body, several methods, and the ways to give status, headers or a whole response."""
        await self.serve(Service)
        peer = self.peer()
        table = [
            ("GET", "/param/41/x?q=y", "", text("200 OK", "42 x y x")),
            ("POST", "/post", '{"value": "b\\u00f8"}', text("200 OK", "bø")),
            ("GET", "/several", "", text("200 OK", "GET")),
            ("PUT", "/several", "", text("200 OK", "PUT")),
            ("HEAD", "/several", "", text("200 OK", "", length=4)),
            ("GET", "/status", "", text("201 CREATED", "created")),
            ("GET", "/headers", "", text("202 ACCEPTED", "with headers", "X-One: 1")),
        ]
        for method, path, body, expected in table:
            self.assertEqual(peer.get(path, method=method, body=body), expected)
        answer = peer.get("/response")
        self.assertTrue(answer.startswith(b"HTTP/1.1 418 I'M A TEAPOT\r\nContent-Type: application/octet-stream\r\n"))
        self.assertTrue(answer.endswith(b"\r\n\r\n\x00"))
        for method, path, status in (
            ("GET", "/param/x/y", b"404 NOT FOUND"),
            ("GET", "/nowhere", b"404 NOT FOUND"),
            ("DELETE", "/several", b"405 METHOD NOT ALLOWED"),
        ):
            self.assertTrue(peer.get(path, method=method).startswith(b"HTTP/1.1 " + status))

    async def test_line_64_errors(self) -> None:
        """An unexpected error, or what is no response, answers 500; an expected one and BadRequest 400 with its text.

        nameko's 500 tells every client the exception's text; here it tells a call id, and the log has the rest.
        """
        await self.serve(Service)
        peer = self.peer()
        self.assertEqual(peer.get("/expected"), text("400 BAD REQUEST", "Error: ValueError: told\n"))
        self.assertEqual(peer.get("/bad"), text("400 BAD REQUEST", "Error: BadRequest: told\n"))
        for path in ("/unexpected", *[f"/payload/{which}" for which in range(5)]):
            answer = peer.get(path)
            self.assertTrue(answer.startswith(b"HTTP/1.1 500 INTERNAL SERVER ERROR\r\n"))
            self.assertRegex(answer, LOGGED)
            self.assertNotIn(b"s3cret", answer)
        self.flushLoggedErrors(ValueError, BadRequest, TypeError)

    async def test_line_64_start_and_stop(self) -> None:
        """The address is listened at when the service has started, and no more when it has stopped."""
        runner = await self.serve(Service)
        self.assertEqual(self.reactor.tcpServers[-1][0], 8000)
        port = runner.containers[0].entrypoints[0].server.listener.listening
        self.assertIsNotNone(port)
        await runner.stop()
        self.assertIsNone(runner.containers[0].entrypoints[0].server.listener.listening)


class Addresses(SynchronousTestCase):
    """Line 65: WEB_SERVER_ADDRESS."""

    def test_line_65_addresses(self) -> None:
        """[host:]port, and nothing else; without a host it is the loopback, where nameko's is every interface."""
        table: list[tuple[Any, tuple[str, int] | None]] = [
            ("8000", ("127.0.0.1", 8000)),
            ("foo:8000", ("foo", 8000)),
            ("0.0.0.0:1", ("0.0.0.0", 1)),
            (":80", None),
            ("foo", None),
            ("[::1]:80", ("::1", 80)),
            ("http://foo:80", None),
        ]
        for given, expected in table:
            if expected is None:
                self.assertRaises(ConfigurationError, parse_address, given)
            else:
                self.assertEqual(parse_address(given), expected)


class Servers(WebTestCase):
    """Line 65: clients that leave, and hooks."""

    async def test_line_65_client_disconnects(self) -> None:
        """Clients that leave, in a request or before its answer, disturb nobody, and the worker goes on."""
        answer, torn = Deferred[str](), []

        class Torn(DependencyProvider):
            def worker_result(self, worker_ctx, result=None, exc_info=None):
                torn.append((result, exc_info))

        class Slow:
            name = "slow"
            torn = Torn()

            @http("POST", "/")
            def slow(self, request):
                return answer

            @http("GET", "/alive")
            def alive(self, request):
                return "alive"

        await self.serve(Slow)
        for sent in (b"POST / HTTP/1.1\r\nContent-Le", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nhalf"):
            half = self.peer()
            half.send(sent)
            half.leave()
        leaving = self.peer()
        leaving.get("/", method="POST", body="x")
        leaving.leave()
        answer.callback("too late")
        self.assertEqual(torn, [("too late", None)])
        self.assertEqual(self.peer().get("/alive"), text("200 OK", "alive"))
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_line_65_hooks(self) -> None:
        """A subclass of the server gives context data, one of the entrypoint wraps each request.

        In place of nameko's WSGI middleware (``get_wsgi_app``): there is no WSGI application here.
        """

        class Server(WebServer):
            def context_data_from_headers(self, request):
                return {"language": request.headers.get("Accept-Language")}

        class Wrapped(HttpRequestHandler):
            server = Server()

            def handle_request(self, request):
                response = super().handle_request(request)
                response.headers["X-Wrapped"] = request.path
                return response

        class Language(DependencyProvider):
            def get_dependency(self, worker_ctx):
                return worker_ctx.data["language"]

        class Speaking:
            name = "speaking"
            language = Language()

            @Wrapped.decorator("GET", "/")
            def speak(self, request):
                return self.language

        await self.serve(Speaking)
        answer = self.peer().get("/", "Accept-Language: da")
        self.assertIn(b"\r\nX-Wrapped: /\r\n", answer)
        self.assertTrue(answer.endswith(b"\r\n\r\nda"))


class Chat:
    """Subscribes, and tells."""

    name = "chat"
    hub = WebSocketHubProvider()

    @websocket_rpc
    def subscribe(self, socket_id, channel):
        self.hub.subscribe(socket_id, channel)
        return self.hub.get_subscriptions(socket_id)

    @websocket_rpc
    def unsubscribe(self, socket_id, channel):
        self.hub.unsubscribe(socket_id, channel)
        return self.hub.get_subscriptions(socket_id)

    @websocket_rpc
    def tell(self, socket_id, channel, value):
        self.hub.broadcast(channel, "told", value)

    @websocket_rpc
    def whisper(self, socket_id, to, value):
        return self.hub.unicast(to, "whispered", value)

    @websocket_rpc(expected_exceptions=ConnectionNotFound)
    def subscribe_other(self, socket_id, other):
        self.hub.subscribe(other, "room")


class WebSockets(WebTestCase):
    """Line 66."""

    async def setUp(self) -> None:
        super().setUp()
        await self.serve(Chat)

    def connected(self) -> tuple[Client, str]:
        client = Client(self.peer())
        (greeting,) = client.messages()
        self.assertEqual((greeting["type"], greeting["event"]), ("event", "connected"))
        return client, greeting["data"]["socket_id"]

    async def test_line_66_channels(self) -> None:
        """A subscriber hears each event of a channel once, and none after leaving it; leaving twice is no error."""
        (one, _), (other, _) = self.connected(), self.connected()
        self.assertEqual(one.call("subscribe", 1, channel="room"), [succeeded(["room"], 1)])
        self.assertEqual(one.call("subscribe", channel="room"), [succeeded(["room"])])
        self.assertEqual(other.call("subscribe", channel="other"), [succeeded(["other"])])
        self.assertEqual(other.call("tell", channel="room", value={"a": 1}), [succeeded(None)])
        self.assertEqual(one.messages(), [event("told", {"a": 1})])
        for _ in range(2):
            self.assertEqual(one.call("unsubscribe", channel="room"), [succeeded([])])
        self.assertEqual(other.call("tell", channel="room", value=2), [succeeded(None)])
        self.assertEqual(one.messages(), [])

    async def test_line_66_closed(self) -> None:
        """A socket that is closed is subscribed to nothing, and telling its channel goes on."""
        (one, one_id), (other, _) = self.connected(), self.connected()
        one.call("subscribe", channel="room")
        one.peer.leave()
        self.assertEqual(other.call("tell", channel="room", value=1), [succeeded(None)])
        self.assertEqual(other.call("whisper", to=one_id, value=1), [succeeded(False)])

    async def test_line_66_unicast(self) -> None:
        """One socket alone gets the event, and the sender learns whether it is there."""
        (one, one_id), (other, _) = self.connected(), self.connected()
        self.assertEqual(other.call("whisper", to=one_id, value=1), [succeeded(True)])
        self.assertEqual(one.messages(), [event("whispered", 1)])
        self.assertEqual(other.call("whisper", to="nobody", value=1), [succeeded(False)])

    async def test_line_66_mistakes(self) -> None:
        """Unknown methods, wrong arguments, malformed requests and unknown sockets are answered as errors."""
        client, _ = self.connected()
        for answers, exc_type, correlation_id in (
            (client.call("nothing", 1), "MethodNotFound", 1),
            (client.call("subscribe", 2), "IncorrectSignature", 2),
            (client.call("subscribe", 3, room="x"), "IncorrectSignature", 3),
            (client.call("subscribe_other", 4, other="nobody"), "ConnectionNotFound", 4),
            (client.text("{"), "MalformedRequest", None),
            (client.text("[]"), "MalformedRequest", None),
            (client.text('{"correlation_id": 5}'), "MalformedRequest", None),
        ):
            (answer,) = answers
            self.assertEqual((answer["type"], answer["success"]), ("result", False))
            self.assertEqual(answer["error"]["exc_path"], f"nameko.exceptions.{exc_type}")
            self.assertEqual(answer["correlation_id"], correlation_id)
        self.assertEqual(client.call("subscribe", channel="still"), [succeeded(["still"])])
