"""A connection that is kept, in virtual time: when it is lost or refused, the next attempts come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.amqp.peer import Peer
from txservices.amqp import connection as connection_module
from txservices.amqp.connection import (
    HANDSHAKE_TIMEOUT,
    LIVED,
    REFUSED_RETRY,
    RETRY_FIRST,
    RETRY_GROWTH,
    RETRY_JITTER,
    RETRY_MAX,
    Connection,
)
from txservices.amqp.outbox import Outbox
from txservices.exceptions import (
    BrokerRefused,
    ConfigurationError,
    ConnectionLost,
)
from txservices.utils.address import parse_address
from txservices.wire import codec, frames
from txservices.wire.spec import FRAME_METHOD, ReplyCode

ADDRESS = parse_address("amqp://guest:guest@broker.test/")

Answer = Callable[[Any], Deferred[Any]]


def nobody(factory: Any) -> Deferred[Any]:
    """No broker listens."""
    return fail(ConnectionRefusedError())


def closes_with(code: int, text: str = "no") -> Answer:
    """A broker that closes each connection with that code, before it is open."""

    def answer(factory: Any) -> Deferred[Any]:
        protocol = factory.buildProtocol(None)
        transport: Any = StringTransport()
        transport.abortConnection = transport.loseConnection
        protocol.makeConnection(transport)
        for name, arguments in (
            ("connection.start", {"version_minor": 9, "mechanisms": b"PLAIN", "locales": b"en_US"}),
            ("connection.close", {"reply_code": code, "reply_text": text, "class_id": 0, "method_id": 0}),
        ):
            protocol.dataReceived(frames.frame(FRAME_METHOD, 0, codec.encode_method(name, **arguments)))
        return succeed(protocol)

    return answer


class Opened(Peer):
    """A broker that opens each connection. What is aborted is gone at once."""

    latest: Opened

    def __init__(self, factory: Any) -> None:
        super().__init__()
        self.protocol = self.other_end = factory.buildProtocol(None)
        self.was_aborted = False
        self.transport.abortConnection = self.abort  # the test sees it
        Opened.latest = self

    def abort(self) -> None:
        if not self.was_aborted:
            self.was_aborted = True
            self.lose()

    def lose(self) -> None:
        """The socket is gone."""
        self.protocol.connectionLost(Failure(ConnectionDone()))

    def names(self) -> list[str]:
        return [name for _, name, _ in self.sent()]


def opens(factory: Any) -> Deferred[Any]:
    """A broker that takes the connection."""
    peer = Opened(factory)
    peer.connect(server_heartbeat=60)
    return succeed(peer.protocol)


def silent(factory: Any) -> Deferred[Any]:
    """A broker that takes the connection and never says a word."""
    peer = Opened(factory)
    peer.protocol.makeConnection(peer.transport)
    return succeed(peer.protocol)


class KeepingCase(SynchronousTestCase):
    """Connections whose broker the test plays."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.answer: Answer = nobody
        self.tried: list[float] = []  # the seconds at which somebody tried
        self.patch(connection_module, "endpoint_for", lambda address, tls, clock: self)

    def connect(self, factory: Any) -> Deferred[Any]:
        """As the endpoint of every address."""
        self.tried.append(self.clock.seconds())
        return self.answer(factory)

    def start(self, *addresses: Any, heartbeat: int | None = 0, **options: Any) -> Connection:
        connection = Connection(addresses or (ADDRESS,), "tests", self.clock, heartbeat, **options)
        connection.startService()
        self.addCleanup(connection.stopService)
        self.addCleanup(connection.reconnect)  # first: nobody would answer its close
        return connection


