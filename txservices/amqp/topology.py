"""Declares exchanges and queues, on channels of their own: a refusal closes the channel.

``Topology`` has what a process has declared, and declares it again on each new connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from txservices.amqp.channel import Channel
from txservices.amqp.connection import Connection
from txservices.amqp.entities import Exchange, Queue
from txservices.amqp.protocol import Protocol
from txservices.amqp.refusals import explained, named, passes, pause, unwritable
from txservices.exceptions import (
    AmqpError,
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    ConnectionLost,
    DeclarationMismatch,
    NotAnswered,
)
from txservices.utils.waiting import call_all
from txservices.wire.spec import REQUEST_ERRORS, ReplyCode

log = Logger()

TOPOLOGY_MAX = 10_000  # exchanges and queues kept, to be declared again: a program may name them by what strangers send
DECLARING_MAX = 100  # exchanges and queues declared again at once, each on a channel of its own
BLAMED_MAX = 2  # connections that the broker closes while something is declared, until that is taken for the cause
# RabbitMQ 4 answers for a classic queue whose node is down after 64 seconds, or when that node is back. Until then its
# channel does nothing else. RabbitMQ 3.10 answers at once.
ANSWER_TIMEOUT = 1.5  # seconds for each answer about exchanges and queues, when others wait for the outcome
DECLARE_TIMEOUT = 30.0  # seconds for each answer when somebody declares, who is told of the failure


ALWAYS_THERE = "amq.direct"  # an exchange of each virtual host


def gone(failure: Failure) -> None:
    """Errback of a cancel or a close: if the channel or the connection is gone, there is nothing left to do."""
    failure.trap(AmqpError)


async def declare(protocol: Protocol, *entities: Exchange | Queue, patience: float) -> None:
    """Declare entities in that order, on a channel of their own, with ``patience`` seconds for each answer.

    Errors are those of ``declare_on``.
    """
    channel = await protocol.open_channel(patience)
    try:
        for entity in entities:
            await declare_on(channel, entity)
    finally:  # not waited for: where a declaration is not answered, the close is not either
        protocol.close_channel(channel).addErrback(gone)


async def declare_on(channel: Channel, entity: Exchange | Queue) -> str:
    """Declare an exchange, or a queue with its exchange and binding. Gives the name; the broker may have chosen it.

    Raises ``DeclarationMismatch`` if that can't succeed, ``RefusedForNow`` if it may later, ``ChannelClosedByBroker``
    for any other refusal, and ``NotAnswered``.
    """
    if isinstance(entity, Exchange):
        with told(named("exchange", entity.name), entity.passive, entity.name, entity.type):
            await declare_exchange(channel, entity)
        return entity.name
    what = named("queue", entity.name)
    if entity.exchange is not None:
        exchange = entity.exchange
        with told(f"{named('exchange', exchange.name)} of {what}", exchange.passive, exchange.name, exchange.type):
            await declare_exchange(channel, exchange)
    with told(what, entity.passive, entity.name):
        return await declare_queue(channel, entity)


@contextmanager
def told(what: str, passive: bool, *about: str) -> Iterator[None]:
    """Raise errors of a declaration in words. One that closes the connection is of this only if it names ``about``."""
    try:
        yield
    except ValueError as error:
        raise unwritable(what, error) from error
    except (ChannelClosedByBroker, ConnectionClosedByBroker) as error:
        known = explained(what, error, passive)
        if known is None:
            raise
        if isinstance(error, ConnectionClosedByBroker) and not any(each in error.text for each in about):
            raise  # a connection may be closed for somebody else's declaration
        raise known from error


async def declare_exchange(channel: Channel, exchange: Exchange) -> None:
    if not exchange.name:
        return  # the default exchange always exists, and must not be declared
    await channel.exchange_declare(
        exchange=exchange.name,
        type=exchange.type,
        passive=exchange.passive,
        durable=exchange.durable,
        auto_delete=exchange.auto_delete,
        internal=exchange.internal,
        arguments=dict(exchange.arguments),
    )


async def declare_queue(channel: Channel, queue: Queue) -> str:
    declared = await channel.queue_declare(
        queue=queue.name,
        passive=queue.passive,
        durable=queue.durable,
        exclusive=queue.exclusive,
        auto_delete=queue.auto_delete,
        arguments=dict(queue.arguments),
    )
    name: str = declared.queue
    if queue.exchange is not None and queue.exchange.name and not queue.passive:
        await channel.queue_bind(queue=name, exchange=queue.exchange.name, routing_key=queue.routing_key)
    return name


async def queue_exists(protocol: Protocol, name: str, patience: float) -> bool:
    """Whether the broker has a queue of that name now.

    It has not if it can't tell within ``patience`` seconds, though it answers something else in that time. If it does
    not answer that either, as just after its start on a busy machine, this raises ``NotAnswered``.
    """
    answering = Deferred.fromCoroutine(answers(protocol, patience))
    channel = await protocol.open_channel(patience)
    try:
        await channel.queue_declare(queue=name, passive=True)
    except ChannelClosedByBroker as error:
        if error.code == ReplyCode.NOT_FOUND:
            return False
        raise
    except NotAnswered:
        if not await answering:
            raise
        return False
    finally:
        protocol.close_channel(channel).addErrback(gone)
    return True


async def answers(protocol: Protocol, patience: float) -> bool:
    """Whether the broker answers a question about no queue within ``patience`` seconds."""
    try:
        channel = await protocol.open_channel(patience)
        try:
            await channel.exchange_declare(exchange=ALWAYS_THERE, type="direct", passive=True)
        finally:
            protocol.close_channel(channel).addErrback(gone)
    except AmqpError:
        return False
    return True


class Topology:
    """The exchanges and queues that a process has declared.

    Attributes:
        entities: in the order of declaring.
        cancelled: whether the loss of a connection ends a declaration: no other connection may come.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.entities: dict[Exchange | Queue, None] = {}
        self.cancelled = False
        self.alone = DeferredLock()  # of declarations that may have closed a connection
        self.at_once = DECLARING_MAX  # so many are declared again together; one, after that has closed a connection

    def declare(self, *entities: Exchange | Queue) -> Deferred[None]:
        """Declare exchanges and queues in order, now and on every new connection. Fires with None when they exist.

        Fails with ``DeclarationMismatch`` (one exists with other properties, or has what AMQP can't carry),
        ``RefusedForNow``, ``ChannelClosedByBroker`` (any other refusal), ``ConnectionClosedByBroker`` (the broker
        closes connections for it), ``NotAnswered``, ``BrokerRefused``, ``BrokerUnreachable``, and ``ConnectionLost``
        when the publisher is stopped.
        """
        return Deferred.fromCoroutine(self.declare_all(entities))

    def declare_when_granted(self, *entities: Exchange | Queue) -> Deferred[None]:
        """``declare``, for a start: what is refused for now is waited for, with a line in the log each time."""
        return Deferred.fromCoroutine(self.ask_until_granted(entities))

    async def ask_until_granted(self, entities: tuple[Exchange | Queue, ...]) -> None:
        refused = 0
        while True:
            try:
                return await self.declare_all(entities)
            except AmqpError as error:
                if not passes(error):
                    raise
                refused += 1
                delay = pause(refused)
                log.warn("the start waits: {error}. Trying again in {delay:.1f} s", error=error, delay=delay)
            await deferLater(self.connection.clock, delay)

    async def declare_all(self, entities: tuple[Exchange | Queue, ...]) -> None:
        new = [entity for entity in entities if entity not in self.entities]
        blamed = 0  # connections that the broker has closed, perhaps because of these
        while new:
            try:
                if blamed:
                    await self.alone.run(lambda: Deferred.fromCoroutine(self.declare_new(new)))
                else:
                    await self.declare_new(new)
            except (ConnectionLost, ConnectionClosedByBroker) as error:
                blamed += is_for_a_declaration(error)
                if self.cancelled or blamed == BLAMED_MAX:
                    raise
                continue
            break
        if len(self.entities) + len(new) > TOPOLOGY_MAX:  # the first half stays: a service declares its own first
            for entity in list(self.entities)[TOPOLOGY_MAX // 2 :]:
                del self.entities[entity]
        self.entities.update(dict.fromkeys(new))

    async def declare_new(self, new: list[Exchange | Queue]) -> None:
        protocol = await self.connection.when_connected()
        await declare(protocol, *new, patience=DECLARE_TIMEOUT)

    async def restore(self, protocol: Protocol) -> None:
        """Declare everything again on a new connection. What is refused is logged.

        An entity for which the broker closes the connection is not declared any more.
        """
        entities = list(self.entities)
        at_once = self.at_once
        for first in range(0, len(entities), at_once):
            # at once: however many are on a dead node, the rest and the messages wait for them no longer than for one
            some = entities[first : first + at_once]
            try:
                await call_all([partial(self.declare_again, protocol, entity) for entity in some])
            except ConnectionClosedByBroker as error:
                if is_for_a_declaration(error):
                    self.at_once = 1
                    if at_once == 1:
                        self.entities.pop(some[0], None)
                        log.error("{entity} is not declared again: {error}", entity=some[0], error=error)
                raise
        self.at_once = DECLARING_MAX

    async def declare_again(self, protocol: Protocol, entity: Exchange | Queue) -> None:
        try:
            await declare(protocol, entity, patience=ANSWER_TIMEOUT)
        except (DeclarationMismatch, ChannelClosedByBroker, NotAnswered) as error:
            if isinstance(error.__cause__, ConnectionClosedByBroker):
                raise error.__cause__ from error
            log.error("{entity} could not be declared again: {error}", entity=entity, error=error)


def is_for_a_declaration(error: AmqpError) -> bool:
    """Whether the broker may have closed the connection for a declaration; often it does not tell the method."""
    return error.code in REQUEST_ERRORS and error.method != "basic.publish"
