"""A connection from its first byte to its last: handshake, heartbeats, bad bytes, the end."""

from __future__ import annotations

import random
import struct

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.broker.peer import Client, publish
from tests.peer import method
from txservices.broker import session
from txservices.broker.server import Broker
from txservices.wire import codec, frames, tables
from txservices.wire.spec import FRAME_BODY, FRAME_HEADER, FRAME_METHOD, METHODS, PROTOCOL_HEADER

CAPABILITIES = {
    "publisher_confirms",
    "exchange_exchange_bindings",
    "basic.nack",
    "consumer_cancel_notify",
    "per_consumer_qos",
    "authentication_failure_close",
    "connection.blocked",
    "direct_reply_to",
}


class HandshakeTests(SynchronousTestCase):
    """The handshake, and how it fails."""

    def setUp(self) -> None:
        self.client = Client()

    def test_start(self) -> None:
        """The protocol header, however it is split, is answered with what the server is and can do."""
        for byte in PROTOCOL_HEADER:
            self.assertEqual(self.client.transport.value(), b"")
            self.client.write(bytes((byte,)))
        ((channel, name, args),) = self.client.sent()
        self.assertEqual((channel, name), (0, "connection.start"))
        self.assertEqual((args["version_major"], args["version_minor"]), (0, 9))
        self.assertEqual(args["mechanisms"], b"PLAIN AMQPLAIN")
        capabilities = args["server_properties"]["capabilities"]
        self.assertEqual({name for name, has in capabilities.items() if has}, CAPABILITIES)

    def test_other_protocol(self) -> None:
        """Another protocol is told ours, and the connection ends, as soon as the bytes differ."""
        for opening in (b"GET / HTTP/1.1\r\n", b"AMQP\x01\x01\x00\x09", b"AMQP\x00\x01\x00\x00", b"B"):
            client = Client()
            client.write(opening)
            self.assertEqual(client.transport.value(), PROTOCOL_HEADER)
            self.assertTrue(client.transport.disconnecting)

    def test_tune_and_open(self) -> None:
        """Credentials are answered with the limits, those agreed on with open-ok."""
        self.client.login()
        _, (number, name, args) = self.client.sent()
        self.assertEqual(number, 0)
        self.assertEqual((name, args), ("connection.tune", {"channel_max": 2047, "frame_max": 131072, "heartbeat": 60}))
        self.client.method(0, "connection.tune-ok", channel_max=0, frame_max=0)
        self.client.method(0, "connection.open", virtual_host="/")
        self.assertEqual(self.client.names(), ["connection.open-ok"])

    def test_amqplain(self) -> None:
        """AMQPLAIN is a table without its length."""
        self.client.write(PROTOCOL_HEADER)
        response = tables.encode_table({"LOGIN": "guest", "PASSWORD": "guest"})[4:]
        self.client.method(0, "connection.start-ok", mechanism="AMQPLAIN", response=response)
        self.assertIn("connection.tune", self.client.names())

    def test_wrong_credentials(self) -> None:
        """A client that understands it is told 403; others are dropped without a word."""
        for user, password in (("guest", "wrong"), ("nobody", "guest"), ("", "")):
            client = Client()
            client.login(user, password, authentication_failure_close=True)
            _, (_, name, args) = client.sent()
            self.assertEqual((name, args["reply_code"]), ("connection.close", 403))
            client.method(0, "connection.close-ok")
            self.assertTrue(client.transport.disconnecting)
            client = Client()
            client.login(user, password)
            self.assertEqual(client.names(), ["connection.start"])
            self.assertTrue(client.transport.disconnecting)

    def test_unknown_mechanism(self) -> None:
        """A login method that there isn't is 403."""
        self.client.write(PROTOCOL_HEADER)
        properties = {"capabilities": {"authentication_failure_close": True}}
        name, args = self.client.call(0, "connection.start-ok", client_properties=properties, mechanism="EXTERNAL")
        self.assertEqual((name, args["reply_code"]), ("connection.close", 403))

    def test_unknown_vhost(self) -> None:
        """A virtual host that there isn't is 530, by its name."""
        self.client.login()
        self.client.method(0, "connection.tune-ok")
        name, code, text = self.client.refusal(0, "connection.open", virtual_host="nope")
        self.assertEqual((name, code, text), ("connection.close", 530, "NOT_ALLOWED - vhost nope not found"))

    def test_trusted(self) -> None:
        """From inside the process any user and any virtual host will do."""
        client = Client(trusted=True)
        client.login("any", "thing")
        client.method(0, "connection.tune-ok")
        self.assertEqual(client.call(0, "connection.open", virtual_host="new")[0], "connection.open-ok")

    def test_limits_agreed_on(self) -> None:
        """Limits beyond ours, or frames too small for AMQP, are 530."""
        for limits in ({"channel_max": 2048}, {"frame_max": 131073}, {"frame_max": 4095}):
            client = Client()
            client.login()
            self.assertEqual(client.refusal(0, "connection.tune-ok", **limits)[:2], ("connection.close", 530))

    def test_out_of_turn(self) -> None:
        """A step that is not due, and a channel before its time, are 503."""
        for number, name in ((0, "connection.tune-ok"), (0, "connection.open"), (0, "basic.qos"), (1, "channel.open")):
            client = Client()
            client.write(PROTOCOL_HEADER)
            self.assertEqual(client.refusal(number, name)[:2], ("connection.close", 503), name)
        client = Client().open()
        self.assertEqual(client.refusal(0, "connection.open")[:2], ("connection.close", 503))
        client = Client().open()
        self.assertEqual(client.refusal(0, "connection.update-secret")[:2], ("connection.close", 540))

    def test_login_takes_too_long(self) -> None:
        """A client that is not in after the login's time is dropped, wherever it stands; one that is in stays."""
        silent, half, done = Client(), Client(), Client().open()
        half.login()
        for client in (silent, half, done):
            client.clock.advance(session.LOGIN_TIMEOUT)
        self.assertEqual([client.transport.aborted for client in (silent, half, done)], [True, True, False])


