"""Parked messages: looked at, replayed and discarded, and not one of them lost."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests import processes
from tests.rabbitmq import free_port
from tests.retry.test_retries import FAILED, HEARD, RetriesCase, failing
from tests.services import OnRabbitMQ, ServicesCase
from txservices import deadlines
from txservices.amqp.entities import Message, Queue
from txservices.broker.server import Broker
from txservices.exceptions import RemoteError
from txservices.retry import Retry, marks
from txservices.retry.parked import NoParkingQueue, Parked, Selection, Summary, Tally, messages_in
from txservices.testing.waiting import Heard

ALL = Selection()
ONCE = Retry(attempts=1)
QUEUE = Queue("work")
PARKING = "work.parked"


class ParkedCase(ServicesCase):
    """A parking queue of the test's own, and what is in it."""

    parking = Queue(PARKING)

    async def park(self, ids: Iterable[str], queue: str = "work", reason: str = "failed", **marked: Any) -> None:
        """Park messages that have failed in a queue, as a service does."""
        publisher = self.connections().publisher
        await publisher.declare(self.parking)
        for number, message_id in enumerate(ids):
            headers: dict[str, Any] = {
                "plain": 5,
                marks.REASON: reason,
                marks.LAST_FAILED: f"2026-01-02T03:04:{number:02}.000+00:00",
                marks.ATTEMPT: 3,
                marks.EXCHANGE: "orders",
                marks.ROUTING_KEY: "order.new",
                marks.QUEUE: queue,
                marks.BACK_EXCHANGE: "",
                marks.BACK_ROUTING_KEY: queue,
                **marked,
            }
            properties = {"message_id": message_id, "priority": 2, "headers": headers}
            await publisher.publish("", PARKING, message_id.encode(), properties, True)

    def operations(self) -> Parked:
        return Parked(self.connections(), self.config)

    async def summary(self, queue: str = PARKING) -> Summary:
        return await self.operations().summary(queue, Tally())

    async def left(self, queue: str = PARKING) -> list[str]:
        """The ids of the messages in a parking queue, in order."""
        ids: list[str] = []
        await self.operations().look(queue, ALL, lambda message: ids.append(message.properties["message_id"]), Tally())
        return ids

    async def replay(self, selection: Selection = ALL, queue: str = PARKING, **options: Any) -> Tally:
        tally = Tally()
        await self.operations().replay(queue, selection, tally, **options)
        return tally

    async def came(self, queue: str = "work") -> Heard:
        """The messages of a queue, which is declared, from now on."""
        heard = Heard()
        await self.connections().consume(Queue(queue), heard, 0).ready
        return heard


class LookTests(ParkedCase):
    """What is parked can be seen, and stays as it is."""

    async def test_summary(self) -> None:
        """A queue has its number, its time and its reasons, and there is an empty one."""
        await self.park("abc")
        await self.park("d", reason="rejected")
        summary = await self.summary()
        self.assertEqual((summary.count, summary.read, summary.since), (4, 4, "2026-01-02T03:04:00.000+00:00"))
        self.assertEqual(summary.reasons, {"failed": 3, "rejected": 1})
        await self.connections().publisher.declare(Queue("other.parked"))
        self.assertEqual(await self.summary("other.parked"), Summary("other.parked"))

    async def test_order(self) -> None:
        """Messages that were looked at are in their places afterwards, also with more than are asked for at once."""
        ids = [str(number) for number in range(120)]
        await self.park(ids)
        for _ in range(3):
            self.assertEqual(await self.left(), ids)

    async def test_selected(self) -> None:
        """Only the messages that are meant are seen."""
        await self.park("ab")
        await self.park("c", reason="rejected")
        for selection, expected in (
            (Selection(frozenset("bx")), "b"),
            (Selection(reasons=frozenset(["rejected"])), "c"),
            (Selection(frozenset("ab"), frozenset(["rejected"])), ""),
        ):
            seen: list[Message] = []
            tally = Tally()
            await self.operations().look(PARKING, selection, seen.append, tally)
            self.assertEqual(b"".join(message.body for message in seen).decode(), expected)
            self.assertEqual((tally.read, tally.selected), (3, len(expected)))

    async def test_no_queue(self) -> None:
        """A queue that is not there is named, and the next operation goes well."""
        operations = self.operations()
        error = await self.assertFailure(
            Deferred.fromCoroutine(operations.summary("none.parked", Tally())), NoParkingQueue
        )
        self.assertIn("no queue 'none.parked': nothing was parked from 'none'", str(error))
        await self.park("a")
        self.assertEqual((await operations.summary(PARKING, Tally())).count, 1)

    async def test_foreign(self) -> None:
        """A message that nobody has marked is parked for a reason that is not known."""
        await self.connections().publisher.declare(self.parking)
        await self.connections().publisher.publish("", PARKING, b"", {"headers": {marks.REASON: 5, "x-death": [7]}})
        self.assertEqual((await self.summary()).reasons, {"unknown": 1})


