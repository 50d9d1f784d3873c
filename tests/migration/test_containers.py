"""Containers of nameko's services, as extensions in threads use them."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.python import threadable

from tests.services import ServicesCase
from txservices.exceptions import ContainerBeingKilled
from txservices.extensions import WorkerContext
from txservices.migration.containers import ServiceContainer
from txservices.testing.services import dummy


class Spawning(ServicesCase):
    """``spawn_worker`` from outside the reactor's thread."""

    async def test_in_turn(self) -> None:
        """It returns when the worker has begun: at once while there is a place, else after those that wait already."""
        turns: list[Deferred[None]] = [Deferred() for _ in range(4)]
        begun: list[int] = []

        class Service:
            name = "service"
            blocking = False

            @dummy
            def wait(self, number: int) -> Deferred[None]:
                begun.append(number)
                return turns[number]

        threadable.registerAsIOThread()  # as the reactor does when it runs, which it may not have by now
        container = ServiceContainer(Service, {**self.config, "max_workers": 1})
        self.addCleanup(container.kill)
        await container.start()
        (entrypoint,) = container.entrypoints

        def spawn(number: int) -> WorkerContext:
            return super(ServiceContainer, container).spawn_worker(entrypoint, (number,), {})

        def spawn_in_turn(number: int) -> Deferred[WorkerContext]:
            return container.spawn_in_turn(entrypoint, partial(spawn, number))

        first: Any = await deferToThread(container.spawn_worker, entrypoint, (0,), {})
        self.assertEqual((first.args, begun), ((0,), [0]))
        spawn(1)
        waiting = [spawn_in_turn(2), spawn_in_turn(3)]
        for number in (0, 1):
            self.assertNoResult(waiting[0])
            turns[number].callback(None)
        self.assertEqual(self.successResultOf(waiting[0]).args, (2,))
        self.assertNoResult(waiting[1])
        turns[2].callback(None)
        self.successResultOf(waiting[1])
        turns[3].callback(None)
        self.assertEqual((begun, container.workers.running), ([0, 1, 2, 3], 0))
        container.workers.cancel()
        self.assertRaises(ContainerBeingKilled, spawn_in_turn, 0)
