"""Messages in and out of a service: ``Publisher`` and ``consume``, and what ``rpc`` and ``events`` share with them.

In: ``QueueConsumer`` -> ``Consumer.handle_message`` -> a worker -> ``handle_result`` acks: see ``consumers``.
Out: see ``amqp.publish``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from typing_extensions import Unpack

from txservices import configuration, constants, kinds
from txservices.amqp import publish
from txservices.amqp.entities import Exchange, Message, Queue, exchange_of, queue_of, with_queue_type
from txservices.amqp.options import DestinationOptions, options_of
from txservices.amqp.publish import when_confirmed
from txservices.amqp.returning import settle_lost
from txservices.amqp.subscription import Subscription
from txservices.authoring import check_count, mistakes_in
from txservices.callids import on_behalf_of
from txservices.consumers import QueueConsumer, amqp
from txservices.deadlines import DEADLINE, take_time_left
from txservices.exceptions import AlreadyHandled, ConfigurationError, ContainerBeingKilled
from txservices.extensions import (
    Container,
    DependencyProvider,
    Entrypoint,
    EntrypointOptions,
    ExcInfo,
    WorkerContext,
)
from txservices.once import OnceStore
from txservices.once.running import Once
from txservices.retry import Reject, Retry, marks
from txservices.retry.failures import Failures, Source, parking_queue
from txservices.safe import brief
from txservices.threads import in_reactor

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

C = TypeVar("C", bound="Consumer")


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


# Out ------------------------------------------------------------------------------------------------------------------


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
        return self.publisher.connections.publisher.declare_when_granted(*sending.declare, *own)

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
    with mistakes_in(f"{container.service_name}.{provider.attr_name}"):
        publisher.use(amqp(container), config)
    return publisher


# In -------------------------------------------------------------------------------------------------------------------


class ConsumerOptions(EntrypointOptions, total=False):
    """Options of whatever consumes a queue: see ``Consumer``."""

    prefetch_count: int | None
    queue_type: str | None
    accept: Iterable[str] | None
    retry: Retry | Literal[False] | None
    exclusive_order: bool
    once: bool | str


class Consumer(HeaderDecoder, Entrypoint):
    """Runs the method with the body of each message of a queue, which is declared with its exchange and binding.

    The message is acked when the worker is done, also if it raised; with ``requeue_on_error`` it goes back to the
    queue then and comes again, the first time at once and later after a pause that grows to seconds. It goes back, too,
    if a message that the method published without waiting for it has failed. If the broker refuses that one for good,
    this one is rejected. A body that can't be read is rejected (to the queue's dead letters, if it has them) and
    logged.

    With ``retry`` a message whose worker raised is tried again later, and after the last attempt it is parked. So is a
    message that can't be read: see ``retry.Retry``. Its attempts are counted in ``worker_ctx.attempt``. With
    ``retry=False`` it is not tried again, although the configuration's ``RETRY`` says so.

    ``max_workers`` is how many messages of the queue one instance of the service handles at a time, and
    ``prefetch_count`` how many it takes before they are acked; ``PREFETCH_COUNT`` of the configuration if it isn't
    given.

    With ``exclusive_order`` the messages of the queue are handled one after the other, in their order, by all instances
    of all services together: one instance has them all until it ends. The queue is declared as a single active
    consumer's, so a queue that exists without that has to be deleted first, and nameko can't consume it. A message that
    is tried again by ``retry`` comes after those that were published meanwhile; with ``requeue_on_error`` all others
    wait for it.

    With ``once=True`` a message that was handled is not run when it comes again, within the last 100,000 messages and a
    day of this process: it is acked. ``once="marks"`` names a dependency that remembers, for all processes: see
    ``once.OnceStore``. A message whose worker raised is not handled, and one without a ``message_id`` always runs.

    ``queue_type`` is ``"quorum"`` or ``"classic"``, ``QUEUE_TYPE`` of the configuration if it isn't given; a queue that
    has the argument ``x-queue-type`` keeps it. ``accept`` names the serializers that are read, in place of ``ACCEPT``.
    """

    queue_consumer = QueueConsumer()
    told_exceptions = (Retry, Reject, AlreadyHandled)
    may_yield = False
    in_turn = True
    prefetch_count: int | None = None
    exclusive_order = False
    once: bool | str = False
    duplicates: Once | None = None

    def __init__(
        self,
        queue: Any = None,
        requeue_on_error: bool = False,
        prefetch_count: int | None = None,
        queue_type: str | None = None,
        accept: Iterable[str] | None = None,
        retry: Retry | Literal[False] | None = None,
        exclusive_order: bool = False,
        once: bool | str = False,
        **kwargs: Unpack[EntrypointOptions],
    ) -> None:
        super().__init__(**kwargs)
        self.retry = retry
        self.exclusive_order = exclusive_order
        self.once = once
        self.queue = None if queue is None else queue_of(queue)
        self.requeue_on_error = requeue_on_error
        self.prefetch_count = prefetch_count
        self.queue_type = queue_type
        self.accept = accept

    def bind(self: C, container: Container, name: str | None = None) -> C:
        bound: C = super().bind(container, name)
        where = f"{container.service_name}.{name}"
        if bound.prefetch_count is not None:
            most = kinds.PREFETCH_MAX
            check_count(f"{where}: prefetch_count", bound.prefetch_count, most, "all that AMQP can say")
        if bound.exclusive_order:
            # With more taken beforehand, those would be handled before one that is requeued.
            for option in ("max_workers", "prefetch_count"):
                value = getattr(bound, option)
                if value is None:
                    setattr(bound, option, 1)
                elif value != 1:
                    raise ConfigurationError(
                        f"{where}: {option}: with exclusive_order it is 1, and not {brief(value)}: leave it out, or"
                        " leave out exclusive_order"
                    )
        return bound

    @property
    def consumer(self) -> Subscription | None:
        """The subscription to its queue, once the service has started."""
        return self.queue_consumer.providers.get(self)

    def setup(self) -> None:
        self.queue_consumer.register_provider(self)
        consumer = self.queue_consumer
        self.failures = Failures(self, amqp(self.container), consumer.ack_message, consumer.requeue_message, self.retry)
        arguments = {} if self.queue is None else self.queue.arguments
        if self.failures.policy is not None and arguments.get(constants.QUEUE_TYPE_ARGUMENT) == "stream":
            raise ConfigurationError(
                f"{self.failures.where}: it can't have retries, for its queue is a stream: all who read that would have"
                " each copy. Write retry=False"
            )
        if self.once:
            self.check_once()
            self.duplicates = Once(self.container.clock, consumer.ack_message, self.once is True)

    def check_once(self) -> None:
        """``ConfigurationError`` if ``once`` names no dependency that can remember messages."""
        service_cls = self.container.service_cls
        store = None if self.once is True else getattr(service_cls, str(self.once), None)
        if self.once is not True and not isinstance(store, OnceStore):
            raise ConfigurationError(
                f"{self.container.service_name}.{self.method_name}: once={self.once!r} names no OnceStore of"
                f" {service_cls.__name__}: write True, or the name of the attribute that is one"
            )

    def stop(self) -> Deferred[Any]:
        return self.queue_consumer.unregister_provider(self)

    @property
    def parked_as(self) -> str:
        """The queue's name in that of its parking queue; the method's, if the broker makes up that of the queue."""
        named = self.queue is not None and self.queue.name
        return named or f"{self.container.service_name}.{self.method_name}"

    @property
    def parking(self) -> Queue:
        """The parking queue of its queue."""
        return parking_queue(self.parked_as, self.failures.queue_type)

    @property
    def parks_dead_letters(self) -> bool:
        """Whether the broker is to park what it takes out of the queue, too."""
        return self.failures.policy is not None and self.failures.on_parked != "drop"

    @property
    def source(self) -> Source:
        """Where its messages come from: its queue, which the default exchange knows by its name."""
        consumer = self.consumer
        assert consumer is not None, "there is a message"
        return Source(consumer.queue_name, "", consumer.queue_name, self.parked_as)

    def not_read(self, message: Message, error: Exception) -> bool:
        """Park a message that can't be read, if the entrypoint parks. Gives whether it does."""
        if self.failures.policy is None:
            return False
        self.failures.park(message, None, "unreadable", error, self.source)
        return True

    def handle_message(self, body: Any, message: Message) -> None:
        """Run the method with the body."""
        handle_result = partial(self.handle_result, message)
        context_data = self.unpack_message_headers(message)
        if marks.ATTEMPT in message.headers:
            marks.restore(message)
            context_data = marks.without_marks(context_data)
        if DEADLINE in message.headers:  # nameko's services pass a call's on with events, for which nobody waits
            take_time_left(context_data)
        if self.duplicates is not None and not self.duplicates.begins(message):
            return
        try:
            self.container.spawn_worker(self, (body,), {}, context_data=context_data, handle_result=handle_result)
        except BaseException as error:
            if self.duplicates is not None:
                self.duplicates.ended(message)
            if not isinstance(error, ContainerBeingKilled):
                raise
            self.queue_consumer.requeue_message(message)

    def handle_result(
        self, message: Message, worker_ctx: WorkerContext, result: Any, exc_info: ExcInfo | None
    ) -> tuple[Any, ExcInfo | None]:
        """The method has returned or raised: settle the message. Gives what the dependencies are to see."""
        duplicates = self.duplicates
        if exc_info is not None and duplicates is not None:
            duplicates.ended(message)
        if exc_info is not None and self.failures.takes(exc_info[1], (AlreadyHandled,)):
            self.failures.failed(message, worker_ctx, exc_info[1], self.source)
            return result, exc_info
        give_back = self.queue_consumer.requeue_message
        settle: Callable[[Message], None] = self.queue_consumer.ack_message
        if exc_info is not None and self.requeue_on_error and not isinstance(exc_info[1], AlreadyHandled):
            settle = partial(on_behalf_of, worker_ctx, give_back)
        done: Callable[[], Any] = partial(settle, message)
        lost: Callable[[Exception], Any] = partial(on_behalf_of, worker_ctx, settle_lost, give_back, message)
        if exc_info is None and duplicates is not None:
            done = partial(duplicates.succeeded, message, done)
            lost = partial(duplicates.lost, message, lost)
        when_confirmed(worker_ctx, done, lost)
        return result, exc_info

    def result_not_handled(self, worker_ctx: WorkerContext, exc_info: ExcInfo) -> None:
        message = worker_ctx.message
        if message is not None:
            Consumer.handle_result(self, message, worker_ctx, None, exc_info)


consume = Consumer.decorator
