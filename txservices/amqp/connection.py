"""A connection to a broker that comes back by itself: protocols and channels below know nothing of reconnection.

``Connection`` connects to the first address that answers, and again whenever that connection is lost. The log tells the
cause and when the next attempt is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextvars import Context
from random import uniform
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.logger import Logger

from txservices import configuration
from txservices.amqp.causes import HANDSHAKE_TIMEOUT, describe, is_limit, refusal
from txservices.amqp.endpoints import endpoint_for
from txservices.amqp.naming import process_of
from txservices.amqp.outbox import Outbox
from txservices.amqp.prefetched import Prefetched
from txservices.amqp.protocol import CLOSE_TIMEOUT, Protocol
from txservices.exceptions import (
    AmqpError,
    BrokerUnreachable,
    ConnectionLost,
)
from txservices.observers import observers
from txservices.utils.address import Address
from txservices.utils.waiting import Waiters
from txservices.wire.spec import ReplyCode

log = Logger()

RETRY_FIRST = 0.2  # seconds before the first attempt after a loss, on average
RETRY_GROWTH = 1.6  # by which the wait grows with each attempt
RETRY_MAX = 1.4  # seconds; consumers are to be back within 2 s of a reachable broker
LIVED = 5.0  # seconds after which a connection that is lost was a good one; one that died younger is a failed attempt
RETRY_JITTER = 0.5  # the wait is spread by half, so that 200 services don't come back in one moment
REFUSED_RETRY = 30.0  # seconds between attempts while the broker refuses our credentials; the most for other refusals


class QuietFactory(Factory):
    """Builds protocols without a log line for each: the attempts are logged here, with their cause."""

    noisy = False


class Connection(Service):
    """One connection to a broker, made again whenever it is lost, from ``startService`` to ``stopService``.

    Args:
        name: what it is for, for the log.
        services: whose it is, for the broker to show.

    Attributes:
        process: those services, and the process that they run in.
        protocol: the open connection, or None while there is none.
        cause: why there was no connection when the latest attempt had ended, or the latest connection was lost.
        prefetched: says when nothing is read for a while; None if everything is always read.
        on_connected: called with each new ``Protocol`` before anyone else may use it; if one gives a Deferred, that is
            waited for.
        on_changed: called without arguments each time ``protocol`` comes or goes.
    """

    # Twisted's ClientService does the same without telling why and when. Besides, its state machine has no transition
    # for a connection that is lost while it is being prepared, and raises NoTransition: seen with Twisted 26.10.

    def __init__(
        self,
        addresses: tuple[Address, ...],
        name: str,
        clock: Any,
        heartbeat: int | None = configuration.HEARTBEAT.default,
        mechanism: str = "PLAIN",
        tls: Mapping[str, Any] | bool | None = None,
        outbox: Outbox | None = None,
        start_timeout: float | None = None,
        services: Iterable[str] = (),
    ) -> None:
        self.addresses = addresses
        self.address = addresses[0]
        self.connection_name = name
        self.process = process_of(services)
        self.clock = clock
        self.heartbeat = heartbeat or 0
        self.mechanism = mechanism
        self.tls = tls
        self.outbox = outbox or Outbox(clock)
        self.start_timeout = start_timeout
        self.started_at = 0.0
        self.attempts = 0
        self.protocol: Protocol | None = None
        self.prefetched: Prefetched | None = None
        self.on_connected: list[Callable[[Protocol], Any]] = []
        self.on_changed: list[Callable[[], None]] = []
        self.waiting: Waiters[Protocol] = Waiters()
        self.was_connected = False
        self.cause = "the first attempt is under way"
        self.latest: Protocol | None = None  # open or not, until its socket is closed
        self.keeping: Deferred[None] = succeed(None)
        for address in addresses:  # a login that is too long is told now, and not at the first attempt
            self.make_protocol(address)

    def startService(self) -> None:
        super().startService()
        self.started_at = self.clock.seconds()
        # A worker may be the first to need this connection; its later log lines must not bear that worker's call id.
        self.keeping = Context().run(Deferred.fromCoroutine, self.keep())

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return Deferred.fromCoroutine(self.close())

    async def close(self) -> None:
        """Close the connection in order if there is one, and make no other."""
        self.waiting.fail(ConnectionLost("the service is stopping"))
        if self.prefetched is not None:
            self.prefetched.close()
        protocol = self.protocol
        self.use(None, "the service is stopping")
        if protocol is not None and not protocol.closed:
            await self.close_protocol(protocol)
        self.keeping.cancel()
        await self.keeping
        if self.latest is not None:
            gone = self.latest.disconnected.wait()
            self.latest.abort()
            await gone

    def limit(self, bytes_max: int, waits: Callable[[], bool]) -> Prefetched:
        """Read nothing while the unsettled bodies have more bytes and a message waits: see ``prefetched``."""
        self.prefetched = Prefetched(bytes_max, waits, self.pause, self.resume)
        self.on_changed.append(self.prefetched.connection_changed)
        return self.prefetched

    def pause(self) -> None:
        if self.protocol is not None:
            self.protocol.pause()

    def resume(self) -> None:
        if self.protocol is not None:
            self.protocol.resume()

    def use(self, protocol: Protocol | None, reason: str = "") -> None:
        before, self.protocol = self.protocol, protocol
        if protocol is not None:
            observers.tell(observers.connected, *self.told_as)
        elif before is not None:
            observers.tell(observers.disconnected, *self.told_as, reason or describe(before.error))
        for call in self.on_changed:
            call()

    def reconnect(self) -> None:
        """Abort a connection that does not answer; another is made."""
        protocol, reason = self.protocol, "the broker did not answer"
        self.use(None, reason)
        if protocol is not None and not protocol.closed:
            protocol.abort()
            protocol.do_close(ConnectionLost(reason))

    async def close_protocol(self, protocol: Protocol) -> None:
        gone = protocol.disconnected.wait()
        protocol.flush()  # this turn's acks: the broker ignores everything after the close
        closing: Deferred[Any] = protocol.channels[0].connection_close(
            reply_code=ReplyCode.REPLY_SUCCESS, reply_text="done"
        )
        try:
            await closing.addTimeout(CLOSE_TIMEOUT, self.clock)
        except (AmqpError, DeferredTimeout):
            protocol.abort()
        protocol.do_close(ConnectionLost("the connection was closed here"))
        await gone

    @property
    def is_open(self) -> bool:
        """Whether there is a connection. A closed one may still have its socket, and be the ``protocol``."""
        return self.protocol is not None and not self.protocol.closed

    def when_connected(self) -> Deferred[Protocol]:
        """Fires with the open ``Protocol``, now or when there is one.

        Fails with ``BrokerRefused`` if the broker refuses our credentials or virtual host and has never accepted them,
        with ``BrokerUnreachable`` if no broker answers within the start timeout, and with ``ConnectionLost`` when the
        service stops.
        """
        if self.protocol is not None and self.is_open:
            return succeed(self.protocol)
        return self.waiting.wait()

    # Attempt after attempt

    async def keep(self) -> None:
        """Connect, wait until the connection is lost, connect again, until cancelled."""
        failed = 0
        try:
            while True:
                failed += 1
                try:
                    protocol = await self.attempt()
                except CancelledError:
                    raise
                except Exception as error:  # whatever it was, the next attempt may succeed
                    cause: Exception | None = error
                else:
                    opened_at = self.clock.seconds()
                    await protocol.disconnected.wait()
                    if self.clock.seconds() - opened_at >= LIVED:
                        failed = 0
                    cause = protocol.error
                delay = self.retry_after(failed, cause) if self.running else 0.0
                if not self.running:  # stopped by somebody who was told of the failure: no cancel reaches running code
                    return
                await deferLater(self.clock, delay)
        except CancelledError:
            pass

    def make_protocol(self, address: Address) -> Protocol:
        name = f"{self.connection_name} ({self.process})"
        protocol = Protocol(address, self.heartbeat, self.mechanism, name, self.clock, self.outbox)
        protocol.on_blocked = self.tell_blocked
        return protocol

    @property
    def told_as(self) -> tuple[str, str]:
        """The address and the purpose, as observers are told of them."""
        return str(self.address), self.connection_name.removeprefix("txservices: ")

    def tell_blocked(self, reason: str | None) -> None:
        """The broker takes no messages, for that reason; None if it takes them again."""
        if reason is None:
            observers.tell(observers.unblocked, *self.told_as)
        else:
            observers.tell(observers.blocked, *self.told_as, reason)

    async def attempt(self) -> Protocol:
        """Connect to the next of the addresses; gives the open connection, with everything restored on it."""
        self.address = address = self.addresses[self.attempts % len(self.addresses)]
        self.attempts += 1
        factory = QuietFactory.forProtocol(lambda: self.make_protocol(address))
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
        self.was_connected = True
        self.use(protocol)
        self.waiting.fire(protocol)
        opened: Protocol = protocol
        return opened

    def lost(self, protocol: Protocol) -> None:
        if self.latest is protocol:
            self.latest = None
            self.use(None)

    def retry_after(self, failed: int, error: Exception | None) -> float:
        """Seconds until the next attempt, after that many failures and young deaths in a row. Logs the cause."""
        self.cause = describe(error)
        refused = refusal(error, self.address)
        if not self.was_connected:
            if refused is not None:
                told = len(self.waiting)
                self.waiting.fail(refused)
                if told:  # the start ends with that error: nothing is tried again
                    return REFUSED_RETRY
            elif failed >= len(self.addresses) and self.start_is_late():
                self.start_failed(error)
        if refused is not None:
            delay = REFUSED_RETRY
        else:
            most = REFUSED_RETRY if is_limit(error) else RETRY_MAX
            delay = min(RETRY_FIRST * RETRY_GROWTH ** min(failed, 20), most)
            delay = uniform(delay * (1 - RETRY_JITTER), delay)
        log.warn(
            "no connection to the broker at {address} ({name}): {cause}. Trying again in {delay:.1f} s",
            address=self.address,
            name=self.connection_name,
            cause=self.cause,
            delay=delay,
        )
        return delay

    def start_is_late(self) -> bool:
        timeout = self.start_timeout
        return timeout is not None and self.clock.seconds() - self.started_at >= timeout

    def start_failed(self, error: Exception | None) -> None:
        where = ", ".join(map(str, self.addresses))
        self.waiting.fail(
            BrokerUnreachable(
                f"no broker at {where} ({describe(error)}) within the {self.start_timeout} s of"
                f" {configuration.BROKER_START_TIMEOUT.name}: start it, or correct AMQP_URI; without that key a"
                " service waits for its broker"
            )
        )
