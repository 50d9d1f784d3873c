"""Nothing is lost of what fails: handlers that fail at random, and a broker that is killed. Numbers are the faults'."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from twisted.internet.defer import Deferred

from tests import rabbitmq
from tests.faults import load as load_module
from tests.faults.checker import CALL, EVENT
from tests.faults.load import INTERVAL, Load, LoadCase
from tests.faults.scene import FULL, until
from txservices.amqp import fresh
from txservices.amqp.connections import Connections
from txservices.amqp.delays import DELAY_QUEUE
from txservices.amqp.entities import Message, Queue
from txservices.events import event_handler
from txservices.retry import Retry
from txservices.retry.failures import PARKED, parking_queue
from txservices.rpc import rpc

BROKER_DEATHS = 5 if FULL else 1
DEADLINE = 240  # seconds for what waits for the broker
SEED = 12  # of the failures and of the moments
FAILS = 0.3  # of all attempts
RATE = 200 if FULL else 40  # events a second, and as many calls
STUCK = fresh.STUCK_AFTER if FULL else 2.0  # seconds after which a queue is taken for one that takes no messages
POLICY = Retry(attempts=3, delay=0.2)  # of 1,000 messages 27 fail so often
QUEUES = {EVENT: "evt-source-told--worker.told", CALL: "rpc-worker"}


class Failed(Exception):
    """What the handlers raise."""


class Retried(LoadCase):
    """Each attempt fails with the same probability, and is made again by the broker."""

    timeout = 800 if FULL else 300

    def node(self) -> rabbitmq.Node:
        return rabbitmq.mortal()

    async def setUp(self) -> None:
        self.patch(load_module, "DEADLINE", DEADLINE)
        self.patch(fresh, "STUCK_AFTER", STUCK)
        await super().setUp()
        self.config["PUBLISH_TIMEOUT"] = DEADLINE
        self.attempts: Counter[tuple[str, int, int]] = Counter()  # by kind, message and number of the attempt
        self.parked: Counter[tuple[str, int]] = Counter()
        self.ids: dict[tuple[str, int], set[str]] = {}  # that each message has come with
        self.chance = random.Random(SEED)
        self.after = 0.3  # seconds, which some of the failures ask for

    def tearDown(self) -> None:
        super().tearDown()
        self.flushLoggedErrors(Failed)

    def attempt(self, kind: str, number: int) -> int:
        if self.chance.random() < FAILS:
            raise Retry(after=self.after) if self.chance.random() < 0.5 else Failed(number)
        self.checker.note(kind, "handled", number)
        return number

    def seen(self, kind: str, message: Message) -> int:
        """Book the id of a delivery or of a parked message, and give its number."""
        number = int(message.body if kind == EVENT else message.body.partition(b"[")[2].partition(b"]")[0])
        self.ids.setdefault((kind, number), set()).add(message.properties["message_id"])
        return number

    def watch(self) -> Any:
        """Book the deliveries to what begins to consume before ``restore``."""
        kinds = {queue: kind for kind, queue in QUEUES.items()}
        consume = Connections.consume

        def watching(connections: Connections, queue: Queue, receive: Any, *rest: Any) -> Any:
            def received(message: Message) -> None:
                kind = kinds[queue.name]
                attempt = message.headers.get("txservices-attempt", 1)
                self.attempts[kind, self.seen(kind, message), attempt] += 1
                receive(message)

            return consume(connections, queue, received, *rest)

        return self.patch(Connections, "consume", watching)

    async def take_parked(self) -> None:
        """Book what is parked, and ack it."""
        connections = self.past_the_proxy()
        for kind, queue in QUEUES.items():

            def parked(message: Message, kind: str = kind) -> None:
                number = self.seen(kind, message)
                self.parked[kind, number] += 1
                self.checker.note(kind, "parked", number)
                message.ack()

            await connections.consume(parking_queue(queue), parked, 100).ready

    async def dies_with_a_new_queue(self, begins: str) -> None:
        """Kill the broker at its first confirm of a message for a delay queue whose name begins so."""
        answered = fresh.Fresh.answered
        killed: Deferred[None] = Deferred()

        def watching(each: fresh.Fresh, *arguments: Any) -> None:
            answered(each, *arguments)
            if each.confirmed and each.queue.name.startswith(begins) and not killed.called:
                self.broker.kill()
                killed.callback(None)

        patched = self.patch(fresh.Fresh, "answered", watching)
        await killed
        patched.restore()

    async def finish(self, load: Load) -> None:
        load.beat.stop()
        await self.checker.ended()
        await until(lambda: not self.checker.missing("attempted"), 60)

    async def test_row_23_load_fails_at_random_and_the_broker_is_killed(self) -> None:
        """Each event and each call is handled, or parked after the last attempt; copies of one message have one id."""
        test = self

        class Worker:
            name = "worker"

            @rpc(retry=POLICY)
            def work(self, number: int) -> int:
                return test.attempt(CALL, number)

            @event_handler("source", "told", retry=POLICY)
            def told(self, number: int) -> None:
                test.attempt(EVENT, number)

        watching = self.watch()
        await self.start(Worker, prefetch_count=100)
        watching.restore()
        await self.take_parked()
        moments = random.Random(SEED)
        load = await self.load(RATE)
        lost = self.logged("is used instead")
        for death in range(BROKER_DEATHS):
            await load.passed(moments.randint(RATE // 4, 3 * RATE) if FULL else RATE)
            self.after = 0.5 + death / 10  # so there is a new delay queue, and the broker dies at its first message
            await self.dies_with_a_new_queue(f"{DELAY_QUEUE}{self.after:g}s.")
            restarted = self.broker.restart()
            await load.passed(RATE)
            load.beat.stop()  # so that a slow machine has no more messages
            await restarted
            load.beat.start(INTERVAL)
        await load.passed(RATE)
        await self.finish(load)
        report = self.checker.check()
        again = sum(self.attempts.values()) - len(self.attempts) + sum(self.parked.values()) - len(self.parked)
        made = Counter(attempt for _, _, attempt in self.attempts)
        print(f"\n{self.id()}: {report} {dict(self.checker.errors)}")
        print(f"  attempts {dict(sorted(made.items()))}, parked {len(self.parked)}; {again} of all delivered again;")
        print(f"  delay queues that were lost: {len(lost.things)}")
        self.assertEqual(load.wrong, [])
        self.assertEqual(report.attempted, report.handled + report.parked)
        self.assertLessEqual(set(self.checker.errors), {"RemoteError"})
        self.assertEqual(self.checker.missing("failed"), [])
        self.assertEqual([ids for ids in self.ids.values() if len(ids) != 1], [])
        self.assertEqual(len(self.ids), report.attempted)
        self.assertEqual(set(made), {1, 2, 3})
        self.assertLessEqual(report.duplicated, again)
        for name in (*QUEUES.values(), *(queue + PARKED for queue in QUEUES.values())):
            self.assertEqual((await self.depth(name))[0], 0, name)
