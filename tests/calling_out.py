"""A service that calls other people's HTTP, and servers for it: in memory, or of raw bytes."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.web.resource import Resource

from tests.services import ServicesCase
from txservices.httpclient import HttpClient
from txservices.retry import Retry
from txservices.rpc import rpc
from txservices.testing.http import answer_http
from txservices.testing.services import entrypoint_hook

AT_ONCE = Retry(attempts=3, delay=0)


class Server(Resource):
    """Notes each request, and answers as ``answers`` says, one after the other; the last again and again."""

    isLeaf = True

    def __init__(self, *answers: tuple[int, dict[str, str], bytes]) -> None:
        super().__init__()
        self.answers = list(answers or [(200, {}, b"{}")])
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []

    def render(self, request: Any) -> bytes:
        headers = {name.decode().lower(): b", ".join(values).decode() for name, values in headers_of(request)}
        self.asked.append((request.method.decode(), request.uri.decode(), headers, request.content.read()))
        status, further, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        request.setResponseCode(status)
        for name, value in further.items():
            request.setHeader(name.encode(), value.encode())
        return b"" if request.method == b"HEAD" else body


def headers_of(request: Any) -> Any:
    return request.requestHeaders.getAllRawHeaders()


class Raw(Protocol):
    """Answers the first bytes of each connection with the next of the factory's answers; None closes without one."""

    def dataReceived(self, data: bytes) -> None:
        factory: Any = self.factory
        factory.asked.append(data)
        answer = factory.answers.pop(0) if len(factory.answers) > 1 else factory.answers[0]
        if answer is None:
            self.transport.abortConnection()
        elif answer:
            self.transport.write(answer)


class Shop:
    name = "shop"
    api = HttpClient("http://api.example/v1/", timeout=20, retry=AT_ONCE, headers={"X-Key": "k"}, body_max=1000)

    @rpc(expected_exceptions=Exception)
    async def ask(self, method: str, path: str, options: Any = None) -> Any:
        answer = await self.api.request(method, path, **(options or {}))
        return [answer.status, answer.text()]

    @rpc
    def plain(self, path: str) -> Any:
        return self.api.get(path).addCallback(lambda answer: answer.text())

    @rpc(blocking=True, expected_exceptions=Exception)
    def blocking(self, path: str) -> Any:
        return self.api.get(path).text()


class Case(ServicesCase):
    """One service, and what it asks."""

    async def serve(self, *answers: tuple[int, dict[str, str], bytes], service: Any = Shop, **config: Any) -> Server:
        self.container_of = self.container(service, **config)
        server = Server(*answers)
        answer_http(self.container_of, server)
        await self.container_of.start()
        self.addCleanup(self.container_of.stop)
        return server

    async def ask(self, *args: Any, method: str = "ask", context: dict[str, Any] | None = None) -> Any:
        with entrypoint_hook(self.container_of, method, context) as entrypoint:
            return await entrypoint(*args)

    def listen(self, *answers: bytes | None, interface: str = "127.0.0.1") -> Any:
        """A server that speaks raw bytes, at ``port``."""
        factory: Any = Factory.forProtocol(Raw)
        factory.answers, factory.asked = list(answers), []
        port = reactor.listenTCP(0, factory, interface=interface)
        self.addCleanup(port.stopListening)
        factory.port = port.getHost().port
        return factory

    async def over_tcp(self, url: str, **options: Any) -> None:
        class Asks(Shop):
            api = HttpClient(url, **{"timeout": 20, "retry": AT_ONCE, **options})

        self.container_of = self.container(Asks)
        await self.container_of.start()
        self.addCleanup(self.container_of.stop)
