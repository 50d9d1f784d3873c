"""Messages in and out of a service: ``Publisher`` and ``consume``, and what ``rpc`` and ``events`` share with them.

In: ``QueueConsumer`` opens a queue and reads each body -> ``Consumer.handle_message`` -> a worker -> ``handle_result``
acks.
Out: see ``amqp.publish``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from typing import Any, Protocol, cast

from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.logger import Logger
from typing_extensions import Unpack

from txservices import configuration, constants
from txservices.amqp import publish
from txservices.amqp.connection import Connection
from txservices.amqp.connections import Connections
from txservices.amqp.consume import Reader
from txservices.amqp.entities import Exchange, Message, Queue, exchange_of, queue_of, with_queue_type
from txservices.amqp.longbodies import LongBodies
from txservices.amqp.options import DestinationOptions, options_of
from txservices.amqp.publish import when_confirmed
from txservices.amqp.returning import Returning, settle_lost
from txservices.amqp.subscription import Subscription
from txservices.exceptions import ContainerBeingKilled
from txservices.extensions import (
    Container,
    DependencyProvider,
    Entrypoint,
    EntrypointOptions,
    ExcInfo,
    SharedExtension,
    Turns,
    WorkerContext,
)
from txservices.serialization import Serializers
from txservices.threads import in_reactor
from txservices.utils.waiting import call_all

__all__ = [
    "Consumer",
    "Exchange",
    "HeaderDecoder",
    "HeaderEncoder",
    "Publisher",
    "Queue",
    "QueueConsumer",
    "consume",
    "decode_from_headers",
    "encode_to_headers",
]

log = Logger()

# Messages that have been handled, and that the broker still takes for unacked: a request's ack waits for the confirm of
# its reply, and any ack is on its way for a while. They must not keep the next messages away: with a prefetch of
# max_workers alone, a service did half as many calls.
UNDER_WAY = 40


# Headers: a worker's context, to and from the wire --------------------------------------------------------------------


def encode_to_headers(context_data: Mapping[str, Any], prefix: str = constants.HEADER_PREFIX) -> dict[str, Any]:
    """The headers that carry a context. No header can carry None: such a value is left out, with a warning."""
    headers = {}
    begin = prefix + "."
    for key, value in context_data.items():
        if value is None:
            warnings.warn(
                f"context value {key!r} is None, which no header carries: left out", UserWarning, stacklevel=3
            )
        else:
            headers[begin + key] = value
    return headers


def decode_from_headers(headers: Mapping[str, Any], prefix: str = constants.HEADER_PREFIX) -> dict[str, Any]:
    """The context in some headers. Headers that are not a context's are in it, too, under their own names."""
    begin = prefix + "."
    length = len(begin)
    return {key[length:] if key.startswith(begin) else key: value for key, value in headers.items()}


class HeaderEncoder:
    """Sends a worker's context. A subclass may send it under another prefix, or send something else."""

    header_prefix = constants.HEADER_PREFIX

    def get_message_headers(self, worker_ctx: WorkerContext) -> dict[str, Any]:
        """The headers of a message that this worker sends."""
        return encode_to_headers(worker_ctx.context_data, self.header_prefix)


class HeaderDecoder:
    """Receives a worker's context. A subclass may expect it under another prefix."""

    header_prefix = constants.HEADER_PREFIX

    def unpack_message_headers(self, message: Message) -> dict[str, Any]:
        """The context data of the worker that handles this message."""
        return decode_from_headers(message.headers, self.header_prefix)


def message_of(worker_ctx: WorkerContext) -> Message | None:
    """The message that a worker handles, which its ``handle_result`` is bound to. None if it handles no message."""
    bound = getattr(worker_ctx.handle_result, "args", ())
    return bound[0] if bound and isinstance(bound[0], Message) else None


# The broker -----------------------------------------------------------------------------------------------------------


def amqp(container: Container) -> Connections:
    """The process's connections to the broker, made by the first who asks."""
    shared = container.shared

    def make() -> Connections:
        connections = Connections.from_config(container.config, container.clock)
        shared.on_stopping.append(connections.leaving.begin)
        shared.on_killing.append(connections.give_up)
        return connections

    return cast(Connections, shared.get("amqp", make))


