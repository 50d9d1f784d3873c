"""Clients and the embedded broker in memory, on a clock of their own, with faults drawn from a seed.

    python -m twisted.trial tests.faults.test_seeds                  # some seeds; FAULTS_FULL=1 for 3,000
    FAULTS_SEED=1234 python -m twisted.trial tests.faults.test_seeds # that one

For ten seconds of virtual time connections are cut after a number of bytes, aborted, or swallow what is said on them;
channels are closed by errors, connections by an administrator. Then all is healthy, and all must come to a good end:
each call has one answer, what was confirmed was handled, nothing raised, and nothing is left on the clock.
"""

from __future__ import annotations

import os
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from tests.faults.scene import FULL
from tests.services import numbers
from txservices.amqp import connection as connection_module
from txservices.amqp.endpoints import endpoint_for
from txservices.broker.broker import Broker
from txservices.broker.memory import brokers
from txservices.containers import ServiceContainer
from txservices.events import event_handler
from txservices.rpc import rpc
from txservices.standalone.rpc import ClusterRpcProxy

SEEDS = 3000 if FULL else 60
CHAOS = 10.0  # seconds of virtual time
STEP = 0.01
CALLS = 20
HEARTBEAT = 2


class Fate:
    """What becomes of one connection."""

    def __init__(self, world: World, protocol: Any) -> None:
        self.world = world
        self.protocol = protocol
        random = world.random
        self.left = {way: random.choice([None, random.randint(0, 3000)]) for way in ("up", "down")}
        self.hole = {way: random.random() < 0.1 for way in ("up", "down")}
        self.receive, protocol.dataReceived = protocol.dataReceived, self.down
        self.make, protocol.makeConnection = protocol.makeConnection, self.connect

    def connect(self, transport: Any) -> None:
        self.transport = transport
        self.write, transport.write = transport.write, self.up
        self.world.transports.append(transport)
        self.make(transport)

    def up(self, data: bytes) -> None:
        self.write(self.passing("up", data))

    def down(self, data: bytes) -> None:
        data = self.passing("down", data)
        if data:
            self.receive(data)

    def passing(self, way: str, data: bytes) -> bytes:
        """What of it gets through; may end the connection."""
        left = self.left[way]
        if self.world.healthy:
            return b"" if self.hole[way] else data  # a hole stays one, until the heartbeat finds it
        if left is not None:
            if len(data) >= left:
                data = data[:left]
                self.world.clock.callLater(0, self.transport.abortConnection)
            self.left[way] = left - len(data)
        return b"" if self.hole[way] else data


class World:
    """One seed's: a broker, a service, its caller, and what befalls them."""

    def __init__(self, test: TestCase, seed: int) -> None:
        self.test = test
        self.random = Random(seed)
        self.clock = Clock()
        self.name = f"seed-{next(numbers)}"
        self.broker = brokers[self.name] = Broker(self.name, clock=self.clock)
        self.healthy = True
        self.transports: list[Any] = []
        self.ran: list[int] = []
        self.heard: list[int] = []

    def endpoint(self, address: Any, tls: Any, clock: Any) -> Any:
        inner = endpoint_for(address, tls, clock)
        world = self

        class Fated:
            def connect(self, factory: Any) -> Deferred[Any]:
                build = factory.buildProtocol

                def building(address: Any) -> Any:
                    protocol = build(address)
                    if not world.healthy:
                        Fate(world, protocol)
                    return protocol

                factory.buildProtocol = building
                return inner.connect(factory)

        return Fated()

    def run_until(self, done: Any, what: str, seconds: float = 60) -> None:
        end = self.clock.seconds() + seconds
        while not done():
            if self.clock.seconds() > end:
                raise AssertionError(f"{what}: not within {seconds} s")
            self.clock.advance(STEP)

    def live(self) -> None:
        """From the first connection to the last."""
        world = self

        class Service:
            name = "service"

            @rpc
            def work(self, number: int) -> int:
                world.ran.append(number)
                return number

            @event_handler("source", "told")
            def told(self, number: int) -> None:
                world.heard.append(number)

        config = {"AMQP_URI": f"memory://{self.name}", "HEARTBEAT": HEARTBEAT, "RPC_TIMEOUT": 50, "PUBLISH_TIMEOUT": 50}
        container = ServiceContainer(Service, config, clock=self.clock)
        proxy = ClusterRpcProxy(config, clock=self.clock)
        started = container.start()
        opened = proxy.start()
        self.run_until(lambda: started.called and opened.called, "the start")
        cluster = self.test.successResultOf(opened)
        answers: list[Deferred[int]] = []
        told: list[Deferred[None]] = []
        self.healthy = False
        self.befall()
        moments = sorted(self.random.uniform(0, CHAOS) for _ in range(CALLS))
        for number, moment in enumerate(moments):
            while self.clock.seconds() < moment:
                self.clock.advance(STEP)
                if self.random.random() < 0.01:
                    self.befall()
            answers.append(cluster.service.work(number))
            told.append(proxy.connections.publish("source.events", "told", b"%d" % number, dict(JSON), timeout=50))
        self.healthy = True
        self.run_until(lambda: all(each.called for each in (*answers, *told)), "the answers")
        self.run_until(lambda: len(set(self.heard)) == CALLS, "the events")
        for number, answer in enumerate(answers):
            self.test.assertEqual(self.test.successResultOf(answer), number)
            self.test.successResultOf(told[number])
        self.test.assertEqual(set(self.ran), set(range(CALLS)))
        ended = [container.stop(), proxy.stop()]
        self.run_until(lambda: all(each.called for each in ended), "the stop")
        stopped = self.broker.stop()
        self.run_until(lambda: stopped.called, "the broker's stop")
        self.test.assertEqual(self.clock.getDelayedCalls(), [])

    def befall(self) -> None:
        """Something happens to somebody."""
        random = self.random
        sessions = list(self.broker.sessions)
        if not sessions:
            return
        session = random.choice(sessions)
        fault = random.randrange(4)
        if fault == 0:
            session.transport.abortConnection()
        elif fault == 1:
            for each in sessions:
                each.transport.abortConnection()
        elif fault == 2:
            session.shut_down()
        else:
            session.transport.loseConnection()


JSON = {"content_type": "application/json", "content_encoding": "utf-8", "delivery_mode": 2}


class Seeds(TestCase):
    """Each seed is a world."""

    timeout = 300

    def test_row_05_all_faults_by_seed(self) -> None:
        """Whatever the seed brings, all comes to a good end."""
        given = os.environ.get("FAULTS_SEED")
        for seed in [int(given)] if given else range(SEEDS):
            self.live(seed)

    def live(self, seed: int) -> None:
        world = World(self, seed)
        self.patch(connection_module, "uniform", world.random.uniform)
        self.patch(connection_module, "endpoint_for", world.endpoint)
        try:
            world.live()
        except BaseException as error:
            raise AssertionError(f"FAULTS_SEED={seed}: {error}") from error
        finally:
            brokers.pop(world.name, None)
        errors = self.flushLoggedErrors()
        self.assertEqual(errors, [], f"FAULTS_SEED={seed}")
