"""trial's ``TestCase`` with a ``Stage``: services for one test, and a clean reactor after it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial import unittest

from txservices.containers import ServiceContainer
from txservices.standalone.rpc import ClusterProxy
from txservices.testing.stage import Stage, WebSession


class TestCase(unittest.TestCase):
    """Starts services on a broker of the test's own, in milliseconds, and stops them when it ends.

        class GreetingTests(TestCase):
            async def test_hello(self):
                await self.start(Greeting)
                cluster = await self.cluster()
                self.assertEqual(await cluster.greeting.hello("world"), "Hello, world!")

    As always with trial, an error that is logged fails the test: ``flushLoggedErrors`` is for one that is expected.

    Attributes:
        stage: what has it all; see ``testing.stage``.
        config: what the services have.
    """

    timeout = 30

    def setUp(self) -> None:
        """A subclass with its own calls this one."""
        self.stage = Stage()
        self.addCleanup(self.stage.stop)

    @property
    def config(self) -> dict[str, Any]:
        return self.stage.config

    def container(self, service_cls: type[Any], **config: Any) -> ServiceContainer:
        """A container that is yet to be started: to replace dependencies, or restrict entrypoints."""
        return self.stage.container(service_cls, {**self.config, **config})

    async def start(self, *service_classes: type[Any], **config: Any) -> list[ServiceContainer]:
        """Their containers, started. Keywords are keys of the configuration."""
        return await self.stage.start(*service_classes, **config)

    async def cluster(self, *args: Any, **options: Any) -> ClusterProxy:
        """A standalone proxy of all services."""
        return await self.stage.cluster(*args, **options)

    def dispatch(self, service_name: str, event_type: str, event_data: Any = None) -> Deferred[None]:
        """Dispatch an event in a service's name. Fires when the broker has it, which is before it is handled."""
        return self.stage.dispatch(service_name, event_type, event_data)

    def web_session(self) -> WebSession:
        """An HTTP client of the services: treq's, in memory."""
        return self.stage.web_session()
