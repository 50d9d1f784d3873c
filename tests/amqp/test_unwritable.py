"""Values that AMQP can't carry are refused before anything is noted of them, by whatever way they come."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests import hostile
from tests.amqp.peer import Peer
from tests.amqp.test_publisher import NOT_FOUND, PublisherCase
from txservices.amqp.connection import Connection
from txservices.amqp.entities import Exchange, Queue
from txservices.amqp.publish import Publisher
from txservices.amqp.subscription import Subscription
from txservices.wire.spec import PROPERTIES as PROPERTY_KINDS

LONG = "ø" * 128  # 256 bytes, and under 255 characters
# Names that are no short strings, and values that no field of a table and no property can be.
NAMES: list[Any] = ["x" * 300, LONG, "\ud800", None, 5, b"x" * 256, ["x"], object()]
DEEP: list[Any] = []
for _ in range(100):
    DEEP = [DEEP]
VALUES: list[Any] = [
    object(), {1}, 1 << 63, -(1 << 63) - 1, 1 << 300, Decimal("1e3"), Decimal("NaN"), Decimal(1 << 40), "\ud800",
    datetime(1, 1, 1), DEEP, {"x" * 300: 1}, {5: 1}, {"a": [{"b": object()}]}, range(3), int, lambda: None, 1j,
    float("nan"), float("inf"), -float("inf"), {"a": [float("nan")]}, [[1.5, float("inf")]],
]  # fmt: skip
PROPERTIES: list[dict[str, Any]] = [
    *({"headers": {"h": value}} for value in VALUES),
    *({"headers": value} for value in ("abc", 5, ["h"], object())),
    *({name: value} for name in ("type", "app_id", "correlation_id", "message_id", "reply_to") for value in NAMES[:3]),
    *({"priority": value} for value in (300, -1, "5", 1.5)),
    *({"delivery_mode": value} for value in (256, "2", b"2")),
    *({"timestamp": value} for value in (-1, 1 << 64, float("nan"), float("inf"), "now", datetime(1, 1, 1))),
    {"expiration": 60_000},
    {"content_type": b"text/plain"},
    {"no_such_property": 1},
    *({"type": value} for value in hostile.VALUES if type(value) not in (str, int, type(None), hostile.Text)),
    *({"headers": {"h": value}} for value in (*hostile.VALUES[-10:], hostile.ITSELF, ValueError(hostile.bomb()))),
]
MESSAGES: list[tuple[Any, Any, dict[str, Any]]] = [
    *((name, "k", {}) for name in NAMES),
    *(("x", name, {}) for name in NAMES),
    *(("x", "k", properties) for properties in PROPERTIES),
]
NO_BYTES = st.one_of(
    st.text(min_size=64, max_size=80, alphabet=st.characters(min_codepoint=0x10000)),
    st.text(max_size=3).map(lambda text: f"{text}\udfff"),
    st.integers(),
    st.floats(),
    st.lists(st.text(max_size=3), max_size=2),
)
NO_VALUES = st.recursive(
    st.one_of(
        st.sampled_from((float("nan"), float("inf"), float("-inf"))),
        st.integers(min_value=1 << 63), st.integers(max_value=-(1 << 63) - 1), st.complex_numbers(),
        st.sets(st.integers(), max_size=2), st.decimals(allow_nan=None, min_value=1 << 33),
    ),
    lambda inner: st.one_of(
        st.tuples(st.text(max_size=3), inner).map(list), st.dictionaries(st.text(max_size=3), inner, min_size=1)
    ),
    max_leaves=5,
)  # fmt: skip


# Wrong values for each type that a property has.
WRONG: dict[str, st.SearchStrategy[Any]] = {
    "shortstr": NO_BYTES,
    "table": st.one_of(
        NO_VALUES.map(lambda value: {"h": value}),
        st.text(st.characters(codec="utf-8"), min_size=256).map(lambda name: {name: 1}),
        # whatever is empty, 0 too, is taken for no headers
        st.lists(st.integers(), min_size=1),
        st.integers().filter(bool),
        st.text(min_size=1),
    ),
    "octet": st.one_of(
        st.integers(min_value=256), st.integers(max_value=-1), st.floats(), st.text(), st.just([]), st.just({})
    ),
    "timestamp": st.one_of(
        st.integers(min_value=1 << 64), st.integers(max_value=-1), st.text(), st.integers().map(str), st.binary(),
        st.just([]), st.just(float("nan")),
        st.datetimes(max_value=datetime(1969, 12, 30)),
    ),
}  # fmt: skip
WRONG_PROPERTIES = st.sampled_from(PROPERTY_KINDS).flatmap(
    lambda each: st.fixed_dictionaries({each[0]: WRONG[each[1]]})
)


class PublishTests(PublisherCase):
    """A message: to a publisher that is connected, away, or busy with messages that a broker refuses."""

    def states(self) -> list[Callable[[], Any]]:
        """The events that bring a publisher from each state to the next."""
        return [lambda: None, self.some_under_way, self.some_suspected, self.lose_connection]

    def some_under_way(self) -> None:
        self.outcomes = self.publish(b"1", b"2", timeout=None)
        for outcome in self.outcomes:
            outcome.addErrback(lambda failure: None)

    def some_suspected(self) -> None:
        self.peer.method(self.channel, "channel.close", **NOT_FOUND)
        self.channel = self.opened()
        self.assertEqual(self.published(), [b"1"])

    def kept(self) -> Any:
        """Everything that a publisher notes of messages."""
        publisher, channel = self.publisher, self.publisher.channel
        return (
            list(publisher.unconfirmed), publisher.unconfirmed_bytes, list(publisher.unsent), list(publisher.suspects),
            channel and (channel.published, list(channel.unconfirmed)), self.peer.clock.getDelayedCalls(),
        )  # fmt: skip

    def refused(self, exchange: Any, routing_key: Any, properties: dict[str, Any]) -> None:
        before = self.kept()
        self.assertRaises(
            (ValueError, TypeError),
            self.publisher.publish, exchange, routing_key, b"body", dict(properties), mandatory=True,
        )  # fmt: skip
        self.assertEqual(self.kept(), before)

    def test_leaves_no_trace(self) -> None:
        """No message of the table is noted in any state; what was under way goes on when the connection is back."""
        for state in self.states():
            state()
            for message in MESSAGES:
                self.refused(*message)
        self.reconnected()
        self.assertEqual(self.published(), [b"1"])
        self.peer.method(self.channel, "basic.ack", delivery_tag=1)
        self.assertEqual(self.published(), [b"2"])

    def test_any(self) -> None:
        """No message that hypothesis makes is noted either."""
        self.lose_connection()

        @settings(max_examples=100, deadline=None, database=None)
        @given(NO_BYTES, NO_VALUES, st.sampled_from(("exchange", "routing_key", "type", "headers", "header")))
        def try_one(name: Any, value: Any, where: str) -> None:
            self.refused(
                name if where == "exchange" else "x",
                name if where == "routing_key" else "k",
                {"type": name} if where == "type" else {"headers": {"h": value} if where == "header" else [value]},
            )

        try_one()
        self.reconnected()
        self.assertEqual(self.published(), [])

    def test_any_property(self) -> None:
        """Nor is a message with a property of a wrong type or size, beside good ones."""

        @settings(max_examples=100, deadline=None, database=None)
        @given(WRONG_PROPERTIES, st.booleans())
        def try_one(wrong: dict[str, Any], first: bool) -> None:
            good = {"content_type": "text/plain", "headers": {"a": 1}, "priority": 1}
            self.refused("x", "k", {**good, **wrong} if first else wrong)

        try_one()
        self.assertEqual(self.published(), [])

    def test_whoever_publishes_waits_for_nothing(self) -> None:
        """The worker or program that tried it has nothing unconfirmed: its own message can be acked."""
        publisher = Publisher("amqp://localhost")
        publisher.running = publisher.declared = True
        publisher.use(FakeConnections(self.publisher), {})  # a double
        for key in NAMES:
            if key is not None:  # that is the publisher's own
                self.assertRaises((ValueError, TypeError), publisher.publish, "", routing_key=key)
        for properties in PROPERTIES:
            if "headers" in properties and isinstance(properties["headers"], dict):
                self.assertRaises((ValueError, TypeError), publisher.publish, "", **properties)
        self.assertIsNotNone(publisher.unconfirmed)
        self.assertEqual(self.kept()[:3], ([], 0, []))
        told: list[int] = []
        publisher.unconfirmed.then(partial(told.append, 1))  # it has published
        self.assertEqual(told, [1])


class FakeConnections:
    """The connections of a process, as far as a publisher needs them."""

    def __init__(self, publisher: Any) -> None:
        self.publisher = publisher


class DeclareTests(PublisherCase):
    """Exchanges and queues that can't be declared."""

    def test_leaves_no_trace(self) -> None:
        """It fails at once, its channel is closed, and nothing of it is declared again on the next connection."""
        entities: list[Exchange | Queue] = [
            *(Queue(name) for name in (LONG, "\ud800")),
            *(Exchange(name) for name in (LONG, "\ud800")),
            *(Exchange("x", type=name) for name in (LONG, 5)),  # a bad value
            *(Queue("q", arguments={"x-a": value}) for value in VALUES),
            *(Exchange("x", arguments={"x-a": value}) for value in VALUES),
        ]
        for entity in entities:
            declaring = self.publisher.declare(entity)
            number = self.peer.sent()[-1][0]
            self.peer.method(number, "channel.open-ok")
            self.assertEqual([name for _, name, _ in self.peer.sent()], ["channel.close"], entity)
            self.peer.method(number, "channel.close-ok")
            self.assertIsInstance(self.failureResultOf(declaring).value, (ValueError, TypeError))
        self.assertEqual(self.publisher.topology.entities, {})
        self.lose_connection()
        self.reconnected()

    def test_any(self) -> None:
        """The same for whatever names, types, keys and arguments hypothesis makes."""

        @settings(max_examples=100, deadline=None, database=None)
        @given(NO_BYTES.filter(lambda name: isinstance(name, str)), NO_VALUES, st.integers(0, 5))
        def try_one(name: str, value: Any, way: int) -> None:
            entity = (
                Queue(name), Exchange(name), Exchange("x", type=name), Queue("q", arguments={"x-a": value}),
                Exchange("x", arguments={"x-a": value}), Queue("q", arguments={name * 9: 1}),
            )[way]  # fmt: skip
            declaring = self.publisher.declare(entity)
            number = self.peer.sent()[-1][0]
            self.peer.method(number, "channel.open-ok")
            self.assertEqual([name for _, name, _ in self.peer.sent()], ["channel.close"], entity)
            self.peer.method(number, "channel.close-ok")
            self.assertIsInstance(self.failureResultOf(declaring).value, (ValueError, TypeError))
            self.assertEqual(self.publisher.topology.entities, {})

        try_one()


