"""The pair of connections that a process has: one consumes, one publishes, however many services run in it.

A broker under memory alarm stops reading those who publish; acks, on the other connection, must still flow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, succeed

from txservices import configuration
from txservices.amqp.connection import Connection
from txservices.amqp.endpoints import endpoint_for
from txservices.amqp.entities import Exchange, Message, Queue
from txservices.amqp.leaving import Leaving
from txservices.amqp.outbox import Outbox
from txservices.amqp.publisher import Publisher
from txservices.amqp.subscription import Subscription
from txservices.amqp.unacked import Unacked
from txservices.exceptions import ConfigurationError
from txservices.utils.address import Address, parse_addresses


class Connections(MultiService):
    """Both connections, each made when it is first needed, and what goes through them."""

    def __init__(
        self,
        addresses: tuple[Address, ...],
        clock: Any,
        heartbeat: int,
        mechanism: str,
        tls: Mapping[str, Any] | bool | None,
        start_timeout: float | None,
        consumer_timeout: float,
    ) -> None:
        super().__init__()
        self.addresses = addresses
        self.clock = clock
        self.options: dict[str, Any] = {
            "heartbeat": heartbeat,
            "mechanism": mechanism,
            "tls": tls,
            "outbox": Outbox(clock),
            "start_timeout": start_timeout,
        }
        self._consuming: Connection | None = None
        self._publisher: Publisher | None = None
        self.unacked = Unacked(consumer_timeout, clock)
        self.leaving = Leaving(self, clock)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], clock: Any = None) -> Connections:
        """As a config says. ``ConfigurationError`` for all values in it that can't be."""
        if clock is None:
            from twisted.internet import reactor as clock
        configuration.check(config)
        uri = configuration.AMQP_URI.of(config)
        if uri is None:
            raise ConfigurationError(
                "AMQP_URI is not configured: give the broker's address, amqp://user:password@host/"
            )
        addresses = parse_addresses(uri)
        tls = configuration.AMQP_SSL.of(config)
        for address in addresses:  # its mistakes now, and not at the first attempt
            endpoint_for(address, tls, clock)
        return cls(
            addresses,
            clock,
            heartbeat=configuration.HEARTBEAT.of(config) or 0,
            mechanism=configuration.LOGIN_METHOD.of(config),
            tls=tls,
            start_timeout=configuration.BROKER_START_TIMEOUT.of(config),
            consumer_timeout=configuration.CONSUMER_TIMEOUT.of(config) or 0,
        )

    @property
    def consuming(self) -> Connection:
        """The connection that messages come in on."""
        if self._consuming is None:
            self._consuming = Connection(self.addresses, "txservices: consumes", self.clock, **self.options)
            self._consuming.setServiceParent(self)
        return self._consuming

    @property
    def publisher(self) -> Publisher:
        """What publishes, on the connection that messages go out on."""
        if self._publisher is None:
            connection = Connection(self.addresses, "txservices: publishes", self.clock, **self.options)
            self._publisher = Publisher(connection, self.clock)
            connection.setServiceParent(self)
        return self._publisher

    @property
    def in_use(self) -> list[Connection]:
        both = [self._consuming, self._publisher.connection if self._publisher else None]
        return [connection for connection in both if connection is not None]

    @property
    def connected(self) -> bool:
        """Whether every connection in use is open now."""
        return all(connection.protocol is not None for connection in self.in_use)

    def consume(
        self, queue: Queue, receive: Callable[[Message], None], prefetch_count: int, exclusive: bool = False
    ) -> Subscription:
        """Declare the queue and have its messages delivered to ``receive``, now and after every reconnect."""
        consumer = Subscription(self.consuming, queue, receive, prefetch_count, exclusive)
        self.unacked.watch(consumer)
        return consumer

    def declare(self, *entities: Exchange | Queue) -> Deferred[None]:
        """See ``Publisher.declare``."""
        return self.publisher.declare(*entities)

    def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: dict[str, Any],
        mandatory: bool = False,
        timeout: float | None = configuration.PUBLISH_TIMEOUT.default,
    ) -> Deferred[None]:
        """See ``Publisher.publish``."""
        return self.publisher.publish(exchange, routing_key, body, properties, mandatory, timeout)

    def publish_then(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: dict[str, Any],
        mandatory: bool,
        done: Callable[[Exception | None], None],
        timeout: float | None = configuration.PUBLISH_TIMEOUT.default,
    ) -> None:
        """See ``Publisher.publish_then``."""
        self.publisher.publish_then(exchange, routing_key, body, properties, mandatory, done, timeout)

    # The end

    def settled(self) -> Deferred[None]:
        """Fires when the broker has answered for all that was published until now."""
        return self._publisher.settled() if self._publisher is not None else succeed(None)

    def give_up(self) -> None:
        """What waits for the broker fails, and is reported. What was not acked by now goes back to its queue."""
        self.drop()  # first: a worker that fails for this must not ack its message
        if self._publisher is not None:
            self._publisher.give_up()

    def drop(self) -> None:
        """Give up the connections, which do not answer; others are made."""
        for connection in self.in_use:
            connection.drop()

    def stopService(self) -> Deferred[Any]:
        """What is published is confirmed first, as far as there is a broker to do it; then both close."""
        return Deferred.fromCoroutine(self.stop())

    async def stop(self) -> None:
        self.leaving.begin()
        self.unacked.stop()
        if self._publisher is not None:
            await self.leaving.answered(self._publisher.flush())
            self._publisher.give_up()
        self.leaving.end()
        await MultiService.stopService(self)
