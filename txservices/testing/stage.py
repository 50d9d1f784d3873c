"""Services for one test, with a broker, a web server and connections in memory that no other test sees.

    stage.start(ServiceX)            containers that share connections, as in one process, on a memory:// broker
    stage.web_session().get("/url")  a request to the services' web server, without a port

Everything that a stage has started ends with its ``stop``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen
from treq.client import HTTPClient
from twisted.internet.defer import Deferred, FirstError, execute, gatherResults, maybeDeferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import deferLater
from twisted.web.client import URI, Agent
from twisted.web.iweb import IAgentEndpointFactory
from typing_extensions import Unpack
from zope.interface import implementer

from txservices import configuration
from txservices.amqp.connections import Connections
from txservices.amqp.entities import Exchange, Message, Queue
from txservices.broker import memory
from txservices.containers import ServiceContainer, get_container_cls, make_container
from txservices.proxies import CallOptions
from txservices.runners import ServiceRunner
from txservices.serialization import Serializers
from txservices.shared import SharedServices
from txservices.standalone.events import Dispatcher
from txservices.standalone.rpc import ClusterProxy, ClusterRpcProxy
from txservices.testing.waiting import Heard
from txservices.utils import default_reactor
from txservices.utils.ids import new_id
from txservices.web.addresses import places_of
from txservices.web.listener import Listener, facing, name_of_listener, site_of

__all__ = ["QueuedMessage", "Stage", "WebSession"]

numbers = itertools.count(1)

DEFAULTS = {
    configuration.WEB_SERVER_ADDRESS.name: configuration.WEB_SERVER_ADDRESS.default,
    configuration.RPC_TIMEOUT.name: 10,  # seconds, so that a call that nobody answers fails before the test does
    configuration.SHUTDOWN_TIMEOUT.name: 1,
    configuration.FLEET.name: False,  # its queue would be one more in every test
}


@frozen
class QueuedMessage:
    """A message from a queue, and the value of its body as ``payload``."""

    message: Message
    payload: Any

    @property
    def properties(self) -> dict[str, Any]:
        return self.message.properties

    @property
    def headers(self) -> dict[str, Any]:
        return self.message.headers


class Stage:
    """Starts services for a test, talks to them, and stops them.

    Keywords are keys of the configuration. With ``AMQP_URI`` the services use that broker, and not one in memory.
    A second stage with the ``AMQP_URI`` of the first is another process on the same broker.

    Attributes:
        config: the configuration of services whose test gives no other.
    """

    runner_cls: type[ServiceRunner] = ServiceRunner

    def __init__(self, **config: object) -> None:
        self.broker = f"testing-{next(numbers)}"
        self.config: dict[str, Any] = {configuration.AMQP_URI.name: f"memory://{self.broker}", **DEFAULTS, **config}
        self.shared: dict[str, SharedServices] = {}  # by broker
        self.containers: list[ServiceContainer] = []
        self.runners: list[ServiceRunner] = []
        self.stops: list[Callable[[], Any]] = []
        self.dispatcher: Dispatcher | None = None

    # Services

    def container(self, service_cls: type[Any], config: Mapping[str, Any] | None = None) -> ServiceContainer:
        """A container that is not started. Containers with the same broker share their connections, as in a process."""
        config = self.config if config is None else config
        broker = str(configuration.AMQP_URI.of(config))
        shared = self.shared.get(broker)
        if shared is None:
            shared = self.shared[broker] = SharedServices()
            shared.startService()
        self.serve(shared, config)
        container = make_container(self.container_cls(config), service_cls, config, shared, None)
        self.containers.append(container)
        return container

    def container_cls(self, config: Mapping[str, Any]) -> type[ServiceContainer]:
        """The class of its containers."""
        return get_container_cls(config)

    def serve(self, shared: SharedServices, config: Mapping[str, Any]) -> None:
        """Have the web server of those services listen in memory."""
        serve_in_memory(shared, config)

    async def start(self, *service_classes: type[Any], **config: object) -> list[ServiceContainer]:
        """Start services and return their containers. Keywords are keys of the configuration.

        Raises the error of the first service that can't start.
        """
        containers = [self.container(each, {**self.config, **config}) for each in service_classes]
        try:
            await gatherResults([container.start() for container in containers], consumeErrors=True)
        except FirstError as first:
            first.subFailure.raiseException()  # the service's own error
        return containers

    def runner(self, config: Mapping[str, Any], *service_classes: type[Any]) -> ServiceRunner:
        """A runner that is not started."""
        runner = self.runner_cls(config)
        self.serve(runner.shared, config)
        for each in service_classes:
            runner.add_service(each)
        self.runners.append(runner)
        return runner

    async def listen(self) -> str:
        """Open a port of the broker in memory, for programs in processes of their own, and return its ``AMQP_URI``."""
        port: Any = await memory.broker_named(self.broker).listen(port=0)
        return f"amqp://guest:guest@127.0.0.1:{port.getHost().port}/"

    # Talking to them

    async def cluster(
        self, context_data: Mapping[str, Any] | None = None, **options: Unpack[CallOptions]
    ) -> ClusterProxy:
        """A proxy of all services, as of ``standalone.rpc.ClusterRpcProxy``."""
        proxy = ClusterRpcProxy(self.config, context_data, **options)
        self.stops.append(proxy.stop)
        return await proxy.start()

    def connections(self, **config: object) -> Connections:
        """Connections of the test's own to the broker, for what no service does. Keywords are as those of ``start``."""
        made = Connections.from_config({**self.config, **config})
        made.startService()
        self.stops.append(made.stopService)
        return made

    async def tap(self, exchange: str | Exchange, routing_key: str = "#") -> Heard:
        """Hear a copy of each message that an exchange gets from now on: ``(message,) = await tapped.wait()``.

        The messages are ``amqp.entities.Message``, acked already. An exchange given by its name is a durable one of
        type topic, as those of calls and events.
        """
        tapped = Heard()

        def receive(message: Message) -> None:
            message.ack()
            tapped(message)

        if isinstance(exchange, str):
            exchange = Exchange(exchange, type="topic")
        queue = Queue(f"tap-{new_id()}", exchange, routing_key, auto_delete=True)
        await self.connections().consume(queue, receive, 0).ready
        return tapped

    def dispatch(self, service_name: str, event_type: str, event_data: Any) -> Deferred[None]:
        """Dispatch an event in a service's name. Fires when the broker has it; it may not be handled yet."""
        if self.dispatcher is None:
            self.dispatcher = Dispatcher(self.config)
            self.stops.append(self.dispatcher.stop)
        return self.dispatcher(service_name, event_type, event_data)

    def web_session(self) -> WebSession:
        """An HTTP client for the services, with treq's methods."""
        host, port = facing(places_of(configuration.WEB_SERVER_ADDRESS.of(self.config)))
        session = WebSession(f"http://{host}:{port}", self.listener)
        self.stops.append(session.abort)
        return session

    def web_endpoint(self) -> IStreamClientEndpoint:
        """An endpoint that connects to the web server, in memory. Its connections end with the test."""
        host, port = facing(places_of(configuration.WEB_SERVER_ADDRESS.of(self.config)))
        return SiteEndpoint(self.web_session(), host, port)

    def listener(self, host: str, port: int) -> MemoryListener | None:
        """The listener at that address, of any service that runs here, or None."""
        for shared in (*self.shared.values(), *(runner.shared for runner in self.runners)):
            for each in shared:
                if (
                    isinstance(each, MemoryListener)
                    and each.listening
                    and (each.host, each.wanted_port) == (host, port)
                ):
                    return each
        return None

    async def get_message(
        self,
        queue: str,
        ack: bool = True,
        block: bool = True,
        timeout: float = 1,
        accept: str | list[str] | None = None,
    ) -> QueuedMessage:
        """Take one message out of an existing queue. Without ``ack`` it is put back.

        Waits up to ``timeout`` seconds for a message; without ``block`` not at all. Twisted's ``TimeoutError`` if there
        is no message by then. ``accept`` names the serializers to read it with, if not those of the configuration.
        Without ``accept``, a body of a content type that no serializer has is text in its content encoding, or bytes.
        """
        named = [accept] if isinstance(accept, str) else accept
        config = self.config if accept is None else {**self.config, configuration.ACCEPT.name: named}
        connections = Connections.from_config(config)
        connections.startService()
        received: Deferred[Message] = Deferred()

        def receive(message: Message) -> None:
            if not received.called:
                received.callback(message)

        try:
            if not block and not await messages_in(queue, connections):
                raise DeferredTimeout(f"queue {queue!r} is empty")
            consumer = connections.consume(Queue(queue, passive=True), receive, 1)
            await consumer.ready
            message = await received.addTimeout(timeout, default_reactor())
            serializers, properties = Serializers(config), message.properties
            content_type = properties.get("content_type")
            if accept is None and content_type not in serializers.names:
                content_type = None
            encoding = properties.get("content_encoding")
            payload = serializers.decode(content_type, encoding, message.body, message.headers)
            if ack:
                message.ack()
            await consumer.close()
            return QueuedMessage(message, payload)
        finally:
            await connections.stopService()

    # The end

    def stop(self) -> Deferred[None]:
        """Stop services and clients, and drop the broker. Fires when nothing of them is left in the reactor."""
        return Deferred.fromCoroutine(self.end("stop"))

    def kill(self) -> Deferred[None]:
        """Do as ``stop`` does, without waiting for workers."""
        return Deferred.fromCoroutine(self.end("kill"))

    async def end(self, how: str) -> None:
        stops, self.stops = self.stops, []
        for stop in reversed(stops):
            await maybeDeferred(stop)
        await gatherResults([getattr(each, how)() for each in (*self.runners, *self.containers)])
        for shared in self.shared.values():
            await maybeDeferred(shared.stopService)
        broker = memory.brokers.pop(self.broker, None)
        if broker is not None:
            await broker.close()
        await deferLater(default_reactor(), 0)  # the last connections' bytes arrive in the next turn of the reactor


