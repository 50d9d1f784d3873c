"""The services of one process: a container each, and what they share.

Containers start together. When one of them dies, the others are stopped, and ``wait`` fails with its error. Containers
end first, together; what they share, the connections to the broker and the web server, ends last.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import CancelledError, Deferred, gatherResults, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from txservices import configuration
from txservices.containers import (
    ServiceContainer,
    SharedServices,
    get_container_cls,
    get_service_name,
)
from txservices.utils.waiting import call_all

log = Logger()


class ServiceRunner(MultiService):
    """Runs service classes, each in a container of its own.

    Attributes:
        shared: what the process has once.
        containers: in the order in which they were added.
    """

    def __init__(self, config: Mapping[str, Any], clock: Any = None) -> None:
        super().__init__()
        configuration.check(config)
        configuration.warn_of_unknown(config)
        self.config = config
        self.clock = clock
        self.shared = SharedServices()
        self.containers: list[ServiceContainer] = []
        self.starting: Deferred[None] | None = None
        self.ending = self.stopped = False
        self.failure: Failure | None = None
        self.waiters: list[Deferred[None]] = []

    @property
    def service_names(self) -> list[str]:
        """What the services are called by."""
        return [container.service_name for container in self.containers]

    def add_service(self, service_cls: type[Any]) -> ServiceContainer:
        """Add a service class before the start; one of the same name that is there already is replaced.

        ``ConfigurationError`` for a class without a name, or whose extensions refuse their options.
        """
        name = get_service_name(service_cls)
        container = get_container_cls(self.config)(service_cls, self.config, self.shared, self.clock)
        for replaced in [each for each in self.containers if each.service_name == name]:
            self.containers.remove(replaced)
            self.removeService(replaced)
        self.containers.append(container)
        container.wait().addErrback(self.died)
        container.setServiceParent(self)
        return container

    def start(self) -> Deferred[None]:
        """Start every service. Fires when all have started.

        Fails with the first error of one, and then all of them have ended; or with ``CancelledError`` if it is
        stopped first.
        """
        self.running = 1
        self.starting = Deferred.fromCoroutine(self.start_all())
        return self.starting

    async def start_all(self) -> None:
        self.shared.startService()
        try:
            await call_all([container.start for container in self.containers])
        except Exception:
            if not self.ending:
                await self.kill()
            raise

    def died(self, failure: Failure) -> None:
        """A container has: stop its peers."""
        if self.failure is None:
            self.failure = failure
        self.stop()

    def wait(self) -> Deferred[None]:
        """Fires when all services have stopped; fails with the error of the first that died."""
        waiter: Deferred[None] = Deferred(lambda cancelled: self.waiters.remove(cancelled))
        if self.stopped:
            self.tell(waiter)
        else:
            self.waiters.append(waiter)
        return waiter

    def stop(self) -> Deferred[None]:
        """Stop every service, then what they share. Fires when all has stopped; so does that of a second call."""
        if not self.ending:
            self.ending = True
            Deferred.fromCoroutine(self.end_all("stop")).addErrback(self.ending_failed)
        return self.wait().addErrback(lambda failure: None)

    def kill(self) -> Deferred[None]:
        """End every service now, also in the middle of stopping. Fires when all has ended."""
        if not self.ending:
            self.ending = True
            Deferred.fromCoroutine(self.end_all("kill")).addErrback(self.ending_failed)
        else:
            for container in self.containers:
                container.kill()
        return self.wait().addErrback(lambda failure: None)

    def startService(self) -> None:
        """``start``, for an application of twistd; an error is logged, and ends the services."""
        self.start().addErrback(self.start_failed)

    def stopService(self) -> Deferred[None]:
        """``stop``."""
        return self.stop()

    def start_failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            log.failure("the services could not be started", failure)

    async def end_all(self, how: str) -> None:
        self.shared.stopping()
        await gatherResults([getattr(container, how)() for container in self.containers])
        await maybeDeferred(self.shared.stopService)
        self.finished()

    def ending_failed(self, failure: Failure) -> None:
        log.failure("while the services ended", failure)
        self.finished()

    def finished(self) -> None:
        self.stopped = True
        self.running = 0
        if self.failure is not None and not self.waiters:
            log.failure("a service died", self.failure)
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            self.tell(waiter)

    def tell(self, waiter: Deferred[None]) -> None:
        if self.failure is None:
            waiter.callback(None)
        else:
            waiter.errback(self.failure)


@asynccontextmanager
async def run_services(
    config: Mapping[str, Any], *services: type[Any], kill_on_exit: bool = False
) -> AsyncIterator[ServiceRunner]:
    """Run services for the time of a block, with the runner at hand; however the block ends, they have ended after it.

    async with run_services(config, Service) as runner: ...
    """
    runner = ServiceRunner(config)
    for service in services:
        runner.add_service(service)
    try:
        await runner.start()
        yield runner
    finally:
        await (runner.kill() if kill_on_exit else runner.stop())
