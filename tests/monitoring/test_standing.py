"""How things stand in services that run, as a scrape sees it."""

from __future__ import annotations

import sys
from unittest.mock import patch

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from tests.monitoring.scraping import Scrape
from tests.services import ServicesCase
from txservices.breakers import CircuitBreaker
from txservices.exceptions import ConfigurationError, RemoteError, UnknownService
from txservices.extensions import Entrypoint
from txservices.observers import observers
from txservices.rpc import RpcProxy, rpc
from txservices.utils import default_reactor
from txservices.web.handlers import http

METRICS = "txservices.monitoring.metrics.Metrics"

hook = Entrypoint.decorator


class Shop:
    """A service whose methods wait until a test lets them go on."""

    name = "shop"
    bank = RpcProxy("bank", breaker=CircuitBreaker(minimum=1))
    stock = RpcProxy("stock")
    going: Deferred[None]

    @rpc
    def sell(self) -> Deferred[None]:
        return self.going

    @rpc
    async def pay(self) -> None:
        await self.bank.pay()

    @rpc
    async def take(self) -> None:
        await self.stock.take()


class Stock:
    name = "stock"
    going: Deferred[None]

    @rpc
    def take(self) -> Deferred[None]:
        return self.going


class Standing(ServicesCase):
    """Services that are counted because OBSERVERS says so."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(observers, "containers", [])  # other tests leave theirs, which have not ended
        self.config["OBSERVERS"] = [METRICS]
        Shop.going, Stock.going = Deferred(), Deferred()

    async def until(self, name: str, wanted: float, **labels: str) -> Scrape:
        """A scrape in which a number is what is waited for."""
        while True:
            scrape = Scrape()
            if scrape.value(name, **labels) == wanted:
                return scrape
            await deferLater(default_reactor(), 0.01)

    async def test_workers(self) -> None:
        """Workers that run and that wait, and their messages, are told by service and method."""
        await self.start(Shop, max_workers=2)
        cluster = await self.cluster()
        calls = [cluster.shop.sell() for _ in range(5)]
        scrape = await self.until("txservices_workers_waiting", 3, service_name="shop", method="sell")
        shop = {"service_name": "shop"}
        self.assertEqual(scrape.value("txservices_workers_running", **shop, method="sell", entrypoint="Rpc"), 2)
        self.assertEqual(scrape.value("txservices_workers_running", **shop, method="pay"), 0)
        self.assertEqual(scrape.value("txservices_workers_limit", **shop), 2)
        self.assertEqual(scrape.value("txservices_messages_unacked", **shop), 5)
        self.assertGreater(scrape.value("txservices_prefetched_bytes", **shop), 0)
        self.assertGreaterEqual(scrape.value("txservices_prefetch_limit", **shop), 5)
        Shop.going.callback(None)
        await gatherResults(calls)
        scrape = await self.until("txservices_messages_unacked", 0, **shop)
        self.assertEqual(scrape.value("txservices_workers_waiting", method="sell"), 0)
        self.assertEqual(scrape.value("rpc_server_call_duration_seconds_count", method="sell", outcome="ok"), 5)
        self.assertGreater(scrape.value("txservices_worker_wait_seconds_total", method="sell"), 0)
        self.assertEqual(scrape.value("txservices_unconfirmed_messages"), 0)

    async def test_http_workers(self) -> None:
        """A request that waits for its turn is told once, however many URLs the service has."""

        class Web:
            name = "web"

            @http("GET", "/hold")
            def hold(self, request: object) -> Deferred[None]:
                return Shop.going

            @http("GET", "/other")
            def other(self, request: object) -> None: ...

        await self.start(Web, WEB_MAX_WORKERS=1)
        requests = [self.web_session().get("/hold") for _ in range(3)]
        scrape = await self.until("txservices_workers_waiting", 2, service_name="web", method="hold")
        self.assertEqual(scrape.value("txservices_workers_running", service_name="web", method="hold"), 1)
        self.assertEqual(scrape.value("txservices_workers_waiting", service_name="web", method="other"), 0)
        Shop.going.callback(None)
        await gatherResults(requests)
        self.assertGreater(Scrape().value("txservices_worker_wait_seconds_total", method="hold"), 0)

    async def test_calls(self) -> None:
        """A call that has no answer yet is pending, and then it is counted with who called whom."""
        await self.start(Shop, Stock)
        call = (await self.cluster()).shop.take()
        await self.until("txservices_rpc_client_calls_pending", 1, service_name="shop")
        Stock.going.callback(None)
        await call
        labels = {"service_name": "shop", "service_peer_name": "stock", "rpc_method": "stock.take", "outcome": "ok"}
        scrape = Scrape()
        self.assertEqual(scrape.value("txservices_rpc_client_calls_pending", service_name="shop"), 0)
        self.assertEqual(scrape.value("rpc_client_call_duration_seconds_count", **labels), 1)
        self.assertEqual(scrape.value("rpc_client_call_duration_seconds_count", service_name="standalone_rpc_proxy"), 1)

    async def test_circuit(self) -> None:
        """A circuit has one state of three."""
        await self.start(Shop)
        await self.assertFailure((await self.cluster()).shop.pay(), RemoteError)
        self.flushLoggedErrors(UnknownService)
        states = Scrape().found("txservices_circuit_state", service_name="shop", service_peer_name="bank")
        self.assertEqual(
            {each["state"]: number for _, each, number in states}, {"closed": 0, "open": 1, "half-open": 0}
        )

    async def test_broker(self) -> None:
        """Consumers and connections are up, or not, and the service is ready or not; what comes back is counted."""
        (container,) = await self.start(Shop)
        scrape = Scrape()
        for name, number in (("ready", 1), ("consumers_up", 2), ("consumers_wanted", 2)):
            self.assertEqual(scrape.value(f"txservices_{name}", service_name="shop"), number, name)
        ups = {each["connection"]: number for _, each, number in scrape.found("txservices_connection_up")}
        self.assertEqual(ups, {"consumes": 1, "shop consumes": 1})
        self.assertEqual({number for *_, number in scrape.found("txservices_connection_blocked")}, {0})
        container.shared.namedServices["amqp"].reconnect()
        scrape = Scrape()
        for name, number in (("ready", 0), ("consumers_up", 0), ("consumers_wanted", 2)):
            self.assertEqual(scrape.value(f"txservices_{name}", service_name="shop"), number, name)
        self.assertEqual({number for *_, number in scrape.found("txservices_connection_up")}, {0})
        scrape = await self.until("txservices_ready", 1, service_name="shop")
        self.assertEqual(scrape.value("txservices_reconnects_total", connection="shop consumes"), 1)

    async def test_two_of_one_class_name(self) -> None:
        """Two services whose classes have one name are two; two containers of one service are counted together."""
        other = type("Stock", (Stock,), {"name": "other"})
        await self.start(Stock, other, Stock)
        limits = Scrape().found("txservices_workers_limit")
        self.assertEqual(
            sorted((each["service_name"], number) for _, each, number in limits), [("other", 10), ("stock", 20)]
        )

    async def test_while_it_ends(self) -> None:
        """A scrape has an answer from the beginning of the start to the end of the stop, in whatever state."""
        seen: list[float] = []

        class Watching(Entrypoint):
            """Has a scrape made in each step of its life."""

            def look(self) -> None:
                seen.append(Scrape().value("txservices_ready", service_name="watched"))

            setup = start = stop = look

        class Watched:
            name = "watched"
            shop = RpcProxy("shop")

            @Watching.decorator
            def method(self) -> None: ...

        (container,) = await self.start(Watched)
        await container.stop()
        self.assertEqual(seen, [0, 0, 0])
        self.assertEqual(Scrape().found("txservices_ready"), [])

    async def test_held_until_the_end(self) -> None:
        """Nothing is counted any more, and nothing is left in the reactor, when the process's services have stopped."""
        await self.start(Shop)
        self.assertIn(METRICS, observers.held)
        await self.stage.stop()
        self.assertNotIn(METRICS, observers.held)
        self.assertEqual(Scrape().found("txservices_info"), [])

    async def test_extra_missing(self) -> None:
        """A start without prometheus-client ends with the line that installs it."""
        with patch.dict(sys.modules, {"prometheus_client": None}):
            del sys.modules[METRICS.rpartition(".")[0]]
            error = self.assertRaises(ConfigurationError, self.container, Shop)
        self.assertIn("pip install 'txservices[metrics]'", str(error))
