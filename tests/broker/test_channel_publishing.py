"""Publishing on a channel: confirms, and the way of dead letters."""

from __future__ import annotations

import inspect
import sys
from typing import Any

from tests.broker.channel_case import ChannelTestCase
from tests.broker.peer import Client, publish
from tests.peer import method
from txservices.wire import codec, frames


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
        """Without mandatory, the client hears nothing of it."""
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
        """immediate is 540; a CC of the wrong kind, a forged user and a bad expiration are 406."""
        for properties, answer, code in (
            ({"headers": {"CC": "a"}}, "channel.close", 406),
            ({"user_id": "other"}, "channel.close", 406),
            ({"expiration": "soon"}, "channel.close", 406),
        ):
            client = Client().open()
            client.publish("q", **properties)
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
        depth, last = len(inspect.stack(0)), 100  # three calls each would be 300
        self.addCleanup(sys.setrecursionlimit, sys.getrecursionlimit())
        sys.setrecursionlimit(depth + 250)
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
