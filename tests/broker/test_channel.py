"""One channel: its life, and what is consumed and settled on it. A method's bytes in, its answer's bytes out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.broker.channel_case import ChannelTestCase
from tests.broker.peer import Client, publish
from tests.peer import method
from txservices.broker.deliveries import UNACKED_MAX
from txservices.wire import codec


class LifeTests(ChannelTestCase):
    """Open, close, flow."""

    def test_close(self) -> None:
        """A closed channel is free to be opened again; what was unsettled is ready."""
        self.client.publish("q", b"1")
        self.client.method(1, "basic.get", queue="q")
        self.ok("channel.close")
        self.ok("channel.open")
        self.assertEqual(self.ok("queue.declare", queue="q", passive=True)["message_count"], 1)

    def test_closed_by_the_broker(self) -> None:
        """After a channel error nothing on that channel counts until close-ok; other channels go on."""
        self.client.method(2, "channel.open")
        self.client.sent()
        self.client.write(method(1, "basic.ack", delivery_tag=9) + publish("q", b"lost") + method(1, "basic.qos"))
        self.assertEqual(self.client.names(), ["channel.close"])
        self.assertEqual(self.client.call(2, "queue.purge", queue="q")[1], {"message_count": 0})

    def test_both_close(self) -> None:
        """Both sides at once: each answers the other, and the number is free."""
        self.client.write(method(1, "basic.ack", delivery_tag=9) + method(1, "channel.close"))
        self.assertEqual(self.client.names(), ["channel.close", "channel.close-ok"])
        self.client.method(1, "channel.close-ok")
        self.ok("channel.open")

    def test_flow(self) -> None:
        """A client may not stop deliveries, as with RabbitMQ: there is a prefetch for that."""
        self.assertEqual(self.ok("channel.flow", active=True), {"active": True})
        self.refused_all(540, "channel.flow", active=False)


class ConsumeTests(ChannelTestCase):
    """basic.consume and what follows from it."""

    def test_delivered_as_it_came(self) -> None:
        """Properties and body go out byte for byte, however many frames they need."""
        small = Client(self.client.broker).open(frame_max=4096)
        small.consume("q", "tag")
        small.sent()
        properties = {"headers": {"a": [1, None, {"b": 2.5}]}, "correlation_id": "c", "expiration": "60000"}
        self.client.publish("q", b"x" * 20_000, **properties)
        ((_, content),) = small.contents()
        self.assertEqual(content.body, b"x" * 20_000)
        self.assertEqual(content.header, codec.encode_properties(properties))
        self.assertEqual(
            content.args,
            {"consumer_tag": "tag", "delivery_tag": 1, "redelivered": False, "exchange": "", "routing_key": "q"},
        )

    def test_empty_body(self) -> None:
        """A message may have no body."""
        self.client.consume("q")
        self.client.publish("q", b"")
        self.assertEqual([content.body for _, content in self.client.contents()[1:]], [b""])

    def test_consume_ok_comes_first(self) -> None:
        """The answer to consume comes before the messages that waited."""
        self.client.publish("q", b"1")
        self.client.consume("q")
        self.assertEqual(self.client.names(), ["basic.consume-ok", "basic.deliver"])

    def test_tag(self) -> None:
        """Without a tag a consumer gets one; one in use on the channel is 530."""
        self.assertTrue(self.ok("basic.consume", queue="q")["consumer_tag"].startswith("amq.ctag-"))
        self.ok("basic.consume", queue="q", consumer_tag="t")
        answer, code, _ = self.client.refusal(1, "basic.consume", queue="q", consumer_tag="t")
        self.assertEqual((answer, code), ("connection.close", 530))

    def test_exclusive(self) -> None:
        """An exclusive consumer is refused beside others, and others are refused beside it."""
        used = "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use"
        self.client.method(2, "channel.open")
        self.client.consume("q", channel=2)
        self.refused(403, used, "basic.consume", queue="q", exclusive=True)
        self.client.method(2, "basic.cancel", consumer_tag="t")
        self.client.consume("q", channel=2, exclusive=True)
        self.refused(403, used, "basic.consume", queue="q")

    def test_cancel(self) -> None:
        """After cancel nothing comes, and earlier messages can be acked; an unknown tag is no error."""
        self.client.consume("q")
        self.client.publish("q", b"1")
        self.assertEqual(self.ok("basic.cancel", consumer_tag="t"), {"consumer_tag": "t"})
        self.client.publish("q", b"2")
        self.client.method(1, "basic.ack", delivery_tag=1)
        self.assertEqual(self.client.names(), [])
        self.ok("basic.cancel", consumer_tag="t")

    def test_queue_deleted(self) -> None:
        """A consumer whose queue is deleted is told, if the client said that it understands."""
        silent = Client(self.client.broker).open(publisher_confirms=True)
        for client in (self.client, silent):
            client.consume("q")
            client.sent()
        Client(self.client.broker).open().method(1, "queue.delete", queue="q")
        self.assertEqual(self.client.sent(), [(1, "basic.cancel", {"consumer_tag": "t", "nowait": True})])
        self.assertEqual(silent.sent(), [])

    def test_prefetch_is_for_consumers_to_come(self) -> None:
        """qos counts for each consumer that comes after it, qos with global for the channel."""
        self.ok("basic.qos", prefetch_count=1)
        self.client.consume("q", "one")
        self.ok("basic.qos", prefetch_count=2)
        self.client.consume("q", "two")
        self.client.sent()
        for number in range(6):
            self.client.publish("q", b"%d" % number)
        tags = [args["consumer_tag"] for _, _, args in self.client.sent()]
        self.assertEqual(tags, ["one", "two", "two"])
        self.ok("basic.qos", prefetch_count=1, **{"global": True})
        self.client.method(1, "basic.ack", delivery_tag=3, multiple=True)
        self.assertEqual(len(self.client.bodies()), 1)
        self.client.method(1, "basic.qos", prefetch_count=0, **{"global": True})
        self.assertEqual(len(self.client.bodies()), 2)

    def test_not_implemented(self) -> None:
        """Prefetch by size and transactions are 540."""
        self.refused_all(540, "basic.qos", prefetch_size=1)
        for name in ("tx.select", "tx.commit", "tx.rollback"):
            self.refused_all(540, name)


class GetTests(ChannelTestCase):
    """basic.get"""

    def test_get(self) -> None:
        """One message, and how many are left; nothing when there is none."""
        self.client.publish("q", b"1", type="t")
        self.client.publish("q", b"2")
        self.client.method(1, "basic.get", queue="q")
        ((_, content),) = self.client.contents()
        self.assertEqual((content.body, content.properties), (b"1", {"type": "t"}))
        self.assertEqual(
            content.args,
            {"delivery_tag": 1, "redelivered": False, "exchange": "", "routing_key": "q", "message_count": 1},
        )
        self.client.method(1, "basic.get", queue="q", no_ack=True)
        self.client.method(1, "basic.get", queue="q")
        self.assertEqual(self.client.names(), ["basic.get-ok", "basic.get-empty"])

    def test_unacked_are_limited(self) -> None:
        """A client that goes on getting messages and never acks is stopped."""
        self.client.publish("q")
        self.client.publish("q")
        self.client.method(1, "basic.get", queue="q")
        unacked = self.client.session.channels[1].deliveries.unacked
        (entry,) = unacked.values()
        unacked.update(dict.fromkeys(range(2, UNACKED_MAX + 1), entry))
        self.assertEqual(self.client.refusal(1, "basic.get", queue="q")[:2], ("channel.close", 406))


class SettleTests(ChannelTestCase):
    """ack, nack, reject, recover."""

    def setUp(self) -> None:
        super().setUp()
        for body in (b"1", b"2", b"3"):
            self.client.publish("q", body)
        self.client.method(1, "basic.qos", prefetch_count=3)
        self.client.consume("q")
        self.client.sent()

    def redelivered(self) -> list[tuple[bytes, bool]]:
        return [(content.body, content.args["redelivered"]) for _, content in self.client.contents()]

    def test_ack(self) -> None:
        """An acked message is gone."""
        self.client.method(1, "basic.ack", delivery_tag=2)
        self.client.method(1, "basic.ack", delivery_tag=3, multiple=True)
        self.assertEqual(self.client.session.channels[1].deliveries.unacked, {})

    def test_unknown_tag(self) -> None:
        """A tag that is not out closes the channel with 406."""
        for name in ("basic.ack", "basic.nack", "basic.reject"):
            self.refused(406, "PRECONDITION_FAILED - unknown delivery tag 9", name, delivery_tag=9)
        self.client.method(1, "basic.get", queue="q")
        self.client.method(1, "basic.ack", delivery_tag=1)
        self.refused(406, "PRECONDITION_FAILED - unknown delivery tag 1", "basic.ack", delivery_tag=1)

    def test_requeue(self) -> None:
        """nack and reject with requeue bring messages back in order, marked."""
        self.client.method(1, "basic.nack", delivery_tag=2, multiple=True, requeue=True)
        self.assertEqual(self.redelivered(), [(b"1", True), (b"2", True)])
        self.client.method(1, "basic.reject", delivery_tag=3, requeue=True)
        self.assertEqual(self.redelivered(), [(b"3", True)])

    def test_without_requeue(self) -> None:
        """nack and reject without requeue drop messages."""
        self.client.method(1, "basic.nack", delivery_tag=2, multiple=True)
        self.client.method(1, "basic.reject", delivery_tag=3)
        self.assertEqual(self.ok("queue.declare", queue="q")["message_count"], 0)

    def test_recover(self) -> None:
        """recover brings all back; without requeue it is 540."""
        self.client.method(1, "basic.recover", requeue=True)
        contents = self.client.contents()
        self.assertEqual([content.method.name for _, content in contents].count("basic.recover-ok"), 1)
        self.assertEqual([content.body for _, content in contents if content.body], [b"1", b"2", b"3"])
        self.client.method(1, "basic.recover-async", requeue=True)
        self.assertEqual(self.redelivered(), [(b"1", True), (b"2", True), (b"3", True)])
        self.assertEqual(self.client.refusal(1, "basic.recover")[:2], ("connection.close", 540))

    def test_gone_with_waiting_consumers(self) -> None:
        """Of a single active consumer that goes, nothing comes to others that go with it: no delivery counts."""
        ways: tuple[tuple[Callable[[Client], Any], int], ...] = (  # and the channel of the last consumer
            (lambda client: client.lose(), 2),
            (lambda client: client.method(0, "connection.close"), 2),
            (lambda client: client.method(1, "channel.close"), 1),
        )
        for goes, last in ways:
            client = Client().open()
            client.method(2, "channel.open")
            arguments = {"x-queue-type": "quorum", "x-single-active-consumer": True}
            client.declare("s", durable=True, arguments=arguments)
            for tag, channel in (("a", 1), ("b", 1), ("c", last)):
                client.method(channel, "basic.qos", prefetch_count=1)
                client.consume("s", tag, channel)
            client.publish("s", b"x")
            client.publish("s", b"waits")
            goes(client)
            self.assertEqual(client.names().count("basic.deliver"), 1)
            queue = client.broker.vhosts["/"].queues["s"]
            self.assertEqual([queue.take().returned for _ in range(2)], [1, 0])