class RetryTests(KeepingCase):
    """When it is tried again: what the broker answers decides how soon."""

    def test_refused(self) -> None:
        """A broker that refuses our login or virtual host is not asked again for half a minute, each time."""
        for code in (ReplyCode.ACCESS_REFUSED, ReplyCode.NOT_ALLOWED, ReplyCode.INVALID_PATH):
            self.answer, self.tried = closes_with(code), []
            began = self.clock.seconds()
            connection = self.start()
            self.clock.pump([1] * int(3 * REFUSED_RETRY))
            self.assertEqual([each - began for each in self.tried[:3]], [0, REFUSED_RETRY, 2 * REFUSED_RETRY])
            connection.stopService()

    def test_refused_is_told(self) -> None:
        """Whoever waits for the connection learns at once that the broker refuses us."""
        connection = self.start()
        waiting = connection.when_connected()
        self.assertNoResult(waiting)
        self.answer = closes_with(ReplyCode.ACCESS_REFUSED)
        self.clock.advance(RETRY_MAX)
        self.failureResultOf(waiting, BrokerRefused)

    def test_closed_for_another_reason(self) -> None:
        """A broker that closes for a reason of its own is asked again soon: it may only be starting."""
        self.answer = closes_with(ReplyCode.CONNECTION_FORCED)
        self.start()
        self.clock.advance(RETRY_MAX)
        self.assertEqual(len(self.tried), 2)

    def test_wait_grows_to_its_limit(self) -> None:
        """Each wait is longer than the one before, up to the limit, apart from the part that chance decides."""
        self.patch(connection_module, "uniform", lambda least, most: most)
        self.start()
        self.clock.pump([0.01] * 1500)
        waits = [after - before for before, after in zip(self.tried, self.tried[1:], strict=False)]
        for number, wait in enumerate(waits, 1):
            self.assertApproximates(wait, min(RETRY_FIRST * RETRY_GROWTH**number, RETRY_MAX), 0.011)
        self.assertGreater(len(waits), 8)

    def test_limit_of_connections(self) -> None:
        """While the broker has too many connections the waits grow to half a minute, and nobody is told of a refusal.

        There may be room again, and a thousand processes that ask each second would be a load of their own.
        """
        self.patch(connection_module, "uniform", lambda least, most: most)
        self.answer = closes_with(ReplyCode.NOT_ALLOWED, "access to vhost '/' refused: connection limit (5) is reached")
        waiting = self.start().when_connected()
        self.clock.pump([0.1] * 2000)
        self.assertNoResult(waiting)
        waiting.addErrback(lambda failure: failure.trap(ConnectionLost))  # at the end of the test
        waits = [after - before for before, after in zip(self.tried, self.tried[1:], strict=False)]
        for number, wait in enumerate(waits, 1):
            self.assertApproximates(wait, min(RETRY_FIRST * RETRY_GROWTH**number, REFUSED_RETRY), 0.11)
        self.assertApproximates(max(waits), REFUSED_RETRY, 0.11)

    def test_spread(self) -> None:
        """Those that lose their broker in one moment don't come back in one: the first wait is spread by half."""
        for _ in range(200):
            self.start()
        del self.tried[:]
        wait = RETRY_FIRST * RETRY_GROWTH
        self.clock.pump([wait * RETRY_JITTER / 50] * 100)
        first = self.tried[:200]
        self.assertGreater(min(first), wait * (1 - RETRY_JITTER) * 0.99)
        self.assertLess(min(first), wait * 0.6)
        self.assertGreater(len(set(first)), 20)

    def test_soon_after_a_success(self) -> None:
        """After a connection that was open the wait is the shortest, however often it failed before."""
        self.patch(connection_module, "uniform", lambda least, most: most)
        self.start()
        self.clock.pump([RETRY_MAX] * 8)
        self.answer = opens
        self.clock.pump([RETRY_MAX] * 40)
        tried = len(self.tried)
        self.assertLess(tried, 12)  # it is not tried while it is open
        Opened.latest.lose()
        self.clock.advance(RETRY_FIRST - 0.01)
        self.assertEqual(len(self.tried), tried)
        self.clock.advance(0.02)
        self.assertEqual(len(self.tried), tried + 1)

    def test_connections_that_die_young(self) -> None:
        """A connection that is lost soon is a failed attempt, so the wait grows; after one that lived it is short."""
        self.patch(connection_module, "uniform", lambda least, most: most)
        self.answer = opens
        self.start()
        waits = []
        for _ in range(20):
            Opened.latest.lose()
            lost, tried = self.clock.seconds(), len(self.tried)
            while len(self.tried) == tried:
                self.clock.advance(0.01)
            waits.append(self.clock.seconds() - lost)
        for number, wait in enumerate(waits, 1):
            self.assertApproximates(wait, min(RETRY_FIRST * RETRY_GROWTH**number, RETRY_MAX), 0.011)
        self.clock.advance(LIVED)
        Opened.latest.lose()
        tried = len(self.tried)
        self.clock.advance(RETRY_FIRST + 0.01)
        self.assertEqual(len(self.tried), tried + 1)

    def test_addresses_in_turn(self) -> None:
        """Each attempt goes to the next of the addresses, from the first on, and again from the first."""
        asked: list[Any] = []
        self.patch(connection_module, "endpoint_for", lambda address, tls, clock: asked.append(address.host) or self)
        self.start(*[parse_address(f"amqp://{host}/") for host in "abc"])
        self.clock.pump([RETRY_MAX] * 4)
        self.assertEqual("".join(asked)[:5], "abcab")

    def test_what_opening_it_costs(self) -> None:
        """A connection that can't be made ready is aborted, used by nobody, and made again."""
        self.answer = opens
        connection = Connection((ADDRESS,), "tests", self.clock, 0)
        failing = [lambda protocol: fail(ValueError("not ready")), lambda protocol: Opened.latest.lose()]
        connection.on_connected.append(lambda protocol: failing.pop(0)(protocol) if failing else None)
        self.addCleanup(connection.stopService)
        self.addCleanup(connection.reconnect)
        connection.startService()
        opened = connection.when_connected()
        self.assertTrue(Opened.latest.was_aborted)
        self.assertNoResult(opened)
        self.clock.advance(RETRY_MAX)
        self.assertNoResult(opened)
        self.clock.advance(RETRY_MAX)
        self.assertIs(self.successResultOf(opened), Opened.latest.protocol)

    def test_closed_and_not_gone(self) -> None:
        """A connection that the broker has closed is nobody's, although its socket may be there for a while."""
        self.answer = opens
        connection = self.start()
        closed = self.successResultOf(connection.when_connected())
        Opened.latest.was_aborted = True  # the socket does not go at once
        close = {"reply_code": ReplyCode.CONNECTION_FORCED, "reply_text": "", "class_id": 0, "method_id": 0}
        Opened.latest.method(0, "connection.close", **close)
        self.assertEqual((connection.protocol, connection.is_open), (closed, False))
        opened = connection.when_connected()
        self.assertNoResult(opened)
        Opened.latest.lose()
        self.clock.advance(RETRY_MAX)
        self.assertIsNot(self.successResultOf(opened), closed)

    def test_closed_while_it_is_opened(self) -> None:
        """A broker that closes the connection while it is made ready has told why: that decides what comes next."""
        self.answer = opens
        connection = Connection((ADDRESS,), "tests", self.clock, 0)
        refusal = {"reply_code": ReplyCode.ACCESS_REFUSED, "reply_text": "no", "class_id": 0, "method_id": 0}
        connection.on_connected.append(lambda protocol: Opened.latest.method(0, "connection.close", **refusal))
        self.addCleanup(connection.stopService)
        connection.startService()
        self.clock.advance(RETRY_MAX)
        self.assertEqual(len(self.tried), 1)
        told = connection.when_connected()
        self.clock.advance(REFUSED_RETRY)
        self.assertEqual(len(self.tried), 2)
        self.failureResultOf(told, BrokerRefused)

    def test_login_too_long(self) -> None:
        """A login that no broker can read is told when the connection is made, also that of a later address."""
        long = parse_address(f"amqp://guest:{'p' * 8192}@broker.test/")
        for addresses in ((long,), (ADDRESS, long)):
            self.assertRaises(ConfigurationError, Connection, addresses, "tests", self.clock)

    def test_silent(self) -> None:
        """A broker that does not answer the handshake is left for another attempt."""
        self.answer = silent
        self.start()
        self.clock.advance(HANDSHAKE_TIMEOUT)
        self.assertTrue(Opened.latest.was_aborted)
        self.answer = opens
        self.clock.advance(RETRY_MAX)
        self.assertEqual(len(self.tried), 2)

    def test_outbox(self) -> None:
        """Its bytes go by the outbox that it was given, or by one of its own."""
        self.answer = opens
        given = Outbox(self.clock)
        self.start(outbox=given)
        self.assertIs(Opened.latest.protocol.outbox, given)
        own = []
        for _ in range(2):
            connection = self.start()
            self.assertIs(Opened.latest.protocol.outbox, connection.outbox)
            own.append(connection.outbox)
        self.assertEqual(len({given, *own}), 3)

    def test_heartbeat(self) -> None:
        """The heartbeat asked for is what the broker is told; None asks for none, as 0 does."""
        self.answer = opens
        for asked, told in ((7, 7), (0, 0), (None, 0)):
            self.start(heartbeat=asked)
            (tuned,) = [args for _, name, args in Opened.latest.sent() if name == "connection.tune-ok"]
            self.assertEqual(tuned["heartbeat"], told)
