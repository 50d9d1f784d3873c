"""How a connection that is kept begins, with a broker that answers or not, and how it ends."""

from __future__ import annotations

from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import ConnectionRefusedError

from tests.amqp.test_retry import KeepingCase, Opened, closes_with, nobody, opens, silent
from txservices.amqp import causes
from txservices.amqp.connection import (
    REFUSED_RETRY,
    RETRY_MAX,
)
from txservices.amqp.protocol import CLOSE_TIMEOUT
from txservices.exceptions import (
    BrokerUnreachable,
    ConnectionClosedByBroker,
    ConnectionLost,
)
from txservices.utils.address import parse_address
from txservices.wire.spec import ReplyCode


class StartTests(KeepingCase):
    """How long a first connection is waited for."""

    def test_each_address_is_tried(self) -> None:
        """However short the time, each address is tried once; then those who wait learn where nobody was, and why."""
        for hosts in ("a", "ab", "abc"):
            addresses = [parse_address(f"amqp://{host}.test/") for host in hosts]
            self.tried = []
            connection = self.start(*addresses, start_timeout=0)
            waiting = connection.when_connected()
            for _ in hosts[1:]:
                self.assertNoResult(waiting)
                self.clock.advance(RETRY_MAX)
            if hosts == "a":  # it was told before there was anybody
                self.clock.advance(RETRY_MAX)
            text = str(self.failureResultOf(waiting, BrokerUnreachable).value)
            self.assertIn(f"no broker at {', '.join(map(str, addresses))} (Connection was refused", text)

    def test_at_once(self) -> None:
        """A start timeout of 0 ends with the first attempt."""
        answers: list[Deferred[Any]] = []
        self.answer = lambda factory: answers.append(Deferred()) or answers[-1]
        waiting = self.start(start_timeout=0).when_connected()
        self.assertNoResult(waiting)
        answers[0].errback(ConnectionRefusedError())
        self.failureResultOf(waiting, BrokerUnreachable)

    def test_counted_from_the_start(self) -> None:
        """The time counts from the start of the service; without one those who wait wait on."""
        self.clock.advance(1000)
        short, never = self.start(start_timeout=5), self.start()
        told, waits = short.when_connected(), never.when_connected()
        waits.addErrback(lambda failure: failure.trap(ConnectionLost))  # at the end of the test
        self.clock.pump([0.1] * 45)
        self.assertNoResult(told)
        self.clock.pump([0.1] * 20)
        self.failureResultOf(told, BrokerUnreachable)
        self.clock.pump([1] * 100)
        self.assertNoResult(waits)

    def test_not_after_a_connection(self) -> None:
        """Once there was a connection, a broker that is away or refuses us is waited for: its operator will be back."""
        self.answer = opens
        connection = self.start(start_timeout=0)
        self.answer = nobody
        Opened.latest.lose()
        waiting = connection.when_connected()
        waiting.addErrback(lambda failure: failure.trap(ConnectionLost))  # at the end of the test
        self.clock.advance(RETRY_MAX)
        self.answer = closes_with(ReplyCode.ACCESS_REFUSED)
        self.clock.advance(RETRY_MAX)
        self.assertNoResult(waiting)

    def test_in_words(self) -> None:
        """A cause is said in a few words, also one that brings no text."""
        for error, words in (
            (None, "the connection was lost"),
            (DeferredTimeout(20, "Deferred"), "no answer to the handshake within 20 s"),
            (ValueError("no. 1."), "no. 1"),
            (ValueError(), "ValueError"),
        ):
            self.assertEqual(causes.describe(error), words)