class ReplayTests(ParkedCase):
    """What is replayed is handled again where it failed, and leaves the parking queue."""

    async def test_properties(self) -> None:
        """A message keeps id, body, priority, its own headers and where it came from; its marks and deadline go."""
        came = await self.came()
        past = {deadlines.DEADLINE: 5.0, deadlines.TIME_LEFT: 1.0, "nameko.call_id_stack": ["a.b.1"]}
        await self.park("a", **past)
        self.assertEqual((await self.replay()).done, 1)
        (message,) = await came.wait()
        self.assertEqual((message.body, message.routing_key), (b"a", "work"))
        self.assertEqual((message.properties["message_id"], message.properties["priority"]), ("a", 2))
        self.assertEqual(
            message.headers,
            {
                "plain": 5,
                "nameko.call_id_stack": ["a.b.1"],
                marks.ATTEMPT: 1,
                marks.EXCHANGE: "orders",
                marks.ROUTING_KEY: "order.new",
            },
        )
        self.assertEqual(await self.left(), [])

    async def test_selected(self) -> None:
        """Only what is meant is replayed, in order; the others keep their places."""
        came = await self.came()
        await self.park("abc")
        await self.park("de", reason="rejected")
        tally = await self.replay(Selection(reasons=frozenset(["rejected"])))
        self.assertEqual((tally.there, tally.selected, tally.done), (5, 2, 2))
        await self.replay(Selection(frozenset("b")))
        self.assertEqual([message.body for message in await came.wait(3)], [b"d", b"e", b"b"])
        self.assertEqual(await self.left(), ["a", "c"])

    async def test_order(self) -> None:
        """All of many are replayed in their order."""
        came = await self.came()
        ids = [str(number) for number in range(250)]
        await self.park(ids)
        self.assertEqual((await self.replay()).done, 250)
        self.assertEqual([message.body.decode() for message in await came.wait(250)], ids)
        self.assertEqual(await self.left(), [])

    async def test_queue_is_gone(self) -> None:
        """A message whose queue is not there any more stays parked, and that is told; others are replayed."""
        came = await self.came()
        await self.park("ab", queue="gone")
        await self.park("c", **{marks.BACK_EXCHANGE: "no-exchange", marks.QUEUE: "other"})
        await self.park("d")
        tally = await self.replay()
        self.assertEqual((tally.selected, tally.done), (4, 1))
        line = "there is no queue {!r} any more: start the service that has it"
        self.assertEqual(tally.stayed, {line.format("gone"): 2, line.format("other"): 1})
        self.assertEqual([message.body for message in await came.wait()], [b"d"])
        self.assertEqual(await self.left(), ["a", "b", "c"])

    async def test_not_carried(self) -> None:
        """A message whose way back AMQP can't carry stays, and others are replayed."""
        came = await self.came()
        await self.park("a", **{marks.BACK_ROUTING_KEY: "k" * 256})
        await self.park("b")
        tally = await self.replay()
        self.assertEqual((tally.done, sum(tally.stayed.values())), (1, 1))
        self.assertEqual([message.body for message in await came.wait()], [b"b"])
        self.assertEqual(await self.left(), ["a"])

    async def test_from_nowhere(self) -> None:
        """A message that does not say where it came from stays."""
        await self.connections().publisher.declare(self.parking)
        await self.connections().publisher.publish("", PARKING, b"", {"message_id": "a"})
        tally = await self.replay()
        self.assertEqual(tally.stayed, {"nothing in it tells where it came from": 1})
        self.assertEqual(await self.left(), ["a"])

    async def test_dead_lettered(self) -> None:
        """What the broker has dead-lettered there goes back as well, and its handler sees where it was sent to."""
        arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": PARKING}
        publisher = self.connections().publisher
        await publisher.declare(self.parking, Queue("strict", arguments=arguments))
        rejected = Heard()
        consumer = self.connections().consume(Queue("strict", arguments=arguments), rejected, 0)
        await consumer.ready
        await publisher.publish("", "strict", b"1", {"message_id": "a"})
        (message,) = await rejected.wait()
        message.reject()
        while not (summary := await self.summary()).count:  # the broker's answer tells that it has taken the reject
            pass
        self.assertEqual(summary.reasons, {"rejected": 1})
        self.assertRegex(summary.since, r"^\d{4}-\d\d-\d\dT")
        self.assertEqual((await self.replay()).done, 1)
        _, message = await rejected.wait(2)
        marks.restore(message)
        self.assertEqual((message.properties["message_id"], message.routing_key), ("a", "strict"))

    async def test_rate(self) -> None:
        """A rate holds back what comes after the first; a cancel leaves it parked."""
        came = await self.came()
        await self.park("abc")
        operations, tally = self.operations(), Tally()
        replaying = Deferred.fromCoroutine(operations.replay(PARKING, ALL, tally, rate=0.001))
        await came.wait()
        operations.cancel()
        await replaying
        self.assertEqual((tally.there, tally.done), (3, 1))
        self.assertEqual(await self.left(), ["b", "c"])

    async def test_discard(self) -> None:
        """What is discarded is gone, and nothing else."""
        await self.park("abc")
        tally = Tally()
        await self.operations().discard(PARKING, Selection(frozenset("ac")), tally)
        self.assertEqual((tally.done, await self.left()), (2, ["b"]))


