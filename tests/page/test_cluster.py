"""The page of a real cluster: its state, and what is done from it."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from tests.page.fleets import method
from tests.services import OnRabbitMQ, ServicesCase, TrustsNewQueues
from txservices.amqp.entities import Queue
from txservices.events import EventDispatcher, event_handler
from txservices.exceptions import CommandError
from txservices.page import cluster
from txservices.page.cluster import ClusterPage
from txservices.page.depths import Depth, Depths, Listing, queues_of, with_parking
from txservices.page.picture import source_of
from txservices.page.server import Refused
from txservices.retry import Retry
from txservices.retry.parked import parking_name
from txservices.rpc import RpcProxy, rpc
from txservices.testing.stage import Stage
from txservices.testing.waiting import Heard

SCRIPT = "<script>alert(1)</script>"


class Stock:
    """Knows what there is."""

    name = "stock"
    heard = Heard()
    broken = True

    @rpc
    def take(self, item: str, count: int = 1) -> int:
        """Take some."""
        if item == "none":
            raise ValueError(f"no {SCRIPT}")
        return count

    @rpc
    def large(self) -> list[Any]:
        return ["x" * 200_000, 2**70]

    @event_handler("shop", "sold", retry=Retry(attempts=1))
    def sold(self, item: str) -> None:
        self.heard(item)
        if Stock.broken:
            raise ValueError(SCRIPT)


class Shop:
    name = "shop"
    stock = RpcProxy("stock")
    dispatch = EventDispatcher()

    @rpc
    async def sell(self, item: str) -> int:
        taken: int = await self.stock.take(item)
        await self.dispatch("sold", item)
        return taken


class ClusterCase(TrustsNewQueues, ServicesCase):
    """Two services, and a page of their broker."""

    parking = "evt-shop-sold--stock.sold.parked"

    async def begin(self, lists: Any = None) -> None:
        self.config["FLEET"] = True
        self.patch(Stock, "broken", True)
        self.patch(Stock, "heard", Heard())
        await self.start(Stock, Shop)
        self.page = ClusterPage(self.config, reactor, lists)
        self.addCleanup(self.page.stop)
        await self.page.start("127.0.0.1", 0)
        self.addCleanup(self.flushLoggedErrors)

    async def state(self, wanted: Any = lambda state: True) -> dict[str, Any]:
        """The first state that is as it is wanted."""
        for _ in range(150):
            state: dict[str, Any] = json.loads(json.dumps(await self.page.state(), allow_nan=False))
            if wanted(state):
                return state
            await deferLater(reactor, 0.05)
        raise AssertionError(json.dumps(state, indent=1))

    def call(self, service: str, name: str, arguments: str) -> Any:
        return Deferred.fromCoroutine(self.page.call({"service": service, "method": name, "arguments": arguments}))

    async def refused(self, status: int, doing: Any) -> str:
        error = await self.assertFailure(Deferred.fromCoroutine(doing), Refused)
        self.assertEqual(error.status, status)
        return str(error)


class State(ClusterCase):
    """What is shown."""

    async def test_everything(self) -> None:
        """Services, edges, queues, and the failure of a call with the tree of those above it."""
        await self.begin()
        await self.state()  # processes count from then on
        self.assertEqual(json.loads((await self.call("shop", "sell", '["table"]'))["result"]), 1)
        self.assertEqual((await self.call("shop", "sell", '{"item": "none"}'))["error"], "RemoteError")

        def complete(state: dict[str, Any]) -> bool:
            counted = {each["name"]: each["count"] for each in state["services"]}
            names = {each["name"] for each in state["queues"]}
            return counted.get("shop", 0) >= 2 and len(state["failures"]) == 2 and "rpc-stock" in names

        state = await self.state(complete)
        self.assertEqual(state["broker"]["away"], "")
        shop, stock = state["services"]
        self.assertEqual((shop["name"], shop["up"], stock["doc"]), ("shop", 1, "Knows what there is."))
        edges = {(each["from"], each["to"], each["kind"]): each["error_rate"] > 0 for each in state["edges"]}
        self.assertEqual(edges, {("shop", "stock", "rpc"): True, ("shop", "stock", "event"): True})
        queues = {each["name"]: (each["consumers"], each["service"]) for each in state["queues"]}
        self.assertEqual(queues["rpc-stock"], (1, "stock"))
        [failure] = [each for each in state["failures"] if each["method"] == "take"]
        self.assertEqual(failure["text"], f"no {SCRIPT}")
        self.assertEqual(failure["above"], [{"service": "shop", "method": "sell"}])
        whole: Any = self.page.picture.failure(failure["id"])
        self.assertEqual(whole["arguments"]["item"], "'none'")
        program = whole["tree"]
        self.assertEqual(program["service"], "standalone_rpc_proxy")
        ways = [each for each in program["calls"] if each["failure"]]
        self.assertEqual([(each["method"], each["calls"][0]["method"]) for each in ways], [("sell", "take")])

    async def test_a_service_ends(self) -> None:
        """A process that no longer answers is late, and then gone."""
        await self.begin()
        other = Stage(**self.config)
        await other.start(type("Other", (), {"name": "other", "ping": rpc(lambda self: None)}))
        await self.state(lambda state: len(state["services"]) == 3)
        await other.stop()
        state = await self.state(lambda state: state["services"][0]["gone"])
        self.assertEqual((state["services"][0]["name"], state["services"][0]["up"]), ("other", 0))

    async def test_large_fleet(self) -> None:
        """Of a large fleet services are asked for now and then, and at once where one is new."""
        await self.begin()
        self.patch(cluster, "FLEET_SMALL", 0)
        await self.state(lambda state: len(state["services"]) == 2)
        self.assertFalse(self.page.wants_services())
        state = await self.state()
        self.assertEqual([len(each["methods"]) for each in state["services"]], [1, 3])


class StateOnRabbitMQ(OnRabbitMQ, State):
    """The same on RabbitMQ."""


class Doing(ClusterCase):
    """What is done from the page."""

    async def test_call(self) -> None:
        """A result and an error are given as text, cut where they are long; long numbers stay what they are."""
        await self.begin()
        answer = await self.call("stock", "large", "[]")
        self.assertEqual((len(answer["result"]), answer["cut"] > 100_000), (cluster.RESULT_SHOWN, True))
        self.assertEqual((await self.call("stock", "take", f'["a", {2**70}]'))["result"], str(2**70))
        answer = await self.call("stock", "take", '["none"]')
        self.assertEqual((answer["error"], answer["text"]), ("RemoteError", f"ValueError no {SCRIPT}"))
        self.assertEqual((await self.call("stock", "no", "[]"))["error"], "MethodNotFound")
        self.assertEqual((await self.call("nobody", "no", "[]"))["error"], "UnknownService")
        self.assertEqual((await self.call("stock", "take", "[]"))["error"], "IncorrectSignature")

    async def test_mistakes(self) -> None:
        """Arguments that are none, and names that no method has, are refused."""
        await self.begin()
        for name, arguments in (("take", "{"), ("take", "1"), ("take", "[" * 100_000), ("_begin", "[]"), ("", "[]")):
            asked = {"service": "stock", "method": name, "arguments": arguments}
            await self.refused(400, self.page.call(asked))
        await self.refused(400, self.page.call({"service": "stock"}))
        selections: tuple[dict[str, Any], ...] = (
            {},
            {"ids": []},
            {"ids": [1]},
            {"all": False},
            {"all": True, "ids": ["a"]},
        )
        for selection in selections:
            await self.refused(400, self.page.discard({"queue": "q", **selection}))
        self.assertIn("no queue 'q.parked'", await self.refused(404, self.page.look({"queue": "q"})))

    async def test_parked(self) -> None:
        """Parked messages are counted, looked at, replayed and discarded."""
        await self.begin()
        for item in ("a", "b", "c"):
            await self.dispatch("shop", "sold", SCRIPT if item == "c" else item)
        await self.state(lambda state: {"queue": self.parking, "messages": 3} in state["parked"])
        asked = {"queue": self.parking}
        found = await self.page.look(asked)
        self.assertEqual(found["more"], 0)
        rows = {each["body"]: each for each in found["messages"]}
        self.assertEqual(sorted(rows), [json.dumps(SCRIPT), '"a"', '"b"'])
        row = rows['"a"']
        self.assertEqual((row["reason"], row["attempts"]), ("failed", 1))
        self.assertIn(SCRIPT, row["error"])
        self.assertLess(row["ago"], 60)
        Stock.broken = False
        answer = await self.page.replay({**asked, "ids": [row["id"]]})
        self.assertEqual(answer, {"done": 1, "stayed": {}})
        await Stock.heard.wait(4)
        self.assertEqual(await self.page.discard({**asked, "all": True}), {"done": 2, "stayed": {}})
        self.assertEqual(await self.page.look(asked), {"messages": [], "more": 0})
        await self.state(lambda state: {"queue": self.parking, "messages": 0} in state["parked"])

    async def test_many_parked(self) -> None:
        """Of many messages the oldest are shown, and all of them stay."""
        self.patch(cluster, "PARKED_SHOWN", 5)
        await self.begin()
        publisher = self.connections().publisher
        await publisher.declare(Queue("work.parked"))
        for number in range(12):
            await publisher.publish("", "work.parked", b"\xff" if number else b"x" * 5_000, {}, True)
        for _ in range(2):
            found = await self.page.look({"queue": "work"})
            bodies = [each["body"] for each in found["messages"]]
            self.assertEqual((len(bodies), found["more"], len(bodies[0])), (5, 7, cluster.BODY_SHOWN + 15))
            self.assertEqual(bodies[1], "1 bytes that are no text")


class DoingOnRabbitMQ(OnRabbitMQ, Doing):
    """The same on RabbitMQ."""


class Looking(ServicesCase):
    """Depths of queues."""

    async def test_depths(self) -> None:
        """Those that are there are found among those that are not, with their parking queues; later also new ones."""
        connections = self.connections()
        await connections.consuming.when_connected()
        publisher = connections.publisher
        await publisher.declare(Queue("b"), Queue("d.parked"))
        await publisher.publish("", "b", b"", {}, True)
        depths = Depths(connections)
        names = ["a", "b", "c", "d"]

        async def looked() -> dict[str, Depth]:
            depths.begin_look(names)
            depths.begin_look(["x"])  # one look at a time
            while depths.looking is not None:
                await deferLater(reactor, 0.01)
            return depths.found

        self.assertEqual(await looked(), {"b": Depth(1, 0), "d.parked": Depth(0, 0)})
        await publisher.declare(Queue("c"))
        self.assertNotIn("c", await looked())  # it was looked for just now
        depths.absent["c"] = 0.0
        self.assertIn("c", await looked())
        names.remove("b")
        self.assertEqual(set(await looked()), {"c", "d.parked"})

    async def test_bound(self) -> None:
        """Many queues that are not there cost a bounded number of channels in each look, and all have their turn."""
        connections = self.connections()
        await connections.consuming.when_connected()
        depths = Depths(connections)
        names = [f"q{number:02}.parked" for number in range(50)]
        for looks in (20, 40, 50):
            await depths.look(names)
            self.assertEqual(len(depths.absent), looks)

    async def test_once(self) -> None:
        """One look can be at all queues, however many of them are not there."""
        connections = self.connections()
        await connections.consuming.when_connected()
        await connections.publisher.declare(Queue("q29"), Queue("q30.parked"))
        found = await Depths(connections).look_once([f"q{number:02}" for number in range(31)])
        self.assertEqual(found, {"q29": Depth(0, 0), "q30.parked": Depth(0, 0)})


class LookingOnRabbitMQ(OnRabbitMQ, Looking):
    """The same on RabbitMQ."""


class Listed(ClusterCase):
    """Queues by the management."""

    async def test_list(self) -> None:
        """All queues are shown, also unknown ones; if it fails the reason is told, and the last list stays."""
        rows: list[dict[str, Any]] = [{"name": "x", "messages": 7, "consumers": 0}, {"name": "y.parked"}]
        problem = ""

        async def lists(connections: Any) -> list[dict[str, Any]]:
            if problem:
                raise CommandError(problem)
            return rows

        await self.begin(lists)
        state = await self.state()
        self.assertEqual(state["queues"], [{"name": "x", "messages": 7, "consumers": 0, "service": ""}])
        self.assertEqual(state["parked"], [{"queue": "y.parked", "messages": 0}])
        self.assertTrue(state["queues_by_management"])
        problem = "no management"
        assert isinstance(self.page.depths, Listing)
        self.page.depths.listed = -1e9
        state = await self.state(lambda state: state["queues_problem"])
        self.assertEqual((state["queues_problem"], len(state["queues"])), ("no management", 1))


class Names(ServicesCase):
    """The names under which queues may be found."""

    def test_names(self) -> None:
        """Those of calls, events and consumers, each with its service; those that a process has told, as they are."""
        entrypoints = [
            ("shop", method("sell")),
            ("shop", method("find")),
            ("shop", method("paid", "EventHandler", "billing.paid")),
            ("shop", method("take", "Consumer", "orders")),
            ("shop", method("tick", "Timer", "10")),
            ("shop", method("get", "HttpRequestHandler", "GET /")),
        ]
        told = method("sold", "EventHandler", "eu.shop.sold")
        told["queue"], told["source"] = "evt-eu.shop-sold--shop.sold", "eu.shop"
        broadcast = method("sold", "EventHandler", "eu.shop.sold")
        broadcast["queue"] = ""
        self.assertEqual(queues_of([("shop", told), ("shop", broadcast)]), {told["queue"]: "shop"})
        self.assertEqual(source_of(told), "eu.shop")
        pool, singleton = "evt-billing-paid--shop.paid", "evt-billing-paid"
        self.assertEqual(queues_of(entrypoints), dict.fromkeys(["rpc-shop", pool, singleton, "orders"], "shop"))

    def test_names_that_no_queue_has(self) -> None:
        """AMQP carries no name of more than 255 bytes: such a queue is not asked for, and its parking queue neither."""
        longest = "ä" * 127
        self.assertEqual(with_parking(["a", longest, "ä" * 128]), ["a", longest, "a.parked", parking_name(longest)])