class EndTests(KeepingCase):
    """How it ends, by whom and in which order."""

    def setUp(self) -> None:
        super().setUp()
        self.answer = opens
        self.connection = self.start()
        self.changes: list[bool] = []
        self.connection.on_changed.append(lambda: self.changes.append(self.connection.protocol is not None))
        self.peer = Opened.latest

    def assert_ended(self) -> None:
        """Nothing is tried any more, and no timer is left."""
        tried = len(self.tried)
        self.clock.advance(0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(1000)
        self.assertEqual(len(self.tried), tried)

    def test_in_order(self) -> None:
        """Acks of this turn go first, then the close; it ends with the answer and the socket."""
        channel = self.peer.open_channel()
        messages: list[Any] = []
        channel.consume("q", "t", messages.append)
        self.peer.method(1, "basic.consume-ok", consumer_tag="t")
        self.peer.sent()
        self.peer.content(1, "basic.deliver", {}, b"", consumer_tag="t", delivery_tag=1)
        messages[0].ack()
        ended = self.connection.stopService()
        self.assertEqual(self.peer.names(), ["basic.ack", "connection.close"])
        self.assertEqual(self.changes, [False])
        self.peer.method(0, "connection.close-ok")
        self.assertNoResult(ended)
        self.peer.lose()
        self.successResultOf(ended)
        self.assert_ended()

    def test_no_answer(self) -> None:
        """A broker that does not answer the close is left after a while."""
        ended = self.connection.stopService()
        self.clock.advance(CLOSE_TIMEOUT - 0.1)
        self.assertNoResult(ended)
        self.clock.advance(0.1)
        self.assertTrue(self.peer.was_aborted)
        self.successResultOf(ended)
        self.assert_ended()

    def test_while_it_is_opened(self) -> None:
        """A connection that is still being opened is aborted; whoever waits for one is told."""
        self.peer.lose()
        self.answer = silent
        self.clock.advance(RETRY_MAX)
        waiting = self.connection.when_connected()
        latest = Opened.latest
        with mock.patch.object(latest, "lose"):  # its socket closes later
            ended = self.connection.stopService()
        self.assertTrue(latest.was_aborted)
        self.failureResultOf(waiting, ConnectionLost)
        self.assertNoResult(ended)
        latest.lose()
        self.successResultOf(ended)
        self.assert_ended()

    def test_between_two_attempts(self) -> None:
        """While it waits for the next attempt there is nothing to close."""
        self.peer.lose()
        self.successResultOf(self.connection.stopService())
        self.assert_ended()

    def test_by_one_who_is_told(self) -> None:
        """Whoever learns that the broker refuses us may stop it right then: nothing is tried after that."""
        self.peer.lose()
        self.successResultOf(self.connection.stopService())
        attempt: Deferred[Any] = Deferred()
        self.answer = lambda factory: attempt
        connection = self.start()
        ended: list[bool] = []
        told = connection.when_connected().addErrback(lambda failure: connection.stopService())
        told.addCallback(lambda _: ended.append(bool(connection.keeping.called)))
        tried = len(self.tried)
        attempt.errback(ConnectionClosedByBroker(ReplyCode.ACCESS_REFUSED, "no"))
        self.successResultOf(told)
        self.assertEqual(ended, [True])
        self.clock.advance(2 * REFUSED_RETRY)
        self.assertEqual(len(self.tried), tried)

    def test_reconnect(self) -> None:
        """One that does not answer is aborted: what waits for it fails, and another is made."""
        asked = self.peer.protocol.open_channel()
        self.connection.reconnect()
        self.assertTrue(self.peer.was_aborted)
        self.failureResultOf(asked, ConnectionLost)
        self.assertIsNone(self.connection.protocol)
        self.clock.advance(RETRY_MAX)
        self.assertIs(self.connection.protocol, Opened.latest.protocol)
        self.assertIsNot(Opened.latest, self.peer)
        self.assertEqual([self.changes[0], self.changes[-1]], [False, True])

    def test_reconnect_at_once(self) -> None:
        """One that does not answer is nobody's any more, however long its socket takes to close."""
        with mock.patch.object(self.peer, "lose"):
            self.connection.reconnect()
        self.assertTrue(self.peer.was_aborted)
        self.assertEqual((self.connection.protocol, self.changes), (None, [False]))
        self.peer.lose()

    def test_closed_by_the_broker(self) -> None:
        """A connection that the broker has closed, and whose socket stays, is aborted; the end waits for the socket."""
        code = {"reply_code": ReplyCode.CONNECTION_FORCED, "reply_text": "no", "class_id": 0, "method_id": 0}
        self.peer.method(0, "connection.close", **code)
        self.assertFalse(self.peer.was_aborted)
        with mock.patch.object(self.peer, "lose"):
            ended = self.connection.stopService()
        self.assertTrue(self.peer.was_aborted)
        self.assertNoResult(ended)
        self.peer.lose()
        self.successResultOf(ended)
        self.assert_ended()

    def test_lost(self) -> None:
        """A lost connection is nobody's any more, at once."""
        self.peer.lose()
        self.assertEqual((self.connection.protocol, self.changes), (None, [False]))
        waiting = self.connection.when_connected()
        self.assertNoResult(waiting)
        self.clock.advance(RETRY_MAX)
        self.assertIs(self.successResultOf(waiting), Opened.latest.protocol)
        self.assertEqual(self.changes, [False, True])
