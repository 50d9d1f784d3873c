"""The base of the conformance tests: the broker's books, the log's lines, requests by hand, and services."""

from __future__ import annotations

import json
import uuid
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher

from tests.services import Recorded, ServicesCase
from txservices.amqp.connections import Connections
from txservices.amqp.entities import Exchange, Message, Queue
from txservices.broker.memory import brokers
from txservices.broker.server import Broker
from txservices.broker.vhost import VirtualHost
from txservices.containers import ServiceContainer
from txservices.events import event_handler
from txservices.messaging import consume
from txservices.rpc import rpc
from txservices.testing.waiting import Heard

JSON = {"content_type": "application/json", "content_encoding": "utf-8", "delivery_mode": 2, "priority": 0}
RPC = Exchange("nameko-rpc", type="topic")
QUEUE = Queue("q", Exchange("x"), "key")
UNKNOWN = {"__type__": "unknown", "__value__": 1}  # an envelope that no encoder writes


def service(heard: Heard) -> type:
    """A service that is called, told and sent messages."""

    class Service:
        name = "service"

        @rpc
        def call(self, value):
            heard(value)
            return value

        @rpc
        def leave(self, which):
            raise (SystemExit, KeyboardInterrupt, GeneratorExit)[which]("out")

        @event_handler("source", "type")
        def hear(self, value):
            heard(value)

        @consume(QUEUE)
        def take(self, value):
            heard(value)

    return Service


class Waiting:
    """A service whose one method tells that it was called, and waits for the test to answer."""

    def __init__(self, name: str = "waiting") -> None:
        heard = self.heard = Heard()
        answers: list[Any] = []
        self.answers = answers
        service_name = name

        class Service:
            name = service_name

            @rpc
            def method(self, *args):
                answer: Deferred[Any] = Deferred(lambda cancelled: None)
                answers.append(answer)
                heard(args)
                return answer

        self.service = Service

    async def called(self, count: int = 1) -> list[Any]:
        return await self.heard.wait(count)


class Case(ServicesCase):
    """A test with services on a broker whose books it can read."""

    @property
    def broker(self) -> Broker:
        return brokers[self.config["AMQP_URI"].removeprefix("memory://")]

    @property
    def vhost(self) -> VirtualHost:
        """The exchanges and queues that the broker has."""
        return self.broker.vhosts["/"]

    def cut(self, *connections: Connections) -> None:
        """All connections of each are gone, without a word."""
        for each in connections:
            for connection in each.in_use:
                if connection.protocol is not None:
                    connection.protocol.abort()

    def amqp(self, container: ServiceContainer) -> Connections:
        """The connections that a container has."""
        made: Connections = container.shared.namedServices["amqp"]
        return made

    def lines(self, level: LogLevel = LogLevel.error) -> Heard:
        """Lines that are logged at that level from now on."""
        lines = Heard()

        def observe(event: LogEvent) -> None:
            if event["log_level"] is level:
                lines(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        return lines

    async def publish(self, exchange: str, key: str, body: Any, **properties: Any) -> None:
        """A message by hand; a property of None is left out."""
        whole = {**JSON, "headers": {}, **properties}
        whole = {name: value for name, value in whole.items() if value is not None}
        encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
        await self.bare.publisher.publish(exchange, key, encoded, whole, mandatory=True)

    async def request(self, key: str, body: Any, **properties: Any) -> Message:
        """The reply to a request by hand."""
        reply_to = str(uuid.uuid4())
        replies = Recorded()
        await self.bare.consume(Queue(f"raw-{reply_to}", RPC, reply_to, auto_delete=True), replies, 10).ready
        await self.publish("nameko-rpc", key, body, **{"reply_to": reply_to, "correlation_id": "c", **properties})
        message: Message = (await replies.wait())[0]
        return message

    async def error_of(self, key: str, body: Any, **properties: Any) -> dict[str, Any]:
        """The error in that reply."""
        error: dict[str, Any] = json.loads((await self.request(key, body, **properties)).body)["error"]
        return error

    @property
    def bare(self) -> Connections:
        """Connections of the test's own."""
        made: Connections | None = getattr(self, "_bare", None)
        if made is None:
            made = self._bare = self.connections()
        return made

    async def take(self, queue: Queue, count: int = 1) -> list[Message]:
        """That many messages out of a queue, acked."""
        taken = Recorded()
        consumer = self.bare.consume(queue, taken, 100)
        await consumer.ready
        messages = await taken.wait(count)
        await consumer.close()
        return messages

    def left_in(self, queue: str) -> int:
        """How many messages a queue holds, those out with consumers too."""
        found = self.vhost.queues[queue]
        return len(found) + sum(consumer.unacked for consumer in found.consumers)
