"""A broker kept connected: reconnection is a room of its own, the channels below never know of it.

``Connection`` is one connection to the first address that answers, made again whenever it is lost, with the cause and
the next attempt in the log. (Twisted's ``ClientService`` does the same but for that; its state machine has no way from
a connection that is lost while it is being prepared, and raises ``NoTransition`` there: seen with Twisted 26.10.)

``Connections`` is the process's pair: one consumes, one publishes, however many services run in it. A broker under
memory alarm stops reading those who publish; acks, on the other connection, must still flow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import Context
from random import uniform
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from txservices import constants
from txservices.amqp.address import Address, parse_addresses
from txservices.amqp.consumer import Consumer
from txservices.amqp.endpoints import endpoint_for
from txservices.amqp.entities import Exchange, Message, Queue
from txservices.amqp.leaving import Leaving
from txservices.amqp.outbox import Outbox
from txservices.amqp.protocol import CLOSE_TIMEOUT, Protocol, credentials
from txservices.amqp.publisher import Publisher
from txservices.amqp.spec import ReplyCode
from txservices.amqp.unacked import Unacked
from txservices.exceptions import (
    AmqpError,
    BrokerRefused,
    BrokerUnreachable,
    ConfigurationError,
    ConnectionClosedByBroker,
    ConnectionLost,
)

log = Logger()

HANDSHAKE_TIMEOUT = 20.0  # seconds from the socket to the open connection; a link of 2 s latency needs 12
RETRY_FIRST = 0.2  # seconds before the first attempt after a loss, on average
RETRY_GROWTH = 1.6  # by which the wait grows with each attempt
RETRY_MAX = 1.4  # seconds; consumers are to be back within 2 s of a reachable broker
RETRY_JITTER = 0.5  # the wait is spread by half, so that 200 services don't come back in one moment
REFUSED_RETRY = 30.0  # seconds between attempts while the broker refuses our credentials or virtual host

REFUSALS = frozenset((ReplyCode.ACCESS_REFUSED, ReplyCode.NOT_ALLOWED, ReplyCode.INVALID_PATH))


class QuietFactory(Factory):
    """Builds protocols without a log line for each: the attempts are logged here, with their cause."""

    noisy = False


class Connection(Service):
    """One connection to a broker, for as long as the service runs.

    Attributes:
        protocol: the open connection, or None while there is none.
        on_connected: called with each new ``Protocol`` before anyone else may use it; may give a Deferred to wait for.
    """

    def __init__(
        self,
        addresses: tuple[Address, ...],
        name: str,
        clock: Any,
        heartbeat: int = constants.DEFAULT_HEARTBEAT,
        mechanism: str = "PLAIN",
        tls: Mapping[str, Any] | bool | None = None,
        outbox: Outbox | None = None,
        start_timeout: float | None = None,
    ) -> None:
        self.addresses = addresses
        self.address = addresses[0]
        self.connection_name = name
        self.clock = clock
        self.heartbeat = heartbeat
        self.mechanism = mechanism
        self.tls = tls
        self.outbox = outbox or Outbox(clock)
        self.start_timeout = start_timeout
        self.started_at = 0.0
        self.attempts = 0
        self.protocol: Protocol | None = None
        self.on_connected: list[Callable[[Protocol], Any]] = []
        self.waiting: list[Deferred[Protocol]] = []
        self.was_connected = False
        self.latest: Protocol | None = None  # open or not, until its socket is closed
        self.keeping: Deferred[None] = succeed(None)

    def startService(self) -> None:
        super().startService()
        self.started_at = self.clock.seconds()
        # A worker may be the first to need it; what it says for the rest of its life is none of that worker's.
        self.keeping = Context().run(Deferred.fromCoroutine, self.keep())

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return Deferred.fromCoroutine(self.stop())

    async def stop(self) -> None:
        """Close politely, if there is somebody to be polite to, and stop trying otherwise."""
        waiting, self.waiting = self.waiting, []
        for waiter in waiting:
            waiter.errback(ConnectionLost("the service is stopping"))
        protocol, self.protocol = self.protocol, None
        if protocol is not None and not protocol.closed:
            await self.say_goodbye(protocol)
        self.keeping.cancel()
        await self.keeping
        if self.latest is not None:
            gone = self.latest.disconnected.wait()
            self.latest.abort()
            await gone

    def drop(self) -> None:
        """Give up a connection that does not answer; another is made."""
        protocol, self.protocol = self.protocol, None
        if protocol is not None and not protocol.closed:
            protocol.abort()
            protocol.do_close(ConnectionLost("the broker did not answer"))

    async def say_goodbye(self, protocol: Protocol) -> None:
        gone = protocol.disconnected.wait()
        protocol.flush()  # this turn's acks: nothing after the close counts
        closing: Deferred[Any] = protocol.channels[0].connection_close(
            reply_code=ReplyCode.REPLY_SUCCESS, reply_text="done"
        )
        try:
            await closing.addTimeout(CLOSE_TIMEOUT, self.clock)
        except (AmqpError, DeferredTimeout):
            protocol.abort()
        protocol.do_close(ConnectionLost("the connection was closed here"))
        await gone

    def when_connected(self) -> Deferred[Protocol]:
        """Fires with the open connection, now or when there is one.

        Fails with ``BrokerRefused`` if the broker refuses our credentials or virtual host before it ever took them,
        with ``BrokerUnreachable`` where no broker answers within the start timeout, and with ``ConnectionLost`` when
        this stops.
        """
        waiter: Deferred[Protocol] = Deferred(lambda cancelled: self.waiting.remove(cancelled))
        if self.protocol is not None and not self.protocol.closed:  # a closed one may still have its socket
            waiter.callback(self.protocol)
        else:
            self.waiting.append(waiter)
        return waiter

    # Attempt after attempt

    async def keep(self) -> None:
        """Connect, wait until that is lost, connect again, until cancelled."""
        failed = 0
        try:
            while True:
                failed += 1
                try:
                    protocol = await self.attempt()
                except CancelledError:
                    raise
                except Exception as error:  # whatever it was, the next attempt may do
                    log.debug("an attempt to connect failed", failure=Failure())
                    cause: Exception | None = error
                else:
                    failed = 0
                    await protocol.disconnected.wait()
                    cause = protocol.error
                delay = self.retry_after(failed, cause) if self.running else 0.0
                if not self.running:  # who is told of a failure may stop us: a cancel doesn't reach what runs
                    return
                await deferLater(self.clock, delay)
        except CancelledError:
            pass

    async def attempt(self) -> Protocol:
        """One attempt, at the next of the addresses; gives the open connection with everything put back on it."""
        self.address = address = self.addresses[self.attempts % len(self.addresses)]
        self.attempts += 1
        factory = QuietFactory.forProtocol(
            lambda: Protocol(address, self.heartbeat, self.mechanism, self.connection_name, self.clock, self.outbox)
        )
        protocol: Any = await endpoint_for(address, self.tls, self.clock).connect(factory)
        self.latest = protocol
        protocol.disconnected.wait().addCallback(lambda _: self.lost(protocol))
        try:
            await protocol.opened.addTimeout(HANDSHAKE_TIMEOUT, self.clock)
            for restore in list(self.on_connected):
                restored = restore(protocol)
                if restored is not None:
                    await restored
            if protocol.closed:
                raise protocol.error or ConnectionLost("the connection was lost while it was being opened")
        except BaseException:
            protocol.abort()
            raise
        log.info("connected to the broker at {address} ({name})", address=address, name=self.connection_name)
        self.protocol = protocol
        self.was_connected = True
        waiting, self.waiting = self.waiting, []
        for waiter in waiting:
            waiter.callback(protocol)
        opened: Protocol = protocol
        return opened

    def lost(self, protocol: Protocol) -> None:
        if self.latest is protocol:
            self.latest = self.protocol = None

    def retry_after(self, failed: int, error: Exception | None) -> float:
        """Seconds to the next attempt, after that many failures in a row; says why, and when."""
        refused = isinstance(error, ConnectionClosedByBroker) and error.code in REFUSALS
        if not self.was_connected:
            if refused:
                self.refuse(error)
            elif failed >= len(self.addresses) and self.start_is_late():
                self.give_up_start(error)
        if refused or isinstance(error, ConfigurationError):
            delay = REFUSED_RETRY
        else:
            delay = min(RETRY_FIRST * RETRY_GROWTH ** min(failed, 20), RETRY_MAX)
            delay = uniform(delay * (1 - RETRY_JITTER), delay)
        log.warn(
            "no connection to the broker at {address} ({name}): {cause}. Trying again in {delay:.1f} s",
            address=self.address,
            name=self.connection_name,
            cause=describe(error),
            delay=delay,
        )
        return delay

    def start_is_late(self) -> bool:
        timeout = self.start_timeout
        return timeout is not None and self.clock.seconds() - self.started_at >= timeout

    def give_up_start(self, error: Exception | None) -> None:
        where = ", ".join(map(str, self.addresses))
        self.tell_waiting(
            BrokerUnreachable(
                f"no broker at {where} ({describe(error)}) within the {self.start_timeout} s of"
                f" {constants.BROKER_START_TIMEOUT_CONFIG_KEY}: start it, or correct AMQP_URI; without that key a"
                " service waits for its broker"
            )
        )

    def refuse(self, error: Exception | None) -> None:
        self.tell_waiting(
            BrokerRefused(
                f"the broker at {self.address} refuses us ({describe(error)}): check user, password and virtual"
                " host of AMQP_URI, and the user's permissions on the broker"
            )
        )

    def tell_waiting(self, error: Exception) -> None:
        """Who waits for a first connection is told that there won't be one: that is the user's to mend."""
        waiting, self.waiting = self.waiting, []
        for waiter in waiting:
            waiter.errback(error)


def describe(error: Exception | None) -> str:
    """A cause in a few words; many of Twisted's errors have none of their own beyond their class."""
    if error is None:
        return "the connection was lost"
    if isinstance(error, DeferredTimeout):
        return f"no answer to the handshake within {HANDSHAKE_TIMEOUT:.0f} s"
    return str(error).rstrip(".") or type(error).__name__


