"""The connections of a process: one publishes, one takes replies, and each service has one for its own messages.

Publishing has a connection to itself because a broker that is short of memory stops reading from connections that
publish, and acks must still reach it. A service's own messages have one because it is not read while they take too much
memory (see ``prefetched``), and a worker must not wait for a reply, or for another service, that is not read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred, succeed

from txservices import configuration
from txservices.amqp.connection import Connection
from txservices.amqp.deadletters import DeadLetters
from txservices.amqp.endpoints import endpoint_for
from txservices.amqp.entities import Message, Queue
from txservices.amqp.leaving import Leaving
from txservices.amqp.ondemand import OnDemand
from txservices.amqp.outbox import Outbox
from txservices.amqp.publisher import Publisher
from txservices.amqp.subscription import Subscription
from txservices.amqp.unacked import Unacked
from txservices.exceptions import ConfigurationError
from txservices.utils import default_reactor
from txservices.utils.address import Address, parse_addresses

PROCESS = "txservices"  # the broker shows it before what a connection is for


class Connections(MultiService):
    """All of them, each made when it is first needed.

    Attributes:
        in_use: the connections that were needed until now.
        leaving: what a stop of the process waits for.
    """

    def __init__(
        self,
        addresses: tuple[Address, ...],
        clock: Any,
        heartbeat: int,
        mechanism: str,
        tls: Mapping[str, Any] | bool | None,
        start_timeout: float | None,
        consumer_timeout: float,
        services: Iterable[str] = (),
    ) -> None:
        super().__init__()
        self.addresses = addresses
        self.service_names = services
        self.clock = clock
        self.options: dict[str, Any] = {
            "heartbeat": heartbeat,
            "mechanism": mechanism,
            "tls": tls,
            "outbox": Outbox(clock),
            "start_timeout": start_timeout,
        }
        self.in_use: list[Connection] = []
        self.left: dict[Connection, Deferred[None]] = {}  # those that are being closed
        self.unacked = Unacked(consumer_timeout, clock)
        self.leaving = Leaving(lambda: self.connected, self.abort, self.reconnect, clock)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], clock: Any = None, services: Iterable[str] = ()) -> Connections:
        """The connections that a configuration describes. ``ConfigurationError`` for values that can't be used.

        ``services`` are the names that the broker shows for them.
        """
        clock = default_reactor(clock)
        configuration.check(config)
        uri = configuration.AMQP_URI.of(config)
        if uri is None:
            raise ConfigurationError(
                "AMQP_URI is not configured: give the broker's address, amqp://user:password@host/"
            )
        addresses = parse_addresses(uri)
        tls = configuration.AMQP_SSL.of(config)
        for address in addresses:  # to tell mistakes now, and not at the first attempt to connect
            endpoint_for(address, tls, clock)
        return cls(
            addresses,
            clock,
            heartbeat=configuration.HEARTBEAT.of(config) or 0,
            mechanism=configuration.LOGIN_METHOD.of(config),
            tls=tls,
            start_timeout=configuration.BROKER_START_TIMEOUT.of(config),
            consumer_timeout=configuration.CONSUMER_TIMEOUT.of(config) or 0,
            services=services,
        )

    def connection(self, purpose: str, services: Iterable[str]) -> Connection:
        connection = Connection(self.addresses, f"{PROCESS}: {purpose}", self.clock, services=services, **self.options)
        connection.on_changed.append(self.leaving.look)
        self.in_use.append(connection)
        self.leaving.look()
        return connection

    @cached_property
    def consuming(self) -> Connection:
        """The connection that is always read: replies come in on it, and whatever else a worker may wait for."""
        connection = self.connection("consumes", self.service_names)
        connection.setServiceParent(self)
        return connection

    def own(self, service: str, bytes_max: int, waits: Callable[[], bool]) -> Connection:
        """Another connection, for the messages that a service works on: see ``Prefetched`` for the arguments."""
        connection = self.connection(f"{service} consumes", [service])
        connection.limit(bytes_max, waits)
        connection.setServiceParent(self)
        return connection

    async def leave(self, connection: Connection) -> None:
        """Close a connection that was somebody's own. Its unsettled messages go back. A stop waits for that."""
        if connection in self.in_use:
            self.in_use.remove(connection)
            self.left[connection] = maybeDeferred(connection.disownServiceParent)
            await self.left[connection]
            del self.left[connection]

    @cached_property
    def publisher(self) -> Publisher:
        """Publishes, on the connection that messages go out on."""
        connection = self.connection("publishes", self.service_names)
        publisher = Publisher(connection, self.clock)  # first: it is to be told when that is connected
        connection.setServiceParent(self)
        return publisher

    @cached_property
    def on_demand(self) -> OnDemand:
        """Publishes to queues that are declared when they are needed: for delays, and for what is parked."""
        return OnDemand(self.publisher)

    @property
    def connected(self) -> bool:
        """Whether every connection in use is open now."""
        return all(connection.protocol is not None for connection in self.in_use)

    def not_ready(self) -> list[str]:
        """Why messages do not come and go now: a line for each reason, with the connections that it is of."""
        lines: dict[str, list[str]] = {}
        for connection in self.in_use:
            if not connection.is_open:
                line = f"no connection to the broker at {connection.address}: {connection.cause}"
                lines.setdefault(line, []).append(connection.connection_name.removeprefix(f"{PROCESS}: "))
        return [f"{line} ({', '.join(names)})" for line, names in lines.items()]

    def consume(
        self,
        queue: Queue,
        receive: Callable[[Message], None],
        prefetch_count: int,
        connection: Connection | None = None,
        dead_letters: DeadLetters | None = None,
    ) -> Subscription:
        """Declare the queue and have its messages delivered to ``receive``, now and after every reconnect.

        ``prefetch_count`` is how many messages may be delivered and not settled; 0 sets no limit. ``connection`` is one
        of ``own``; without it the messages come in on the one that is always read. With ``dead_letters``, these declare
        the queue.
        """
        subscription = Subscription(connection or self.consuming, queue, receive, prefetch_count, dead_letters)
        self.unacked.watch(subscription)
        return subscription

    # The end

    def drain(self) -> Deferred[None]:
        """Fires with None when the broker has answered for every message published until now."""
        return self.publisher.drain() if "publisher" in vars(self) else succeed(None)

    def abort(self) -> None:
        """End now: whatever waits for the broker fails, and unsettled deliveries go back to their queues."""
        self.reconnect()  # first: a worker that fails because of this must not ack its message
        self.give_up()

    def give_up(self) -> None:
        """Wait for no confirm any more: every message without one fails. Those written are sent all the same."""
        if "publisher" in vars(self):
            self.publisher.abort()

    def reconnect(self) -> None:
        """Abort connections that do not answer; others are made."""
        for connection in self.in_use:
            connection.reconnect()

    def startService(self) -> None:
        Service.startService(self)
        for each in list(self):  # one that is made meanwhile is started when it is added
            each.startService()

    def stopService(self) -> Deferred[Any]:
        """Close all, once the broker has confirmed everything or has not answered for too long. Fires then."""
        return Deferred.fromCoroutine(self.close())

    async def close(self) -> None:
        self.leaving.begin()
        self.unacked.cancel()
        if "publisher" in vars(self):
            self.publisher.cancel()
            await self.leaving.answered(self.publisher.drain())
            self.publisher.abort()
        self.leaving.end()
        await gatherResults([*self.left.values(), MultiService.stopService(self)])
