"""Every example as its reader runs it: by twistd and `txservices run`, on the embedded broker and RabbitMQ.

All in real processes. The results are those of nameko's documentation.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from runpy import run_path

import yaml
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests import processes, rabbitmq
from tests.command.folder import TypingCase

TEXT = "Content-Type: text/plain; charset=utf-8"
# method, path, body -> status line, headers, body, as the documentation shows them
RESPONSES = [
    ("GET", "/get/42", "", "200 OK", [TEXT, "Content-Length: 13"], '{"value": 42}'),
    ("POST", "/post", "post body", "200 OK", [TEXT, "Content-Length: 19"], "received: post body"),
    ("GET", "/privileged", "", "403 FORBIDDEN", [TEXT, "Content-Length: 9"], "Forbidden"),
    (
        "GET",
        "/headers",
        "",
        "201 CREATED",
        [TEXT, "Content-Length: 0", "Location: https://www.example.com/widget/1"],
        "",
    ),
    ("GET", "/custom", "", "200 OK", [TEXT, "Content-Length: 7"], "payload"),
]
JSON, PROBLEM = "Content-Type: application/json", "Content-Type: application/problem+json"
ANY_ORIGIN = "Access-Control-Allow-Origin: *"
TEA = '{"number":1,"name":"tea"}'
# method, path and headers, body -> status line, some of the headers, body
API: list[tuple[str, str, str, str, list[str], str]] = [
    ("GET", "/items/1", "", "200 OK", [JSON, ANY_ORIGIN], TEA),
    ("GET", "/items", "", "200 OK", [JSON], f'{{"items":[{TEA},{{"number":2,"name":"spoon"}}]}}'),
    (
        "GET",
        "/items/7",
        "",
        "404 NOT FOUND",
        [PROBLEM, ANY_ORIGIN],
        '{"type": "about:blank", "title": "Not Found", "status": 404, "detail": "there is no item 7"}',
    ),
    ("POST", "/items", '{"name": "pot"}', "201 CREATED", [JSON, "Location: /items/3"], '{"number":3,"name":"pot"}'),
    ("PUT", "/pictures/tea", "x" * 100_000, "200 OK", [JSON], '{"name":"tea","size":100000}'),
    (
        "GET",
        "/news",
        "",
        "200 OK",
        ["Content-Type: text/event-stream; charset=utf-8"],
        ":\n\n"
        + "".join(f"event: item\nid: {i}\ndata: {name}\n\n" for i, name in ((1, "tea"), (2, "spoon"), (3, "pot"))),
    ),
    ("GET", "/assets/hello.txt", "", "200 OK", ["Cache-Control: public, max-age=3600"], "hello from a file\n"),
    ("GET", "/admin/users", "", "200 OK", ["Content-Type: text/plain"], "/users below /admin"),
    ("GET", "/labels/1", "", "200 OK", [TEXT], "* tea *"),
    ("GET", "/labels/7", "", "404 NOT FOUND", [TEXT], "there is no item 7"),
]
INVALID_ARGUMENTS = (
    "400 BAD REQUEST",
    ["Content-Type: application/json", "Content-Length: 72"],
    '{"error": "INVALID_ARGUMENTS", "message": "Argument `foo` is required."}',
)
HOP = ("Date", "Server", "Connection")  # headers that say nothing about the service


class Conversation(Protocol):
    """Sends bytes and keeps all that comes back until the other side closes."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.received = b""
        self.closed: Deferred[str] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(self.request)

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.closed.callback(self.received.decode())


async def curl(
    address: str, method: str, path: str, body: str = "", kind: str = "application/x-www-form-urlencoded"
) -> tuple[str, list[str], str]:
    """The answer as `curl -i` shows it: the status line, the headers in their order of name, and the body."""
    host, port = address.split(":")
    head = [f"{method} {path} HTTP/1.1", f"Host: {address}", "Connection: close"]
    if body:
        head += [f"Content-Length: {len(body)}", f"Content-Type: {kind}"]
    talk = Conversation("\r\n".join([*head, "", body]).encode())
    await connectProtocol(TCP4ClientEndpoint(reactor, host, int(port)), talk)
    response = await talk.closed.addTimeout(processes.DEADLINE, reactor)
    top, _, content = response.partition("\r\n\r\n")
    status, *headers = top.split("\r\n")
    kept = [header for header in headers if header.partition(":")[0] not in HOP]
    return status.removeprefix("HTTP/1.1 "), sorted(kept), content


def unchunked(answer: tuple[str, list[str], str]) -> str:
    """The body of an answer, of one that comes in chunks, too."""
    _, headers, body = answer
    if "Transfer-Encoding: chunked" not in headers:
        return body
    return "".join(body.split("\r\n")[1::2])