class Connections(MultiService):
    """The pair of connections that a process has, each made when it is first needed."""

    def __init__(
        self,
        addresses: tuple[Address, ...],
        clock: Any,
        heartbeat: int = constants.DEFAULT_HEARTBEAT,
        mechanism: str = "PLAIN",
        tls: Mapping[str, Any] | bool | None = None,
        start_timeout: float | None = None,
        consumer_timeout: float = constants.DEFAULT_CONSUMER_TIMEOUT,
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
        """As AMQP_URI, HEARTBEAT, LOGIN_METHOD and AMQP_SSL say. ``ConfigurationError`` for values that can't be."""
        if clock is None:
            from twisted.internet import reactor as clock
        uri = config.get(constants.AMQP_URI_CONFIG_KEY)
        if not uri:
            raise ConfigurationError(
                "AMQP_URI is not configured: give the broker's address, amqp://user:password@host/"
            )
        addresses = parse_addresses(uri)
        for address in addresses:  # its mistakes now, and not at the first attempt
            endpoint_for(address, config.get(constants.AMQP_SSL_CONFIG_KEY), clock)
        mechanism = config.get(constants.LOGIN_METHOD_CONFIG_KEY) or "PLAIN"
        credentials(mechanism, "", "")
        start_timeout = config.get(constants.BROKER_START_TIMEOUT_CONFIG_KEY)
        return cls(
            addresses,
            clock,
            heartbeat=int(config.get(constants.HEARTBEAT_CONFIG_KEY, constants.DEFAULT_HEARTBEAT) or 0),
            mechanism=mechanism,
            tls=config.get(constants.AMQP_SSL_CONFIG_KEY),
            start_timeout=None if start_timeout is None else float(start_timeout),
            consumer_timeout=float(
                config.get(constants.CONSUMER_TIMEOUT_CONFIG_KEY, constants.DEFAULT_CONSUMER_TIMEOUT) or 0
            ),
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
    ) -> Consumer:
        """Declare the queue and have its messages delivered to ``receive``, now and after every reconnect."""
        consumer = Consumer(self.consuming, queue, receive, prefetch_count, exclusive)
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
        timeout: float | None = constants.DEFAULT_PUBLISH_TIMEOUT,
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
        timeout: float | None = constants.DEFAULT_PUBLISH_TIMEOUT,
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
