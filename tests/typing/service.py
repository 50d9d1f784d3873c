"""A service as its author types it. Both checkers, in their strict modes, find nothing wrong with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from twisted.internet.defer import Deferred
from typing_extensions import assert_type

from txservices import (
    CircuitBreaker,
    ClusterRpc,
    Config,
    DependencyProvider,
    Entrypoint,
    EventDispatcher,
    EventStream,
    HttpClient,
    HttpRequest,
    Mount,
    OnceStore,
    Publisher,
    Queue,
    Reject,
    Retry,
    RpcProxy,
    ServerSentEvent,
    Static,
    WorkerContext,
    consume,
    event_handler,
    http,
    in_reactor,
    rpc,
    run_services,
    timer,
)
from txservices.amqp import publish
from txservices.calls import ClusterProxy, ServiceProxy
from txservices.containers import ServiceContainer
from txservices.events import Dispatch
from txservices.httpclient import HttpAnswer
from txservices.messaging import Publish
from txservices.standalone.events import event_dispatcher
from txservices.standalone.rpc import ClusterRpcProxy, ServiceRpcProxy
from txservices.testing import TestCase
from txservices.web.websocket import WebSocketHub, WebSocketHubProvider
from txservices.web.websocket import rpc as socket_rpc


class Session:
    """The thing that a provider injects."""

    def count(self) -> int:
        return 0


class Database(DependencyProvider[Session]):
    """A provider that says what it injects."""

    async def get_dependency(self, worker_ctx: WorkerContext) -> Session:
        return Session()


class Loose(DependencyProvider):
    """A provider that does not say: what it injects is Any."""

    def get_dependency(self, worker_ctx: WorkerContext) -> Any:
        return 1


class Marks(OnceStore):
    """A store of the messages that were handled."""

    async def seen(self, worker_ctx: WorkerContext, message_id: str) -> bool:
        return False

    def mark(self, worker_ctx: WorkerContext, message_id: str) -> None: ...


class Every(Entrypoint):
    """An entrypoint of the author's own."""

    def __init__(self, days: int, *, hour: int = 0) -> None:
        super().__init__()
        self.days = days
        self.hour = hour


every = Every.decorator