class Publish(Protocol):
    """What ``Publisher`` injects. In a ``blocking`` method it waits, and returns None."""

    def __call__(self, value: Any, /, **options: Unpack[DestinationOptions]) -> Deferred[None]: ...


class Publisher(HeaderEncoder, DependencyProvider[Publish]):
    """Injects ``publish(value, **options)``, which gives a Deferred that fires when the broker has the message.

    Declares ``exchange`` and all in ``declare``; without an exchange it publishes to the default one, where a routing
    key is a queue's name. Options are ``amqp.options.PublisherOptions``, merged: init's, then the call's. The context
    goes along in headers. A value that can't be written raises ``EncodeError`` from ``publish`` itself.

    A subclass may give options as attributes, below init's, and a ``publisher_cls`` that publishes.

        class Monitor:
            name = "monitor"
            publish = Publisher(exchange=Exchange("readings", type="fanout"))

            @timer(interval=1)
            def read(self):
                return self.publish({"load": os.getloadavg()[0]})
    """

    needs_amqp = True
    publisher_cls = publish.Publisher

    def __init__(
        self,
        exchange: Any = None,
        queue: Any = None,
        declare: Iterable[Any] | None = None,
        **options: Unpack[publish.PublisherOptions],
    ) -> None:
        self.queue = None if queue is None else queue_of(queue)
        self.exchange = exchange_of(exchange) if exchange is not None else self.queue and self.queue.exchange
        self.options: Mapping[str, Any] = options if declare is None else {"declare": declare, **options}

    def setup(self) -> Deferred[None]:
        self.publisher = publisher_for(self, "" if self.exchange is None else self.exchange)
        sending = self.publisher.sending
        destination = self.queue or self.exchange
        own = () if destination is None else (with_queue_type(destination, sending.queue_type),)
        return self.publisher.connections.publisher.declare(*sending.declare, *own)

    def get_dependency(self, worker_ctx: WorkerContext) -> Publish:
        publish = partial(self.publish, worker_ctx)
        return partial(in_reactor, publish) if worker_ctx.blocking else publish

    def publish(
        self, worker_ctx: WorkerContext, value: Any, /, **options: Unpack[DestinationOptions]
    ) -> Deferred[None]:
        headers = self.get_message_headers(worker_ctx)
        return self.publisher.publish(value, extra_headers=headers, worker_ctx=worker_ctx, **options)


def publisher_for(provider: Any, exchange: Any) -> publish.Publisher:
    """The publisher of a provider, over the process's connections: its ``publisher_cls``, with its options."""
    container = provider.container
    config = container.config
    publisher: publish.Publisher = provider.publisher_cls(
        configuration.AMQP_URI.of(config),
        ssl=configuration.AMQP_SSL.of(config),
        login_method=configuration.LOGIN_METHOD.of(config),
        exchange=exchange,
        **{**options_of(provider), **provider.options},
    )
    publisher.use(amqp(container), config)
    return publisher


# In: consumers --------------------------------------------------------------------------------------------------------


