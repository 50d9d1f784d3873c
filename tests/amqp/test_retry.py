"""When a connection is tried again, in virtual time: what the broker answers decides how soon."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from txservices.amqp import connection as connection_module
from txservices.amqp.connection import (
    REFUSED_RETRY,
    RETRY_FIRST,
    RETRY_GROWTH,
    RETRY_JITTER,
    RETRY_MAX,
    Connection,
)
from txservices.exceptions import BrokerRefused
from txservices.utils.address import parse_address
from txservices.wire import codec, frames
from txservices.wire.spec import FRAME_METHOD, ReplyCode

ADDRESS = parse_address("amqp://guest:guest@broker.test/")

Answer = Callable[[Any], Deferred[Any]]


def nobody(factory: Any) -> Deferred[Any]:
    """No broker listens."""
    return fail(ConnectionRefusedError())


def closes_with(code: int) -> Answer:
    """A broker that closes each connection with that code, before it is open."""

    def answer(factory: Any) -> Deferred[Any]:
        protocol = factory.buildProtocol(None)
        transport: Any = StringTransport()
        transport.abortConnection = transport.loseConnection
        protocol.makeConnection(transport)
        for name, arguments in (
            ("connection.start", {"version_minor": 9, "mechanisms": b"PLAIN", "locales": b"en_US"}),
            ("connection.close", {"reply_code": code, "reply_text": "no", "class_id": 0, "method_id": 0}),
        ):
            protocol.dataReceived(frames.frame(FRAME_METHOD, 0, codec.encode_method(name, **arguments)))
        return succeed(protocol)

    return answer


class RetryTests(SynchronousTestCase):
    """Connections to a broker that does not take them."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.answer: Answer = nobody
        self.tried: list[float] = []  # the seconds at which somebody tried
        self.patch(connection_module, "endpoint_for", lambda address, tls, clock: self)

    def connect(self, factory: Any) -> Deferred[Any]:
        """As the endpoint of every address."""
        self.tried.append(self.clock.seconds())
        return self.answer(factory)

    def start(self) -> Connection:
        connection = Connection((ADDRESS,), "tests", self.clock)
        connection.startService()
        self.addCleanup(connection.stopService)
        return connection

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
        """Each wait is longer than the one before, up to the limit, but for what chance takes off."""
        self.patch(connection_module, "uniform", lambda least, most: most)
        self.start()
        self.clock.pump([0.01] * 1500)
        waits = [after - before for before, after in zip(self.tried, self.tried[1:], strict=False)]
        for number, wait in enumerate(waits, 1):
            self.assertApproximates(wait, min(RETRY_FIRST * RETRY_GROWTH**number, RETRY_MAX), 0.011)
        self.assertGreater(len(waits), 8)

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
