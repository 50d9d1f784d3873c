"""Delays: how they are rounded, the queues that hold messages for so long, and when these are declared."""

from __future__ import annotations

import random
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.services import OnRabbitMQ, ServicesCase
from txservices.amqp import fresh, ondemand
from txservices.amqp.connections import Connections
from txservices.amqp.delays import DECLARED_AGAIN, DELAY_MAX, NAME_MAX, UNUSED, name_of, step_of
from txservices.amqp.entities import Message, Queue
from txservices.amqp.ondemand import DELAY_QUEUES_MAX, OnDemand, delay_queue
from txservices.broker.memory import brokers
from txservices.broker.server import Broker
from txservices.exceptions import DeclarationMismatch, PublishTimeout
from txservices.testing.waiting import Heard

TTL_MAX = 2**32 - 1  # milliseconds, RabbitMQ's


class StepTests(SynchronousTestCase):
    """Delays are rounded, so that there are few queues."""

    def test_near(self) -> None:
        """A delay of 10 ms or more is off by 5 % at most, and by half a millisecond below that."""
        chance = random.Random(1)
        for _ in range(20_000):
            seconds = 10 ** chance.uniform(-2, 6.6)
            self.assertLessEqual(abs(step_of(seconds) / 1000 - seconds), seconds * 0.05, seconds)
            seconds = chance.uniform(0.001, 0.01)
            self.assertLessEqual(abs(step_of(seconds) / 1000 - seconds), 0.00051, seconds)

    def test_few(self) -> None:
        """There are 35 steps in each power of ten."""
        steps = {step_of(1 + number / 10_000) for number in range(90_000)}
        self.assertEqual(len(steps), 36)  # both ends

    def test_as_asked(self) -> None:
        """Delays that people write are kept as they are."""
        for seconds in (0.1, 0.5, 1, 1.5, 2, 3, 4, 5, 8, 10, 15, 16, 20, 30, 45 - 1, 60, 90, 120, 300, 600, 1800, 3600):
            self.assertEqual(step_of(seconds), seconds * 1000)
        self.assertEqual([step_of(0), step_of(DELAY_MAX)], [1, DELAY_MAX * 1000])
        self.assertEqual([step_of(0.005499), step_of(0.005501)], [5, 6])

    def test_names(self) -> None:
        """A queue's name says how long and where to. One that is too long ends with a hash."""
        self.assertEqual(name_of("", "orders", 1500), "txservices.delay.1.5s.orders")
        self.assertEqual(name_of("x", "orders", 3_600_000), "txservices.delay.3600s.x.orders")
        for longer in (0, 1):
            name = name_of("", "x" * (NAME_MAX - len("txservices.delay.1s.") + longer), 1000)
            self.assertEqual((len(name), name.endswith("x")), (NAME_MAX, not longer))
        self.assertRegex(name, "x-[0-9a-f]{32}$")
        long = {name_of("x", "ü" * 120 + end, 1000) for end in "ab"}
        self.assertEqual(len(long), 2)
        self.assertTrue(all(len(name.encode()) <= NAME_MAX and name.startswith("txservices.delay.") for name in long))

    def test_destinations_without_end(self) -> None:
        """However many destinations there are, so many of their queues are known, and each is the right one."""
        self.addCleanup(delay_queue.cache_clear)
        queues = [delay_queue("", f"{number}", 1000) for number in range(DELAY_QUEUES_MAX + 50)]
        self.assertEqual(delay_queue.cache_info().currsize, DELAY_QUEUES_MAX)
        self.assertIsNot(delay_queue("", "0", 1000), queues[0])  # it was forgotten
        self.assertEqual(delay_queue("", "0", 1000), queues[0])
        self.assertEqual(
            [queue.name for queue in queues[-2:]], [name_of("", f"{DELAY_QUEUES_MAX + n}", 1000) for n in (48, 49)]
        )

    def test_queue(self) -> None:
        """The queue outlives each message in it, and its times are ones that RabbitMQ takes."""
        arguments = delay_queue("x", "key", step_of(DELAY_MAX)).arguments
        self.assertEqual(arguments["x-message-ttl"], DELAY_MAX * 1000)
        self.assertGreaterEqual(arguments["x-expires"], arguments["x-message-ttl"] + DECLARED_AGAIN * 1000)
        self.assertLessEqual(arguments["x-expires"], TTL_MAX)
        self.assertEqual(arguments["x-expires"], arguments["x-message-ttl"] + (DECLARED_AGAIN + UNUSED) * 1000)


