"""The channel: methods and their answers, deliveries and acks, publishes and confirms."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.amqp.peer import Peer
from txservices.amqp.entities import Message
from txservices.amqp.publishing import PUBLISH_PAYLOADS_MAX, Publishing, publish_payload
from txservices.exceptions import (
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    PublishNacked,
    UndeliverableMessage,
)
from txservices.wire.codec import encode_properties


class ChannelTestCase(SynchronousTestCase):
    """One open channel."""

    def setUp(self) -> None:
        self.peer = Peer()
        self.peer.connect()
        self.channel = self.peer.open_channel()

    def sent(self) -> list[tuple[str, dict[str, Any]]]:
        self.peer.clock.advance(0)
        return [(name, args) for channel, name, args in self.peer.sent() if channel == self.channel.id]


class AnswerTests(ChannelTestCase):
    """Methods and what answers them."""

    def test_answers_come_in_the_order_of_the_questions(self) -> None:
        """Two requests that are under way at once get their own answers."""
        first = self.channel.queue_declare(queue="a")
        second = self.channel.queue_declare(queue="b")
        self.peer.method(1, "queue.declare-ok", queue="a", message_count=3)
        self.assertEqual(self.successResultOf(first).message_count, 3)
        self.assertNoResult(second)
        self.peer.method(1, "queue.declare-ok", queue="b")
        self.assertEqual(self.successResultOf(second).queue, "b")

    def test_nowait_and_unanswered_methods_fire_at_once(self) -> None:
        """A method that nobody answers doesn't wait."""
        self.assertIsNone(self.successResultOf(self.channel.queue_declare(queue="a", nowait=True)))
        self.assertIsNone(self.successResultOf(self.channel.basic_ack(delivery_tag=1)))

    def test_answer_to_nothing_closes_the_connection(self) -> None:
        """An answer that nobody asked for is the broker's error, 503."""
        self.peer.method(1, "queue.declare-ok", queue="a")
        self.assertEqual(self.peer.sent()[-1][2]["reply_code"], 503)
        self.flushLoggedErrors()

    def test_closed_by_the_broker(self) -> None:
        """After channel.close all that waits on that channel fails, its owner is told, and the connection stays."""
        told: list[Any] = []
        self.channel.on_closed = told.append
        waiting = self.channel.queue_declare(queue="a", passive=True)
        self.peer.method(1, "channel.close", reply_code=404, reply_text="NOT_FOUND", class_id=50, method_id=10)
        error = self.failureResultOf(waiting, ChannelClosedByBroker).value
        self.assertEqual((error.code, error.text, error.method), (404, "NOT_FOUND", "queue.declare"))
        self.assertEqual(told, [error])
        self.assertFalse(self.peer.protocol.closed)
        self.assertEqual(self.peer.open_channel().id, 1)

    def test_closed_by_us(self) -> None:
        """A closed channel's number is free again, once the broker agrees."""
        closing = self.peer.protocol.close_channel(self.channel)
        self.assertNoResult(closing)
        self.peer.method(1, "channel.close-ok")
        self.successResultOf(closing)
        self.assertEqual(self.peer.open_channel().id, 1)


class DeliveryTests(ChannelTestCase):
    """Messages in, acks out."""

    def setUp(self) -> None:
        super().setUp()
        self.messages: list[Message] = []
        consuming = self.channel.consume("q", "tag", self.messages.append)
        self.peer.method(1, "basic.consume-ok", consumer_tag="tag")
        self.successResultOf(consuming)
        self.sent()

    def deliver(self, tag: int, body: bytes = b"{}", **properties: Any) -> None:
        self.peer.content(
            1,
            "basic.deliver",
            properties,
            body,
            consumer_tag="tag",
            delivery_tag=tag,
            exchange="x",
            routing_key="k",
        )

    def test_delivered_once_whole(self) -> None:
        """A message has its body, properties, and where it came from."""
        self.deliver(1, b"body", headers={"a": [1]}, correlation_id="c")
        (message,) = self.messages
        self.assertEqual((message.body, message.exchange, message.routing_key), (b"body", "x", "k"))
        self.assertEqual((message.headers, message.properties["correlation_id"]), ({"a": [1]}, "c"))

    def test_acks_of_a_turn_go_together(self) -> None:
        """Acks of all up to a tag are one with `multiple`; those beyond a gap are one each."""
        for tag in range(1, 7):
            self.deliver(tag)
        for index in (1, 0, 2, 4):
            self.messages[index].ack()
        self.assertEqual(
            self.sent(),
            [
                ("basic.ack", {"delivery_tag": 3, "multiple": True}),
                ("basic.ack", {"delivery_tag": 5, "multiple": False}),
            ],
        )
        self.messages[3].ack()
        self.assertEqual(self.sent(), [("basic.ack", {"delivery_tag": 4, "multiple": True})])
        self.assertEqual(self.channel.unsettled, 1)

    def test_reject_is_never_acked_over(self) -> None:
        """A rejected message counts as settled, and no ack names its tag."""
        for tag in (1, 2, 3):
            self.deliver(tag)
        self.messages[2].reject(requeue=True)
        self.messages[0].ack()
        self.messages[1].ack()
        self.assertEqual(
            self.sent(),
            [
                ("basic.reject", {"delivery_tag": 3, "requeue": True}),
                ("basic.ack", {"delivery_tag": 2, "multiple": True}),
            ],
        )

    def test_settled_once(self) -> None:
        """A second ack or reject of a message has no effect."""
        self.deliver(1)
        self.messages[0].ack()
        self.messages[0].ack()
        self.messages[0].reject()
        self.assertEqual(len(self.sent()), 1)

    def test_late_ack_on_a_lost_channel_is_nothing(self) -> None:
        """RabbitMQ takes an ack on its own channel alone: on a closed one it is dropped."""
        self.deliver(1)
        self.peer.method(1, "channel.close", reply_code=406, reply_text="timeout")
        self.sent()
        self.messages[0].ack()
        self.assertEqual(self.sent(), [])

    def test_receiver_that_fails_costs_its_message(self) -> None:
        """An exception in the receiver rejects that message and leaves the channel."""
        self.channel.consumers["tag"] = lambda message: 1 / 0
        self.deliver(1)
        self.assertEqual(self.sent(), [("basic.reject", {"delivery_tag": 1, "requeue": False})])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_drained(self) -> None:
        """The owner is told when the last message is settled and its ack is on the way."""
        told: list[int] = []
        self.deliver(1)
        self.deliver(2)
        self.channel.on_drained = lambda: told.append(self.channel.unsettled)
        self.messages[0].ack()
        self.assertEqual(told, [])
        self.messages[1].ack()
        self.assertEqual(told, [0])
        self.assertEqual(self.sent(), [("basic.ack", {"delivery_tag": 2, "multiple": True})])

    def test_cancelled_by_the_broker(self) -> None:
        """basic.cancel tells the owner which consumer is gone."""
        told: list[str] = []
        self.channel.on_cancelled = told.append
        self.peer.method(1, "basic.cancel", consumer_tag="tag")
        self.assertEqual(told, ["tag"])


