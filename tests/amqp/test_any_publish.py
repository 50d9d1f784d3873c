"""Whatever is published is confirmed, or fails with a typed error that is its own, and everything else goes on."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from tests.services import OnRabbitMQ, ServicesCase
from txservices.amqp.entities import Queue
from txservices.exceptions import (
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    HeadersTooLarge,
    UndeliverableMessage,
)
from txservices.testing.waiting import Heard
from txservices.wire.spec import PROPERTIES

MESSAGES = 160
REFUSED = (TypeError, ValueError)  # raised at once
FAILED = (ChannelClosedByBroker, ConnectionClosedByBroker, HeadersTooLarge, UndeliverableMessage)

Published = tuple[str, str, bytes, dict[str, Any], bool]


def one_of(*kinds: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """One of them, more often one that is there more often; ``st.one_of`` counts it once."""
    return st.integers(0, len(kinds) - 1).flatmap(lambda kind: kinds[kind])


texts = st.one_of(st.text(max_size=10), st.sampled_from(("", "\0", "é" * 127, "x" * 255)))
values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(1 << 63), (1 << 63) - 1), st.binary(max_size=10), texts,
        st.floats(allow_nan=False, allow_infinity=False), st.datetimes(datetime(1970, 1, 1)),
        st.decimals(-99, 99, places=2), st.just("x" * 130_000),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=5,
)  # fmt: skip
KNOWN = ("CC", "BCC", "x-death", "x-match", "x-delay", "x-received-from", "x-stream-offset")  # to a broker
header_names = st.one_of(texts, st.sampled_from(KNOWN))
KINDS: dict[str, st.SearchStrategy[Any]] = {
    "octet": st.integers(0, 255),
    "shortstr": texts,
    "table": st.dictionaries(header_names, values, max_size=4),
    "timestamp": st.integers(0, (1 << 64) - 1),
}
fitting = st.fixed_dictionaries(
    {},
    optional={
        **{name: KINDS[kind] for name, kind in PROPERTIES},
        "expiration": st.one_of(st.integers(0, 1 << 40).map(str), texts),
        "delivery_mode": st.sampled_from((1, 2, 1, 2, 0, 3)),
        "user_id": st.sampled_from(("guest", "guest", "other")),
    },
)
alone = st.sampled_from(PROPERTIES).flatmap(lambda each: st.fixed_dictionaries({each[0]: KINDS[each[1]]}))
in_headers = st.fixed_dictionaries({"headers": KINDS["table"]})
odd = st.one_of(
    st.floats(), st.decimals(), st.integers(), st.just(object()), st.just({1}), st.datetimes(), values,
    st.sampled_from(("\ud800", "é" * 128, "x" * 256, "x" * 131_050)),
)  # fmt: skip
odd_properties = st.one_of(
    st.dictionaries(st.sampled_from([name for name, _ in PROPERTIES]), odd, max_size=2),
    st.dictionaries(header_names, odd, max_size=2).map(lambda headers: {"headers": headers}),
)
messages: st.SearchStrategy[Published] = st.tuples(
    one_of(*[st.just("")] * 8, st.sampled_from(("amq.topic", "amq.headers", "missing")), texts),
    one_of(*[st.sampled_from(("q", "other"))] * 6, st.sampled_from(("missing", "#")), texts),
    st.binary(max_size=20),
    one_of(alone, in_headers, in_headers, in_headers, fitting, odd_properties),
    st.booleans(),
)


def some_messages(number: int) -> list[Published]:
    found: list[Published] = []

    @seed(number)
    @settings(max_examples=MESSAGES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(messages)
    def keep(message: Published) -> None:
        found.append(message)

    keep()
    return found


class AnyPublishOnEmbeddedTests(ServicesCase):
    """What hypothesis thinks of, all at once, and a good one behind each."""

    queues = (Queue("q"), Queue("other"))
    culprits: dict[int, Published] = {}  # by their places among the others

    async def test_any(self) -> None:
        """Each ends, the good ones are confirmed, and no message costs more than two connections."""
        publisher = self.connections().publisher
        await publisher.declare(*self.queues)
        connected = Heard()
        publisher.connection.on_connected.append(connected)
        ends: Counter[str] = Counter()
        waiting: list[Deferred[None]] = []
        good = []
        tried = some_messages(1)
        for place, culprit in self.culprits.items():
            tried.insert(place, culprit)
        for number, (exchange, routing_key, body, properties, mandatory) in enumerate(tried):
            try:
                waiting.append(publisher.publish(exchange, routing_key, body, {**properties}, mandatory, timeout=None))
            except REFUSED as error:
                ends[type(error).__name__] += 1
            good.append(publisher.publish("", "q", b"good %d" % number, {}, timeout=None))
        for outcome in waiting:
            try:
                await outcome
            except FAILED as error:
                ends[type(error).__name__] += 1
            else:
                ends["confirmed"] += 1
        for outcome in good:
            await outcome
        print(f"\n{self.id()}: {dict(ends)}, connected again {len(connected.things)} times")
        self.assertGreaterEqual(ends.total(), MESSAGES)
        self.assertLessEqual(len(connected.things), 2 * ends[ConnectionClosedByBroker.__name__])
        self.assertGreaterEqual(ends[ConnectionClosedByBroker.__name__], len(self.culprits))
        self.assertEqual(publisher.unconfirmed, {})


class AnyPublishOnRabbitTests(OnRabbitMQ, AnyPublishOnEmbeddedTests):
    """The same on RabbitMQ; one of the queues is a stream, whose messages it turns into another form."""

    timeout = 100
    queues = (Queue("q"), Queue("other", arguments={"x-queue-type": "stream"}))
    culprits = dict.fromkeys((50, 150, 151), ("", "other", b"", {"headers": {"price": Decimal("1.5")}}, False))