class WayBackTests(SynchronousTestCase):
    """Where a message goes that has no marks of ours."""

    def test_deaths(self) -> None:
        """The latest death counts that is no delay; a request goes by its own key, which names the method."""
        rpc = {"queue": "rpc-shop", "exchange": "nameko-rpc", "routing-keys": ["shop.sell"]}
        event = {"queue": "evt-a", "exchange": "a.events", "routing-keys": ["sold"]}
        delay = {"queue": "txservices.delay.1s.evt-a", "exchange": "", "routing-keys": ["x"]}
        other = {"queue": "copies", "exchange": "nameko-rpc", "routing-keys": ["shop.sell"]}
        for deaths, back in (
            ([rpc], marks.Back("rpc-shop", "nameko-rpc", "shop.sell", ("nameko-rpc", "shop.sell"))),
            ([delay, event, rpc], marks.Back("evt-a", "", "evt-a", ("a.events", "sold"))),
            ([other], marks.Back("copies", "", "copies", ("nameko-rpc", "shop.sell"))),
            ([{"queue": "q"}], marks.Back("q", "", "q", ("", "q"))),
            ([{"queue": "q", "exchange": 5, "routing-keys": []}], marks.Back("q", "", "q", ("", "q"))),
            ([{"queue": 5}], None),
            ([delay], None),
            ("text", None),
            (None, None),
        ):
            properties = {"headers": {"x-death": deaths}}
            message = Message(b"", properties, "", PARKING, False, 1, "", lambda *settled: None)
            self.assertEqual(marks.way_back(message, "nameko-rpc"), back, deaths)


class QuorumTests(ParkedCase):
    """A parking queue that is a quorum queue, whose broker drops what was delivered too often."""

    parking = Queue(PARKING, arguments={"x-queue-type": "quorum", "x-delivery-limit": 20})

    async def test_looked_at_often(self) -> None:
        """Messages that are looked at again and again stay there, with their ids and marks."""
        await self.park("ab")
        for _ in range(25):
            await self.back(2)
            self.assertEqual(sorted(await self.left()), ["a", "b"])
        await self.back(2)
        self.assertEqual((await self.summary()).reasons, {"failed": 2})

    async def back(self, count: int) -> None:
        """Wait until so many messages can be had: a quorum queue gives them back after the channel is closed."""
        protocol = await self.connections().consuming.when_connected()
        channel = await protocol.open_channel()
        while await messages_in(channel, PARKING) < count:  # asks the broker
            pass
        await protocol.close_channel(channel)