class PublishTests(ChannelTestCase):
    """Messages out, confirms in."""

    def setUp(self) -> None:
        super().setUp()
        self.answers: list[tuple[str, Any]] = []
        self.channel.on_confirmed = lambda publishing, error: self.answers.append((publishing.body.decode(), error))

    def publish(self, name: str, mandatory: bool = False) -> None:
        header = encode_properties({"message_id": name})
        self.channel.publish(Publishing("x", "k", mandatory, header, name.encode(), lambda error: None, 0.0))

    def test_one_is_three_frames(self) -> None:
        """A publish is its method, header and body."""
        self.publish("a", mandatory=True)
        self.peer.sent()
        ((_, content),) = self.peer.found
        self.assertEqual(content.args["mandatory"], True)
        self.assertEqual((content.body, content.properties), (b"a", {"message_id": "a"}))

    def test_keys_without_end(self) -> None:
        """New routing keys without end take no more places than the cache has, and each is sent as it is."""
        names = [f"{number}" for number in range(PUBLISH_PAYLOADS_MAX + 50)]
        for name in names:
            self.channel.publish(Publishing("x", name, False, b"\0\0", b"", lambda error: None, 0.0))
        self.assertEqual(publish_payload.cache_info().currsize, PUBLISH_PAYLOADS_MAX)
        self.assertEqual([args["routing_key"] for _, args in self.sent()], names)

    def test_confirms(self) -> None:
        """An ack is for one, or with `multiple` for all up to it; zero with `multiple` is all."""
        for name in "abcdef":
            self.publish(name)
        self.peer.method(1, "basic.ack", delivery_tag=2)
        self.peer.method(1, "basic.ack", delivery_tag=4, multiple=True)
        self.assertEqual([name for name, _ in self.answers], ["b", "a", "c", "d"])
        self.peer.method(1, "basic.ack", delivery_tag=0, multiple=True)
        self.assertEqual([name for name, _ in self.answers], ["b", "a", "c", "d", "e", "f"])
        self.assertEqual({error for _, error in self.answers}, {None})

    def test_refused(self) -> None:
        """A nack is an error of that message."""
        self.publish("a")
        self.peer.method(1, "basic.nack", delivery_tag=1)
        self.assertIsInstance(self.answers[0][1], PublishNacked)

    def test_returned_before_its_confirm(self) -> None:
        """A mandatory message that comes back is undeliverable once its confirm is there; others are not."""
        self.publish("a", mandatory=True)
        self.publish("b", mandatory=True)
        self.peer.content(
            1, "basic.return", {"message_id": "b"}, b"b", reply_code=312, reply_text="NO_ROUTE", exchange="x",
            routing_key="k",
        )  # fmt: skip
        self.assertEqual(self.answers, [])
        self.peer.method(1, "basic.ack", delivery_tag=2, multiple=True)
        self.assertEqual([name for name, error in self.answers if error is None], ["a"])
        self.assertIsInstance(self.answers[1][1], UndeliverableMessage)
        self.assertEqual(self.channel.returns, {})

    def test_connection_lost_keeps_them(self) -> None:
        """Messages that are unconfirmed when the channel ends are kept for whoever sends them again."""
        self.publish("a")
        told: list[Any] = []
        self.channel.on_closed = told.append
        self.peer.method(0, "connection.close", reply_code=320, reply_text="bye")
        self.assertIsInstance(told[0], ConnectionClosedByBroker)
        self.assertEqual([each.body for each in self.channel.unconfirmed.values()], [b"a"])
