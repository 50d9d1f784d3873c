"""Direct Reply-to in the embedded broker, besides the conversations that it holds as RabbitMQ does."""

from __future__ import annotations

import gc

from tests.broker.channel_case import ChannelTestCase
from tests.broker.peer import Client
from txservices.broker.messages import DIRECT_REPLY_TO
from txservices.broker.watermark import ENTRY_COST, MESSAGE_COST


class RepliesTests(ChannelTestCase):
    """A client that consumes replies, and another one that sends them."""

    def setUp(self) -> None:
        super().setUp()
        self.replies = self.client.broker.vhosts["/"].replies
        self.other = Client(self.client.broker).open()

    def name(self) -> str:
        """Consume replies; the name that they have to be sent to."""
        self.ok("basic.consume", queue=DIRECT_REPLY_TO, consumer_tag="t", no_ack=True)
        self.client.publish("q", reply_to=DIRECT_REPLY_TO)
        self.client.method(1, "basic.get", queue="q", no_ack=True)
        ((_, got),) = self.client.contents()
        name: str = got.properties["reply_to"]
        return name

    def test_reply(self) -> None:
        """A reply comes to the channel that has asked, each time, as it was sent."""
        name = self.name()
        for number in range(3):
            self.other.publish(name, b"%d" % number, correlation_id="c")
        replies = [content for _, content in self.client.contents()]
        self.assertEqual([reply.body for reply in replies], [b"0", b"1", b"2"])
        self.assertEqual({reply.args["consumer_tag"] for reply in replies}, {"t"})
        self.assertEqual(replies[0].properties, {"correlation_id": "c"})

    def test_names_can_not_be_guessed(self) -> None:
        """Two names have little in common, whoever they are for."""
        first, second = self.replies.open().name, self.replies.open().name
        same = sum(one == another for one, another in zip(first, second, strict=True))
        self.assertLess(same, len(DIRECT_REPLY_TO) + 10)

    def test_each_way_to_go(self) -> None:
        """After its cancel, its channel's end or its connection's, a consumer's name is forgotten."""
        for ends in (
            lambda client: client.method(1, "basic.cancel", consumer_tag="t"),
            lambda client: client.method(1, "channel.close"),
            lambda client: client.method(1, "queue.declare", queue="none", passive=True),
            lambda client: client.method(0, "connection.close"),
            lambda client: client.lose(),
        ):
            client = Client(self.client.broker).open()
            client.method(1, "basic.consume", queue=DIRECT_REPLY_TO, consumer_tag="t", no_ack=True)
            self.assertEqual(len(self.replies.queues), 1)
            ends(client)
            self.assertEqual(self.replies.queues, {})

    def test_refused_consumer_leaves_nothing(self) -> None:
        """A consumer that is refused has no name."""
        self.ok("basic.consume", queue="q", consumer_tag="t")
        self.client.method(1, "basic.consume", queue=DIRECT_REPLY_TO, consumer_tag="t", no_ack=True)
        self.assertEqual(self.replies.queues, {})

    def test_client_that_does_not_read(self) -> None:
        """Replies wait for a client that does not read, count as any message, and come in order."""
        name = self.name()
        self.client.session.pauseProducing()
        for number in range(3):
            self.other.publish(name, b"%d" % number * 1000)
        self.assertEqual(self.client.sent(), [])
        cost = 1000 + len(b"\0\0") + MESSAGE_COST + ENTRY_COST
        self.assertEqual(self.client.broker.watermark.held, 3 * cost)
        self.client.session.resumeProducing()
        self.assertEqual([body[:1] for body in self.client.bodies()], [b"0", b"1", b"2"])
        self.client.found = []
        gc.collect()
        self.assertEqual(self.client.broker.watermark.held, 0)

    def test_client_that_never_reads_again(self) -> None:
        """Replies that waited for a client count no more when it has gone."""
        name = self.name()
        self.client.session.pauseProducing()
        self.other.publish(name, b"x" * 1000)
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        self.client.lose()
        self.assertEqual(self.client.broker.watermark.held, 0)

    def test_refused(self) -> None:
        """Acks and a second consumer are 406, and so is a request without a consumer for its replies."""
        consume = {"queue": DIRECT_REPLY_TO, "consumer_tag": "t"}
        self.refused(406, "PRECONDITION_FAILED - reply consumer cannot acknowledge", "basic.consume", **consume)
        self.client.publish("q", reply_to=DIRECT_REPLY_TO)
        ((_, _, args),) = self.client.sent()
        self.assertEqual(args["reply_text"], "PRECONDITION_FAILED - fast reply consumer does not exist")
        self.client.method(1, "channel.close-ok")
        self.client.method(1, "channel.open")
        self.ok("basic.consume", no_ack=True, **consume)
        consume["consumer_tag"] = "u"
        self.refused(406, "PRECONDITION_FAILED - reply consumer already set", "basic.consume", no_ack=True, **consume)

    def test_declared(self) -> None:
        """A client learns by queue.declare whether replies to a name would find their consumer."""
        name = self.name()
        for each in (DIRECT_REPLY_TO, name):
            answer = self.ok("queue.declare", queue=each)
            self.assertEqual(answer, {"queue": each, "message_count": 0, "consumer_count": 1})
        self.ok("basic.cancel", consumer_tag="t")
        self.refused(404, f"NOT_FOUND - no queue '{name}' in vhost '/'", "queue.declare", queue=name)

    def test_copy_counts_once(self) -> None:
        """A reply that goes to a queue as well counts as one message, and for nothing when it is gone."""
        name = self.name()
        self.other.publish(name, b"x" * 1000, headers={"CC": ["q"]})
        self.assertLess(self.client.broker.watermark.held, 2000)
        self.assertEqual(self.client.bodies(), [b"x" * 1000])
        self.ok("queue.purge", queue="q")
        gc.collect()
        self.assertEqual(self.client.broker.watermark.held, 0)

    def test_names_are_not_remembered(self) -> None:
        """A name takes no place among the routes."""
        name = self.name()
        routes = len(self.client.broker.vhosts["/"].routes)
        for each in (name, f"{DIRECT_REPLY_TO}.gone"):
            self.other.publish(each)
        self.assertEqual(len(self.client.broker.vhosts["/"].routes), routes)
