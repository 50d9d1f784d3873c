"""What a handler publishes without waiting for it, and what becomes of the handler's own message if that fails."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList, gatherResults, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.amqp.test_publisher import PublisherCase
from tests.services import OnRabbitMQ, Recorded, ServicesCase
from txservices import containers
from txservices.amqp import leaving
from txservices.amqp import publisher as publisher_module
from txservices.amqp.entities import Queue
from txservices.amqp.options import Sending
from txservices.amqp.publish import Confirmation, send, unconfirmed_of, when_confirmed
from txservices.containers import ServiceContainer
from txservices.exceptions import (
    AmqpError,
    PublishBufferFull,
    PublishError,
    PublishTimeout,
    RemoteError,
    UndeliverableMessage,
)
from txservices.messaging import Publisher, consume
from txservices.rpc import rpc
from txservices.runners import ServiceRunner
from txservices.testing.waiting import Heard

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


def nothing(_: Any) -> None:
    """A callback."""


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


IN = Queue("in", arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
DEAD = Queue("dead")
FULL = Queue("full", arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
NOBODY = {"routing_key": "nobody", "mandatory": True}
MISSING = {"exchange": "missing", "routing_key": "k"}


class LostTests(ServicesCase):
    """A service that publishes, and a broker that does not take it."""

    async def relay(self, tell: Any, *messages: bytes) -> Heard:
        """Start a service that handles each message by ``tell(publish, body)``; gives what it handled."""
        handled = Heard()

        class Relay:
            name = "relay"
            publish = Publisher()

            @consume(IN)
            async def handle(self, body: Any) -> None:
                handled(body)
                waiting = tell(self.publish, body)
                if waiting is not None:
                    await waiting

        await self.tell(IN, *messages)
        self.containers = await self.start(Relay)
        return handled

    async def tell(self, queue: Queue, *bodies: bytes) -> None:
        """Publish these; the queue is declared."""
        publisher = self.connections().publisher
        await publisher.declare(queue)
        for body in bodies:
            await publisher.publish("", queue.name, body, {"content_type": "application/json"})

    async def consumed(self, queue: Queue) -> Recorded:
        recorded = Recorded()
        await self.connections().consume(queue, recorded, 10).ready
        return recorded

    async def assert_settled(self) -> None:
        """Nothing comes back any more."""
        for container in self.containers:
            await container.stop()
        left = await self.consumed(IN)
        await self.tell(IN, b'"last"')
        self.assertEqual([message.body for message in await left.wait()], [b'"last"'])

    async def test_refused(self) -> None:
        """What the broker refuses for good has the handler's message rejected, once: it is in the dead letters."""
        dead = await self.consumed(DEAD)
        kinds = [NOBODY, MISSING, {**NOBODY, "use_confirms": False}, {**MISSING, "timeout": 5}]

        def tell(publish: Any, number: int) -> None:
            publish(number, **kinds[number])

        handled = await self.relay(tell, *(b"%d" % number for number in range(len(kinds))))
        letters = await dead.wait(len(kinds))
        self.assertEqual(sorted(int(message.body) for message in letters), list(range(len(kinds))))
        self.assertEqual(sorted(handled.things), list(range(len(kinds))))
        await self.assert_settled()

    async def test_looked_at(self) -> None:
        """A handler that deals with the failure keeps control: its message is acked."""
        seen = Heard()

        async def wait(sent: Any) -> None:
            try:
                await sent
            except (UndeliverableMessage, AmqpError) as error:
                seen(type(error).__name__)

        def tell(publish: Any, number: int) -> Any:
            sent = publish(number, **(NOBODY if number % 2 else MISSING))
            if number > 1:
                return wait(sent)
            sent.addErrback(lambda failure: seen(failure.type.__name__))
            return None

        await self.relay(tell, b"0", b"1", b"2", b"3")
        self.assertEqual(sorted(await seen.wait(4)), ["ChannelClosedByBroker"] * 2 + ["UndeliverableMessage"] * 2)
        await self.assert_settled()
        await self.tell(DEAD, b'"no dead letter"')
        self.assertEqual([message.body for message in await (await self.consumed(DEAD)).wait()], [b'"no dead letter"'])

    async def test_nacked(self) -> None:
        """What is nacked up to its own deadline has the handler's message come again, until it is confirmed."""
        await self.tell(FULL, b'"full"')

        def tell(publish: Any, body: str) -> None:
            publish(body, routing_key="full", timeout=0.3)

        handled = await self.relay(tell, b'"told"')
        await handled.wait(2)
        got = await self.consumed(FULL)
        self.assertEqual([message.body for message in await got.wait(2)], [b'"full"', b'"told"'])
        await self.assert_settled()

    async def test_no_room(self) -> None:
        """What finds no room has the handler's message come again, until there is some."""
        await self.tell(DEAD)

        def tell(publish: Any, body: str) -> None:
            full = len(handled.things) < 3
            with patch.object(publisher_module, "UNCONFIRMED_MAX", 0 if full else 100):
                publish(body, routing_key="dead")

        handled = await self.relay(tell)
        await self.tell(IN, b'"told"')
        got = await self.consumed(DEAD)
        self.assertEqual([message.body for message in await got.wait()], [b'"told"'])
        self.assertEqual(handled.things, ["told"] * 3)
        await self.assert_settled()

    async def test_call(self) -> None:
        """A call whose method's publish has failed by the time of the answer is answered with that failure."""
        results = Heard()

        class Teller(Publisher):
            def worker_result(self, worker_ctx: Any, result: Any = None, exc_info: Any = None) -> None:
                results((result, exc_info and exc_info[0]))

        class Service:
            name = "service"
            publish = Teller()

            @rpc
            def method(self, looks: bool) -> str:
                with patch.object(publisher_module, "UNCONFIRMED_MAX", 0):
                    sent = self.publish(1, routing_key="dead")
                if looks:
                    sent.addErrback(nothing)
                return "done"

        await self.start(Service)
        cluster = await self.cluster()
        error = await self.assertFailure(cluster.service.method(False), RemoteError)
        self.assertEqual(error.exc_type, "PublishBufferFull")
        self.assertEqual(await cluster.service.method(True), "done")
        self.assertEqual(await results.wait(2), [(None, PublishBufferFull), ("done", None)])

    async def test_call_answered_before(self) -> None:
        """If it fails after the answer, the request comes again, and its caller has one answer."""
        handled = Heard()

        class Service:
            name = "service"
            publish = Publisher()

            @rpc
            def method(self, value: int) -> int:
                handled(value)
                self.publish(value, routing_key="full", timeout=0.3)
                return value

        await self.tell(FULL, b"1")
        (container,) = await self.start(Service)
        cluster = await self.cluster()
        self.assertEqual(await cluster.service.method(2), 2)
        await handled.wait(2)
        got = await self.consumed(FULL)
        await got.wait(2)
        await container.stop()
        self.assertEqual(set(handled.things), {2})

    async def test_stop(self) -> None:
        """A stop ends within its bound, however long what was told would be tried: its message goes back."""
        self.patch(leaving, "STOP_TIMEOUT", 0.2)  # seconds
        await self.tell(FULL, b'"full"')

        def tell(publish: Any, body: str) -> None:
            publish(body, routing_key="full", timeout=None)

        handled = await self.relay(tell, b'"told"')
        await handled.wait()
        await self.containers[0].stop()
        got = await self.consumed(IN)
        (message,) = await got.wait()
        self.assertTrue(message.redelivered)
        await self.stage.stop()  # the message told again is as long in vain: within that bound as well

    async def test_kill(self) -> None:
        """A kill does not wait for what is tried again, nor does a stop that it interrupts; its message goes back."""
        await self.tell(FULL, b'"full"')
        for stops_first in (False, True):
            for runs in (ServiceContainer, ServiceRunner):
                with self.subTest(runs=runs, stops_first=stops_first):
                    await self.end_now(runs, stops_first)

    async def end_now(self, runs: Any, stops_first: bool) -> None:
        handled = Heard()

        class Relay:
            name = "relay"
            publish = Publisher()

            @consume(IN)
            def handle(self, body: Any) -> None:
                self.publish(body, routing_key="full")
                handled()

        await self.tell(IN, b'"told"')
        if runs is ServiceContainer:
            running: Any = ServiceContainer(Relay, self.config)
            shared = running.shared
        else:
            running = ServiceRunner(self.config)
            running.add_service(Relay)
            shared = running.shared
        await running.start()
        await handled.wait()
        publisher = shared.namedServices["amqp"].publisher
        while not publisher.nacked:
            await deferLater(reactor, 0)
        self.patch(containers, "KILL_TIMEOUT", 60.0)
        began = reactor.seconds()
        if stops_first:
            running.stop()
        await running.kill()
        self.assertLess(reactor.seconds() - began, leaving.STOP_TIMEOUT)
        connections = self.connections()
        back = Recorded()
        consumer = connections.consume(IN, back, 10)
        (message,) = await back.wait()
        self.assertTrue(message.redelivered)
        await consumer.close()


class LostTestsOnRabbitMQ(OnRabbitMQ, LostTests):
    """The same on RabbitMQ."""
