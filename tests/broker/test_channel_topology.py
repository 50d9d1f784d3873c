"""A channel's exchanges and queues: a method's bytes in, its answer's bytes out."""

from __future__ import annotations

from tests.broker.channel_case import ChannelTestCase
from tests.broker.peer import Client


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
        """Missing ones are 404, reserved ones and the default one 403, unknown types 406."""
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
        unknown = "PRECONDITION_FAILED - unknown exchange type 'x-delayed-message' for exchange 'x' in vhost '/': "
        types = "one of direct, fanout, topic, headers"
        self.refused(406, unknown + types, "exchange.declare", exchange="x", type="x-delayed-message")
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
        """An internal exchange gets messages only from other exchanges."""
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
        self.ok("queue.unbind", exchange="amq.direct")
        self.assertEqual(self.client.broker.vhosts["/"].exchanges["amq.direct"].bindings, {})

    def test_no_key(self) -> None:
        """An empty key is the name of the queue declared last only where the queue is not named either."""
        bindings = self.client.broker.vhosts["/"].exchanges["amq.direct"].bindings
        for queue, key, bound in (("", "", "q"), ("", "k", "k"), ("q", "", ""), ("q", "k", "k")):
            self.ok("queue.bind", queue=queue, exchange="amq.direct", routing_key=key)
            self.assertEqual([binding.key for binding in bindings.values()], [bound])
            self.ok("queue.unbind", queue=queue, exchange="amq.direct", routing_key=key)
            self.assertEqual(bindings, {})

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

    def test_one_is_not_true(self) -> None:
        """1 and true are two values, and so are 0 and false: AMQP tells them apart, where Python does not."""
        self.ok("queue.declare", queue="one", arguments={"x-max-length": 1})
        self.ok("queue.declare", queue="false", arguments={"x-single-active-consumer": False})
        start = "PRECONDITION_FAILED - inequivalent arg"
        for queue, argument, asked, text in (
            ("one", "x-max-length", True, "received 'true' but current is '1'"),
            ("false", "x-single-active-consumer", 0, "received '0' but current is 'false'"),
        ):
            text = f"{start} '{argument}' for queue '{queue}' in vhost '/': {text}"
            self.refused(406, text, "queue.declare", queue=queue, arguments={argument: asked})

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
        self.assertEqual(self.ok("queue.delete", queue="nope"), {"message_count": 0})
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
        """A bad value is 406, and a feature that only RabbitMQ has is 540; both texts say what."""
        for arguments in (
            {"x-expires": 0}, {"x-expires": "1"}, {"x-expires": True}, {"x-message-ttl": -1}, {"x-max-length": -1},
            {"x-message-ttl": True}, {"x-max-length": True}, {"x-max-length-bytes": True},
            {"x-max-length-bytes": "1"}, {"x-overflow": "burst"}, {"x-dead-letter-exchange": 1},
            {"x-dead-letter-routing-key": "k"}, {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "k" * 256},
            {"x-queue-type": "quorum", "x-delivery-limit": "3"}, {"x-queue-type": "quorum", "x-delivery-limit": True},
            {"x-single-active-consumer": 1}, {"x-single-active-consumer": 0}, {"x-single-active-consumer": "true"},
            {"x-queue-type": "burst"}, {"x-max-priority": 256}, {"x-queue-type": "quorum", "x-max-priority": 1},
        ):  # fmt: skip
            client = Client().open()
            answer, code, text = client.refusal(1, "queue.declare", queue="a", arguments=arguments)
            self.assertEqual((answer, code), ("channel.close", 406), arguments)
            self.assertIn(f"invalid arg '{list(arguments)[-1]}' for queue 'a' in vhost '/'", text)
        self.refused_all(540, "queue.declare", queue="a", durable=True, arguments={"x-queue-type": "stream"})
        self.ok("queue.declare", queue="a", arguments={"x-queue-type": "classic"})
        self.ok("queue.declare", queue="a")
        self.ok("queue.declare", queue="b", arguments={"x-queue-mode": "lazy", "x-single-active-consumer": False})

    def test_reserved(self) -> None:
        """Names that begin with amq. are the broker's."""
        text = "ACCESS_REFUSED - queue name 'amq.q' begins with 'amq.', which is the broker's own"
        self.refused(403, text, "queue.declare", queue="amq.q")

    def test_nowait(self) -> None:
        """A method with nowait is done and not answered; if it fails, the client is told all the same."""
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
