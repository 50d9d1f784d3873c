"""A message for which the broker closes the connection fails, and costs those beside it no more than reconnects."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import gatherResults

from tests.amqp.test_publisher import PublisherCase
from tests.services import OnRabbitMQ, ServicesCase
from txservices.amqp.entities import Queue
from txservices.broker import messages
from txservices.consumers import amqp
from txservices.exceptions import AmqpError, ConnectionClosedByBroker, PublishTimeout
from txservices.rpc import RpcProxy, rpc
from txservices.testing.waiting import Heard
from txservices.wire.spec import REQUEST_ERRORS, ReplyCode

INTERNAL = {"reply_code": 541, "reply_text": "INTERNAL_ERROR"}
SOON = 20.0  # seconds that a call may take while connections are closed because of another message


class SuspectsCase(PublisherCase):
    """A publisher whose broker closes connections."""

    def closed(self, **close: Any) -> None:
        """The broker closes the connection, and another is made."""
        self.peer.method(0, "connection.close", **(close or INTERNAL))
        self.lose_connection()
        self.reconnected()

    def ack(self, tag: int) -> None:
        self.peer.method(self.channel, "basic.ack", delivery_tag=tag)

    def told(self, body: bytes, timeout: float | None = None) -> list[Any]:
        """Publish a message that need not go out at once; what becomes of it."""
        outcome: list[Any] = []
        self.publisher.publish("", "q", body, {"message_id": body.decode()}, timeout=timeout).addBoth(outcome.append)
        return outcome


class SuspectsTests(SuspectsCase):
    """Those that were under way when the connection was closed are published again one at a time."""

    def test_told_apart(self) -> None:
        """The culprit fails with the broker's error after two connections; what is published meanwhile waits."""
        first, bad, last = self.publish(b"first", b"bad", b"last", timeout=None)
        self.closed()
        later = self.told(b"later")
        self.assertEqual(self.published(), [b"first"])
        self.ack(1)
        self.successResultOf(first)
        self.assertEqual(self.published(), [b"bad"])
        self.closed()
        self.assertEqual(self.failureResultOf(bad, ConnectionClosedByBroker).value.code, 541)
        self.assertEqual(self.published(), [b"last"])
        self.ack(1)
        self.successResultOf(last)
        self.assertEqual(self.published(), [b"later"])
        self.ack(2)
        self.assertEqual(later, [None])
        self.nothing_is_kept()

    def test_alone_by_chance(self) -> None:
        """A message that was alone is not taken for the cause at first: something else may have been asked."""
        (outcome,) = self.publish(b"1", timeout=None)
        self.closed()
        self.assertEqual(self.published(), [b"1"])
        self.ack(1)
        self.successResultOf(outcome)
        (outcome,) = self.publish(b"2", timeout=None)
        self.closed()
        self.assertEqual(self.published(), [b"2"])
        self.closed()
        self.failureResultOf(outcome, ConnectionClosedByBroker)
        self.assertEqual(self.published(), [])
        self.nothing_is_kept()

    def test_which_ends(self) -> None:
        """Suspected is for the codes of requests, and for no method but basic.publish, if the broker names one."""
        publish, declare = {"class_id": 60, "method_id": 40}, {"class_id": 40, "method_id": 10}
        for code in ReplyCode:
            for method in ({}, publish, declare):
                self.end()
                self.begin()
                for body in (b"1", b"2"):
                    self.told(body)
                self.assertEqual(self.published(), [b"1", b"2"])
                self.closed(reply_code=int(code), reply_text="", **method)
                suspected = code in REQUEST_ERRORS and method != declare
                self.assertEqual(self.published(), [b"1"] if suspected else [b"1", b"2"], (code, method))
        self.end()
        self.begin()
        for body in (b"1", b"2"):
            self.told(body)
        self.assertEqual(self.published(), [b"1", b"2"])
        self.lose_connection()
        self.reconnected()
        self.assertEqual(self.published(), [b"1", b"2"])

    def test_lost_meanwhile(self) -> None:
        """A suspect whose connection is lost in another way is suspected still, and alone on the next one."""
        outcomes = [self.told(body) for body in (b"1", b"2", b"3")]
        self.published()
        self.closed()
        for _ in range(3):
            self.assertEqual(self.published(), [b"1"])
            self.lose_connection()
            self.reconnected()
        self.assertEqual(self.published(), [b"1"])
        self.closed()
        for tag, body in enumerate((b"2", b"3"), 1):
            self.assertEqual(self.published(), [body])
            self.ack(tag)
        self.assertEqual([type(getattr(each, "value", None)) for (each,) in outcomes][1:], [type(None)] * 2)
        self.assertIsInstance(outcomes[0][0].value, ConnectionClosedByBroker)
        self.nothing_is_kept()

    def test_expired(self) -> None:
        """One that expires is suspected no more; the others go on when the broker has answered for it."""
        outcomes = [self.told(b"1", timeout=1), self.told(b"2", timeout=1), self.told(b"3")]
        self.published()
        self.closed()
        self.assertEqual(self.published(), [b"1"])
        self.peer.clock.pump([0.5] * 4)
        for (each,) in outcomes[:2]:
            self.assertIsInstance(each.value, PublishTimeout)
        self.assertEqual(self.published(), [])
        self.ack(1)
        self.assertEqual(self.published(), [b"3"])
        self.ack(2)
        self.nothing_is_kept()

    def test_nacked(self) -> None:
        """A nacked suspect has been answered for: it is published again later, as others."""
        outcomes = [self.told(body) for body in (b"1", b"2")]
        self.published()
        self.closed()
        self.assertEqual(self.published(), [b"1"])
        before = self.channel
        self.nack(before, 1)
        self.assertEqual(self.published(), [b"2"])
        self.ack(2)
        self.channel = self.next_channel()
        self.assertEqual(self.published_and_closed(before), [b"1"])
        self.ack(1)
        self.assertEqual(outcomes, [[None], [None]])
        self.nothing_is_kept()

    def test_retiring(self) -> None:
        """One that was under way on the channel before, which retires, is suspected too, and fails for no other."""
        silent, nacked = self.told(b"silent"), self.told(b"nacked")
        self.published()
        self.nack(self.channel, 2)
        second = self.next_channel()
        self.assertEqual(self.published(), [b"nacked"])
        self.peer.method(second, "basic.ack", delivery_tag=1)
        self.closed()
        self.assertEqual(self.published(), [b"silent"])
        self.ack(1)
        self.assertEqual((silent, nacked), ([None], [None]))
        self.nothing_is_kept()

    def test_any(self) -> None:
        """Culprits among others, as hypothesis has them, also some that close their channel, and plain losses."""
        fates = st.sampled_from(("good",) * 6 + ("bad", "no exchange", "lost"))

        @settings(max_examples=80, deadline=None, database=None)
        @given(st.lists(fates, max_size=12), st.integers(0, 12))
        def try_one(fates: list[str], at_first: int) -> None:
            self.end()
            self.begin()
            bodies = [b"%s %d" % (fate.encode(), number) for number, fate in enumerate(fates)]
            outcomes = [self.told(body) for body in bodies[:at_first]]
            ends: Counter[bytes] = Counter()  # of channels or connections, by the message that caused it
            tag = 0
            while True:
                for body in self.published():
                    tag += 1
                    fate = body.rpartition(b" ")[0]
                    if fate == b"good" or (fate == b"lost" and ends[body]):
                        self.ack(tag)
                        continue
                    ends[body] += 1
                    tag = 0
                    if fate == b"bad":
                        self.closed()
                    elif fate == b"lost":
                        self.lose_connection()
                        self.reconnected()
                    else:
                        self.peer.method(self.channel, "channel.close", reply_code=404)
                        self.channel = self.opened()
                    break
                else:
                    if not self.publisher.unconfirmed:
                        if len(outcomes) == len(bodies):
                            break
                        outcomes.append(self.told(bodies[len(outcomes)]))

            for body, (outcome,) in zip(bodies, outcomes, strict=True):
                if body.startswith((b"bad", b"no")):
                    self.assertIsInstance(outcome.value, AmqpError, body)
                    self.assertLessEqual(ends[body], 2)
                else:
                    self.assertIsNone(outcome)
            self.nothing_is_kept()

        try_one()


