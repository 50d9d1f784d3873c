"""The consumers of a container: ``QueueConsumer`` has the queues of its entrypoints delivered, and closes in order.

    Subscription -> take_turn, while all workers are taken -> Reader -> the entrypoint's handle_message

``amqp`` gives the connections that they use, which a process has once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, Protocol, cast

from attrs import evolve
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.logger import Logger

from txservices import configuration, kinds
from txservices.amqp.connection import Connection
from txservices.amqp.connections import Connections
from txservices.amqp.consume import Reader
from txservices.amqp.deadletters import DeadLetters
from txservices.amqp.entities import Message, Queue, queue_of, with_queue_type
from txservices.amqp.longbodies import LongBodies
from txservices.amqp.returning import Returning
from txservices.amqp.subscription import Subscription
from txservices.constants import SINGLE_ACTIVE_ARGUMENT
from txservices.extensions import Container, Entrypoint, SharedExtension, Turns
from txservices.monitoring.answering import Answering
from txservices.serialization import Serializers
from txservices.utils.waiting import call_all

__all__ = ["Provider", "QueueConsumer", "amqp"]

log = Logger()

# Messages that have been handled, and that the broker still takes for unacked: a request's ack waits for the confirm of
# its reply, and any ack is on its way for a while. They must not keep the next messages away: with a prefetch of
# max_workers alone, a service did half as many calls.
UNDER_WAY = 40
NAMES_SHOWN = 5  # queues with the same trouble that are named in a line


def amqp(container: Container) -> Connections:
    """The process's connections to the broker, made by the first who asks."""
    shared = container.shared

    def make() -> Connections:
        connections = Connections.from_config(container.config, container.clock, shared.containers)
        shared.on_stopping.append(connections.leaving.begin)
        shared.on_killing.append(connections.give_up)
        if configuration.FLEET.of(container.config):
            Answering(connections, shared, container.config).setServiceParent(connections)
        return connections

    return cast(Connections, shared.get("amqp", make))


class Provider(Protocol):
    """An entrypoint that has a queue to be consumed. Its ``handle_message`` gets a body and its message.

    It may have ``prefetch_count``, ``queue_type``, ``exclusive_order`` and ``accept``, too: see ``messaging.Consumer``.
    With a ``parking`` queue, and a true ``parks_dead_letters``, the broker parks what it takes out of a quorum queue.
    With a true ``in_turn`` its messages wait, unread, while all workers are taken: no worker may wait for one of them.
    """

    queue: Any

    def handle_message(self, body: Any, message: Message) -> Any: ...


