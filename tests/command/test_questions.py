"""An operator's ten questions: the commands of the table in docs/operating.md are typed, and answer them."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.defer import Deferred

from tests.command.folder import Ended
from tests.command.test_fleet import CommandsCase
from tests.command.test_operations import ask
from tests.monitoring.test_health import Pool
from tests.monitoring.test_operating import questions
from txservices.amqp.connections import Connections
from txservices.command import fleet
from txservices.events import EventDispatcher, event_handler
from txservices.exceptions import RemoteError
from txservices.monitoring.fleet import Fleet
from txservices.retry import Retry
from txservices.rpc import RpcProxy, rpc
from txservices.testing.services import entrypoint_waiter
from txservices.web.operations import operations

QUEUE = "evt-shop-sold--stock.sold"
DAY, TIME = r"\d{4}-\d\d-\d\d", r"\d\d:\d\d:\d\d"

# What the command of each question prints while the shop has lost its database, the stock fails, and calls wait.
ANSWERS = {
    "Is it up?": r"^shop on \S+ pid \d+: [\d.]+ \w+",
    "Is it ready?": r"^503 shop: the database is away$",
    "Why not?": r"^    not ready: shop: the database is away$",
    "What is slow?": r"^SERVICE .* P99 (.*\n)*stock +1 +3 +[\d,.]+ +[\d.]+ (µs|ms|s) +[\d.]+ (µs|ms|s) ",
    "What fails?": r" worker shop\.fail error .*: RemoteError: ValueError no tea$",
    "Who calls it?": r"^Is called by\n  shop: [\d.]+/s, p50 \S+ \w+, p99 ",
    "What is waiting?": r", 1 of 10 workers run, 1 wait(.*\n)+.*, 1 of 1 workers run, 1 wait(.*\n)+"
    r"Queues\n  rpc-shop: 0 messages, 1 consumer\n",
    "What was lost?": rf"^{QUEUE}\.parked: 1 message since {DAY}\S+: failed 1$",
    "What changed?": rf"^SERVICE .* SINCE\n(.*\n)*shop .* {DAY} {TIME}$",
    "What do I do?": rf"^replayed 1 of 1 message in {QUEUE}\.parked$",
}


class Stock:
    name = "stock"
    mended = False

    @rpc
    def take(self) -> None: ...

    @rpc
    def fail(self) -> None:
        raise ValueError("no tea")

    @event_handler("shop", "sold", retry=Retry(attempts=1))
    def sold(self, item: str) -> None:
        if not self.mended:
            raise ValueError(item)


class Shop:
    name = "shop"
    stock = RpcProxy("stock")
    pool = Pool()
    dispatch = EventDispatcher()
    held: Deferred[None]

    @rpc
    async def sell(self) -> None:
        await self.stock.take()
        await self.dispatch("sold", "tea")

    @rpc
    async def fail(self) -> None:
        await self.stock.fail()

    @rpc(max_workers=1)
    def hold(self) -> Deferred[None]:
        return self.held


class Questions(CommandsCase):
    """The table, with a shop in trouble."""

    def setUp(self) -> Deferred[None]:
        def knowing(connections: Connections) -> Fleet:
            """The fleet of a command. It knows who is there, so that it need not wait for a silence."""
            made = Fleet(connections)
            made.known.update(self.fleet.known)
            return made

        self.patch(fleet, "Fleet", knowing)
        begun: Deferred[None] = super().setUp()
        return begun

    async def trouble(self) -> None:
        """Run two services, have one event parked, and two calls wait; then the shop's database goes away."""
        stock, shop = [(await self.run_process(each)).shared.containers[each.name] for each in (Stock, Shop)]
        cluster = await self.cluster()
        await self.typed("services")  # from here on they count
        Shop.held = Deferred()
        self.addCleanup(lambda: Shop.held.called or Shop.held.callback(None))
        async with entrypoint_waiter(stock, "sold"):
            await cluster.shop.sell()
        for _ in range(2):
            cluster.shop.hold().addErrback(lambda failure: failure.trap(RemoteError))
        while not shop.workers.waiting:
            await cluster.stock.take()
        [pool] = [each for each in shop.dependencies if isinstance(each, Pool)]
        pool.trouble = ["the database is away"]
        self.operations = operations("127.0.0.1:0", shop.not_ready, reactor)
        self.operations.listen()
        self.addCleanup(self.operations.stopService)

    async def type_of(self, question: str, command: str) -> Ended:
        """Type a command of the table, with names that there are."""
        program, *arguments = command.split()
        if program == "curl":
            [url] = arguments
            status, text = await ask(self.operations.port, url.removeprefix("localhost:9100"))
            return 0, f"{status} {text}", ""
        self.assertEqual(program, "txservices")
        service = "stock" if question == "Who calls it?" else "shop"
        arguments = [each.replace("SERVICE", service).replace("QUEUE", QUEUE) for each in arguments]
        if arguments == ["tail"]:
            return await self.interrupted("shop.fail", *arguments)
        return await self.typed(*arguments)

    async def test_commands(self) -> None:
        """Each command is there, succeeds, and prints what answers its question."""
        await self.trouble()
        asked = []
        for question, command, *_ in questions():
            if question == "What do I do?":
                self.patch(Stock, "mended", True)
            status, out, err = await self.type_of(question, command)
            self.assertEqual((status, err), (0, ""), f"{question} {command}")
            self.assertRegex(out, f"(?m){ANSWERS[question]}", question)
            asked.append(question)
        self.flushLoggedErrors(ValueError, RemoteError)
        self.assertEqual(asked, [*ANSWERS])
        Shop.held.callback(None)