class SuspectsOnEmbeddedTests(ServicesCase):
    """A culprit that waits without a deadline, in a process that serves and calls meanwhile."""

    culprit: dict[str, Any] = {"headers": {"poison": "541"}}
    queue = Queue("q")

    def setUp(self) -> None:
        super().setUp()
        read = messages.read_unusual

        def refuse(header: bytes, *rest: Any) -> Any:
            if b"poison" in header:
                raise AmqpError(ReplyCode.INTERNAL_ERROR, "this message is refused", "basic.publish")
            return read(header, *rest)

        self.patch(messages, "read_unusual", refuse)

    async def test_innocents(self) -> None:
        """It fails with the broker's error after two connections, and so do others; each call is answered soon."""

        class Echo:
            name = "echo"

            @rpc
            def echo(self, value: int) -> int:
                return value

        class Relay:
            name = "relay"
            echo = RpcProxy("echo")

            @rpc
            async def relay(self, value: int) -> Any:
                return await self.echo.echo(value)

        container, _ = await self.start(Relay, Echo)
        cluster = await self.cluster()
        self.assertEqual(await cluster.relay.relay(0), 0)
        publisher = amqp(container).publisher
        await publisher.declare(self.queue)
        connected = Heard()
        publisher.connection.on_connected.append(connected)
        slowest = 0.0
        for number in range(1, 3):
            bad = publisher.publish("", "q", b"bad", {**self.culprit}, timeout=None)
            began = reactor.seconds()
            calls = [cluster.relay.relay(value) for value in range(10)]
            self.assertEqual(await gatherResults(calls), list(range(10)))
            slowest = max(slowest, reactor.seconds() - began)
            error = await self.assertFailure(bad, ConnectionClosedByBroker)
            self.assertEqual(error.code, 541)
            self.assertEqual(await cluster.relay.relay(11), 11)
            self.assertLessEqual(len(connected.things), 2 * number)
        self.assertLess(slowest, SOON)
        print(f"\n{self.id()}: the slowest of twenty calls beside a culprit took {slowest:.2f} s")


class SuspectsOnRabbitTests(OnRabbitMQ, SuspectsOnEmbeddedTests):
    """The same on RabbitMQ, where a decimal in the header of a message to a stream closes the connection."""

    culprit = {"headers": {"price": Decimal("1.5")}}
    queue = Queue("q", arguments={"x-queue-type": "stream"})