class ConsumeTests(SynchronousTestCase):
    """Queues that can't be consumed."""

    def test_leaves_no_trace(self) -> None:
        """The subscription fails, closes its channel, and is not tried again: now, later, or on another connection."""
        queues = [(Queue(LONG), 10), (Queue("q"), 70_000), (Queue("q"), -1)]
        queues += [(Queue("q", arguments={"x-a": value}), 10) for value in VALUES]
        for queue, prefetch_count in queues:
            peer = Peer()
            peer.connect()
            connection = Connection((peer.protocol.address,), "tests", peer.clock)
            connection.protocol = peer.protocol
            subscription = Subscription(connection, queue, self.fail, prefetch_count)
            asked = []
            for name in ("channel.open", "queue.declare", "queue.declare"):
                asked += [name for _, name, _ in peer.sent()]
                if asked[-1] == name:
                    peer.method(1, f"{name}-ok", **({"queue": "q"} if name == "queue.declare" else {}))
            error = self.failureResultOf(subscription.ready).value
            self.assertIsInstance(error, (ValueError, TypeError))
            asked += [name for _, name, _ in peer.sent()]
            self.assertEqual(asked[-1], "channel.close", queue)
            peer.clock.advance(0)  # what is sent at the end of the turn
            self.assertEqual((connection.on_connected, peer.clock.getDelayedCalls()), ([], []))

    def test_consumer_tags(self) -> None:
        """A tag that can't be written is not noted."""
        peer = Peer()
        peer.connect()
        channel = peer.open_channel()
        for tag in NAMES[:3]:
            self.assertRaises(ValueError, channel.consume, "q", tag, self.fail)
        self.assertEqual((channel.consumers, len(channel.replies)), ({}, 0))

    def test_any_method(self) -> None:
        """A request that can't be sent is not noted."""
        peer = Peer()
        peer.connect()
        channel = peer.open_channel()
        asked: list[Callable[[Any], Deferred[Any]]] = [
            lambda name: channel.queue_declare(queue=name),
            lambda name: channel.queue_bind(queue="q", exchange="x", routing_key=name),
            lambda name: channel.exchange_declare(exchange="x", type=name),
            lambda name: channel.basic_qos(prefetch_count=name),
            lambda name: channel.basic_cancel(consumer_tag=name),
            lambda name: channel.queue_declare(queue="q", arguments={"x": {"y": {name}}}),
        ]
        for ask in asked:
            for name in NAMES[:3]:
                self.assertRaises((ValueError, TypeError), ask, name)
        self.assertEqual((len(channel.replies), peer.sent()[1:]), (0, []))

        @settings(max_examples=100, deadline=None, database=None)
        @given(st.sampled_from(asked), st.one_of(NO_BYTES, NO_VALUES.map(lambda value: {"x": value})))
        def try_one(ask: Callable[[Any], Deferred[Any]], wrong: Any) -> None:
            if ask is asked[3] and type(wrong) is int and 0 <= wrong < 1 << 16:
                return  # a good prefetch
            if ask is asked[5] and type(wrong) is dict:
                wrong = 1  # a set takes nothing else
            self.assertRaises((ValueError, TypeError), ask, wrong)
            self.assertEqual((len(channel.replies), peer.sent()), (0, []))

        try_one()