class Service:
    """Every decorator once, and what is injected used."""

    name = "service"

    config = Config()
    database = Database()
    loose = Loose()
    stock = RpcProxy("stock", timeout=5, priority=3, retry=Retry(attempts=3), breaker=CircuitBreaker(minimum=5))
    anybody = ClusterRpc(timeout=None, headers={"x": 1})
    lasting = RpcProxy("stock", persistent=False, retry=Retry(attempts=3, on=(OSError, ValueError)), breaker=False)
    dispatch = EventDispatcher(mandatory=True, expiration=0.5)
    publish = Publisher(Queue("lines"), declare=[Queue("more")], routing_key="lines", delivery_mode=1)
    weather = HttpClient("https://weather.example", timeout=5, retry=Retry(attempts=2), headers={"X-Key": "1"})
    marks = Marks()
    hub = WebSocketHubProvider()
    assets = Static("/assets", "assets")
    admin = Mount("/admin", wsgi=lambda environ, start_response: [b""], threads=2)

    @rpc
    async def bare(self, value: int) -> str:
        """A call's value is Any: the other service says what it is."""
        assert_type(self.stock, ServiceProxy)
        assert_type(self.anybody, ClusterProxy)
        assert_type(self.dispatch, Dispatch)
        assert_type(self.publish, Publish)
        await self.stock.reserve.options(timeout=1, compression="gzip")(value)
        await self.stock.reserve.options(persistent=True, retry=None)(value)
        await self.dispatch("sold", {"item": value})
        await self.dispatch("sold", {"item": value}, delay=60)
        await self.publish(value, delay=0.5)
        await self.publish(value, exchange="readings", declare=[Queue("more")], priority=1)
        return str(self.database.count())

    @rpc(retry=Retry(attempts=5, delay=1, growth=2, give_up_on=ValueError), cancel_at_deadline=True, worker_timeout=5)
    async def again(self, value: int) -> int:
        if value:
            raise Retry(after=30)
        raise Reject("no such value")

    @rpc(expected_exceptions=ValueError, sensitive_arguments="token", blocking=True)
    def options(self, token: str) -> int:
        assert_type(self.database, Session)
        assert_type(self.config, dict[str, Any])
        assert_type(self.loose, Any)
        return self.database.count()

    @event_handler("shop", "sold", reliable_delivery=False, prefetch_count=5, retry=Retry(), cancel_at_deadline=False)
    def heard(self, payload: dict[str, int]) -> None: ...

    @rpc
    async def forecast(self, city: str) -> str:
        answer = await self.weather.get("/", params={"city": city}, timeout=1, retry=None)
        assert_type(answer, HttpAnswer)
        return answer.raise_for_status().text()

    @rpc(blocking=True)
    def forecast_in_a_thread(self, city: str) -> int:
        assert_type(in_reactor(count_later, city), int)
        assert_type(in_reactor(len, city), int)
        return self.weather.get("/", params={"city": city}).status

    @http("GET", "/prices")
    def prices(self, request: HttpRequest) -> EventStream:
        return EventStream(self.prices_now(), retry=3)

    async def prices_now(self) -> AsyncIterator[ServerSentEvent]:
        yield ServerSentEvent("1", id="a")

    @socket_rpc
    def say(self, socket_id: str, text: str) -> bool:
        assert_type(self.hub, WebSocketHub)
        return self.hub.unicast(socket_id, "said", text)

    @event_handler("shop", "sold", max_workers=1, exclusive_order=True, once="marks")
    def in_order(self, payload: int) -> None: ...

    @http("GET, HEAD", "/items/<int:number>", expected_exceptions=(KeyError, ValueError))
    def page(self, request: HttpRequest, number: int) -> tuple[int, str]:
        return 200, str(number)

    @timer(interval=0.5, eager=True)
    def tick(self) -> Deferred[None] | None: ...

    @consume(Queue("lines"), requeue_on_error=True, retry=False)
    def line(self, body: str) -> None: ...

    @every(2, hour=3)
    def report(self) -> bytes:
        return b""


async def count_later(text: str) -> int:
    return len(text)


async def run(config: dict[str, Any]) -> None:
    """Services in a program."""
    async with run_services(config, Service, kill_on_exit=True) as runner:
        await runner.wait()


async def program(config: dict[str, Any]) -> None:
    """Calls and events from a program that is no service."""
    async with ClusterRpcProxy(config, {"language": "en"}, timeout=5, priority=1) as cluster:
        await cluster.stock.reserve(1)
    async with ServiceRpcProxy("stock", config, serializer="json") as stock:
        await stock.reserve(1)
    async with event_dispatcher(config, timeout=1, mandatory=True) as dispatch:
        await dispatch("shop", "sold", {"item": 1})
    publisher = publish.Publisher("amqp://localhost", exchange="readings", use_confirms=False)
    await publisher.publish({"load": 0.1}, routing_key="cpu", declare=[Queue("cpu")], priority=1)


class Tests(TestCase):
    """Tests of that service."""

    async def test_bare(self) -> None:
        """Keywords may be keys of the service's own."""
        containers = await self.start(Service, max_workers=2, GREETING="Hello")
        assert_type(containers, list[ServiceContainer])
        cluster = await self.cluster({"language": "en"}, timeout=5, priority=1)
        assert_type(cluster, ClusterProxy)
        await self.connections(HEARTBEAT=5).publisher.publish("", "lines", b"1", {})


async def methods_keep_their_types(service: Service) -> None:
    """A decorated method is what it was."""
    assert_type(await service.bare(1), str)
    assert_type(await service.again(1), int)
    assert_type(service.options("token"), int)
    assert_type(service.heard({"item": 1}), None)
    assert_type(service.tick(), "Deferred[None] | None")
    assert_type(service.report(), bytes)
    assert_type(service.say("socket", "hi"), bool)
    assert_type(await service.forecast("Oslo"), str)
    assert_type(Service.database, Database)
