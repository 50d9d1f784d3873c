"""The connection: bytes in, bytes out, and a clock."""

from __future__ import annotations

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.amqp.peer import Peer
from txservices.amqp.startok import CAPABILITIES
from txservices.exceptions import (
    AmqpError,
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    ConnectionLost,
    FrameError,
)
from txservices.wire import codec, frames
from txservices.wire.spec import FRAME_METHOD, PROTOCOL_HEADER, ReplyCode


class HandshakeTests(SynchronousTestCase):
    """From the first byte to an open connection."""

    def test_steps(self) -> None:
        """Header, start-ok with capabilities, tune-ok with the smaller wishes, open of the virtual host."""
        peer = Peer(heartbeat=60)
        peer.protocol.makeConnection(peer.transport)
        self.assertEqual(peer.transport.value(), PROTOCOL_HEADER)
        peer.method(0, "connection.start", mechanisms=b"PLAIN", locales=b"en_US")
        ((_, name, args),) = peer.sent()
        self.assertEqual(
            (name, args["mechanism"], args["response"]), ("connection.start-ok", "PLAIN", b"\0user\0s3cret")
        )
        self.assertEqual(args["client_properties"]["capabilities"], CAPABILITIES)
        peer.method(0, "connection.tune", channel_max=100, frame_max=8192, heartbeat=20)
        (_, tune, args), (_, opened, open_args) = peer.sent()
        self.assertEqual((tune, args), ("connection.tune-ok", {"channel_max": 100, "frame_max": 8192, "heartbeat": 20}))
        self.assertEqual((opened, open_args["virtual_host"]), ("connection.open", "vh"))
        self.assertNoResult(peer.protocol.opened)
        peer.method(0, "connection.open-ok")
        self.assertIs(self.successResultOf(peer.protocol.opened), peer.protocol)
        peer.protocol.connectionLost(Failure(ConnectionDone()))

    def test_refused(self) -> None:
        """A broker that closes with 403 fails the opening with its words."""
        peer = Peer()
        peer.protocol.makeConnection(peer.transport)
        peer.method(0, "connection.start", mechanisms=b"PLAIN", locales=b"en_US")
        peer.method(0, "connection.close", reply_code=403, reply_text="ACCESS_REFUSED - no")
        error = self.failureResultOf(peer.protocol.opened, ConnectionClosedByBroker).value
        self.assertEqual((error.code, error.text), (403, "ACCESS_REFUSED - no"))
        self.assertIn("connection.close-ok", [name for _, name, _ in peer.sent()])
        self.assertTrue(peer.transport.disconnecting)

    def test_lost_while_opening(self) -> None:
        """A connection lost before it is open fails the opening."""
        peer = Peer()
        peer.protocol.makeConnection(peer.transport)
        peer.protocol.connectionLost(Failure(ConnectionDone()))
        self.failureResultOf(peer.protocol.opened, ConnectionLost)

    def test_no_warnings(self) -> None:
        """Nothing deprecated is called: where warnings are errors there would be no connection."""
        peer = Peer()
        peer.connect()
        peer.open_channel()
        peer.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.flushWarnings(), [])


class HeartbeatTests(SynchronousTestCase):
    """Signs of life, both ways."""

    def connected(self) -> Peer:
        peer = Peer(heartbeat=10)
        peer.connect(server_heartbeat=60)
        peer.sent()
        return peer

    def test_sent_where_nothing_was_written(self) -> None:
        """A quiet side sends one each half interval; one that wrote has shown that it lives."""
        peer = self.connected()
        peer.clock.advance(5)
        peer.clock.advance(5)
        peer.sent()
        self.assertEqual(peer.heartbeats, 1)
        peer.protocol.write(b"")
        peer.clock.advance(5)
        peer.sent()
        self.assertEqual(peer.heartbeats, 1)
        peer.protocol.connectionLost(Failure(ConnectionDone()))

    def test_silent_peer_is_dropped(self) -> None:
        """No byte for two intervals is a dead peer; a byte in time is a living one."""
        peer = self.connected()
        for _ in range(20):
            peer.clock.advance(5)
            peer.method(0, "connection.unblocked")
        peer.clock.advance(3)
        peer.method(0, "connection.unblocked")
        for _ in range(19):
            peer.clock.advance(1)
        self.assertFalse(peer.transport.aborted)
        peer.clock.advance(1)
        self.assertTrue(peer.transport.aborted)
        peer.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(peer.clock.getDelayedCalls(), [])

    def test_who_takes_the_connection_and_says_nothing(self) -> None:
        """Before anything is agreed on the wished-for interval holds: two of silence are the end, no beat is sent."""
        peer = Peer(heartbeat=10)
        peer.protocol.makeConnection(peer.transport)
        for _ in range(4):
            self.assertFalse(peer.transport.aborted)
            peer.clock.advance(5)
        self.assertTrue(peer.transport.aborted)
        peer.sent()
        self.assertEqual(peer.heartbeats, 0)
        peer.protocol.connectionLost(Failure(ConnectionDone()))
        self.failureResultOf(peer.protocol.opened, ConnectionLost)
        self.assertEqual(peer.clock.getDelayedCalls(), [])

    def test_none_wished_for(self) -> None:
        """Zero on either side is no heartbeat at all."""
        peer = Peer(heartbeat=0)
        peer.connect(server_heartbeat=60)
        peer.sent()
        self.assertEqual(peer.clock.getDelayedCalls(), [])


