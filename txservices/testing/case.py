"""trial's ``TestCase`` with a ``Stage``: it starts services for one test, and leaves a clean reactor behind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial import unittest
from typing_extensions import Unpack

from txservices.amqp.connections import Connections
from txservices.amqp.entities import Exchange
from txservices.containers import ServiceContainer
from txservices.proxies import CallOptions
from txservices.standalone.rpc import ClusterProxy
from txservices.testing.stage import Stage, WebSession
from txservices.testing.waiting import Heard

__all__ = ["TestCase"]


class TestCase(unittest.TestCase):
    """Starts services on a broker in memory, within milliseconds, and stops them when the test ends.

        class GreetingTests(TestCase):
            async def test_hello(self):
                await self.start(Greeting)
                cluster = await self.cluster()
                self.assertEqual(await cluster.greeting.hello("world"), "Hello, world!")

    As always with trial, a logged error fails the test, unless the test calls ``flushLoggedErrors`` for it.

    Attributes:
        stage: the ``Stage`` of this test, which can do more than the methods here.
        config: the configuration of its services.
    """

    timeout = 30

    def setUp(self) -> None:
        """Make the stage. A subclass with its own ``setUp`` has to call this one."""
        self.stage = Stage()
        self.addCleanup(self.stage.stop)

    @property
    def config(self) -> dict[str, Any]:
        return self.stage.config

    def container(self, service_cls: type[Any], **config: object) -> ServiceContainer:
        """A container that is not started, so that dependencies can be replaced or entrypoints restricted first."""
        return self.stage.container(service_cls, {**self.config, **config})

    async def start(self, *service_classes: type[Any], **config: object) -> list[ServiceContainer]:
        """Start services and return their containers. Keywords are keys of the configuration, your own too."""
        return await self.stage.start(*service_classes, **config)

    async def cluster(
        self, context_data: Mapping[str, Any] | None = None, **options: Unpack[CallOptions]
    ) -> ClusterProxy:
        """A proxy of all services, as of ``standalone.rpc.ClusterRpcProxy``."""
        return await self.stage.cluster(context_data, **options)

    def connections(self, **config: object) -> Connections:
        """Connections of the test's own to the broker, for what no service does."""
        return self.stage.connections(**config)

    async def tap(self, exchange: str | Exchange, routing_key: str = "#") -> Heard:
        """Hear a copy of each message that an exchange gets from now on: ``(message,) = await tapped.wait()``."""
        return await self.stage.tap(exchange, routing_key)

    def dispatch(self, service_name: str, event_type: str, event_data: Any = None) -> Deferred[None]:
        """Dispatch an event in a service's name. Fires when the broker has it; it may not be handled yet."""
        return self.stage.dispatch(service_name, event_type, event_data)

    def web_session(self) -> WebSession:
        """An HTTP client for the services: treq's, in memory."""
        return self.stage.web_session()
