"""More calls than a service can take: it works for callers who still wait."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase

from txservices.amqp.entities import Message
from txservices.containers import ServiceContainer
from txservices.rpc import rpc

WORKERS = 10
TAKES = 2.0  # seconds


class Overload(SynchronousTestCase):
    """In virtual time; requests come as from a broker, without one."""

    def setUp(self) -> None:
        clock = self.clock = Clock()
        self.begun: list[float] = []

        class Service:
            name = "service"

            @rpc
            def method(service, number: int) -> Any:
                self.begun.append(clock.seconds())
                return deferLater(clock, TAKES, lambda: number)

        config = {"max_workers": WORKERS, "AMQP_URI": "memory://nobody"}
        container = ServiceContainer(Service, config, clock=clock)
        (entrypoint,) = container.entrypoints
        self.consumer = entrypoint.rpc_consumer
        for extension in (self.consumer.queue_consumer, self.consumer, entrypoint):
            extension.setup()
        entrypoint.handle_result = self.handle_result
        self.answered: dict[int, float] = {}
        self.acked = 0

    def request(self, number: int, expiration: str | None) -> None:
        properties = {"content_type": "application/json"}
        if expiration is not None:
            properties["expiration"] = expiration
        body = json.dumps({"args": [number], "kwargs": {}}).encode()
        self.consumer.receive(Message(body, properties, "", "service.method", False, number, "", self.settle))

    def handle_result(self, message: Message, worker_ctx: Any, result: Any, exc_info: Any) -> Any:
        self.answered[result] = self.clock.seconds()
        return result, exc_info

    def settle(self, message: Message, ack: bool, requeue: bool) -> None:
        self.acked += ack

    def flood(self, rate: float, seconds: int, expiration: str | None, deadline: float) -> int:
        """How many of so many calls a second are answered in time."""
        sent: dict[int, float] = {}
        for number in range(int(rate * seconds)):
            sent[number] = self.clock.seconds()
            self.request(number, expiration)
            self.clock.advance(1 / rate)
        self.clock.pump([TAKES / 4] * 100)
        return sum(at - sent[number] <= deadline + 1e-6 for number, at in self.answered.items())

    def test_twice_the_capacity(self) -> None:
        """Nine tenths of the capacity or more are answered in time, and no method runs for a caller who has gone."""
        in_time = self.flood(2 * WORKERS / TAKES, 60, "6000", 6)
        self.assertGreaterEqual(in_time, 0.9 * WORKERS / TAKES * 60)
        self.assertGreaterEqual(in_time, 0.95 * len(self.begun))
        self.assertEqual(self.acked + len(self.answered), 600)

    def test_within_the_capacity(self) -> None:
        """Every call is answered."""
        self.assertEqual(self.flood(WORKERS / TAKES, 60, "6000", 6), 300)
        self.assertEqual(self.acked, 0)

    def test_without_deadline(self) -> None:
        """Calls without a deadline, or with a text that is none, all run, however late."""
        for expiration in (None, "", "soon"):
            self.answered.clear()
            self.flood(2 * WORKERS / TAKES, 20, expiration, 6)
            self.assertEqual((len(self.answered), self.acked), (200, 0))