class ErrorTests(SynchronousTestCase):
    """Methods that a broker must not send, and how it says goodbye."""

    def test_bad_bytes_close_with_their_code(self) -> None:
        """A frame that isn't one is answered with connection.close and its code; who waits is told."""
        peer = Peer()
        peer.connect()
        channel = peer.open_channel()
        waiting = channel.queue_declare(queue="q")
        peer.sent()
        peer.protocol.dataReceived(b"\x09\x00\x01\x00\x00\x00\x00\xce")
        ((_, name, args),) = peer.sent()
        self.assertEqual((name, args["reply_code"]), ("connection.close", ReplyCode.FRAME_ERROR))
        self.failureResultOf(waiting, FrameError)
        self.assertTrue(peer.transport.disconnecting)
        self.flushLoggedErrors()

    def test_frame_for_a_closed_channel(self) -> None:
        """A frame for a channel that was never opened is 504."""
        peer = Peer()
        peer.connect()
        peer.sent()
        peer.method(7, "basic.qos-ok")
        self.assertEqual(peer.sent()[0][2]["reply_code"], ReplyCode.CHANNEL_ERROR)

    def test_not_asked_for(self) -> None:
        """An unexpected answer, a second one, or a client's method is 503; whoever waits for an answer is told."""
        tune = {"channel_max": 0, "frame_max": 0, "heartbeat": 0}
        for number, name, arguments in [
            (1, "queue.bind-ok", {}),
            (1, "queue.declare", {}),
            (1, "connection.close", {"reply_code": 320}),
            (0, "connection.start", {}),
            (0, "connection.tune", tune),
            (0, "channel.close", {"reply_code": 404}),
            (0, "basic.ack", {}),
        ]:
            peer = Peer()
            peer.connect()
            waiting = peer.open_channel().queue_declare(queue="q")
            peer.sent()
            peer.method(number, name, **arguments)
            self.assertEqual([args["reply_code"] for _, _, args in peer.sent()], [ReplyCode.COMMAND_INVALID], name)
            self.failureResultOf(waiting, FrameError)

    def test_both_sides_close_a_channel(self) -> None:
        """A channel that both close at once costs itself alone, and its number is free when both have been answered."""
        for lost in (False, True):
            peer = Peer()
            peer.connect()
            channel = peer.open_channel()
            waiting = channel.queue_declare(queue="q")
            closing = peer.protocol.close_channel(channel)
            peer.method(channel.id, "channel.close", reply_code=404, reply_text="NOT_FOUND - no queue")
            self.failureResultOf(waiting, ChannelClosedByBroker)
            self.assertNoResult(closing)
            self.assertEqual([name for _, name, _ in peer.sent()][-2:], ["channel.close", "channel.close-ok"])
            self.assertNotEqual(peer.open_channel().id, channel.id)
            if lost:
                peer.protocol.connectionLost(Failure(ConnectionDone()))
            else:
                peer.method(channel.id, "channel.close-ok")
                self.assertEqual(peer.open_channel().id, channel.id)
            self.successResultOf(closing)

    def test_all_channels_in_use(self) -> None:
        """One channel more than was agreed on is refused here, and those that are open stay."""
        peer = Peer()
        peer.connect()
        peer.protocol.channel_max = 2
        first, _ = peer.open_channel(), peer.open_channel()
        error = self.failureResultOf(peer.protocol.open_channel(), AmqpError).value
        self.assertEqual(error.code, ReplyCode.RESOURCE_ERROR)
        peer.sent()
        closing = peer.protocol.close_channel(first)
        peer.method(first.id, "channel.close-ok")
        self.successResultOf(closing)
        self.assertEqual(peer.open_channel().id, first.id)

    def test_more_in_the_chunk_of_the_close(self) -> None:
        """Frames behind a close, in the same bytes, are ignored."""
        peer = Peer()
        peer.connect()
        channel = peer.open_channel()
        peer.sent()
        close = codec.encode_method("connection.close", reply_code=320, reply_text="CONNECTION_FORCED - bye")
        more = codec.encode_method("basic.cancel", consumer_tag="t")
        peer.protocol.dataReceived(frames.frame(FRAME_METHOD, 0, close) + frames.frame(FRAME_METHOD, channel.id, more))
        self.assertEqual([name for _, name, _ in peer.sent()], ["connection.close-ok"])
        self.assertIsInstance(peer.protocol.error, ConnectionClosedByBroker)

    def test_connection_closed_by_the_broker(self) -> None:
        """Everything that waits fails with the broker's reason."""
        peer = Peer()
        peer.connect()
        channel = peer.open_channel()
        waiting = channel.queue_declare(queue="q")
        peer.method(0, "connection.close", reply_code=320, reply_text="CONNECTION_FORCED - bye")
        error = self.failureResultOf(waiting, ConnectionClosedByBroker).value
        self.assertEqual(error.code, ReplyCode.CONNECTION_FORCED)
        self.failureResultOf(channel.queue_declare(queue="q"), ConnectionClosedByBroker)

    def test_blocked_and_unblocked(self) -> None:
        """The broker's reason for taking no messages is known while it lasts."""
        peer = Peer()
        peer.connect()
        peer.method(0, "connection.blocked", reason="low on memory")
        self.assertEqual(peer.protocol.blocked, "low on memory")
        peer.method(0, "connection.unblocked")
        self.assertIsNone(peer.protocol.blocked)
