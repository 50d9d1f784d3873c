"""Clients and the embedded broker in memory, on a clock of their own, with faults drawn from a seed.

    python -m twisted.trial tests.faults.test_seeds                  # some seeds; FAULTS_FULL=1 for 3,000
    FAULTS_SEED=1234 python -m twisted.trial tests.faults.test_seeds # that one

For a while connections deliver late, so that what happens on several of them comes in another order; they are cut after
a number of bytes, aborted by either side, or swallow what is said on them; connections are closed by an administrator,
and the service is killed and another instance started. Then all is healthy, and all must come to a good end: each call
has one answer, what was confirmed was handled, nothing raised, and nothing is left on the clock.

Time jumps from one delayed call to the next, so a seed costs what is said in it, 15 to 25 ms, and no more.
"""

from __future__ import annotations

import os
import time
from bisect import insort
from collections import deque
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from twisted.internet.base import DelayedCall
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from tests.faults.scene import FULL
from tests.services import numbers
from txservices.amqp import connection as connection_module
from txservices.amqp.endpoints import endpoint_for
from txservices.broker.memory import brokers
from txservices.broker.server import Broker
from txservices.containers import ServiceContainer
from txservices.events import event_handler
from txservices.rpc import rpc
from txservices.standalone.rpc import ClusterRpcProxy

SEEDS = 3000 if FULL else 200
CHAOS = 2.0  # seconds of virtual time
FAULTS = 2.0  # a second, on average
LATE = 0.05  # seconds at most that bytes are under way
CALLS = 5
HEARTBEAT = 2
TURNS = 20_000  # of the reactor, at one moment


class Jumping(Clock):
    """A clock whose calls stay sorted, and which can go to the next one: Twisted's sorts all of them each time."""

    turns = 0  # since time has passed

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kw: object) -> DelayedCall:
        call = DelayedCall(
            self.rightNow + delay,
            callable,
            args,
            kw,
            self.calls.remove,
            lambda call: self.calls.sort(key=due),
            self.seconds,
        )
        insort(self.calls, call, key=due)
        return call

    def jump(self, end: float) -> None:
        """To the next call, and run it; or to the end, if that is earlier."""
        if self.calls and due(self.calls[0]) <= end:
            call = self.calls.pop(0)
            self.turns = self.turns + 1 if due(call) <= self.rightNow else 0
            if self.turns > TURNS:
                raise AssertionError(f"{TURNS} turns of the reactor, and no time has passed: something goes in circles")
            self.rightNow = max(self.rightNow, due(call))
            call.called = 1
            call.func(*call.args, **call.kw)
        else:
            self.rightNow = end


due = DelayedCall.getTime


class Fate:
    """The fate of one connection: when its bytes arrive, and how it ends."""

    def __init__(self, world: World, protocol: Any) -> None:
        self.world = world
        self.protocol = protocol
        random = world.random
        self.left = {way: random.choice([None, random.randint(0, 3000)]) for way in ("up", "down")}
        self.hole = {way: random.random() < 0.1 for way in ("up", "down")}
        self.late = {way: random.choice([0, random.uniform(0, LATE)]) for way in ("up", "down")}
        self.on_the_way: dict[str, deque[bytes]] = {"up": deque(), "down": deque()}
        self.receive, protocol.dataReceived = protocol.dataReceived, partial(self.pass_on, "down")
        self.make, protocol.makeConnection = protocol.makeConnection, self.connect
        self.lose, protocol.connectionLost = protocol.connectionLost, self.lost
        self.connected = True

    def connect(self, transport: Any) -> None:
        self.transport = transport
        self.write, transport.write = transport.write, partial(self.pass_on, "up")
        self.make(transport)

    def lost(self, reason: Any) -> None:
        """Bytes under way are lost with it, as with a reset."""
        self.connected = False
        self.lose(reason)

    def pass_on(self, way: str, data: bytes) -> None:
        """Deliver it, now or later, but never before what was said earlier."""
        data = self.passing(way, data)
        if data:
            self.on_the_way[way].append(data)
            late = self.late[way]
            if late and not self.world.healthy:
                self.world.clock.callLater(self.world.random.uniform(0, late), self.arrive, way)
            else:
                self.arrive(way)

    def arrive(self, way: str) -> None:
        """The earliest of what is under way. Whose turn it was does not matter: bytes stay in their order."""
        if self.connected:
            data = self.on_the_way[way].popleft()
            (self.receive if way == "down" else self.write)(data)

    def passing(self, way: str, data: bytes) -> bytes:
        """The part of the bytes that gets through; this may end the connection."""
        left = self.left[way]
        if self.world.healthy:
            return b"" if self.hole[way] else data  # a hole stays one, until the heartbeat finds it
        if left is not None:
            if len(data) >= left:
                data = data[:left]
                self.world.clock.callLater(0, self.transport.abortConnection)
            self.left[way] = left - len(data)
        return b"" if self.hole[way] else data


class Fated:
    """An endpoint whose connections have a fate, as long as the world is not healthy."""

    def __init__(self, world: World, inner: Any) -> None:
        self.world = world
        self.inner = inner

    def connect(self, factory: Any) -> Deferred[Any]:
        build = factory.buildProtocol

        def building(address: Any) -> Any:
            protocol = build(address)
            if not self.world.healthy:
                Fate(self.world, protocol)
            return protocol

        factory.buildProtocol = building
        connected: Deferred[Any] = self.inner.connect(factory)
        return connected


