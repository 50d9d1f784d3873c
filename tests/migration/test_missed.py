"""What nameko's users missed, one by one."""

from __future__ import annotations

from unittest.mock import Mock

from tests.services import ServicesCase
from txservices.containers import ServiceContainer
from txservices.contextdata import ContextDataProvider
from txservices.events import EventDispatcher, EventHandler
from txservices.exceptions import ConfigurationError
from txservices.extensions import DependencyProvider, Entrypoint, Extension
from txservices.messaging import Consumer, Publisher, Queue
from txservices.rpc import Rpc, RpcProxy, rpc
from txservices.runners import ServiceRunner
from txservices.testing.services import Once
from txservices.testing.waiting import WaitResult
from txservices.timer import Timer
from txservices.web.handlers import HttpRequestHandler
from txservices.web.websocket import WebSocketRpc


class Tenant(ContextDataProvider):
    """Its key is the class's."""

    context_key = "tenant"


class Stock(RpcProxy):
    """It doesn't call its base's ``__init__``, and has options of its own."""

    def __init__(self) -> None:
        self.target_service = "stock"
        self.options = {"of": "its own"}


class Service:
    name = "stock"
    tenant = Tenant()
    stock = Stock()

    @rpc
    async def ask(self) -> object:
        return await self.stock.tell()

    @rpc
    def tell(self) -> object:
        return self.tenant


class TwoArguments(ServiceContainer):
    """As those of nameko's users."""

    def __init__(self, service_cls: type, config: dict[str, object]) -> None:
        super().__init__(service_cls, config)


DOTTED = f"{__name__}.TwoArguments"


class Missed(ServicesCase):
    """Each is there."""

    def test_unbound(self) -> None:
        """Before it is bound, an extension has no container and no name; its text is nameko's."""
        self.assertIsNone(Extension().container)
        self.assertIsNone(DependencyProvider().attr_name)
        self.assertIsNone(Entrypoint().method_name)
        self.assertRegex(str(Tenant()), r"^<Tenant \[unbound\] at 0x[0-9a-f]+>$")

    def test_doubles(self) -> None:
        """Extensions can be bound to doubles of a container, as in tests of users' own ones."""
        for container in (Mock(), Mock(spec=ServiceContainer)):
            container.service_name, container.config, container.shared_extensions = "stock", {}, {}
            for extension in (
                *(Entrypoint(), Rpc(), Once(), EventHandler("stock", "sold"), Timer(1), Consumer(Queue("q"))),
                *(
                    HttpRequestHandler("GET", "/"),
                    WebSocketRpc(),
                    RpcProxy("y"),
                    EventDispatcher(),
                    Publisher(),
                    Tenant(),
                ),
            ):
                bound = extension.bind(container, "ask")
                self.assertRegex(str(bound), rf"^<{type(extension).__name__} \[stock\.ask\] at ")

    def test_texts(self) -> None:
        """A bound one says the service, and the attribute or the method."""
        container = ServiceContainer(Service, self.config)
        texts = sorted(str(each).partition(" at ")[0] for each in container.extensions)
        self.assertIn("<Rpc [stock.ask]", texts)
        self.assertIn("<Tenant [stock.tenant]", texts)
        self.assertIn("<ReplyListener", texts)

    async def test_keys_and_options(self) -> None:
        """A provider of context data by its class, and a proxy with options of its own."""
        await self.start(Service)
        cluster = await self.cluster({"tenant": "t"})
        self.assertEqual(await cluster.stock.ask(), "t")
        self.assertRaises(ConfigurationError, ContextDataProvider)

    async def test_two_arguments(self) -> None:
        """A runner gives such a container what its services share, and a test's stage does, too."""
        config = {**self.config, "SERVICE_CONTAINER_CLS": DOTTED}
        runner = ServiceRunner(config)
        container = runner.add_service(Service)
        self.assertIsInstance(container, TwoArguments)
        self.assertIs(container.shared, runner.shared)
        await runner.stop()
        (started,) = await self.start(Service, SERVICE_CONTAINER_CLS=DOTTED)
        self.assertIsInstance(started, TwoArguments)
        self.assertFalse(started.owns_shared)

    def test_wait_result(self) -> None:
        """Whether there is an outcome, and whether it is an error. The first one counts."""
        result = WaitResult()
        self.assertEqual((result.has_result, result.has_exception), (False, False))
        result.send(1, None)
        self.assertEqual((result.has_result, result.has_exception), (True, False))
        result.send(2, None)
        self.assertEqual(result.get(), 1)
        failed, error = WaitResult(), ValueError()
        failed.send(None, (ValueError, error, None))
        self.assertEqual((failed.has_result, failed.has_exception), (True, True))
