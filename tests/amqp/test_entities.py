"""kombu's exchanges and queues; and what kind of queue a service's queues are, on RabbitMQ and on the embedded broker,
which has no streams.
"""

from __future__ import annotations

import re
from typing import Any

import kombu
from attrs import asdict
from twisted.trial.unittest import SynchronousTestCase

from tests.services import OnRabbitMQ, ServicesCase
from txservices.amqp.entities import Exchange, Queue, exchange_of, queue_of, with_queue_type
from txservices.broker.memory import broker_named
from txservices.containers import ServiceContainer
from txservices.events import BROADCAST, EventDispatcher, event_handler
from txservices.exceptions import ConfigurationError, DeclarationMismatch
from txservices.messaging import Publisher, consume
from txservices.rpc import RpcProxy, rpc
from txservices.testing.waiting import Heard


class KombuTests(SynchronousTestCase):
    """kombu's exchanges and queues are taken as they are in nameko's services."""

    def test_exchange(self) -> None:
        """An exchange by its attributes."""
        table = [
            (kombu.Exchange("a"), Exchange("a")),
            (kombu.Exchange("a", type="topic", durable=False, auto_delete=True), Exchange("a", "topic", False, True)),
            (kombu.Exchange("a", arguments={"x": 1}), Exchange("a", arguments={"x": 1})),
            (kombu.Exchange("a", no_declare=True), Exchange("a", passive=True)),
            (Exchange("a"), Exchange("a")),
        ]
        for given, expected in table:
            self.assertEqual(asdict(exchange_of(given)), asdict(expected))

    def test_queue(self) -> None:
        """A queue by its attributes; what kombu makes arguments of, too."""
        exchange = kombu.Exchange("x", "fanout")
        table = [
            (kombu.Queue("q"), Queue("q")),
            (kombu.Queue("q", exchange, "key"), Queue("q", Exchange("x", "fanout"), "key")),
            (kombu.Queue("q", durable=False, auto_delete=True), Queue("q", durable=False, auto_delete=True)),
            (kombu.Queue("q", exclusive=True), Queue("q", exclusive=True, auto_delete=True)),
            (
                kombu.Queue("q", expires=1.5, message_ttl=2, max_length=3, queue_arguments={"x-queue-mode": "lazy"}),
                Queue(
                    "q", arguments={"x-queue-mode": "lazy", "x-expires": 1500, "x-message-ttl": 2000, "x-max-length": 3}
                ),
            ),
        ]
        for given, expected in table:
            self.assertEqual(asdict(queue_of(given)), asdict(expected))

    def test_what_is_neither(self) -> None:
        """A value that is no exchange or queue, or a queue with several bindings, is refused where it is declared."""
        for take, thing in ((exchange_of, "name"), (queue_of, "name"), (queue_of, kombu.Exchange("x"))):
            with self.assertRaises(ConfigurationError):
                take(thing)
        with self.assertRaises(ConfigurationError):
            queue_of(kombu.Queue("q", kombu.Exchange("x", "headers"), binding_arguments={"x-match": "all"}))


LEFT_ALONE: list[Queue | Exchange] = [
    Queue("q", exclusive=True),
    Queue("q", auto_delete=True),
    Queue("q", durable=False),
    Queue("q", passive=True),
    Queue("q", arguments={"x-queue-type": "stream"}),
    Exchange("e"),
]


class QueueTypes(SynchronousTestCase):
    """Which queues get the argument."""

    def test_lasting(self) -> None:
        """A queue that lasts gets the type that is configured, beside its other arguments; without one, nothing."""
        queue = Queue("q", arguments={"x-max-length": 3})
        self.assertIs(with_queue_type(queue, None), queue)
        typed = with_queue_type(queue, "quorum")
        self.assertEqual(typed.arguments, {"x-max-length": 3, "x-queue-type": "quorum"})

    def test_wanted(self) -> None:
        """The entrypoint's own type of queue goes before the configuration's."""
        self.assertEqual(with_queue_type(Queue("q"), "quorum", "classic").arguments, {"x-queue-type": "classic"})

    def test_left_alone(self) -> None:
        """A queue that doesn't last, is only looked for, or has a type of its own stays as it is."""
        for entity in LEFT_ALONE:
            self.assertIs(with_queue_type(entity, "quorum"), entity)

    def test_mistakes(self) -> None:
        """A type that there isn't, and a quorum queue wanted where none can be, are told with what to do."""
        error = self.assertRaises(ConfigurationError, with_queue_type, Queue("q"), "quorom")
        self.assertEqual(str(error), "QUEUE_TYPE: 'quorom' is not one of classic, quorum")
        error = self.assertRaises(ConfigurationError, with_queue_type, Queue("q", auto_delete=True), None, "quorum")
        self.assertIn("queue 'q' can't be a quorum queue", str(error))


heard = Heard()
readings = Queue("readings", Exchange("readings"), "r")
stream = Queue("stream", arguments={"x-queue-type": "stream"})