class ServiceTests(ParkedCase, RetriesCase):
    """Services whose messages failed, and are replayed."""

    async def test_all_kinds(self) -> None:
        """An event, a request and a message are handled again by the method that failed, as if for the first time."""
        heard = Heard()
        await self.start(failing(heard, *[FAILED] * 3, None, retry=ONCE))
        publisher = self.connections().publisher
        headers = {"nameko.language": "en"}
        await publisher.publish("source.events", "type", b"1", {"content_type": "application/json", "headers": headers})
        await publisher.publish("", "work", b"2", {"content_type": "application/json"})
        cluster = await self.cluster({"language": "en"})
        await self.assertFailure(cluster.listener.call(3), RemoteError)
        for queue in (HEARD, "work", "rpc-listener"):
            parking = f"{queue}.parked"
            await publisher.declare(Queue(parking))
            while not (await self.summary(parking)).count:  # asks the broker
                pass
            self.assertEqual((await self.replay(queue=parking)).done, 1)
        again = (await heard.wait(6))[3:]
        self.assertEqual({data: context.attempt for data, context in again}, {1: 1, 2: 1, 3: 1})
        keys = {context.message.routing_key for _, context in again}
        self.assertEqual(keys, {"type", "work", "listener.call"})
        self.assertEqual(sorted(dict(context.data).get("language", "") for _, context in again), ["", "en", "en"])

    async def test_fails_again(self) -> None:
        """A message that fails again at once is parked again, and a replay ends nevertheless."""
        heard = Heard()
        await self.start(failing(heard, FAILED, retry=ONCE))
        await self.park("abcde")
        self.assertEqual((await self.replay()).done, 5)
        await heard.wait(5)
        self.assertEqual({context.attempt for _, context in heard.things}, {1})


class KillTests(ParkedCase):
    """The process that replays is killed in the middle."""

    COUNT = 400

    async def uri(self) -> str:
        """A broker that other processes reach, too."""
        broker = Broker("shared")
        port = free_port()
        await broker.listen("127.0.0.1", port)
        self.addCleanup(broker.close)
        return f"amqp://guest:guest@127.0.0.1:{port}/"

    async def test_killed(self) -> None:
        """Not one message is lost, and those that come twice have the same id."""
        uri = self.config["AMQP_URI"] = await self.uri()
        ids = [str(number) for number in range(self.COUNT)]
        await self.park(ids)
        came = await self.came()
        replay = ("parked", "replay", "work", "--all", "--broker", uri)
        killed = processes.txservices(self, *replay, "--rate", "1000")
        await came.wait(self.COUNT // 4)
        await killed.end("KILL")
        left = await self.left()
        self.assertTrue(0 < len(left) < self.COUNT, len(left))
        again = processes.txservices(self, *replay)
        self.assertEqual(await again.exit(), 0, str(again))
        self.assertEqual(await self.left(), [])
        self.assertEqual({message.properties["message_id"] for message in came.things}, set(ids))
        self.assertEqual({message.body.decode() for message in came.things}, set(ids))


class LookOnRabbitMQ(OnRabbitMQ, LookTests):
    """The same on a RabbitMQ."""


class ReplayOnRabbitMQ(OnRabbitMQ, ReplayTests):
    """The same on a RabbitMQ."""


class QuorumOnRabbitMQ(OnRabbitMQ, QuorumTests):
    """The same on a RabbitMQ."""


class ServicesOnRabbitMQ(OnRabbitMQ, ServiceTests):
    """The same on a RabbitMQ."""


class KillOnRabbitMQ(OnRabbitMQ, KillTests):
    """The same on a RabbitMQ."""

    async def uri(self) -> str:
        return str(self.config["AMQP_URI"])