class QueueConsumer(SharedExtension):
    """All consumers of a container. An entrypoint cancels its own consumer; it is closed here, after the workers.

    Closing a channel gives unacked messages back. So it must wait for the acks, which wait for the workers, and for the
    confirms of the messages that these have published.

    An entrypoint of your own has one inside, and is its ``Provider``:

        class Lines(Entrypoint):
            queue_consumer = QueueConsumer()
            queue = Queue("lines")

            def setup(self):
                self.queue_consumer.register_provider(self)

            def stop(self):
                return self.queue_consumer.unregister_provider(self)

            def handle_message(self, body, message):
                self.container.spawn_worker(self, body.splitlines(), {})
                self.queue_consumer.ack_message(message)
    """

    needs_amqp = True  # tap asks: a service with one of these gets the embedded broker if no broker is configured

    def __init__(self) -> None:
        self.opened: list[Subscription] = []
        self.providers: dict[Any, Subscription | None] = {}
        self.readers: dict[Any, Reader] = {}

    def setup(self) -> None:
        self.returning = Returning(self.container.clock)

    @cached_property
    def own(self) -> Connection:
        """The connection that the messages come in on which wait for a worker of this service."""
        container = self.container
        workers = container.workers
        bytes_max = configuration.PREFETCHED_BYTES_MAX.of(container.config)
        connection = amqp(container).own(container.service_name, bytes_max, lambda: workers.waiting > 0)
        assert connection.prefetched is not None, "own() makes it"
        workers.on_none_queued.append(connection.prefetched.look)
        return connection

    def register_provider(self, provider: Provider) -> None:
        """Have the provider's queue consumed once the container starts. A provider calls this in its ``setup``."""
        self.providers[provider] = None

    def unregister_provider(self, provider: Provider) -> Deferred[Any]:
        """Take no more messages for a provider. Fires when the broker has agreed, or does not answer.

        Those whose bodies are still being decoded have been handed to the provider by then.
        """
        consumer = self.providers.get(provider)
        if consumer is None:
            return succeed(None)
        return Deferred.fromCoroutine(cancel(self.container, consumer, self.readers[provider].long))

    def start(self) -> Deferred[None]:
        return Deferred.fromCoroutine(call_all([partial(self.open, provider) for provider in self.providers]))

    def open(self, provider: Any) -> Deferred[None]:
        config = self.container.config
        queue_type = getattr(provider, "queue_type", None)
        queue = with_queue_type(queue_of(provider.queue), configuration.QUEUE_TYPE.of(config), queue_type)
        if getattr(provider, "exclusive_order", False):
            queue = evolve(queue, arguments={**queue.arguments, SINGLE_ACTIVE_ARGUMENT: True})
        accept = getattr(provider, "accept", None)
        read = config if accept is None else {**config, configuration.ACCEPT.name: list(accept)}
        where = f"{self.container.service_name}.{getattr(provider, 'method_name', provider)}"
        workers = self.container.workers
        in_turn = getattr(provider, "in_turn", False)
        places = (getattr(provider, "limit", None) or workers) if in_turn else None
        not_read = getattr(provider, "not_read", None)
        decode = Serializers(read).decode
        reader = self.readers[provider] = Reader(decode, provider.handle_message, where, places, not_read)
        receive = partial(take_turn, workers, provider, reader.receive) if in_turn else reader.receive
        count = getattr(provider, "prefetch_count", None)
        parking = getattr(provider, "parking", None)
        dead_letters = None
        if parking is not None and DeadLetters.fits(queue):
            wanted = provider.parks_dead_letters
            dead_letters = DeadLetters(queue, parking, wanted, amqp(self.container).addresses[0].vhost)
        consumer = self.providers[provider] = self.consume(queue, receive, count, in_turn, dead_letters)
        return consumer.ready

    def ack_message(self, message: Message) -> None:
        """Ack a message. This does nothing if its connection is gone: the broker has the message again."""
        if self.returning.failures:
            self.returning.forget(message)
        message.ack()

    def requeue_message(self, message: Message) -> None:
        """Give a message back to its queue; it comes again, to any consumer.

        The first time that is at once. A message that comes back again and again waits longer each time, up to some
        seconds: see ``amqp.returning``. This does nothing if its connection is gone: the broker has the message again.
        """
        self.returning.give_back(message)

    def not_ready(self) -> list[str]:
        """See ``Extension``. Queues with the same reason share a line."""
        queues: dict[str, list[str]] = {}
        for consumer in self.opened:
            if consumer.trouble is not None:
                queues.setdefault(consumer.trouble, []).append(consumer.queue_name)
        lines = []
        for trouble, names in queues.items():
            more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
            what = "queue" if len(names) == 1 else "queues"
            lines.append(f"not consumed: {what} {', '.join(names[:NAMES_SHOWN])}{more}: {trouble}")
        return lines

    def consume(
        self,
        queue: Queue,
        receive: Callable[[Message], None],
        prefetch_count: int | None = None,
        in_turn: bool = False,
        dead_letters: DeadLetters | None = None,
    ) -> Subscription:
        """Have the queue's messages delivered to ``receive``; as many at once as told here, or in the configuration.

        With ``in_turn`` they may not be read for a while: ``receive`` has each of them wait for a worker, and no worker
        waits for one of them, except for a call of its own service.
        """
        container = self.container
        count = prefetch_count or configuration.PREFETCH_COUNT.of(container.config)
        count = count or min(container.max_workers + UNDER_WAY, kinds.PREFETCH_MAX)
        consumer = amqp(container).consume(queue, receive, count, self.own if in_turn else None, dead_letters)
        self.opened.append(consumer)
        return consumer

    def stop(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.close())

    async def close(self) -> None:
        if not self.opened:
            return
        self.returning.cancel()
        connections = amqp(self.container)
        if self.container.workers_aborted:  # they ack nothing; those that ended do when they are confirmed
            await connections.leaving.answered(connections.drain())
        else:
            drained = [consumer.drain() for consumer in self.opened]
            await connections.leaving.answered(gatherResults(drained, consumeErrors=True))
        left = sum(consumer.unsettled for consumer in self.opened)
        if left:
            log.warn("{service}: {left} messages go back", service=self.container.service_name, left=left)
        opened, self.opened = self.opened, []
        closing = [(consumer.connection, consumer.close()) for consumer in opened]
        if "own" in vars(self):  # what is answered there comes after all that was not read: this waits for the close
            await connections.leave(self.own)
        closing_others = [closed for connection, closed in closing if connection.prefetched is None]
        await connections.leaving.answered(gatherResults(closing_others, consumeErrors=True))

    def kill(self) -> None:
        opened, self.opened = self.opened, []
        if opened:
            self.returning.cancel()
        for consumer in opened:
            consumer.close()
        if "own" in vars(self):  # not waited for here: a kill ends what is not the broker's at once
            leaving = Deferred.fromCoroutine(amqp(self.container).leave(self.own))
            leaving.addErrback(lambda failure: log.failure("while a connection is closed", failure))


def take_turn(workers: Turns, entrypoint: Entrypoint, read: Callable[[Message], None], message: Message) -> None:
    """Have a message read when a worker of the entrypoint may begin. Until then only its bytes are kept."""
    if (workers.running >= workers.max_workers or entrypoint.full) and not workers.cancelled:
        workers.wait(entrypoint, partial(read, message))
    else:
        read(message)


async def cancel(container: Container, consumer: Subscription, long: LongBodies) -> None:
    """Take no more messages. Ends when the broker has agreed, or does not answer, and those taken are decoded.

    Long bodies that are not decoded within ``SHUTDOWN_TIMEOUT`` go back to their queue.
    """
    await amqp(container).leaving.answered(consumer.cancel())
    drained, timeout = long.drain(), configuration.SHUTDOWN_TIMEOUT.of(container.config)
    if timeout is not None:
        drained.addTimeout(timeout, container.clock)
    try:
        await drained
    except DeferredTimeout:
        log.warn("{left} messages are not decoded after {timeout} s", left=len(long.waiting), timeout=timeout)
