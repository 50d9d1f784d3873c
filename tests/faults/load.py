"""Events and calls at a steady rate, booked with a checker; and services that book what they handle."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.task import LoopingCall
from twisted.trial.unittest import TestCase

from tests import processes
from tests.faults.checker import Checker
from tests.faults.scene import FaultsCase, until
from txservices.standalone.events import event_dispatcher

RATE = 200  # events a second, and as many calls
INTERVAL = 0.05  # seconds between bursts
DEADLINE = 30  # seconds that a call may take

WORKER = """
import os

from tests.faults.checker import CALL, EVENT, note
from twisted.internet import reactor
from twisted.internet.task import deferLater
from txservices.events import event_handler
from txservices.rpc import rpc

LOG = os.environ["CHECKER_LOG"]

class Worker:
    name = "worker"

    @rpc
    async def work(self, number):
        note(LOG, CALL, "handled", number)
        await deferLater(reactor, 0.02)
        return number

    @event_handler("source", "told")
    async def told(self, number):
        note(LOG, EVENT, "handled", number)
        await deferLater(reactor, 0.02)
"""


class Load:
    """Dispatches and calls until it is stopped."""

    def __init__(self, checker: Checker, cluster: Any, dispatch: Any, rate: int = RATE) -> None:
        self.checker = checker
        self.cluster = cluster
        self.dispatch = dispatch
        self.burst = int(rate * INTERVAL)
        self.number = 0
        self.latest = 0  # call that was answered
        self.wrong: list[Any] = []
        self.beat = LoopingCall(self.go)

    def start(self) -> Load:
        self.beat.start(INTERVAL)
        return self

    def go(self) -> None:
        for _ in range(self.burst):
            self.number += 1
            number = self.number
            self.checker.event(number, self.dispatch("source", "told", number))
            answer = self.cluster.worker.work(number)
            answer.addCallback(self.answered, number)
            self.checker.call(number, answer, DEADLINE)

    def answered(self, value: int, number: int) -> None:
        self.latest = max(self.latest, number)
        if value != number:
            self.wrong.append((number, value))

    async def passed(self, more: int) -> None:
        """Wait until so many more of each were sent."""
        goal = self.number + more
        await until(lambda: self.number >= goal, 60)

    async def finish(self) -> None:
        """Send no more, and wait until each has ended and all acknowledged ones are handled."""
        if self.beat.running:
            self.beat.stop()
        await self.checker.ended()
        await until(lambda: not self.checker.missing(), 30)


class LoadCase(FaultsCase):
    """A test under load, whose services are processes or in this one."""

    async def setUp(self) -> None:
        await super().setUp()
        self.checker = Checker(os.path.abspath(self.mktemp()))
        self.folder = os.path.abspath(self.mktemp())
        os.makedirs(self.folder)
        self.write(WORKER)
        self.config["RPC_TIMEOUT"] = DEADLINE

    def write(self, module: str) -> None:
        """The service that the instances run."""
        with open(os.path.join(self.folder, "app.py"), "w", encoding="utf-8") as file:
            file.write(module)

    def spawn(self, uri: str | None = None) -> processes.Process:
        """An instance of the worker, starting."""
        return run_worker(self, self.folder, uri or self.config["AMQP_URI"], self.checker.path)

    async def instance(self) -> processes.Process:
        """An instance of the worker, running."""
        process = self.spawn()
        await process.line("^running: ")
        return process

    async def load(self, rate: int = RATE) -> Load:
        cluster = await self.cluster()
        dispatch = event_dispatcher(self.config)
        self.addCleanup(dispatch.stop)
        load = Load(self.checker, cluster, dispatch, rate).start()

        async def stop() -> None:
            if load.beat.running:
                load.beat.stop()

        self.addCleanup(stop)
        return load


def run_worker(test: TestCase, folder: str, uri: str, log: str) -> processes.Process:
    return processes.txservices(
        test, "run", "--broker", uri, "app", cwd=folder, CHECKER_LOG=log, PYTHONPATH=processes.ROOT
    )
