"""One channel: a method's bytes in, its answer's bytes out."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.broker.peer import Client, method, publish
from txservices.amqp import codec, frames
from txservices.broker.queues import UNACKED_MAX


class ChannelTestCase(SynchronousTestCase):
    """A client with channel 1 open, and queue q."""

    def setUp(self) -> None:
        self.client = Client().open()
        self.client.declare("q")
        self.client.sent()

    def refused(self, code: int, text: str, name: str, channel: int = 1, **arguments: Any) -> None:
        """The method is refused on its channel, and the channel is opened again for the next one."""
        self.assertEqual(self.client.refusal(channel, name, **arguments), ("channel.close", code, text))
        self.client.method(channel, "channel.close-ok")
        self.assertEqual(self.client.call(channel, "channel.open")[0], "channel.open-ok")

    def refused_all(self, code: int, name: str, **arguments: Any) -> None:
        """The method is refused with the end of the connection."""
        self.assertEqual(Client().open().refusal(1, name, **arguments)[:2], ("connection.close", code))

    def ok(self, name: str, **arguments: Any) -> dict[str, Any]:
        answer, args = self.client.call(1, name, **arguments)
        self.assertEqual(answer, f"{name}-ok", args)
        return args


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
        self.ok("channel.open")

    def test_flow(self) -> None:
        """A client may stop deliveries and start them again."""
        self.client.consume("q")
        self.assertEqual(self.ok("channel.flow", active=False), {"active": False})
        self.client.publish("q", b"1")
        self.assertEqual(self.client.names(), [])
        self.client.method(1, "channel.flow", active=True)
        self.assertEqual(self.client.names(), ["channel.flow-ok", "basic.deliver"])


class ExchangeTests(ChannelTestCase):
    """exchange.*"""

    def test_declare(self) -> None:
        """Declared again as it is, an exchange is fine; the predefined ones too."""
        for _ in range(2):
            self.ok("exchange.declare", exchange="x", type="topic", durable=True)
        self.ok("exchange.declare", exchange="x", passive=True)
        self.ok("exchange.declare", exchange="amq.topic", type="topic", durable=True)

    def test_other_than_it_is(self) -> None:
        """A declaration that differs is 406 and names what differs."""
        self.ok("exchange.declare", exchange="x", type="topic", durable=True)
        start = "PRECONDITION_FAILED - inequivalent arg"
        for arguments, text in (
            (
                {"type": "fanout", "durable": True},
                "'type' for exchange 'x' in vhost '/': received 'fanout' but current is 'topic'",
            ),
            ({"type": "topic"}, "'durable' for exchange 'x' in vhost '/': received 'false' but current is 'true'"),
            (
                {"type": "topic", "durable": True, "arguments": {"alternate-exchange": "y"}},
                "'alternate-exchange' for exchange 'x' in vhost '/':"
                " received the value 'y' of type 'longstr' but current is none",
            ),
        ):  # fmt: skip
            self.refused(406, f"{start} {text}", "exchange.declare", exchange="x", **arguments)

    def test_refused(self) -> None:
        """Missing ones are 404, reserved ones and the default one 403, unknown types 503."""
        missing = "NOT_FOUND - no exchange 'nope' in vhost '/'"
        default = "ACCESS_REFUSED - operation not permitted on the default exchange"
        self.refused(404, missing, "exchange.declare", exchange="nope", passive=True)
        self.refused(404, missing, "exchange.bind", destination="nope", source="amq.topic")
        self.refused(404, missing, "exchange.bind", destination="amq.topic", source="nope")
        self.refused(403, default, "exchange.declare", exchange="", type="direct")
        self.refused(403, default, "exchange.delete", exchange="")
        self.refused(403, default, "queue.bind", queue="q", exchange="")
        reserved = "ACCESS_REFUSED - exchange name 'amq.x' begins with 'amq.', which is the broker's own"
        self.refused(403, reserved, "exchange.declare", exchange="amq.x", type="direct")
        self.refused(403, reserved, "exchange.delete", exchange="amq.x")
        self.refused_all(503, "exchange.declare", exchange="x", type="x-delayed-message")
        for arguments in ({"x-match": "some"}, {"x-match": [1]}):
            answer, code, _ = self.client.refusal(
                1, "queue.bind", queue="q", exchange="amq.headers", arguments=arguments
            )
            self.assertEqual((answer, code), ("channel.close", 406))
            self.client.method(1, "channel.close-ok")
            self.client.method(1, "channel.open")

    def test_delete(self) -> None:
        """A deleted exchange takes nothing more; one in use can be spared; a missing one is no error."""
        self.ok("exchange.declare", exchange="x", type="fanout")
        self.ok("queue.bind", queue="q", exchange="x")
        used = "PRECONDITION_FAILED - exchange 'x' in vhost '/' in use"
        self.refused(406, used, "exchange.delete", exchange="x", if_unused=True)
        self.ok("exchange.delete", exchange="x")
        self.ok("exchange.delete", exchange="x")
        self.client.publish("k", exchange="x")
        (_, name, args), *_ = self.client.sent()
        self.assertEqual((name, args["reply_code"]), ("channel.close", 404))

    def test_auto_delete(self) -> None:
        """An auto-delete exchange ends with its last binding, and those that only led to it with it."""
        self.ok("exchange.declare", exchange="first", type="fanout", auto_delete=True)
        self.ok("exchange.declare", exchange="second", type="fanout", auto_delete=True)
        self.ok("exchange.bind", destination="second", source="first")
        self.ok("queue.bind", queue="q", exchange="second")
        self.client.publish("", b"1", exchange="first")
        self.assertEqual(self.ok("queue.purge", queue="q"), {"message_count": 1})
        self.ok("queue.unbind", queue="q", exchange="second")
        self.assertEqual({"first", "second"} & set(self.client.broker.vhosts["/"].exchanges), set())

    def test_unbind_exchange(self) -> None:
        """An exchange unbound from another one gets nothing more from it."""
        self.ok("exchange.declare", exchange="x", type="fanout")
        self.ok("queue.bind", queue="q", exchange="x")
        self.ok("exchange.bind", destination="x", source="amq.direct", routing_key="k")
        self.client.publish("k", exchange="amq.direct")
        self.ok("exchange.unbind", destination="x", source="amq.direct", routing_key="k")
        self.client.publish("k", exchange="amq.direct")
        self.assertEqual(self.ok("queue.purge", queue="q"), {"message_count": 1})

    def test_internal(self) -> None:
        """Nobody publishes to an internal exchange, but by another one."""
        self.ok("exchange.declare", exchange="x", type="fanout", internal=True)
        self.client.publish("k", exchange="x")
        self.assertEqual(self.client.sent()[0][2]["reply_code"], 403)


class QueueTests(ChannelTestCase):
    """queue.*"""

    def test_declare(self) -> None:
        """declare-ok says the name, and how many messages and consumers there are."""
        self.client.publish("q")
        self.assertEqual(self.ok("queue.declare", queue="q"), {"queue": "q", "message_count": 1, "consumer_count": 0})
        self.client.consume("q")
        self.assertEqual(self.ok("queue.declare", queue="q", passive=True)["consumer_count"], 1)

    def test_named_by_the_broker(self) -> None:
        """Without a name a queue gets one, and later methods without a name mean it."""
        name = self.ok("queue.declare", exclusive=True)["queue"]
        self.assertTrue(name.startswith("amq.gen-"))
        self.ok("queue.bind", exchange="amq.direct")
        self.client.publish(name, b"1", exchange="amq.direct")
        self.assertEqual(self.ok("queue.purge"), {"message_count": 1})

    def test_other_than_it_is(self) -> None:
        """A declaration that differs is 406 and names what differs, with both values."""
        self.ok("queue.declare", queue="d", durable=True, arguments={"x-expires": 3000})
        start = "PRECONDITION_FAILED - inequivalent arg"
        end = "for queue 'd' in vhost '/': received"
        for arguments, text in (
            ({}, f"'durable' {end} 'false' but current is 'true'"),
            ({"durable": True, "auto_delete": True}, f"'auto_delete' {end} 'true' but current is 'false'"),
            ({"durable": True}, f"'x-expires' {end} none but current is the value '3000' of type 'signedint'"),
            ({"durable": True, "arguments": {"x-expires": 4000}}, f"'x-expires' {end} '4000' but current is '3000'"),
        ):
            self.refused(406, f"{start} {text}", "queue.declare", queue="d", **arguments)
        self.ok("queue.declare", queue="d", durable=True, arguments={"x-expires": 3000, "of-no-meaning": 1})

    def test_exclusive(self) -> None:
        """Another connection's exclusive queue is 405 for every use; a queue that isn't can't become exclusive."""
        other = Client(self.client.broker).open()
        other.declare("mine", exclusive=True)
        locked = "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'mine' in vhost '/'"
        for name in ("queue.declare", "queue.purge", "queue.delete", "basic.consume", "basic.get"):
            self.refused(405, f"{locked}: it is another connection's", name, queue="mine")
        answer, code, _ = self.client.refusal(1, "queue.declare", queue="q", exclusive=True)
        self.assertEqual((answer, code), ("channel.close", 405))

    def test_missing(self) -> None:
        """A queue that isn't there is 404; deleting and unbinding it is no error."""
        missing = "NOT_FOUND - no queue 'nope' in vhost '/'"
        self.refused(404, missing, "queue.declare", queue="nope", passive=True)
        for name in ("queue.purge", "basic.consume", "basic.get"):
            self.refused(404, missing, name, queue="nope")
        self.refused(404, missing, "queue.bind", queue="nope", exchange="amq.topic")
        self.refused(404, "NOT_FOUND - no previously declared queue", "basic.get")
        self.ok("queue.delete", queue="nope")
        self.ok("queue.unbind", queue="nope", exchange="amq.topic")

    def test_delete(self) -> None:
        """Deleting says what was in it; a queue in use or not empty can be spared; its bindings go too."""
        self.ok("queue.bind", queue="q", exchange="amq.fanout")
        self.client.publish("q", b"1")
        named = "PRECONDITION_FAILED - queue 'q' in vhost '/'"
        self.refused(406, f"{named} not empty", "queue.delete", queue="q", if_empty=True)
        self.client.method(2, "channel.open")
        self.client.consume("q", channel=2, no_ack=True)
        self.refused(406, f"{named} in use", "queue.delete", queue="q", if_unused=True)
        self.client.method(2, "basic.cancel", consumer_tag="t")
        self.client.publish("q", b"2")
        self.assertEqual(self.ok("queue.delete", queue="q"), {"message_count": 1})
        self.assertEqual(self.client.broker.vhosts["/"].exchanges["amq.fanout"].bindings, {})

    def test_refused_arguments(self) -> None:
        """A value that can't be is 406, what RabbitMQ has and this broker has not is 540; both say what."""
        for arguments in (
            {"x-expires": 0}, {"x-expires": "1"}, {"x-expires": True}, {"x-message-ttl": -1}, {"x-max-length": -1},
            {"x-max-length-bytes": "1"}, {"x-overflow": "burst"}, {"x-dead-letter-exchange": 1},
            {"x-dead-letter-routing-key": "k"}, {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "k" * 256},
        ):  # fmt: skip
            client = Client().open()
            answer, code, text = client.refusal(1, "queue.declare", queue="a", arguments=arguments)
            self.assertEqual((answer, code), ("channel.close", 406), arguments)
            self.assertIn(f"invalid arg '{list(arguments)[-1]}' for queue 'a' in vhost '/'", text)
        for arguments in (
            {"x-queue-type": "quorum"}, {"x-max-priority": 5}, {"x-single-active-consumer": True},
            {"x-delivery-limit": 3},
        ):  # fmt: skip
            self.refused_all(540, "queue.declare", queue="a", arguments=arguments)
        self.ok("queue.declare", queue="a", arguments={"x-queue-type": "classic"})
        self.ok("queue.declare", queue="a")
        self.ok("queue.declare", queue="b", arguments={"x-queue-mode": "lazy", "x-single-active-consumer": False})

    def test_reserved(self) -> None:
        """Names that begin with amq. are the broker's."""
        text = "ACCESS_REFUSED - queue name 'amq.q' begins with 'amq.', which is the broker's own"
        self.refused(403, text, "queue.declare", queue="amq.q")

    def test_nowait(self) -> None:
        """What is asked with nowait is done and not answered; what fails is told all the same."""
        self.client.method(1, "queue.declare", queue="n", nowait=True)
        self.client.method(1, "queue.bind", queue="n", exchange="amq.fanout", nowait=True)
        self.client.method(1, "basic.consume", queue="n", consumer_tag="t", nowait=True)
        self.assertEqual(self.client.names(), [])
        self.client.publish("", exchange="amq.fanout")
        self.assertEqual(self.client.names(), ["basic.deliver"])
        self.client.method(1, "queue.purge", queue="nope", nowait=True)
        self.assertEqual(self.client.names(), ["channel.close"])

    def test_expires(self) -> None:
        """An unused queue is gone when its x-expires is over, and nothing is left in the reactor."""
        self.ok("queue.declare", queue="e", arguments={"x-expires": 1000})
        self.client.clock.pump([0.1] * 9)
        self.assertIn("e", self.client.broker.vhosts["/"].queues)
        self.client.clock.pump([0.1] * 3)
        self.assertNotIn("e", self.client.broker.vhosts["/"].queues)
        self.client.clock.advance(1)
        self.assertEqual(self.client.clock.getDelayedCalls(), [])

    def test_expired_while_nobody_was_there(self) -> None:
        """Without a connection no time is kept; the first one to come finds gone what has expired."""
        self.ok("queue.declare", queue="e", arguments={"x-expires": 1000})
        self.client.lose()
        self.assertEqual(self.client.clock.getDelayedCalls(), [])
        self.client.clock.advance(2)
        Client(self.client.broker).open()
        self.assertEqual(list(self.client.broker.vhosts["/"].queues), ["q"])


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
        """A message without a body is a message."""
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
        """An exclusive consumer bears no other, and comes after no other."""
        used = "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use"
        self.client.method(2, "channel.open")
        self.client.consume("q", channel=2)
        self.refused(403, used, "basic.consume", queue="q", exclusive=True)
        self.client.method(2, "basic.cancel", consumer_tag="t")
        self.client.consume("q", channel=2, exclusive=True)
        self.refused(403, used, "basic.consume", queue="q")

    def test_cancel(self) -> None:
        """After cancel nothing comes, and what came can be acked; an unknown tag is no error."""
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
        """Prefetch by size, direct reply-to and transactions are 540."""
        self.refused_all(540, "basic.qos", prefetch_size=1)
        self.refused_all(540, "basic.consume", queue="amq.rabbitmq.reply-to", no_ack=True)
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
        """Who gets and gets and never acks is stopped."""
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
        """What is acked is gone."""
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