class DelayTests(ServicesCase):
    """Messages that come later."""

    async def opened(self) -> tuple[Connections, Heard]:
        connections = self.connections()
        heard = Heard()
        await connections.consume(Queue("late"), heard, 0).ready
        return connections, heard

    def later(self, on_demand: OnDemand, seconds: float, body: bytes = b"", **properties: Any) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        tell = lambda error: done.errback(error) if error else done.callback(None)  # noqa: E731
        on_demand.publish_later("", "late", body, properties, seconds, tell)
        return done

    async def test_in_order_of_time(self) -> None:
        """A long delay holds up no short one, and each message comes when it should, within 10 % and 0.2 s.

        A machine that is held up is given another chance, with longer delays: no delay is off each time.
        """
        connections = self.connections()
        clock, heard = connections.clock, Heard()
        await connections.consume(Queue("late"), lambda message: heard((message, clock.seconds())), 0).ready
        for longer in (1, 2, 4, 8):
            heard.things.clear()
            delays = {b"long": 0.5 * longer, b"short": 0.05 * longer, b"middle": 0.2 * longer}
            sent, confirmed = {}, []
            for body, seconds in delays.items():
                sent[body] = clock.seconds()
                confirmed.append(self.later(connections.on_demand, seconds, body))
            await heard.wait(3)
            await gatherResults(confirmed)
            order = [message.body for message, _ in heard.things]
            late = {each.body: came - sent[each.body] - delays[each.body] for each, came in heard.things}
            for body, wanted in delays.items():
                self.assertGreaterEqual(late[body], -0.1 * wanted, body)
            in_time = all(late[body] <= 0.1 * wanted + 0.2 for body, wanted in delays.items())
            if in_time and order == [b"short", b"middle", b"long"]:
                break
        else:
            self.fail(f"{order} came so late: {late}")

    async def test_lost_queue(self) -> None:
        """If the broker has lost a delay queue, it is declared again, and no message is lost."""
        connections, heard = await self.opened()
        await self.later(connections.on_demand, 0.05, b"1")
        channel = await connections.publisher.connection.protocol.open_channel()
        await channel.queue_delete(queue=name_of("", "late", 50))
        await self.later(connections.on_demand, 0.05, b"2")
        await heard.wait(1)
        self.assertIn(b"2", [message.body for message in heard.things])

    async def test_other_arguments(self) -> None:
        """A queue of that name which is declared otherwise is told to whoever publishes."""
        connections, _ = await self.opened()
        await connections.publisher.declare(Queue(name_of("", "late", 50)))
        await self.assertFailure(self.later(connections.on_demand, 0.05), DeclarationMismatch)

    async def test_refused(self) -> None:
        """A delay that can't be, and a message that AMQP can't carry, are refused, and nothing is kept of them."""
        connections, _ = await self.opened()
        on_demand = connections.on_demand
        for seconds in (-1, float("nan"), float("inf"), DELAY_MAX + 1):
            with self.assertRaises(ValueError):
                on_demand.publish_later("", "late", b"", {}, seconds, lambda error: None)
        for headers in ({"a": object()}, {"a": "x" * 200_000}):
            with self.assertRaises(ValueError):
                on_demand.publish_later("", "late", b"", {"headers": headers}, 0.05, lambda error: None)
        self.assertEqual((on_demand.fresh, connections.publisher.unconfirmed), ({}, {}))


class DelaysOnRabbitMQ(OnRabbitMQ, DelayTests):
    """The same on a RabbitMQ."""

    async def test_stuck_queue(self) -> None:
        """A delay queue that takes no messages, as after a crash while it was made, is replaced by another one."""
        self.patch(fresh, "STUCK_AFTER", 1.0)
        self.patch(ondemand, "LASTS_AFTER", 0)
        connections, heard = await self.opened()
        await self.later(connections.on_demand, 0.05, b"1")
        await heard.wait(1)
        member = f'whereis(binary_to_atom(<<"{self.vhost_name}_{name_of("", "late", 50)}">>))'
        self.addCleanup(self.node.evaluate, f"sys:resume({member}).")
        self.node.evaluate(f"sys:suspend({member}).")
        told = self.logged("takes no messages: .* txservices.delay.0.05s.late.2 is used instead")
        other = self.connections()
        waiting = [self.later(other.on_demand, 0.05, body) for body in (b"2", b"3")]
        await gatherResults(waiting)
        await self.later(other.on_demand, 0.05, b"4")
        await heard.wait(4)
        self.assertEqual({message.body for message in heard.things}, {b"1", b"2", b"3", b"4"})
        self.assertEqual(len(told.things), 1)


class VirtualTime(SynchronousTestCase):
    """Delays on the embedded broker, from milliseconds to days."""

    def test_right(self) -> None:
        """Each message comes within 5 % and 0.2 s of its delay, whatever others wait for."""
        clock = Clock()
        brokers["delays"] = Broker("delays", clock=clock)
        self.addCleanup(brokers.pop, "delays")
        connections = Connections.from_config({"AMQP_URI": "memory://delays", "HEARTBEAT": 0}, clock)
        connections.startService()
        came: dict[bytes, float] = {}

        def receive(message: Message) -> None:
            came[message.body] = clock.seconds()
            message.ack()

        connections.consume(Queue("late"), receive, 0)
        clock.pump([0] * 50)
        delays = [86_400, 3_600, 301, 60, 7.3, 1, 0.5, 0.2, 0.05]
        sent = clock.seconds()
        for each in delays:
            connections.on_demand.publish_later("", "late", str(each).encode(), {}, each, self.assertIsNone)
        for until in reversed(delays):
            while clock.seconds() < sent + until * 1.06 + 0.25:
                clock.advance(max(0.02, until / 200))
                clock.pump([0] * 10)
        off = {each: came[str(each).encode()] - sent - each for each in delays}
        for each, seconds in off.items():
            self.assertTrue(-0.05 * each <= seconds <= 0.05 * each + 0.2, off)
        stopping = connections.stopService()
        clock.pump([0.1] * 30)
        self.successResultOf(stopping)


class WithoutBroker(SynchronousTestCase):
    """Messages that are published while there is no broker."""

    def test_deadline(self) -> None:
        """A message whose queue can't be declared in time fails then, and so do those that wait with it."""
        clock = Clock()
        connections = Connections.from_config({"AMQP_URI": "amqp://127.0.0.1:1"}, clock)
        outcomes: list[Exception | None] = []
        for _ in range(2):
            connections.on_demand.publish_then(Queue("q"), b"", {}, outcomes.append, 3)
        clock.advance(2.9)
        self.assertEqual(outcomes, [])
        clock.advance(0.2)
        self.assertEqual([type(each) for each in outcomes], [PublishTimeout] * 2)
        self.assertEqual(connections.publisher.unconfirmed, {})
