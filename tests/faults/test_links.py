"""Links that break in every way, between living services and a living RabbitMQ. Numbers are the faults'."""

from __future__ import annotations

from collections import Counter
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, succeed

from tests.faults.scene import BACK, Echo, FaultsCase, until
from tests.services import Recorded, client_of
from txservices.amqp.connections import Connections
from txservices.amqp.entities import Exchange, Queue
from txservices.amqp.subscription import Subscription
from txservices.events import BROADCAST, event_handler
from txservices.exceptions import ReplyQueueExpiredWithPendingReplies
from txservices.rpc import rpc
from txservices.testing.waiting import Heard

TELLS = Exchange("tells", type="topic")
HEARS = Queue("hears", TELLS, "#")
HEARTBEAT = 1  # seconds; more than a second of silence on loopback is a fault
# Seconds until the broker is given up: two intervals without a byte, the last one before the fault; and some for a busy
# machine. RabbitMQ, which sees the other way, looks only once an interval.
SILENCE = 2 * HEARTBEAT + 0.25
RABBITMQ_SEES = 3 * HEARTBEAT + 0.5


class LinkCase(FaultsCase):
    """A consumer past the proxy, a publisher over it."""

    async def heard(self) -> Recorded:
        """The messages that arrive, on a connection that no fault touches."""
        recorded = Recorded()
        await self.past_the_proxy().consume(HEARS, recorded, 100).ready
        return recorded

    def publish(self, connections: Connections, numbers: range, timeout: float = 20) -> Deferred[Any]:
        publishes = [
            connections.publisher.publish(
                "tells", "k", b"%d" % n, {"message_id": f"m{n}"}, mandatory=True, timeout=timeout
            )
            for n in numbers
        ]
        return gatherResults(publishes, consumeErrors=True)

    async def all_there(self, recorded: Recorded, count: int) -> Counter[str]:
        """All arrive, the first copies in order; gives how often each came."""
        await until(lambda: len({message.properties["message_id"] for message in recorded.things}) >= count)
        ids = [message.properties["message_id"] for message in recorded.things]
        self.assertEqual(list(dict.fromkeys(ids)), [f"m{n}" for n in range(count)])
        bodies = {message.properties["message_id"]: message.body for message in recorded.things}
        self.assertEqual(bodies, {f"m{n}": b"%d" % n for n in range(count)})
        return Counter(ids)


