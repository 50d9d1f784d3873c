"""Runners: line 59."""

from __future__ import annotations

from twisted.internet.defer import gatherResults

from tests.conformance.cases import Case
from txservices.extensions import DependencyProvider
from txservices.rpc import rpc
from txservices.runners import ServiceRunner
from txservices.testing.waiting import Heard


class Runners(Case):
    """Line 59."""

    async def test_line_59_several_runners(self) -> None:
        """A class that is added twice runs once; runners beside each other share the work."""
        ran = Heard()

        class Service:
            name = "service"

            class Where(DependencyProvider):
                def get_dependency(self, worker_ctx):
                    return worker_ctx.container

            where = Where()

            @rpc
            def method(self):
                ran(self.where)

        runners = [ServiceRunner(self.config) for _ in range(2)]
        for runner in runners:
            runner.add_service(Service)
            runner.add_service(Service)
            self.assertEqual((runner.service_names, len(runner.containers)), (["service"], 1))
            self.addCleanup(runner.stop)
            await runner.start()
        service = (await self.cluster()).service
        await gatherResults([service.method() for _ in range(4)])
        self.assertEqual(set(ran.things), {runner.containers[0] for runner in runners})

    async def test_line_59_a_container_that_dies(self) -> None:
        """One runner's death is not the other's: its calls are done there."""

        class Service:
            name = "service"

            @rpc
            def method(self):
                return "done"

        runners = [ServiceRunner(self.config) for _ in range(2)]
        for runner in runners:
            runner.add_service(Service)
            self.addCleanup(runner.stop)
            await runner.start()
        await runners[0].kill()
        service = (await self.cluster()).service
        self.assertEqual(await gatherResults([service.method() for _ in range(4)]), ["done"] * 4)