class Examples:
    """The examples that need a broker, for one face and one broker; whoever calls the services is in this process."""

    face: Callable[..., processes.Process]  # that of processes.ByTwistd or ByRun

    def setUp(self) -> None:
        super().setUp()
        self.config = processes.config_file(self, **self.broker())

    def broker(self) -> dict[str, str]:
        """The config's keys about the broker: none, for the embedded one."""
        return {}

    def services(self, *modules: str) -> processes.Process:
        return self.face(modules, processes.EXAMPLES, "--config", self.config)

    async def command(self, name: str, *arguments: str) -> str:
        """The output of `txservices NAME …`, beside the services."""
        status, stdout, stderr = await self.client(name, "--config", self.config, *arguments)
        self.assertEqual((status, stderr), (0, ""))
        return str(stdout)

    async def example(self, name: str, *arguments: str) -> str:
        """The output of an example that is a program."""
        program = run_path(os.path.join(processes.EXAMPLES, "standalone", name))
        with self.captured() as outputs:
            await program["main"](reactor, *arguments)
        return str(outputs()[0])

    async def test_rpc(self) -> None:
        """service_x calls service_y and the caller, `call` or a standalone proxy, gets what came of it."""
        running = self.services("rpc")
        await running.line("running: service_y, service_x")
        called = await self.command("call", "service_x.remote_method", '["hellø"]')
        self.assertEqual(called, '"hellø-x-y"\n')
        named = await self.command("call", "service_y.append_identifier", '{"value": "hellø"}')
        self.assertEqual(named, '"hellø-y"\n')
        uri = processes.broker_uri(self.config)
        self.assertEqual(await self.example("standalone_rpc.py", uri), "hellø-x-y\n")
        self.assertEqual(await self.example("async_rpc.py", uri), "hello-x-y\nworld-x-y\n")
        await processes.stopped(running)

    async def test_events(self) -> None:
        """service_b hears what service_a tells, and what `dispatch` tells in service_a's name."""
        running = self.services("events")
        await running.line("running: service_a, service_b")
        self.assertEqual(await self.command("call", "service_a.dispatching_method", '["one"]'), "null\n")
        await running.line("service b received: one$")
        self.assertEqual(await self.command("dispatch", "service_a", "event_type", '{"two": 2}'), "")
        await running.line("service b received: {'two': 2}$")
        await processes.stopped(running)

    async def test_event_broadcast(self) -> None:
        """Every instance hears: two processes, that found each other, answer one event."""
        first = self.services("event_broadcast")
        await first.line("running: listener")
        second = self.services("event_broadcast")
        await second.line("running: listener")
        await self.command("dispatch", "monitor", "ping")
        await first.line("pong from listener")
        await second.line("pong from listener")
        await processes.stopped(second, first)


class OnRabbitMQ:
    """The same on a private RabbitMQ, in a virtual host of its own."""

    skip = rabbitmq.skip

    def broker(self) -> dict[str, str]:
        node = rabbitmq.node()
        return {"AMQP_URI": node.uri(node.new_vhost())}


class ExamplesUnderTwistd(processes.ByTwistd, Examples, TypingCase):
    """twistd, and the embedded broker."""


class ExamplesByRun(processes.ByRun, Examples, TypingCase):
    """`txservices run`, and the embedded broker; whoever calls the services is a process, too."""

    async def command(self, name: str, *arguments: str) -> str:
        return await processes.succeed(processes.txservices(self, name, "--config", self.config, *arguments))

    async def example(self, *arguments: str) -> str:
        return await processes.succeed(
            processes.python(self, *arguments, cwd=os.path.join(processes.EXAMPLES, "standalone"))
        )


class ExamplesOnRabbitMQUnderTwistd(OnRabbitMQ, ExamplesUnderTwistd):
    """twistd, and RabbitMQ."""


class ExamplesOnRabbitMQByRun(OnRabbitMQ, processes.ByRun, Examples, TypingCase):
    """`txservices run`, and RabbitMQ."""


class WithoutBroker:
    """The examples that need none."""

    def setUp(self) -> None:
        self.config = processes.config_file(self)
        self.address = processes.read_config(self.config)["WEB_SERVER_ADDRESS"]

    async def test_http(self) -> None:
        """Both HTTP services of a process share the port, and answer as the documentation shows."""
        running = self.face(["http", "advanced_http"], processes.EXAMPLES, "--config", self.config)
        await running.line("running: http_service, advanced_http_service")
        await running.line(f"http: http://{self.address}$")
        for method, path, body, status, headers, content in RESPONSES:
            got = await curl(self.address, method, path, body)
            self.assertEqual(got, (status, sorted(headers), content), path)
        await processes.stopped(running)

    async def test_http_exceptions(self) -> None:
        """A subclass of the entrypoint answers errors in a shape of its own."""
        running = self.face(["http_exceptions"], processes.EXAMPLES, "--config", self.config)
        await running.line("running: http_service")
        status, headers, content = INVALID_ARGUMENTS
        got = await curl(self.address, "GET", "/custom_exception")
        self.assertEqual(got, (status, sorted(headers), content))
        self.assertEqual(await running.end(), 0, str(running))

    async def test_timer(self) -> None:
        """The timer ticks, and goes on."""
        running = self.face(["timer"], processes.EXAMPLES, "--config", self.config)
        await running.line("running: service")
        await running.line(r"pong[\s\S]*pong")
        self.assertNotIn("broker", running.stdout)
        await processes.stopped(running)


class WithoutBrokerUnderTwistd(WithoutBroker, processes.ByTwistd, TestCase):
    """twistd."""


class WithoutBrokerByRun(WithoutBroker, processes.ByRun, TestCase):
    """`txservices run`."""

    async def test_http_api(self) -> None:
        """An API with all that HTTP has, and a service that asks it."""
        with open(os.path.join(processes.EXAMPLES, "http_api.yaml"), encoding="utf-8") as file:
            config = {**yaml.safe_load(file), "SHOP_API": f"http://{self.address}"}
        config = processes.config_file(self, **{**config, "WEB_SERVER_ADDRESS": self.address})
        running = self.face(["http_api", "http_client"], processes.EXAMPLES, "--config", config)
        await running.line("running: shop, labels")
        for method, path, body, status, headers, content in API:
            got = await curl(self.address, method, path, body, "application/json")
            self.assertEqual((got[0], unchunked(got)), (status, content), path)
            self.assertEqual([header for header in headers if header not in got[1]], [], path)
        await running.line(r'"GET /items/1 HTTP/1\.1" 200 25 ')
        await processes.stopped(running)
