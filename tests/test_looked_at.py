"""Whether somebody looks at the outcome of a publish, and which deadline it has if nobody does."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, gatherResults, inlineCallbacks
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.amqp.test_publisher import PublisherCase
from tests.test_lost_publishes import nothing
from txservices.amqp.entities import Queue
from txservices.amqp.options import Sending
from txservices.amqp.publish import Confirmation, send, unconfirmed_of, when_confirmed
from txservices.exceptions import (
    PublishError,
    PublishTimeout,
)

ERROR = PublishTimeout("an exchange", "a key")


async def await_it(told: Deferred[None]) -> None:
    try:
        await told
    except PublishError:
        pass


@inlineCallbacks
def yield_it(told: Deferred[None]) -> Any:
    try:
        yield told
    except PublishError:
        pass


WAYS: dict[str, Any] = {
    "await": lambda told: Deferred.fromCoroutine(await_it(told)),
    "yield": yield_it,
    "addErrback": lambda told: told.addErrback(nothing),
    "addCallback": lambda told: told.addCallback(nothing).addErrback(nothing),
    "addBoth": lambda told: told.addBoth(nothing),
    "addCallbacks": lambda told: told.addCallbacks(nothing, nothing),
    "gatherResults": lambda told: gatherResults([told], consumeErrors=True).addErrback(nothing),
    "DeferredList": lambda told: DeferredList([told], consumeErrors=True),
}


class LookedTests(SynchronousTestCase):
    """Whether a failure was looked at is known when the handler's message is settled."""

    def setUp(self) -> None:
        self.owner: Any = SimpleNamespace(unconfirmed=None)
        self.settled: list[Any] = []

    def told(self) -> Confirmation:
        return Confirmation(unconfirmed_of(self.owner), "an exchange", "a key", by_worker=True)

    def settle(self) -> None:
        when_confirmed(self.owner, partial(self.settled.append, "ack"), self.settled.append)

    def lines(self) -> list[str]:
        """What the log says of failures, from now on."""
        lines: list[str] = []
        observe = lambda event: lines.append(event.get("log_format", ""))  # noqa: E731
        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        return lines

    def test_looked_before(self) -> None:
        """Somebody who waits, or has a callback, when it fails keeps the failure; the log says nothing."""
        for way, look in WAYS.items():
            with self.subTest(way=way):
                self.setUp()
                lines = self.lines()
                told = self.told()
                look(told)
                told.done(ERROR)
                self.settle()
                del told
                self.assertEqual((self.settled, lines), (["ack"], []))

    def test_looked_after(self) -> None:
        """So does somebody who looks when it has failed already, but before the handler has ended."""
        for way, look in WAYS.items():
            with self.subTest(way=way):
                self.setUp()
                lines = self.lines()
                told = self.told()
                told.done(ERROR)
                look(told)
                self.settle()
                del told
                self.assertEqual((self.settled, lines), (["ack"], []))

    def test_nobody_looks(self) -> None:
        """The error is told in place of the ack, and in the log."""
        lines = self.lines()
        self.told().done(ERROR)
        self.settle()
        self.assertEqual((self.settled, len(lines)), ([ERROR], 1))

    def test_one_of_many(self) -> None:
        """One failure that nobody looks at is enough, among others; it is told when all have an outcome, and once."""
        confirmed, looked, lost, last = (self.told() for _ in range(4))
        looked.addErrback(nothing)
        self.settle()
        confirmed.done(None)
        looked.done(ERROR)
        lost.done(ERROR)
        self.assertEqual(self.settled, [])
        last.done(None)
        self.assertEqual(self.settled, [ERROR])
        self.settle()
        self.assertEqual(self.settled, [ERROR, "ack"])

    def test_nothing_is_kept(self) -> None:
        """Whoever is no worker is not asked what was lost: failures are not kept for it."""
        Confirmation(unconfirmed_of(self.owner), "an exchange", "a key").done(ERROR)
        self.assertEqual(self.owner.unconfirmed.failed, [])


class DeadlineTests(PublisherCase):
    """How long a message is kept whose publisher is a worker; in virtual time."""

    def tell(self, by_worker: bool = True, sending: Sending | None = None) -> Deferred[None]:
        connections: Any = SimpleNamespace(publisher=self.publisher)
        self.owner: Any = SimpleNamespace(unconfirmed=None)
        sending = sending or Sending.of({"PUBLISH_TIMEOUT": 2}, {})
        return send(connections, sending, "", "q", {}, b"", self.owner, by_worker=by_worker)

    def pass_time(self, seconds: int) -> None:
        self.peer.clock.pump([0.5] * 2 * seconds)

    def test_nobody_waits(self) -> None:
        """A message that nobody waits for has no deadline: a connection may be lost meanwhile, and it is sent again."""
        told = self.tell()
        self.pass_time(60)
        self.lose_connection()
        self.pass_time(60)
        self.reconnected()
        self.assertEqual(len(self.peer.contents()), 1)
        self.peer.method(self.channel, "basic.ack", delivery_tag=1)
        self.successResultOf(told)
        self.nothing_is_kept()

    def test_somebody_waits(self) -> None:
        """From then on it has PUBLISH_TIMEOUT, in whatever way one waits."""
        for way, look in WAYS.items():
            with self.subTest(way=way):
                told = self.tell()
                self.pass_time(10)
                looking = look(told)
                self.pass_time(1)
                self.assertNoResult(looking)
                self.pass_time(2)
                self.successResultOf(looking)
                self.nothing_is_kept()

    def test_others(self) -> None:
        """A program has that deadline always, and so has a worker that gives one; null is for none."""
        cases = (
            (False, Sending.of({"PUBLISH_TIMEOUT": 2}, {}), True),
            (True, Sending.of({}, {"timeout": 2}), True),
            (True, Sending.of({}, {}).merged({"timeout": 2}, of_call=True), True),
            (True, Sending.of({"PUBLISH_TIMEOUT": None}, {}), False),
            (True, Sending.of({}, {"timeout": None}), False),
        )
        for by_worker, sending, fails in cases:
            with self.subTest(sending=sending):
                told = self.tell(by_worker, sending).addErrback(lambda failure: failure.trap(PublishTimeout))
                self.pass_time(3)
                self.assertEqual(told.called, fails)
                self.peer.method(self.channel, "basic.ack", delivery_tag=0, multiple=True)
                self.successResultOf(told)

    def test_a_stop(self) -> None:
        """A stop that gives up fails it: the handler's message is not acked."""
        told = self.tell()
        settled: list[Any] = []
        when_confirmed(self.owner, partial(settled.append, "ack"), settled.append)
        self.publisher.abort()
        self.assertEqual([type(each).__name__ for each in settled], ["ConnectionLost"])
        told.addErrback(nothing)

    def test_declared_first(self) -> None:
        """The time that a declaration takes is part of the timeout."""
        connections: Any = SimpleNamespace(publisher=self.publisher)
        owner: Any = SimpleNamespace(unconfirmed=None)
        told = send(connections, Sending(timeout=2.0, declare=(Queue("new"),)), "", "new", {}, b"", owner, True)
        number = self.peer.sent()[-1][0]
        self.peer.method(number, "channel.open-ok")
        self.pass_time(1)
        self.peer.method(number, "queue.declare-ok", queue="new", message_count=0, consumer_count=0)
        self.peer.sent()
        self.pass_time(1)
        self.peer.clock.advance(0.2)
        self.failureResultOf(told, PublishTimeout)