class PublishTests(ChannelTestCase):
    """basic.publish and confirms."""

    def test_confirms_of_a_chunk_go_together(self) -> None:
        """All that came in one piece is confirmed by one ack; one alone has `multiple` unset."""
        self.ok("confirm.select")
        self.client.write(publish("q") * 3)
        self.client.write(publish("q"))
        self.assertEqual(
            self.client.sent(),
            [
                (1, "basic.ack", {"delivery_tag": 3, "multiple": True}),
                (1, "basic.ack", {"delivery_tag": 4, "multiple": False}),
            ],
        )

    def test_returned_before_it_is_confirmed(self) -> None:
        """A mandatory message that no queue takes comes back as it was, with 312, and then is confirmed."""
        self.ok("confirm.select")
        self.client.publish("nobody", b"body", exchange="amq.topic", mandatory=True, message_id="m")
        (_, back), (_, ack) = self.client.contents()
        self.assertEqual((back.method.name, ack.method.name), ("basic.return", "basic.ack"))
        self.assertEqual(
            back.args,
            {"reply_code": 312, "reply_text": "NO_ROUTE", "exchange": "amq.topic", "routing_key": "nobody"},
        )
        self.assertEqual((back.body, back.properties), (b"body", {"message_id": "m"}))

    def test_unroutable_vanishes(self) -> None:
        """Without mandatory nobody hears of it."""
        self.client.publish("nobody")
        self.assertEqual(self.client.names(), [])

    def test_missing_exchange(self) -> None:
        """404 closes the channel, after what came before it is confirmed."""
        self.ok("confirm.select")
        self.client.write(publish("q") + publish("k", exchange="nope"))
        (_, first, _), (_, second, args) = self.client.sent()
        self.assertEqual((first, second, args["reply_code"]), ("basic.ack", "channel.close", 404))
        self.assertEqual((args["class_id"], args["method_id"]), (60, 40))

    def test_closed_in_the_same_chunk(self) -> None:
        """A channel that is closed right after its publishes gets its confirms before close-ok."""
        self.ok("confirm.select")
        self.client.write(publish("q") + method(1, "channel.close"))
        self.assertEqual(self.client.names(), ["basic.ack", "channel.close-ok"])

    def test_full_queue(self) -> None:
        """A queue that refuses makes a nack, with those around it acked."""
        self.ok("queue.declare", queue="full", arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
        self.ok("confirm.select")
        self.client.write(publish("full") + publish("full") + publish("q"))
        found = [(name, args["delivery_tag"]) for _, name, args in self.client.sent()]
        self.assertEqual(found, [("basic.ack", 1), ("basic.nack", 2), ("basic.ack", 3)])

    def test_refused(self) -> None:
        """immediate and CC are 540; a forged user and a bad expiration are 406."""
        for properties, answer, code in (
            ({"headers": {"CC": ["a"]}}, "connection.close", 540),
            ({"user_id": "other"}, "channel.close", 406),
            ({"expiration": "soon"}, "channel.close", 406),
        ):
            client = Client().open()
            client.publish("q", **properties)  # type: ignore[arg-type]
            ((_, name, args),) = client.sent()
            self.assertEqual((name, args["reply_code"]), (answer, code))
        payload = codec.encode_method("basic.publish", routing_key="q", immediate=True)
        self.client.write(frames.content_frames(1, payload, b"\0\0", b""))
        self.assertEqual(self.client.sent()[0][2]["reply_code"], 540)

    def test_routes_are_forgotten(self) -> None:
        """Whatever changes the topology changes where the next message goes."""
        self.client.publish("k", exchange="amq.topic")
        self.ok("queue.bind", queue="q", exchange="amq.topic", routing_key="#")
        self.client.publish("k", exchange="amq.topic")
        self.ok("queue.unbind", queue="q", exchange="amq.topic", routing_key="#")
        self.client.publish("k", exchange="amq.topic")
        self.assertEqual(self.ok("queue.delete", queue="q"), {"message_count": 1})
        self.client.publish("q", mandatory=True)
        self.assertEqual(self.client.names(), ["basic.return"])
        self.ok("queue.declare", queue="q")
        self.client.publish("q")
        self.assertEqual(self.ok("queue.purge", queue="q"), {"message_count": 1})

    def test_headers_exchange(self) -> None:
        """A headers exchange reads each message's headers; headers that can't be read are 502."""
        self.ok("queue.bind", queue="q", exchange="amq.headers", arguments={"a": 1})
        self.client.publish("", exchange="amq.headers", headers={"a": 1})
        self.client.publish("", exchange="amq.headers", headers={"a": 2})
        self.assertEqual(self.ok("queue.purge", queue="q"), {"message_count": 1})
        payload = codec.encode_method("basic.publish", exchange="amq.headers")
        self.client.write(frames.content_frames(1, payload, b"\x20\0\0\0\0\x05\x01aQ", b""))
        self.assertEqual(self.client.sent()[0][2]["reply_code"], 502)


class DeadLetterTests(ChannelTestCase):
    """Dead letters on their way."""

    def declare(self, name: str, **arguments: Any) -> None:
        self.ok("queue.declare", queue=name, arguments={key.replace("_", "-"): v for key, v in arguments.items()})

    def test_rejected(self) -> None:
        """A rejected message goes to the dead letter exchange with its own key, or the queue's."""
        self.declare("dead")
        self.declare("a", x_dead_letter_exchange="amq.direct")
        self.declare("b", x_dead_letter_exchange="", x_dead_letter_routing_key="dead")
        self.ok("queue.bind", queue="dead", exchange="amq.direct", routing_key="a")
        for queue in ("a", "b"):
            self.client.publish(queue, queue.encode())
            self.client.method(1, "basic.get", queue=queue)
            tag = self.client.contents()[0][1].args["delivery_tag"]
            self.client.method(1, "basic.reject", delivery_tag=tag)
            self.client.method(1, "basic.get", queue="dead")
            ((_, content),) = self.client.contents()
            self.assertEqual(content.properties["headers"]["x-death"][0]["queue"], queue)

    def test_delayed_retry(self) -> None:
        """Rejected, kept for a while in a queue with a TTL, and delivered again: as often as it is rejected."""
        self.declare("work", x_dead_letter_exchange="", x_dead_letter_routing_key="wait")
        self.declare("wait", x_message_ttl=1000, x_dead_letter_exchange="", x_dead_letter_routing_key="work")
        self.client.publish("work", b"1")
        self.client.consume("work")
        _, content = self.client.contents()[-1]
        for count in range(1, 4):
            self.client.method(1, "basic.reject", delivery_tag=content.args["delivery_tag"])
            self.client.clock.pump([0.1] * 9)
            self.assertEqual(self.client.sent(), [])
            self.client.clock.pump([0.1] * 2)
            ((_, content),) = self.client.contents()
            deaths = content.properties["headers"]["x-death"]
            self.assertEqual([(d["queue"], d["count"]) for d in deaths], [("wait", count), ("work", count)])

    def test_circle(self) -> None:
        """Queues that are each other's dead letters and full do not send a message round for ever."""
        self.declare("a", x_max_length=0, x_dead_letter_exchange="", x_dead_letter_routing_key="b")
        self.declare("b", x_max_length=0, x_dead_letter_exchange="", x_dead_letter_routing_key="a")
        self.client.publish("a", b"1")
        self.assertEqual(self.ok("queue.purge", queue="a"), {"message_count": 0})

    def test_long_chain(self) -> None:
        """A chain of full queues is not a chain of calls: longer than Python's stack would bear, it is no error."""
        last = 350  # three calls each would be 1050
        for number in range(last):
            following = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": f"c{number + 1}"}
            self.ok("queue.declare", queue=f"c{number}", arguments={"x-max-length": 0, **following})
        self.declare(f"c{last}")
        self.client.publish("c0", b"1")
        self.assertEqual(self.ok("queue.purge", queue=f"c{last}"), {"message_count": 1})

    def test_no_room_for_another_death(self) -> None:
        """A dead letter whose properties outgrow a frame is lost, for no client could be sent it."""
        self.declare("a", x_dead_letter_exchange="", x_dead_letter_routing_key="q")
        self.client.publish("a", headers={"a": "x" * 131_000})
        self.client.method(1, "basic.get", queue="a")
        self.client.method(1, "basic.reject", delivery_tag=1)
        self.assertEqual(self.ok("queue.purge", queue="q"), {"message_count": 0})

    def test_unreadable(self) -> None:
        """A dead letter whose properties can't be read is lost with a line in the log, and nothing else with it."""
        self.declare("a", x_dead_letter_exchange="", x_dead_letter_routing_key="q")
        payload = codec.encode_method("basic.publish", routing_key="a")
        self.client.write(frames.content_frames(1, payload, b"\x20\0\0\0\0\x05\x01aQ", b""))
        self.client.method(1, "basic.get", queue="a")
        self.client.method(1, "basic.reject", delivery_tag=1)
        self.assertEqual(self.ok("queue.purge", queue="q"), {"message_count": 0})
