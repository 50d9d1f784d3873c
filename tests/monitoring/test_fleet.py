"""Processes that share a broker say what they are when they are asked."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults

from txservices import configuration
from txservices.amqp.connections import Connections
from txservices.amqp.entities import Message
from txservices.consumers import amqp
from txservices.events import EventDispatcher, event_handler
from txservices.exceptions import RemoteError
from txservices.monitoring import answering, answers
from txservices.monitoring.answering import Answering
from txservices.monitoring.answers import Answer
from txservices.monitoring.fleet import Answers, Fleet
from txservices.observers import observers
from txservices.rpc import RpcProxy, rpc
from txservices.testing.case import TestCase
from txservices.timer import timer


class Stock:
    """Knows what there is."""

    name = "stock"
    version = "7"

    @rpc
    def take(self, item: str, count: int = 1) -> int:
        """Take some."""
        return count

    @rpc(sensitive_arguments="card")
    def fail(self, item: str, card: str) -> None:
        raise ValueError(f"no {item} \x1b <script>")

    @rpc(expected_exceptions=KeyError)
    def refuse(self) -> None:
        raise KeyError("no")


class Shop:
    name = "shop"
    stock = RpcProxy("stock")
    dispatch = EventDispatcher()

    @rpc
    async def sell(self, item: str) -> int:
        taken: int = await self.stock.take(item, count=2)
        self.dispatch("sold", item)
        return taken

    @event_handler("stock", "empty")
    def empty(self, item: str) -> None: ...

    @timer(interval=60)
    def tick(self) -> None: ...


class FleetCase(TestCase):
    """Processes of one service each on a broker in memory, and somebody who asks."""

    timeout = 120  # three hundred processes take a slow machine longer than users' tests may take

    def setUp(self) -> Any:
        super().setUp()
        self.patch(observers, "containers", [])  # other tests leave theirs, which have not ended
        return Deferred.fromCoroutine(self.begin())

    async def begin(self) -> None:
        connections = Connections.from_config(self.config, reactor)
        connections.startService()
        self.addCleanup(connections.stopService)
        self.fleet = Fleet(connections)
        await self.fleet.start()
        self.processes: list[Answering] = []

    async def run_process(self, *services: type[Any]) -> Answering:
        """Run services as a process of their own, and have the fleet know it."""
        runner = self.stage.runner({**self.config, configuration.FLEET.name: True}, *services)
        self.addCleanup(runner.stop)
        await runner.start()
        process: Answering = next(each for each in amqp(runner.containers[0]) if isinstance(each, Answering))
        self.processes.append(process)
        await process.connection.when_connected()
        if process.opening is not None:
            await process.opening
        self.fleet.known[process.id] = process.process()
        return process

    async def ask(self, *want: str, **options: Any) -> Answers:
        return await self.fleet.ask(*want, **options)

    async def answer_of(self, process: Answering, *want: str, **options: Any) -> Answer:
        """What one process answers."""
        (answer,) = (await self.ask(*want, processes=[process.id], **options)).answers
        return answer


class Asking(FleetCase):
    """What is answered."""

    async def test_stopped_twice(self) -> None:
        """What answers may be stopped twice, as any service: its observers are gone after the first time."""
        process = await self.run_process(Stock)
        process.stopService()
        process.stopService()
        self.assertNotIn(process.failures, observers.all)

    async def test_who(self) -> None:
        """Every process says who it is, in the order of their services' names."""
        stock, shop = await self.run_process(Stock), await self.run_process(Shop)
        told = await self.ask()
        self.assertEqual((told.unreadable, told.missing), ([], []))
        self.assertEqual([each["process"]["id"] for each in told.answers], [shop.id, stock.id])
        process = told.answers[1]["process"]
        self.assertEqual((process["services"], process["failed"]), (["stock"], 0))
        self.assertLessEqual(process["since"], process["now"])
        self.assertEqual([*told.answers[1]], ["version", "process"], "nothing else was wanted")

    async def test_services(self) -> None:
        """It says what its services are: methods, what calls them, what they call, and the events that they told."""
        stock, shop = await self.run_process(Stock), await self.run_process(Shop)
        await (await self.cluster()).shop.sell("tea")
        (service,) = (await self.answer_of(stock, "services"))["services"]
        named = service["service"], service["version"], service["doc"], service["state"], service["max_workers"]
        self.assertEqual(named, ("stock", "7", "Knows what there is.", "running", 10))
        take = {"method": "take", "entrypoint": "Rpc", "on": "", "doc": "Take some.", "queue": "rpc-stock"}
        take |= {"signature": "(item: str, count: int = 1) -> int"}
        self.assertEqual(service["methods"][0], {**take, "running": 0, "waiting": 0})
        (service,) = (await self.answer_of(shop, "services"))["services"]
        self.assertEqual((service["targets"], service["events"]), (["stock"], ["sold"]))
        called_by = [(each["entrypoint"], each["on"]) for each in service["methods"]]
        self.assertEqual(called_by, [("Rpc", ""), ("EventHandler", "stock.empty"), ("Timer", "60")])
        queues = [(each["queue"], each.get("source")) for each in service["methods"]]
        self.assertEqual(queues, [("rpc-shop", None), ("evt-stock-empty--shop.empty", "stock"), ("", None)])

    async def test_workers_of_methods(self) -> None:
        """It says of each method how many of its workers run and wait, and how many may run if it has a limit."""
        going: Deferred[None] = Deferred()

        class Busy:
            name = "busy"

            @rpc(max_workers=1)
            def hold(self) -> Deferred[None]:
                return going

            @rpc
            def other(self) -> None: ...

        process, cluster = await self.run_process(Busy), await self.cluster()
        calls = [cluster.busy.hold() for _ in range(3)]
        while (service := (await self.answer_of(process, "services"))["services"][0])["waiting"] != 2:
            await cluster.busy.other()
        told = [[each.get(key) for key in ("running", "waiting", "max_workers")] for each in service["methods"]]
        self.assertEqual(told, [[1, 2, 1], [0, 0, None]])
        going.callback(None)
        await gatherResults(calls)

    async def test_counts(self) -> None:
        """From the first time that it is asked for them it counts workers and calls, with errors and times."""
        stock, shop = await self.run_process(Stock), await self.run_process(Shop)
        cluster = await self.cluster()
        await cluster.stock.take("tea")
        nothing = await self.ask("counts")
        self.assertEqual([each["methods"] for each in nothing.answers], [[], []])
        await cluster.shop.sell("tea")
        for call, error in ((cluster.stock.fail("tea", "4711"), RemoteError), (cluster.stock.refuse(), RemoteError)):
            await self.assertFailure(call, error)
        self.flushLoggedErrors(ValueError)
        told = await self.answer_of(stock, "counts")
        self.assertGreater(told["counting"], 0)
        self.assertGreater(told["window"], 0)
        counted = [(each["method"], each["count"], each["errors"]) for each in told["methods"]]
        self.assertEqual(counted, [("take", 1, 0), ("fail", 1, 1), ("refuse", 1, 0)])
        self.assertGreater(told["methods"][0]["rate"], 0)
        self.assertGreater(told["methods"][0]["p99"] or 0, 0)
        (edge,) = (await self.answer_of(shop, "counts"))["edges"]
        called = edge["service"], edge["target"], edge["method"], edge["count"], edge["errors"]
        self.assertEqual(called, ("shop", "stock", "take", 1, 0))

    async def test_counts_while_somebody_asks(self) -> None:
        """Nothing is counted before the first ask, and nothing when nobody has asked for some minutes."""
        stock = await self.run_process(Stock)
        self.assertIsNone(stock.counting)
        await self.ask()
        self.assertIsNone(stock.counting)
        await self.ask("counts")
        counting = stock.counting
        self.assertIn(counting, observers.all)
        due = stock.counted_until.getTime()
        await self.ask("counts")
        self.assertGreater(stock.counted_until.getTime(), due)
        stock.counted_until.reset(0)
        await self.cluster()  # turns of the reactor
        self.assertNotIn(counting, observers.all)
        self.assertIsNone(stock.counting)

    async def test_failures(self) -> None:
        """It tells its latest failures, from its start on, the newest first; expected errors are none."""
        stock = await self.run_process(Stock)
        cluster = await self.cluster({"call_id_stack": ["web.get.1"]})
        for item in ("tea", "milk"):
            await self.assertFailure(cluster.stock.fail(item, card="4711"), RemoteError)
        await self.assertFailure(cluster.stock.refuse(), RemoteError)
        self.flushLoggedErrors(ValueError)
        told = await self.answer_of(stock, "failures")
        self.assertEqual([each["number"] for each in told["failures"]], [2, 1])
        self.assertEqual(told["process"]["failed"], 2)
        failed = told["failures"][0]
        self.assertEqual((failed["service"], failed["method"], failed["entrypoint"]), ("stock", "fail", "Rpc"))
        self.assertEqual((failed["outcome"], failed["error"]), ("error", "ValueError"))
        self.assertEqual(failed["text"], "no milk \x1b <script>")
        self.assertIn("in fail", failed["traceback"])
        self.assertEqual(failed["arguments"], {"item": "'milk'", "card": "'********'"})
        self.assertEqual(failed["call_id_stack"][0], "web.get.1")
        self.assertIn("stock.fail.", failed["call_id_stack"][-1])
        self.assertEqual(len((await self.answer_of(stock, "failures", failures=1))["failures"]), 1)

    async def test_long_error(self) -> None:
        """A long text of an error is cut, with a mark, and so is its traceback, which still tells class and place."""

        class Long:
            name = "long"

            @rpc
            def fail(self) -> None:
                raise ValueError("x" * 30_000)  # trial -j takes no longer line of a log

        process = await self.run_process(Long)
        await self.assertFailure((await self.cluster()).long.fail(), RemoteError)
        self.flushLoggedErrors(ValueError)
        (failed,) = (await self.answer_of(process, "failures"))["failures"]
        self.assertRegex(failed["text"], r"^x{2000}\[…\]$")
        cut = r"x+… [\d,]+ characters left out …x+"
        self.assertRegex(failed["traceback"], rf"(?s)^Traceback .* in fail\n.*\nValueError: {cut}$")
        self.assertLess(len(failed["traceback"]), 8_100)

    async def test_failures_of_a_service(self) -> None:
        """It tells those of the services that are asked for, however many its others have had since."""

        class Broken:
            name = "broken"

            @rpc
            def fail(self) -> None:
                raise ValueError("broken")

        process = await self.run_process(Stock, Broken)
        cluster = await self.cluster()
        for call in (cluster.stock.fail("tea", card="4711"), cluster.broken.fail(), cluster.broken.fail()):
            await self.assertFailure(call, RemoteError)
        self.flushLoggedErrors(ValueError)
        for services, expected in ((["stock"], ["stock"]), (["stock", "broken"], ["broken"]), (None, ["broken"])):
            told = await self.answer_of(process, "failures", services=services, failures=1)
            self.assertEqual([each["service"] for each in told["failures"]], expected)

    async def test_some(self) -> None:
        """Only those are asked that have a service, or that are named."""
        stock, shop = await self.run_process(Stock), await self.run_process(Shop)
        for options, expected in (
            ({"services": ["stock"]}, [stock]),
            ({"services": ["stock", "shop", "none"]}, [shop, stock]),
            ({"processes": [shop.id]}, [shop]),
        ):
            told = await self.ask(**options)
            self.assertEqual([each["process"]["id"] for each in told.answers], [each.id for each in expected])

    async def test_nobody(self) -> None:
        """Without any process an ask is over at once, and those that were known are missing."""
        stock = await self.run_process(Stock)
        await stock.channel.client.close_channel(stock.channel)
        told = await self.ask()
        self.assertEqual((told.answers, [each["id"] for each in told.missing]), ([], [stock.id]))
        self.assertEqual(self.fleet.known, {})

    async def test_rubbish(self) -> None:
        """A message that is no answer is a line, and the other answers come all the same."""
        stock = await self.run_process(Stock)
        stranger = self.connections()
        wrong = [b"", b"\xff\x00", b'{"version": 2}', b'{"version": 1, "process": []}', b"[" * 99_999]

        def asked(message: Message) -> None:
            properties = {"correlation_id": message.properties["correlation_id"]}
            reply_to = message.properties["reply_to"]
            publishes = [stranger.publisher.publish("", reply_to, body, properties) for body in wrong]
            gatherResults(publishes).addCallback(lambda _: stock.asked(message))

        stock.channel.consumers[f"fleet {stock.id}"] = asked
        told = await self.ask()
        self.assertEqual(len(told.answers), 1)
        self.assertEqual(len(told.unreadable), len(wrong))
        self.assertTrue(all(line.startswith("an answer can't be read: ") for line in told.unreadable))

    async def test_asked_with_rubbish(self) -> None:
        """A process that is asked something that it can't read says who it is, or nothing to nobody."""
        stock = await self.run_process(Stock)
        heard: list[Any] = []
        self.patch(stock, "send", lambda *args: heard.append(args))
        for body in (b"", b'{"version": 2, "want": ["moon"]}', b'{"version": 1, "want": "counts"}'):
            with self.subTest(body=body):
                heard.clear()
                for properties in ({}, {"reply_to": "queue", "correlation_id": "1"}):
                    message = Message(body, properties, "", "", False, 1, "", lambda *args: None)
                    stock.asked(message)
                for call in stock.due:
                    call.reset(0)
                await self.cluster()  # turns of the reactor
                ((reply_to, correlation_id, answer),) = heard
                self.assertEqual((reply_to, correlation_id), ("queue", "1"))
                self.assertEqual(answers.read_answer(answer)["process"]["id"], stock.id)

    async def test_not_flooded_with_asks(self) -> None:
        """It has no more than some answers due at once, and forgets further asks."""
        stock = await self.run_process(Stock)
        body = answers.written({"version": 1, "want": [], "spread": 10.0})
        for _ in range(3 * answering.DUE_MAX):
            properties = {"reply_to": "queue", "correlation_id": "1"}
            stock.asked(Message(body, properties, "", "", False, 1, "", lambda *args: None))
        self.assertEqual(len(stock.due), answering.DUE_MAX)
