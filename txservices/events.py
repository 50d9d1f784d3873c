"""Events: a service says what happened, other services hear it, and nobody waits for anybody.

``self.dispatch("type", data)`` -> exchange ``{service}.events``, routing key the type -> a queue for each handler, or
for all instances of a handler's service, or for all handlers anywhere: that is the handler type -> a worker each.
The body is the event's data with nothing around it.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Protocol, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred
from typing_extensions import Unpack

from txservices import configuration, constants
from txservices.amqp.entities import Exchange, Queue
from txservices.amqp.options import PublishOptions
from txservices.amqp.publish import Publisher
from txservices.exceptions import ConfigurationError
from txservices.extensions import Container, DependencyProvider, WorkerContext
from txservices.messaging import Consumer, ConsumerOptions, HeaderEncoder, publisher_for
from txservices.observers import observers
from txservices.threads import in_reactor

__all__ = [
    "BROADCAST",
    "SERVICE_POOL",
    "SINGLETON",
    "Dispatch",
    "EventDispatcher",
    "EventHandler",
    "EventHandlerConfigurationError",
    "event_handler",
    "get_event_exchange",
]

SERVICE_POOL = "service_pool"
SINGLETON = "singleton"
BROADCAST = "broadcast"

H = TypeVar("H", bound="EventHandler")


class EventHandlerConfigurationError(ConfigurationError):
    """An event handler whose options contradict each other."""


@frozen
class HandlerType:
    """A handler type: the name of its queue, and what becomes of the queue without reliable delivery.

    Attributes:
        queue_name: made of source service, event type, own service, method and broadcast identifier.
        exclusive: whether the unreliable queue belongs to one connection and goes with it.
    """

    queue_name: str
    exclusive: bool = False


# All of these names are on the wire: nameko's instances of a service share its queue with ours.
HANDLER_TYPES: Mapping[str, HandlerType] = {
    SERVICE_POOL: HandlerType("evt-{source}-{type}--{service}.{method}"),
    SINGLETON: HandlerType("evt-{source}-{type}"),
    BROADCAST: HandlerType("evt-{source}-{type}--{service}.{method}-{identifier}", exclusive=True),
}


def get_event_exchange(service_name: str, config: Mapping[str, Any]) -> Exchange:
    """The exchange of a service's events, as AUTO_DELETE_EVENT_EXCHANGES and DECLARE_EVENT_EXCHANGES would have it.

    The two keys are for exchanges that nameko has declared: up to 2.12 it did so with auto-delete.
    """
    return Exchange(
        constants.EVENT_EXCHANGE_TEMPLATE.format(service_name),
        type="topic",
        auto_delete=configuration.AUTO_DELETE_EVENT_EXCHANGES.of(config),
        passive=not configuration.DECLARE_EVENT_EXCHANGES.of(config),
    )


class Dispatch(Protocol):
    """What ``EventDispatcher`` injects. In a ``blocking`` method it waits, and returns None."""

    def __call__(self, event_type: str, event_data: Any, *, delay: float | None = None) -> Deferred[None]: ...


class EventDispatcher(HeaderEncoder, DependencyProvider[Dispatch]):
    """Injects ``dispatch(event_type, event_data)``, which gives a Deferred that fires when the broker has the event.

    Nobody need wait for it: the event is kept until it is confirmed, and the message that called the worker is not
    acked before. If it fails nevertheless, that message is handled again; if it is refused for good, that message is
    rejected. The broker drops an event that nobody listens to.

    With ``delay=60`` the broker holds the event, and tells it in 60 seconds: see ``amqp.options.PublishOptions``.

    Options are ``amqp.options.PublishOptions``; ``declare`` has more exchanges and queues to declare.
    """

    needs_amqp = True
    publisher_cls = Publisher

    def __init__(self, *, declare: Iterable[Any] | None = None, **options: Unpack[PublishOptions]) -> None:
        self.options: Mapping[str, Any] = options if declare is None else {"declare": declare, **options}

    def setup(self) -> Deferred[None] | None:
        self.exchange = get_event_exchange(self.container.service_name, self.container.config)
        self.publisher = publisher_for(self, self.exchange)
        if self.exchange.passive:
            return None
        declared = (self.exchange, *self.publisher.sending.declare)
        return self.publisher.connections.publisher.declare_when_granted(*declared)

    def get_dependency(self, worker_ctx: WorkerContext) -> Dispatch:
        dispatch = partial(self.dispatch, worker_ctx)
        return partial(in_reactor, dispatch) if worker_ctx.blocking else dispatch

    def dispatch(
        self, worker_ctx: WorkerContext, event_type: str, event_data: Any, *, delay: float | None = None
    ) -> Deferred[None]:
        options: PublishOptions = {} if delay is None else {"delay": delay}
        headers = self.get_message_headers(worker_ctx)
        published = self.publisher.publish(
            event_data, routing_key=event_type, extra_headers=headers, worker_ctx=worker_ctx, **options
        )
        if observers.event_dispatched:
            observers.tell(observers.event_dispatched, self.container.service_name, event_type)
        return published


class EventHandler(Consumer):
    """Runs the method with the data of each event of one type from one service.

    Handler types, for a service that runs in several instances:

    - ``SERVICE_POOL``: one instance of each service with a handler gets the event.
    - ``SINGLETON``: one instance of one service, among all that handle it so.
    - ``BROADCAST``: every instance. Its queue goes with the instance, so this takes ``reliable_delivery=False``, or a
      subclass with a ``broadcast_identifier`` that stays the same from start to start.

    With ``reliable_delivery`` events wait for a service that doesn't run. Without it they do not wait, and the queue is
    deleted with its last consumer. ``event_type`` may be a pattern of AMQP's topics.
    """

    identifier: str | None

    def __init__(
        self,
        source_service: str,
        event_type: str,
        handler_type: str = SERVICE_POOL,
        reliable_delivery: bool = True,
        requeue_on_error: bool = False,
        **kwargs: Unpack[ConsumerOptions],
    ) -> None:
        super().__init__(None, requeue_on_error, **kwargs)
        self.source_service = source_service
        self.event_type = event_type
        self.handler_type = handler_type
        self.reliable_delivery = reliable_delivery

    @property
    def broadcast_identifier(self) -> str | None:
        """The part of a broadcast's queue name that differs between instances. Read once, before the declaration."""
        if self.handler_type != BROADCAST:
            return None
        if self.reliable_delivery:
            raise EventHandlerConfigurationError(
                f"{self.event_type!r} of {self.source_service}: with a new queue at each start nothing can wait for"
                " this instance. Give reliable_delivery=False with BROADCAST, or a broadcast_identifier that stays"
            )
        return uuid.uuid4().hex

    def bind(self: H, container: Container, name: str | None = None) -> H:
        bound: H = super().bind(container, name)
        if bound.handler_type not in HANDLER_TYPES:
            raise EventHandlerConfigurationError(
                f"{name}: no handler type {bound.handler_type!r}, there are {', '.join(HANDLER_TYPES)}"
            )
        bound.identifier = bound.broadcast_identifier  # a handler that can't have one is refused now
        return bound

    def setup(self) -> None:
        super().setup()
        kind = HANDLER_TYPES[self.handler_type]
        self.queue = Queue(
            self.queue_name,
            get_event_exchange(self.source_service, self.container.config),
            self.event_type,
            auto_delete=not self.reliable_delivery,
            exclusive=kind.exclusive and not self.reliable_delivery,
        )

    @property
    def queue_name(self) -> str:
        return HANDLER_TYPES[self.handler_type].queue_name.format(
            source=self.source_service,
            type=self.event_type,
            service=self.container.service_name,
            method=self.method_name,
            identifier=self.identifier,
        )

    @property
    def parked_as(self) -> str:
        """A broadcast's queue has a new name at each start, and its parking queue outlives it: that one is without."""
        if self.identifier is None or self.reliable_delivery:
            return self.queue_name
        return self.queue_name.removesuffix(f"-{self.identifier}")


event_handler = EventHandler.decorator