class Publishing(LinkCase):
    """Messages under way."""

    async def test_row_04_reset_in_the_middle_of_publishes(self) -> None:
        """RST while confirms are due: all are sent again in order with the same ids, and none is lost."""
        recorded = await self.heard()
        connections = self.bare()
        await self.publish(connections, range(10))
        self.proxy.freeze(up=False, down=True)  # the confirms
        publishing = self.publish(connections, range(10, 200))
        await recorded.wait(100)
        self.proxy.heal_after_cut(reset=True)
        await publishing
        copies = await self.all_there(recorded, 200)
        self.assertGreater(max(copies.values()), 1)

    async def test_row_04_reset_in_each_ten_publishes(self) -> None:
        """A link that is reset again and again still loses nothing."""
        recorded = await self.heard()
        connections = self.bare()
        publishing = []
        for first in range(0, 200, 10):
            publishing.append(self.publish(connections, range(first, first + 10)))
            await recorded.wait(first // 2)
            self.proxy.cut(reset=True)
        await gatherResults(publishing)
        await self.all_there(recorded, 200)

    async def test_row_06_black_hole_to_the_broker(self) -> None:
        """Our bytes vanish: the connection is given up by the heartbeat, and the messages come nevertheless."""
        await self.black_hole(RABBITMQ_SEES, up=True, down=False)

    async def test_row_07_black_hole_from_the_broker(self) -> None:
        """The broker's bytes vanish: the same."""
        await self.black_hole(SILENCE, up=False, down=True)

    async def black_hole(self, seen_within: float, **ways: bool) -> None:
        recorded = await self.heard()
        connections = self.bare(HEARTBEAT=HEARTBEAT)
        await self.publish(connections, range(10))
        given_up = self.logged("no connection to the broker")
        self.proxy.black_hole(**ways)
        began = reactor.seconds()
        publishing = self.publish(connections, range(10, 60))
        await given_up.wait()
        self.in_time(began, seen_within)
        self.proxy.heal()
        await publishing
        await self.all_there(recorded, 60)

    async def test_row_09_a_slow_link_is_no_dead_one(self) -> None:
        """With 0.3 s each way and 2 KB/s, nothing is given up: the heartbeats come through, and so do the messages."""
        recorded = await self.heard()
        given_up = self.logged("no connection to the broker|was silent")
        for way in (self.proxy.up, self.proxy.down):
            way.delay, way.rate = 0.3, 2000
        connections = self.bare(HEARTBEAT=2)
        await self.publish(connections, range(30))
        await self.all_there(recorded, 30)
        self.assertEqual(given_up.things, [])


class Declaring(LinkCase):
    """Declarations while their connection goes."""

    async def test_row_05_lost_while_declaring(self) -> None:
        """A declaration under way when the link is cut is made on the next connection, and nothing is raised."""
        connections = self.bare()
        await connections.publisher.connection.when_connected()
        self.proxy.freeze(up=False, down=True)
        declaring = connections.publisher.declare(TELLS, HEARS)
        again = connections.publisher.declare(Exchange("another"))
        await until(lambda: self.proxy.links[0].down.waiting)
        self.proxy.heal_after_cut(reset=True)
        await declaring
        await again
        await connections.publisher.publish("tells", "k", b"", {}, mandatory=True)

    async def test_row_05_declared_in_the_moment_of_the_loss(self) -> None:
        """A queue that is declared and consumed by somebody who was told of the loss is there after it."""
        connections = self.bare()
        first = connections.consume(HEARS, lambda message: None, 1)
        await first.ready
        await connections.publisher.declare(TELLS)
        late: list[Subscription] = []
        recorded = Recorded()
        connections.consuming.on_changed.append(
            lambda: late or late.append(connections.consume(Queue("late"), recorded, 1))
        )
        await self.broker.ctl("close_all_connections", "--vhost", self.vhost, "for the test")
        await late[0].ready
        await connections.publisher.publish("", "late", b"", {}, mandatory=True)
        await recorded.wait()


class Consuming(LinkCase):
    """A consumer is back, once, and knows what it has seen."""

    async def consumer(self, connections: Connections, receive: Any) -> Subscription:
        consumer = connections.consume(HEARS, receive, 10)
        await consumer.ready
        return consumer

    async def test_row_08_frozen_and_healed(self) -> None:
        """A link that was frozen, also for the attempts to come back, leaves one consumer and no zombie of it."""
        recorded = Recorded()
        consumer = await self.consumer(self.bare(HEARTBEAT=HEARTBEAT), recorded)
        back = Heard()
        consumer.on_ready.append(back)
        given_up = self.logged("no connection to the broker")
        self.proxy.freeze()
        await given_up.wait()
        await self.proxy.linked.wait(2)  # an attempt that hangs
        self.proxy.heal()
        began = reactor.seconds()
        await back.wait()
        self.in_time(began, BACK)
        self.assertEqual(await self.depth("hears"), (0, 1))
        await self.publish(self.past_the_proxy(), range(10))
        await recorded.wait(10)
        copies = await self.all_there(recorded, 10)
        self.assertEqual(set(copies.values()), {1})

    async def test_row_08_the_attempts_hang(self) -> None:
        """A peer that takes connections and says nothing is given up by the heartbeat, and the next attempt is made."""
        recorded = Recorded()
        consumer = await self.consumer(self.bare(HEARTBEAT=HEARTBEAT), recorded)
        back = Heard()
        consumer.on_ready.append(back)
        self.proxy.freeze()
        await self.proxy.linked.wait(2)
        began = reactor.seconds()
        await self.proxy.linked.wait(3)
        self.in_time(began, SILENCE + BACK)
        self.proxy.heal_after_cut()
        began = reactor.seconds()
        await back.wait()
        self.in_time(began, BACK)

    async def test_row_08_the_attempts_failed_too(self) -> None:
        """The same when the attempts made meanwhile ended in a reset."""
        recorded = Recorded()
        consumer = await self.consumer(self.bare(HEARTBEAT=HEARTBEAT), recorded)
        back = Heard()
        consumer.on_ready.append(back)
        given_up = self.logged("no connection to the broker")
        self.proxy.freeze()
        await given_up.wait()
        for attempt in (2, 3, 4):
            await self.proxy.linked.wait(attempt)
            self.proxy.cut(reset=True)
        self.proxy.heal()
        await back.wait()
        await self.publish(self.past_the_proxy(), range(10))
        await recorded.wait(10)
        self.assertEqual(await self.depth("hears"), (0, 1))

    async def test_row_08_the_broker_still_sees_a_zombie(self) -> None:
        """An exclusive queue, which the broker holds for a connection that is dead at our end alone, is had again when
        the broker gives that up; a shared queue is had at once."""
        got = Heard()

        class Listener:
            name = "listener"

            @event_handler("teller", "told", handler_type=BROADCAST, reliable_delivery=False)
            def told(self, value: str) -> None:
                got(value)

        (container,) = await self.start(Listener, HEARTBEAT=HEARTBEAT)
        shared = await self.consumer(self.bare(HEARTBEAT=HEARTBEAT), lambda message: None)
        back, shared_back = Heard(), Heard()
        container.entrypoints[0].consumer.on_ready.append(back)
        shared.on_ready.append(shared_back)
        given_up = self.logged("no connection to the broker")
        self.proxy.black_hole()
        await given_up.wait(2)
        self.proxy.another_cable()
        began = reactor.seconds()
        await shared_back.wait()
        self.in_time(began, BACK)
        await back.wait()
        self.in_time(began, BACK + SILENCE)
        await self.past_the_proxy().publisher.publish("teller.events", "told", b'"heard"', dict(JSON), mandatory=True)
        await got.wait()

    async def test_row_10_lost_while_a_worker_runs(self) -> None:
        """The event comes again, flagged; the first worker's late ack goes nowhere; the queue is empty afterwards."""
        begun, finish = Heard(), [Deferred[Any](), Deferred[Any]()]
        redelivered: list[Any] = []

        class Listener:
            name = "listener"

            @event_handler("teller", "told")
            async def told(self, value: str) -> None:
                begun(value)
                await finish[len(begun.things) - 1]

        (container,) = await self.start(Listener)
        (entrypoint,) = container.entrypoints
        receive = entrypoint.consumer.receive
        closed = self.logged("closed|traceback|unknown delivery tag")

        def noting(message: Any) -> None:
            redelivered.append(message.redelivered)
            receive(message)

        entrypoint.consumer.receive = noting
        back = Heard()
        entrypoint.consumer.on_ready.append(back)
        self.proxy.cut(reset=True)  # so that the one who notes is who consumes
        await back.wait(1)
        await self.past_the_proxy().publisher.publish("teller.events", "told", b'"once"', JSON, mandatory=True)
        await begun.wait(1)
        self.proxy.cut(reset=True)
        await begun.wait(2)
        finish[0].callback(None)  # too late
        finish[1].callback(None)
        self.assertEqual(redelivered, [False, True])
        await entrypoint.consumer.drain()
        await container.stop()
        self.assertEqual((await self.depth("evt-teller-told--listener.told"))[0], 0)
        self.assertEqual([line for line in closed.things if "no connection" not in line], [])


JSON = {"content_type": "application/json", "content_encoding": "utf-8"}


class Calling(LinkCase):
    """The caller's view."""

    async def test_row_11_lost_while_the_caller_waits(self) -> None:
        """A call survives the loss of the caller's connections and of the service's, at once."""
        begun, finish = Heard(), Deferred[Any]()

        class Slow:
            name = "slow"

            @rpc
            async def work(self, value: int) -> int:
                begun(value)
                await finish
                return value

        await self.start(Slow)
        cluster = await self.cluster()
        answer = cluster.slow.work(7)
        await begun.wait()
        self.proxy.cut(reset=True)
        await begun.wait(2)  # they are delivered again to the consumer that is back
        finish.callback(None)
        self.assertEqual(await answer, 7)

    async def test_row_11_replies_wait_for_the_caller(self) -> None:
        """A caller that is away when the reply is sent gets it when it is back."""
        begun, finish = Heard(), Deferred[Any]()

        class Slow:
            name = "slow"

            @rpc
            async def work(self, value: int) -> int:
                begun(value)
                await finish
                return value

        (container,) = await self.start(Slow, **self.direct)
        cluster = await self.cluster()
        answer = cluster.slow.work(7)
        await begun.wait()
        await client_of(cluster).connections.drain()  # else the request is sent again, and run again
        await self.proxy.shut()
        finish.callback(None)
        (consumer,) = next(each for each in container.subextensions if hasattr(each, "opened")).opened
        await consumer.drain()  # replied and acked
        self.assertNoResult(answer)
        await self.proxy.listen()
        self.assertEqual(await answer, 7)
        self.assertEqual(len(begun.things), 1)

    async def test_row_12_reply_queue_deleted_while_away(self) -> None:
        """Calls under way fail as soon as the loss of their queue is seen, and the next one is answered."""

        class Never:
            name = "never"

            @rpc
            async def work(self) -> None:
                begun()
                await over

        begun, over = Heard(), Deferred[Any]()
        await self.start(Never, Echo, **self.direct)
        self.addCleanup(lambda: over.callback(None) or succeed(None))
        cluster = await self.cluster()
        pending = [cluster.never.work() for _ in range(3)]
        await begun.wait(3)
        await self.proxy.shut()
        await self.delete_queue(client_of(cluster).replies.queue.name)
        await self.proxy.listen()
        began = reactor.seconds()
        for answer in pending:
            await self.assertFailure(answer, ReplyQueueExpiredWithPendingReplies)
        self.in_time(began, BACK)
        self.assertEqual(await cluster.echo.echo("again"), "again")

    async def test_row_12_reply_queue_deleted_under_us(self) -> None:
        """The same when it is deleted while we consume it."""

        class Never:
            name = "never"

            @rpc
            async def work(self) -> None:
                begun()
                await over

        begun, over = Heard(), Deferred[Any]()
        await self.start(Never, Echo, **self.direct)
        self.addCleanup(lambda: over.callback(None) or succeed(None))
        cluster = await self.cluster()
        pending = cluster.never.work()
        await begun.wait()
        await self.delete_queue(client_of(cluster).replies.queue.name)
        await self.assertFailure(pending, ReplyQueueExpiredWithPendingReplies)
        self.assertEqual(await cluster.echo.echo("again"), "again")