class Provider(Protocol):
    """An entrypoint that has a queue to be consumed. Its ``handle_message`` gets a body and its message.

    It may have ``prefetch_count``, ``queue_type`` and ``accept``, too: see ``Consumer``.
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

    needs_amqp = True  # tap asks: without a broker configured, who has one of these gets the embedded one

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
        connection = amqp(container).own(container.service_name, bytes_max, lambda: bool(workers.queued))
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
        accept = getattr(provider, "accept", None)
        read = config if accept is None else {**config, configuration.ACCEPT.name: list(accept)}
        where = f"{self.container.service_name}.{getattr(provider, 'method_name', provider)}"
        workers = self.container.workers
        in_turn = isinstance(provider, Consumer)  # another's message may be what a worker waits for
        places = workers if in_turn else None
        reader = self.readers[provider] = Reader(Serializers(read).decode, provider.handle_message, where, places)
        receive = partial(take_turn, workers, provider, reader.receive) if in_turn else reader.receive
        count = getattr(provider, "prefetch_count", None)
        consumer = self.providers[provider] = self.consume(queue, receive, count, in_turn)
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

    def consume(
        self,
        queue: Queue,
        receive: Callable[[Message], None],
        prefetch_count: int | None = None,
        in_turn: bool = False,
    ) -> Subscription:
        """Have the queue's messages delivered to ``receive``; as many at once as told here, or in the configuration.

        With ``in_turn`` they may not be read for a while: ``receive`` has each of them wait for a worker, and no worker
        waits for one of them, except for a call of its own service.
        """
        container = self.container
        count = prefetch_count or configuration.PREFETCH_COUNT.of(container.config)
        count = count or min(container.max_workers + UNDER_WAY, configuration.PREFETCH_MAX)
        consumer = amqp(container).consume(queue, receive, count, self.own if in_turn else None)
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
        if "own" in vars(self) and self.own.prefetched is not None:
            self.own.prefetched.close()


def take_turn(workers: Turns, entrypoint: Entrypoint, read: Callable[[Message], None], message: Message) -> None:
    """Have a message read when a worker may begin. Until then only its bytes are kept."""
    if workers.running >= workers.max_workers and not workers.cancelled:
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


class ConsumerOptions(EntrypointOptions, total=False):
    """Options of whatever consumes a queue: see ``Consumer``."""

    prefetch_count: int | None
    queue_type: str | None
    accept: Iterable[str] | None


class Consumer(HeaderDecoder, Entrypoint):
    """Runs the method with the body of each message of a queue, which is declared with its exchange and binding.

    The message is acked when the worker is done, also if it raised; with ``requeue_on_error`` it goes back to the
    queue then and comes again, the first time at once and later after a pause that grows to seconds. It goes back, too,
    if a message that the method published without waiting for it has failed. If the broker refuses that one for good,
    this one is rejected. A body that can't be read is rejected (to the queue's dead letters, if it has them) and
    logged.

    ``queue_type`` is ``"quorum"`` or ``"classic"``, ``QUEUE_TYPE`` of the configuration if it isn't given; a queue that
    has the argument ``x-queue-type`` keeps it. ``accept`` names the serializers that are read, in place of ``ACCEPT``.
    """

    queue_consumer = QueueConsumer()

    def __init__(
        self,
        queue: Any = None,
        requeue_on_error: bool = False,
        prefetch_count: int | None = None,
        queue_type: str | None = None,
        accept: Iterable[str] | None = None,
        **kwargs: Unpack[EntrypointOptions],
    ) -> None:
        super().__init__(**kwargs)
        self.queue = None if queue is None else queue_of(queue)
        self.requeue_on_error = requeue_on_error
        self.prefetch_count = prefetch_count
        self.queue_type = queue_type
        self.accept = accept

    @property
    def consumer(self) -> Subscription | None:
        """The subscription to its queue, once the service has started."""
        return self.queue_consumer.providers.get(self)

    def setup(self) -> None:
        self.queue_consumer.register_provider(self)

    def stop(self) -> Deferred[Any]:
        return self.queue_consumer.unregister_provider(self)

    def handle_message(self, body: Any, message: Message) -> None:
        """Run the method with the body."""
        handle_result = partial(self.handle_result, message)
        try:
            self.container.spawn_worker(
                self, (body,), {}, context_data=self.unpack_message_headers(message), handle_result=handle_result
            )
        except ContainerBeingKilled:
            self.queue_consumer.requeue_message(message)

    def handle_result(
        self, message: Message, worker_ctx: WorkerContext, result: Any, exc_info: ExcInfo | None
    ) -> tuple[Any, ExcInfo | None]:
        """The method has returned or raised: settle the message. Gives what the dependencies are to see."""
        give_back = self.queue_consumer.requeue_message
        settle = give_back if exc_info is not None and self.requeue_on_error else self.queue_consumer.ack_message
        when_confirmed(worker_ctx, partial(settle, message), partial(settle_lost, give_back, message))
        return result, exc_info

    def result_not_handled(self, worker_ctx: WorkerContext, exc_info: ExcInfo) -> None:
        message = message_of(worker_ctx)
        if message is not None:
            Consumer.handle_result(self, message, worker_ctx, None, exc_info)


consume = Consumer.decorator
