"""The services of one process: a container each, and what they share.

Containers start together. When one of them dies, the others are stopped, and ``wait`` fails with its error. Containers
end first, all at once. The connections to the broker and the web server, which they share, end last.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import CancelledError, Deferred, gatherResults, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from txservices import configuration
from txservices.containers import ServiceContainer, get_container_cls, get_service_name, make_container
from txservices.shared import SharedServices
from txservices.utils.life import Life, State
from txservices.utils.waiting import call_all

__all__ = ["ServiceRunner", "run_services"]

log = Logger()


class ServiceRunner(MultiService):
    """Runs service classes, each in a container of its own.

    Attributes:
        shared: what the process has once.
        containers: the containers, in the order in which they were added.
        life: where it is between its start and its end.
    """

    def __init__(self, config: Mapping[str, Any], clock: Any = None) -> None:
        super().__init__()
        configuration.check(config)
        configuration.warn_of_unknown(config)
        self.config = config
        self.clock = clock
        self.shared = SharedServices()
        self.containers: list[ServiceContainer] = []
        self.life = Life(
            self,
            start=[
                self.shared.startService,
                lambda: call_all([container.start for container in self.containers]),
            ],
            stop=[
                self.shared.stopping,
                lambda: self.end_each("stop"),
                self.close,
            ],
            kill=[
                self.shared.stopping,
                lambda: self.end_each("kill"),
                self.shared.killing,
                self.close,
            ],
        )

    @property
    def service_names(self) -> list[str]:
        """The names of the services, in the order in which they were added."""
        return [container.service_name for container in self.containers]

    def add_service(self, service_cls: type[Any]) -> ServiceContainer:
        """Add a service class before the start. It replaces one of the same name.

        ``ConfigurationError`` if the class has no name, or if its extensions refuse their options.
        """
        name = get_service_name(service_cls)
        container = make_container(self.container_cls(), service_cls, self.config, self.shared, self.clock)
        for replaced in [each for each in self.containers if each.service_name == name]:
            self.containers.remove(replaced)
            self.removeService(replaced)
        self.containers.append(container)
        container.wait().addErrback(self.died)
        container.setServiceParent(self)
        return container

    def container_cls(self) -> type[ServiceContainer]:
        """The class of its containers."""
        return get_container_cls(self.config)

    def start(self) -> Deferred[None]:
        """Start every service. Fires when all have started.

        Fails with the first error of a service, when all of them have ended; or with ``CancelledError`` if the runner
        is stopped first.
        """
        self.running = 1
        return self.life.start().addErrback(self.start_failed)

    def start_failed(self, failure: Failure) -> Deferred[None]:
        killed = self.kill() if self.life.state is State.STARTING else succeed(None)
        return killed.addCallback(lambda _: failure)

    def died(self, failure: Failure) -> None:
        """A container has died: stop its peers."""
        if self.life.failure is None:
            self.life.failure = failure
        self.stop()

    def wait(self) -> Deferred[None]:
        """Fires when all services have stopped; fails with the error of the first that died."""
        return self.life.wait()

    def stop(self) -> Deferred[None]:
        """Stop every service, then what they share. Fires when all has stopped, and never fails."""
        return self.life.stop()

    def kill(self) -> Deferred[None]:
        """End every service now, also in the middle of a stop. Fires when all has ended, and never fails."""
        return self.life.kill()

    def startService(self) -> None:
        """``start``, for an application of twistd. An error is logged, and ends the services."""
        self.start().addErrback(self.log_failed_start)

    def log_failed_start(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            log.failure("the services could not be started", failure)

    def stopService(self) -> Deferred[None]:
        """``stop``."""
        return self.stop()

    def end_each(self, how: str) -> Deferred[Any]:
        """Call ``stop`` or ``kill`` of every container at once."""
        ended = [getattr(container, how)() for container in self.containers]
        return gatherResults(ended, consumeErrors=True)  # only a kill that cancels them makes them fail

    async def close(self) -> None:
        self.running = 0
        await self.shared.stopService()

    def __repr__(self) -> str:
        return f"<ServiceRunner of {', '.join(self.service_names)} at {id(self):#x}>"


@asynccontextmanager
async def run_services(
    config: Mapping[str, Any], *services: type[Any], kill_on_exit: bool = False
) -> AsyncIterator[ServiceRunner]:
    """Run services for the time of a block, which gets the runner. They have ended when the block is left.

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