class HeartbeatTests(SynchronousTestCase):
    """A silent client is dead."""

    def test_sent_when_nothing_else_is(self) -> None:
        """In every half interval without a frame a heartbeat goes out."""
        client = Client().open(heartbeat=10)
        client.clock.advance(5)
        client.sent()
        client.clock.advance(5)
        client.sent()
        self.assertEqual(client.heartbeats, 1)  # the first half interval had frames

    def test_silent_peer_is_dropped(self) -> None:
        """Exactly two intervals without a byte end the connection; a byte begins them anew."""
        client = Client().open(heartbeat=10)
        client.clock.advance(19)
        client.write(frames.HEARTBEAT_FRAME)
        for _ in range(19):
            client.clock.advance(1)
        self.assertFalse(client.transport.aborted)
        client.clock.advance(1)
        self.assertTrue(client.transport.aborted)
        self.assertEqual(client.clock.getDelayedCalls(), [])

    def test_none(self) -> None:
        """A client that wants no heartbeats has none, and leaves no timer behind."""
        client = Client().open(heartbeat=0)
        self.assertEqual(client.clock.getDelayedCalls(), [])


class BadBytesTests(SynchronousTestCase):
    """Bytes that are not AMQP end in a close with the right code."""

    def close_code(self, client: Client) -> int:
        """The code of the connection.close that came; 0 for none."""
        for _, name, args in client.sent():
            if name == "connection.close":
                return int(args["reply_code"])
        return 0

    def test_codes(self) -> None:
        """Each way to be wrong has its code."""
        header = struct.pack(">HHQ", 60, 0, 5) + b"\0\0"
        start = codec.encode_method("basic.publish", routing_key="q")
        for data, code in (
            (b"\x07\0\1\0\0\0\0\xce", 501),  # no such type of frame
            (b"\x01\0\1\0\0\0\0\xcd", 501),  # no end octet
            (b"\x01\0\1\x7f\0\0\0", 501),  # a frame over the limit
            (frames.frame(FRAME_METHOD, 1, b"\0\x0a"), 502),  # no method
            (frames.frame(FRAME_METHOD, 1, b"\0\x0a\0\x63"), 503),  # an unknown one
            (frames.frame(FRAME_METHOD, 1, codec.encode_method("queue.declare", queue="q")[:-3]), 502),
            (frames.frame(FRAME_METHOD, 1, codec.encode_method("basic.qos") + b"x"), 502),
            (frames.frame(FRAME_HEADER, 1, header), 505),  # a header with no method before it
            (frames.frame(FRAME_BODY, 1, b"x"), 505),
            (frames.frame(FRAME_METHOD, 1, start) + method(1, "basic.qos"), 505),
            (frames.frame(FRAME_METHOD, 1, start) + frames.frame(FRAME_HEADER, 1, b"x"), 502),
            (
                frames.frame(FRAME_METHOD, 1, start)
                + frames.frame(FRAME_HEADER, 1, header)
                + frames.frame(FRAME_BODY, 1, b"123456"),
                501,
            ),
            (frames.content_frames(1, start, b"\0\x01", b""), 502),  # flags of properties that basic hasn't
            (frames.frame(FRAME_METHOD, 2, codec.encode_method("basic.qos")), 504),  # not an open channel
            (method(1, "channel.open"), 504),  # a second time
            (method(1, "basic.deliver", consumer_tag="t"), 0),  # waits for its content
            (method(1, "queue.declare-ok"), 503),  # the server's to say
            (method(1, "channel.close-ok"), 503),
            (method(0, "connection.close-ok"), 503),
        ):
            client = Client().open()
            client.write(data)
            self.assertEqual(self.close_code(client), code, data)

    def test_close_is_final(self) -> None:
        """After the close nothing counts but its answer, and without one the connection ends all the same."""
        client = Client().open()
        client.method(1, "tx.select")
        self.assertEqual(self.close_code(client), 540)
        client.declare("q")
        client.write(publish("q"))
        self.assertEqual(client.sent(), [])
        self.assertEqual(client.broker.vhosts["/"].queues, {})
        client.clock.advance(session.CLOSE_TIMEOUT)
        self.assertTrue(client.transport.aborted)

    def test_answered_close(self) -> None:
        """close-ok ends the connection at once, and leaves no timer when it is gone."""
        client = Client().open()
        client.method(1, "tx.select")
        client.method(0, "connection.close-ok")
        self.assertTrue(client.transport.disconnecting)
        client.lose()
        self.assertEqual(client.clock.getDelayedCalls(), [])

    def test_body_over_the_limit(self) -> None:
        """A message announced too large closes its channel with 406, before its body has come."""
        client = Client().open()
        payload = codec.encode_method("basic.publish", routing_key="q")
        client.write(frames.frame(FRAME_METHOD, 1, payload))
        client.write(frames.frame(FRAME_HEADER, 1, struct.pack(">HHQ", 60, 0, frames.BODY_MAX + 1) + b"\0\0"))
        ((number, name, args),) = client.sent()
        self.assertEqual((number, name, args["reply_code"]), (1, "channel.close", 406))
        client.write(frames.frame(FRAME_BODY, 1, b"it goes on"))
        self.assertEqual(client.sent(), [])

    def test_deep_table(self) -> None:
        """A table nested beyond the limit is 502."""
        table = b""
        for _ in range(tables.TABLE_DEPTH_MAX + 2):
            table = b"\x01aF" + struct.pack(">I", len(table)) + table
        client = Client().open()
        head = codec.encode_method("queue.declare", queue="q")[:-4]
        client.write(frames.frame(FRAME_METHOD, 1, head + struct.pack(">I", len(table)) + table))
        self.assertEqual(self.close_code(client), 502)

    def test_mutated_conversations(self) -> None:
        """A real conversation with bytes changed, dropped or doubled ends in answers or a close, never an error."""
        conversation = (
            method(1, "exchange.declare", exchange="x", type="headers", arguments={"alternate-exchange": "y"})
            + method(1, "queue.declare", queue="q", arguments={"x-message-ttl": 9, "x-dead-letter-exchange": ""})
            + method(1, "queue.bind", queue="q", exchange="x", arguments={"x-match": "any", "a": 1})
            + method(1, "confirm.select")
            + publish("q", b"body", "x", mandatory=True, headers={"a": 1, "b": [{"c": 2.5}]}, expiration="5")
            + method(1, "basic.consume", queue="q", consumer_tag="t")
            + publish("q", b"body" * 20)
            + method(1, "basic.nack", delivery_tag=1)
            + method(1, "basic.get", queue="q")
            + method(1, "basic.recover", requeue=True)
            + method(1, "queue.delete", queue="q")
            + method(1, "channel.close")
        )
        chance = random.Random(5)
        broker = Broker(clock=Clock())
        for _ in range(600):
            data = bytearray(conversation)
            for _ in range(chance.choice((1, 1, 2, 8))):
                place = chance.randrange(len(data))
                change = chance.randrange(3)
                if change == 0:
                    data[place] = chance.choice((0, 1, 0xCE, 0xFF, chance.randrange(256)))
                elif change == 1:
                    del data[place : place + chance.randrange(1, 9)]
                else:
                    data[place:place] = data[place : place + chance.randrange(1, 9)]
            client = Client(broker).open()
            client.write(bytes(data))
            code = self.close_code(client)
            self.assertNotEqual(code, 541, data)
            client.lose()
            broker.clock.advance(0.01)
        self.assertEqual(self.flushLoggedErrors(), [])