class Shop:
    """Has a queue of each kind."""

    name = "shop"
    dispatch = EventDispatcher()
    publish = Publisher(queue=readings)
    own = RpcProxy("shop")

    @rpc
    async def sell(self, item: str) -> Any:
        await self.dispatch("sold", item)
        await self.publish(item, routing_key="r", declare=[readings])
        return await self.own.name_of(item)

    @rpc
    def name_of(self, item: str) -> str:
        return item.upper()

    @event_handler("shop", "sold")
    def sold(self, item: str) -> None:
        heard(("event", item))

    @event_handler("shop", "sold", handler_type=BROADCAST, reliable_delivery=False)
    def everywhere(self, item: str) -> None:
        heard(("broadcast", item))

    @consume(readings)
    def read(self, item: str) -> None:
        heard(("message", item))


class Safe:
    """Wants a quorum queue for one of its handlers."""

    name = "safe"

    @event_handler("shop", "sold", queue_type="quorum")
    def sold(self, item: str) -> None:
        """Hear it."""

    @event_handler("shop", "sold")
    def again(self, item: str) -> None:
        """Hear it too."""


class QuorumQueues(OnRabbitMQ):
    """Quorum queues, as RabbitMQ says what they are."""

    def setUp(self) -> None:
        super().setUp()
        heard.things.clear()

    def types(self) -> dict[str, str]:
        """The queues of the virtual host, with their types."""
        queues = f'rabbit_amqqueue:info_all(<<"{self.vhost_name}">>, [name, type])'
        each = "[{name, {resource, _, queue, Name}}, {type, Type}]"
        found = self.node.evaluate(f'lists:flatten([io_lib:format("~s ~s ", [Name, Type]) || {each} <- {queues}]).')
        return dict(re.findall(r"(\S+) (\S+) ", found.strip('"')))

    async def test_configured(self) -> None:
        """With QUEUE_TYPE all lasting queues are quorum queues, for those who publish to them as well; all works."""
        await self.start(Shop, QUEUE_TYPE="quorum")
        cluster = await self.cluster()
        self.assertEqual(await cluster.shop.sell("pen"), "PEN")
        await heard.wait(3)
        types = self.types()
        replies = {name for name in types if name.startswith("rpc.reply-")}
        broadcast = {name for name in types if "shop.everywhere" in name}
        quorum = {name for name, kind in types.items() if kind == "quorum"}
        self.assertEqual(quorum, {"rpc-shop", "evt-shop-sold--shop.sold", "readings"})
        self.assertEqual(len(replies), 2)
        self.assertEqual(set(types) - quorum, replies | broadcast)

    async def test_per_entrypoint(self) -> None:
        """queue_type is for one entrypoint's queue."""
        await self.start(Safe)
        self.assertEqual(self.types(), {"evt-shop-sold--safe.sold": "quorum", "evt-shop-sold--safe.again": "classic"})

    async def test_existing(self) -> None:
        """A queue that exists as a classic one is not changed: the start fails and says so."""
        await self.connections().publisher.declare(Queue("rpc-shop"))
        with self.assertRaises(DeclarationMismatch) as raised:
            await self.start(Shop, QUEUE_TYPE="quorum")
        self.assertIn("queue 'rpc-shop' exists with other properties", str(raised.exception))


class Embedded(ServicesCase):
    """The embedded broker."""

    def setUp(self) -> None:
        super().setUp()
        heard.things.clear()

    def types(self) -> dict[str, str]:
        """The queues that there are, with their types."""
        queues = broker_named(self.config["AMQP_URI"].removeprefix("memory://")).vhosts["/"].queues
        return {name: queue.arguments.get("x-queue-type", "classic") for name, queue in queues.items()}

    async def test_configured(self) -> None:
        """QUEUE_TYPE gives quorum queues as with RabbitMQ, and all works."""
        await self.start(Shop, QUEUE_TYPE="quorum")
        cluster = await self.cluster()
        self.assertEqual(await cluster.shop.sell("pen"), "PEN")
        await heard.wait(3)
        quorum = {name for name, kind in self.types().items() if kind == "quorum"}
        self.assertEqual(quorum, {"rpc-shop", "evt-shop-sold--shop.sold", "readings"})

    async def test_per_entrypoint(self) -> None:
        """queue_type is for one entrypoint's queue."""
        await self.start(Safe)
        self.assertEqual(self.types(), {"evt-shop-sold--safe.sold": "quorum", "evt-shop-sold--safe.again": "classic"})

    async def refused(self, service: type) -> str:
        container = ServiceContainer(service, self.config)
        self.addCleanup(container.stop)
        with self.assertRaises(DeclarationMismatch) as raised:
            await container.start()
        return str(raised.exception)

    async def test_stream_consumed(self) -> None:
        """A service that wants a stream does not start, and says what to do."""

        class Reads:
            name = "reads"

            @consume(stream)
            def read(self, item: str) -> None:
                """Hear it."""

        error = await self.refused(Reads)
        self.assertRegex(error, r"queue 'stream' is of a kind that this broker does not have \(.*\)")
        self.assertIn("set AMQP_URI (or --broker) to a RabbitMQ", error)

    async def test_stream_published_to(self) -> None:
        """The same where a Publisher is the first to declare it."""

        class Tells:
            name = "tells"
            publish = Publisher(queue=stream)

        self.assertIn("queue 'stream' is of a kind that this broker does not have", await self.refused(Tells))

    async def test_classic(self) -> None:
        """The embedded broker has classic queues."""
        await self.start(Shop, QUEUE_TYPE="classic")