class World:
    """One seed's: a broker, a service, its caller, and what befalls them."""

    def __init__(self, test: TestCase, seed: int) -> None:
        self.test = test
        self.random = Random(seed)
        self.clock = Jumping()
        self.name = f"seed-{next(numbers)}"
        self.broker = brokers[self.name] = Broker(self.name, clock=self.clock)
        self.healthy = True
        self.ran: list[int] = []
        self.heard: list[int] = []
        self.config = {
            "AMQP_URI": f"memory://{self.name}", "HEARTBEAT": HEARTBEAT, "RPC_TIMEOUT": 50, "PUBLISH_TIMEOUT": 50,
        }  # fmt: skip
        self.service = service_of(self.ran, self.heard)
        self.starting: list[Deferred[Any]] = []
        self.stopping: list[Deferred[Any]] = []

    def endpoint(self, address: Any, tls: Any, clock: Any) -> Any:
        return Fated(self, endpoint_for(address, tls, clock))

    def run_until(self, done: Callable[[], Any], what: str, seconds: float = 60) -> None:
        end = self.clock.seconds() + seconds
        while not done():
            if self.clock.seconds() >= end:
                raise AssertionError(f"{what}: not within {seconds} s")
            self.clock.jump(end)

    def run_to(self, moment: float) -> None:
        while self.clock.seconds() < moment:
            self.clock.jump(moment)

    def start_service(self) -> None:
        self.container = ServiceContainer(self.service, self.config, clock=self.clock)
        # if it is killed before it has started, its start fails
        self.starting.append(self.container.start().addErrback(lambda failure: failure.trap(CancelledError)))

    def live(self) -> None:
        """From the first connection to the last."""
        self.start_service()
        proxy = ClusterRpcProxy(self.config, clock=self.clock)
        opened = proxy.start()
        self.run_until(lambda: self.starting[0].called and opened.called, "the start")
        cluster = self.test.successResultOf(opened)
        answers: list[Deferred[int]] = []
        told: list[Deferred[None]] = []

        def ask(number: int) -> None:
            answers.append(cluster.service.work(number))
            told.append(
                proxy.connections.publisher.publish("source.events", "told", b"%d" % number, dict(JSON), timeout=50)
            )

        self.healthy = False
        self.befall()
        for moment, happens in self.plan(ask):
            self.run_to(moment)
            happens()
        self.healthy = True
        self.run_until(lambda: all(each.called for each in (*answers, *told)), "the answers")
        self.run_until(lambda: len(set(self.heard)) == CALLS, "the events")
        for number, answer in enumerate(answers):
            self.test.assertEqual(self.test.successResultOf(answer), number)
            self.test.successResultOf(told[number])
        self.test.assertEqual(set(self.ran), set(range(CALLS)))
        self.end([self.container.stop(), proxy.stop()])

    def plan(self, ask: Callable[[int], None]) -> list[tuple[float, Callable[[], None]]]:
        """The plan: the calls, each at a moment, and faults between them."""
        random, now = self.random, self.clock.seconds()
        moments = sorted(random.uniform(0, CHAOS) for _ in range(CALLS))
        happening: list[tuple[float, Callable[[], None]]] = [
            (now + moment, partial(ask, number)) for number, moment in enumerate(moments)
        ]
        moment = random.expovariate(FAULTS)
        while moment < CHAOS:
            happening.append((now + moment, self.befall))
            moment += random.expovariate(FAULTS)
        return sorted(happening, key=lambda each: each[0])

    def end(self, ended: list[Deferred[Any]]) -> None:
        self.run_until(lambda: all(each.called for each in (*ended, *self.stopping)), "the stop")
        stopped = self.broker.close()
        self.run_until(lambda: stopped.called, "the broker's stop")
        self.run_to(self.clock.seconds() + LATE)  # what has no delay is still to be run
        self.test.assertEqual(self.clock.getDelayedCalls(), [])

    def befall(self) -> None:
        """Something happens to somebody."""
        random = self.random
        sessions = list(self.broker.sessions)
        if not sessions:
            return
        session = random.choice(sessions)
        fault = random.randrange(6)
        if fault == 0:
            session.transport.abortConnection()
        elif fault == 1:
            session.transport.peer.abortConnection()
        elif fault == 2:
            for each in sessions:
                each.transport.abortConnection()
        elif fault == 3:
            session.broker_closes()
        elif fault == 4:
            session.transport.loseConnection()
        else:
            self.stopping.append(self.container.kill())
            self.start_service()


def service_of(ran: list[int], heard: list[int]) -> type:
    """A service that writes down what it does."""

    class Service:
        name = "service"

        @rpc
        def work(self, number: int) -> int:
            ran.append(number)
            return number

        @event_handler("source", "told")
        def told(self, number: int) -> None:
            heard.append(number)

    return Service


JSON = {"content_type": "application/json", "content_encoding": "utf-8", "delivery_mode": 2}


class Seeds(TestCase):
    """Each seed is a world."""

    timeout = 900

    def test_row_05_all_faults_by_seed(self) -> None:
        """Whatever the seed brings, all comes to a good end."""
        given = os.environ.get("FAULTS_SEED")
        seeds = [int(given)] if given else range(SEEDS)
        began = time.process_time()
        for seed in seeds:
            self.live(seed)
        print(f"\n{len(seeds)} seeds, {len(seeds) / (time.process_time() - began):.0f} a second of the processor")

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