async def messages_in(queue: str, connections: Connections) -> int:
    """How many messages of a queue are ready to be delivered."""
    protocol = await connections.consuming.when_connected()
    channel = await protocol.open_channel()
    try:
        declared = await channel.queue_declare(queue=queue, passive=True)
    finally:
        await protocol.close_channel(channel)
    count: int = declared.message_count
    return count


# HTTP without a port --------------------------------------------------------------------------------------------------


class Listening:
    """Takes the place of an open port."""

    def stopListening(self) -> None:
        """Does nothing: no port is open."""


class MemoryListener(Listener):
    """A listener without a port: only clients in the same process reach it."""

    def listen(self) -> None:
        if self.listening is None and self.serving:
            self.listening = Listening()
            self.site.closing = False


def serve_in_memory(shared: SharedServices, config: Mapping[str, Any]) -> None:
    """Put a ``MemoryListener`` where ``WebServer`` will look for a listener."""
    places = places_of(configuration.WEB_SERVER_ADDRESS.of(config))
    shared.get(
        name_of_listener(places),
        lambda: MemoryListener(*facing(places), site_of(config, default_reactor())),
    )


FindListener = Callable[[str, int], "MemoryListener | None"]


@implementer(IAgentEndpointFactory)
class WebSession(HTTPClient):
    """treq's client for the services of a test: ``response = await session.get("/url")``, ``await response.text()``.

    A URL needs no host.
    """

    def __init__(self, base: str, find: FindListener) -> None:
        super().__init__(Agent.usingEndpointFactory(default_reactor(), self))
        self.base = base
        self.find = find
        self.pipes: list[memory.Pipe] = []

    def request(self, method: str, url: Any, **options: Any) -> Deferred[Any]:
        """Make a request, as treq's method does."""
        if isinstance(url, str) and url.startswith("/"):
            url = self.base + url
        return super().request(method, url, **options)

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        return SiteEndpoint(self, uri.host.decode("ascii"), uri.port)

    def abort(self) -> Deferred[None]:
        """Cut all connections, also in the middle of a response. Fires when the services have noticed."""
        for pipe in self.pipes:
            pipe.abortConnection()
        return deferLater(default_reactor(), 0)  # the services see it in the next turn of the reactor


@implementer(IStreamClientEndpoint)
class SiteEndpoint:
    """Connects a client to a listener's site, in memory."""

    def __init__(self, session: WebSession, host: str, port: int) -> None:
        self.session = session
        self.host = host
        self.port = port

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        return execute(self.connect_now, protocolFactory)

    def connect_now(self, factory: IProtocolFactory) -> IProtocol:
        listener = self.session.find(self.host, self.port)
        if listener is None:
            raise ConnectionRefusedError(f"no service of this test serves {self.host}:{self.port}")
        address = memory.MemoryAddress(f"{self.host}:{self.port}")
        client = factory.buildProtocol(address)
        server = listener.site.buildProtocol(address)
        assert client is not None and server is not None
        pipe, _ = memory.join(client, server, default_reactor(), address)
        self.session.pipes.append(pipe)
        return client