class EndTests(SynchronousTestCase):
    """A connection ends: nothing of its own is left, and everything that it did not settle goes back."""

    def test_client_closes(self) -> None:
        """connection.close is answered, then the connection ends."""
        client = Client().open()
        self.assertEqual(client.call(0, "connection.close")[0], "connection.close-ok")
        self.assertTrue(client.transport.disconnecting)

    def half_closed(self) -> Client:
        """A client that has closed its connection, over a transport whose two directions end one by one."""
        client = Client().open()
        client.transport.loseWriteConnection = lambda: None
        self.assertEqual(client.call(0, "connection.close")[0], "connection.close-ok")
        return client

    def test_client_has_much_to_send(self) -> None:
        """After connection.close bytes are dropped for as long as they come, so that the client sees the answer."""
        client = self.half_closed()
        for _ in range(20):
            client.write(publish("q", b"x" * 1000))
            client.clock.advance(session.CLOSE_TIMEOUT - 0.1)
        self.assertFalse(client.transport.aborted)
        client.clock.advance(0.1)
        self.assertTrue(client.transport.aborted)
        client.lose()
        self.assertEqual(client.clock.getDelayedCalls(), [])

    def test_broker_does_not_wait_for_the_last_byte(self) -> None:
        """A client that sends on after its close does not hold the broker's end up."""
        client = self.half_closed()
        closing = client.broker.close()
        client.clock.advance(session.CLOSE_TIMEOUT / 2)
        client.write(publish("q"))
        client.clock.advance(session.CLOSE_TIMEOUT / 2)
        self.assertTrue(client.transport.aborted)
        client.lose()
        self.successResultOf(closing)

    def test_lost(self) -> None:
        """Unsettled messages go to others with `redelivered`; exclusive and auto-delete queues go with the client."""
        client = Client().open()
        other = Client(client.broker).open()
        client.declare("shared")
        client.declare("mine", exclusive=True)
        client.declare("auto", auto_delete=True)
        client.consume("shared", "a")
        client.consume("auto", "b")
        client.method(2, "channel.open")
        client.consume("shared", "c", channel=2)
        for body in (b"1", b"2", b"3"):
            client.publish("shared", body)
        other.consume("shared")
        other.sent()
        client.lose()
        deliveries = [(content.body, content.args["redelivered"]) for _, content in other.contents()]
        self.assertEqual(deliveries, [(b"1", True), (b"2", True), (b"3", True)])
        self.assertEqual(list(client.broker.vhosts["/"].queues), ["shared"])
        self.assertEqual(client.broker.vhosts["/"].owned, {})

    def test_broker_stops(self) -> None:
        """The broker's end is told as 320 to those that are in; those that aren't are dropped."""
        broker = Broker(clock=Clock())
        inside, outside = Client(broker).open(), Client(broker)
        stopping = broker.close()
        ((_, name, args),) = inside.sent()
        self.assertEqual((name, args["reply_code"]), ("connection.close", 320))
        self.assertTrue(outside.transport.aborted)
        self.assertNoResult(stopping)
        inside.lose()
        outside.lose()
        self.successResultOf(stopping)
        self.assertEqual(broker.clock.getDelayedCalls(), [])

    def test_every_method_is_answered(self) -> None:
        """Every method of AMQP that needs an answer gets one, or a close."""
        for name, spec in METHODS.items():
            if name.startswith("connection.") or not spec.responses:
                continue
            client = Client().open()
            client.declare("q")
            client.sent()
            client.method(1, name, **({"queue": "q"} if ("queue", "shortstr") in spec.fields else {}))
            answers = client.names()
            self.assertTrue(answers, name)
            self.assertTrue({*spec.responses, "channel.close", "connection.close"} & set(answers), name)
