"""What an ``RpcTimeout`` says of its request: the broker is asked once the time is over."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.amqp.peer import Peer
from tests.services import OnRabbitMQ, ServicesCase, client_of, overdue
from txservices.amqp.entities import Exchange, Queue
from txservices.amqp.whereabouts import LOOK_TIMEOUT, LOOKS_MAX, Whereabouts, unknown_of, words_of
from txservices.exceptions import RpcTimeout
from txservices.rpc import rpc
from txservices.testing.waiting import Heard


class Never:
    """Never answers."""

    name = "never"
    began = Heard()

    @rpc
    def answer(self) -> Deferred[None]:
        self.began()
        return Deferred()


class Asked(ServicesCase):
    """Calls that are not answered."""

    async def late(self, service: str, count: int = 1) -> str:
        """What their errors say, which is the same."""
        cluster = await self.cluster(timeout=60)
        failures = gatherResults([self.assertFailure(cluster[service].answer(), RpcTimeout) for _ in range(count)])
        await overdue(cluster)
        (text,) = {str(each) for each in await failures}
        self.assertEqual(client_of(cluster).whereabouts.looks, {})
        return str(text)

    async def test_nobody_consumes(self) -> None:
        """A queue without a consumer: the service does not run."""
        await self.connections().publisher.declare(Queue("rpc-gone", Exchange("nameko-rpc", type="topic"), "gone.*"))
        self.assertEqual(
            await self.late("gone", 5),
            "no reply within 60 s: it was sent, and nobody consumes queue rpc-gone: start the service"
            " (call of gone.answer)",
        )

    async def test_running(self) -> None:
        """A queue with a consumer: the method still runs."""
        await self.start(Never, SHUTDOWN_TIMEOUT=0)
        self.assertRegex(await self.late("never"), "it was sent, and queue rpc-never has 1 consumer: its method still")

    async def test_waiting(self) -> None:
        """Requests that wait there are counted."""
        await self.start(Never, SHUTDOWN_TIMEOUT=0, prefetch_count=1)
        patient = await self.cluster(timeout=60)
        calls = [patient.never.answer() for _ in range(3)]
        for call in calls:
            call.addErrback(lambda failure: None)  # at the end
        await Never.began.wait()
        self.assertRegex(await self.late("never"), "and 3 wait in queue rpc-never for 1 consumer: the service is slow")

    async def test_deleted(self) -> None:
        """A queue that was deleted meanwhile."""
        connections = self.connections()
        await connections.publisher.declare(Queue("rpc-gone", Exchange("nameko-rpc", type="topic"), "gone.*"))
        cluster = await self.cluster(timeout=60)
        call = cluster.gone.answer()
        await client_of(cluster).connections.drain()
        channel = await (await connections.consuming.when_connected()).open_channel()
        await channel.queue_delete(queue="rpc-gone")
        await overdue(cluster)
        self.assertIn("its queue rpc-gone is gone", str(await self.assertFailure(call, RpcTimeout)))


class AskedOnRabbitMQ(OnRabbitMQ, Asked):
    """The same there."""


class Bounds(SynchronousTestCase):
    """A broker that does not answer."""

    def setUp(self) -> None:
        self.peer = Peer()
        self.peer.connect()
        self.peer.sent()
        self.clock = Clock()
        self.whereabouts = Whereabouts(self.clock)

    def ask(self, queue: str, protocol: Any = None) -> Deferred[str]:
        return self.whereabouts.of_requests(queue, protocol or self.peer.protocol)

    def test_no_answer(self) -> None:
        """It is waited for a second, once, however many ask; then the error says what may be."""
        told = [self.ask("q") for _ in range(3)]
        self.clock.advance(LOOK_TIMEOUT - 0.1)
        for each in told:
            self.assertNoResult(each)
        self.clock.advance(0.1)
        self.assertEqual({self.successResultOf(each) for each in told}, {unknown_of("q")})
        self.assertEqual([name for _, name, _ in self.peer.sent()], ["channel.open"])
        later = self.ask("q")  # is not asked again
        self.peer.protocol.connectionLost(None)
        self.assertEqual(self.successResultOf(later), unknown_of("q"))
        self.assertEqual((self.whereabouts.looks, self.peer.sent()), ({}, []))

    def test_many(self) -> None:
        """So many queues are looked at at once; of the others it is not known."""
        told = [self.ask(f"q{number}") for number in range(LOOKS_MAX + 2)]
        for each in told[:LOOKS_MAX]:
            self.assertNoResult(each)
        for number in (LOOKS_MAX, LOOKS_MAX + 1):
            self.assertEqual(self.successResultOf(told[number]), unknown_of(f"q{number}"))
        self.clock.advance(LOOK_TIMEOUT)
        for each in told[:LOOKS_MAX]:
            self.successResultOf(each)

    def test_no_connection(self) -> None:
        """Without a connection nobody is asked."""
        self.assertEqual(self.successResultOf(self.whereabouts.of_requests("q", None)), unknown_of("q"))

    def test_words(self) -> None:
        """Each state has words of its own."""
        self.assertEqual(len({words_of("q", waiting, consumers) for waiting in (0, 1) for consumers in (0, 1)}), 3)
