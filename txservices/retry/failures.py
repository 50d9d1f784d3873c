"""What becomes of a message whose handler has failed: a copy comes again later, or is parked.

The broker has confirmed the copy before the message is acked, so no fault loses it. A fault between the two makes a
duplicate, which has the same message id.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from attrs import frozen
from twisted.logger import Logger

import txservices
from txservices import configuration, deadlines
from txservices.amqp.connections import Connections
from txservices.amqp.delays import DELAY_QUEUE, shortened
from txservices.amqp.entities import Message, Queue, with_queue_type
from txservices.amqp.publish import when_confirmed
from txservices.amqp.returning import settle_lost
from txservices.authoring import mistakes_in
from txservices.callids import on_behalf_of
from txservices.exceptions import CallerGone, HeadersTooLarge
from txservices.extensions import Entrypoint, WorkerContext
from txservices.observers import observers
from txservices.retry import marks
from txservices.retry.configured import policy_for
from txservices.retry.policy import Reject, Retry, as_policy
from txservices.safe import name_of, shown

__all__ = ["PARKED", "Failures", "Source", "parking_queue"]

log = Logger()

PARKED = ".parked"  # how the name of a parking queue ends, after that of the queue
NAME_OF_DELAY = re.compile(re.escape(DELAY_QUEUE) + r"[\d.e+-]+s")
RETURNS_MAX = 15  # of a request to a quorum queue, which RabbitMQ 4 drops after 20
DELIVERY_COUNT = "x-delivery-count"
NAME_MAX = 255  # bytes of its name: AMQP has one byte for its length


def parking_queue(queue: str, queue_type: str | None = None) -> Queue:
    """The queue for the messages that have failed for good in a queue of that name."""
    return with_queue_type(Queue(shortened(queue, NAME_MAX - len(PARKED)) + PARKED), queue_type)


@frozen
class Source:
    """Where a message came from, and how it gets back there and nowhere else.

    Attributes:
        queue: the queue's name.
        exchange: by this exchange,
        routing_key: with this routing key.
        parked: the name in that of its parking queue, where the queue's own is another at each start.
    """

    queue: str
    exchange: str
    routing_key: str
    parked: str = ""

    @property
    def name(self) -> str:
        """The queue's name, the same at each start."""
        return self.parked or self.queue


class Failures:
    """Settles the messages of one entrypoint that have failed.

    Attributes:
        policy: which failures are tried again; None if only those by ``raise Retry(...)`` are.
        on_parked: what becomes of a message that is not tried again: ``park``, ``drop`` or ``requeue``. None leaves it
            to the entrypoint, as without a policy.
    """

    def __init__(
        self,
        entrypoint: Entrypoint,
        connections: Connections,
        ack: Callable[[Message], None],
        give_back: Callable[[Message], None],
        retry: Any,
    ) -> None:
        container = entrypoint.container
        config = container.config
        self.connections = connections
        self.ack = ack
        self.give_back = give_back
        self.told = ""  # the last error of a copy that was not taken
        self.service = container.service_name
        self.where = f"{self.service}.{entrypoint.method_name}"
        written = policy_for(configuration.RETRY.of(config), self.where, container.service_cls)
        self.policy: Retry | None = written
        if retry is not None:
            with mistakes_in(self.where):
                self.policy = None if retry is False else as_policy(retry, "False for none")
        self.on_parked = configuration.ON_PARKED.of(config)
        self.queue_type = configuration.QUEUE_TYPE.of(config)
        self.timeout = configuration.PUBLISH_TIMEOUT.of(config)
        version = getattr(container.service_cls, "version", None)
        own = f"txservices {txservices.__version__}"
        self.about = {
            "service": self.service,
            "method": entrypoint.method_name,
            "host": socket.gethostname(),
            "version": f"{version}, {own}" if isinstance(version, (str, int, float)) else own,
        }

    def takes(self, error: BaseException, expected: tuple[type[BaseException], ...] = ()) -> bool:
        """Whether the message of a worker that failed with that error is settled here."""
        if isinstance(error, (CallerGone, *expected)):  # nobody waits for it, or it is no fault of the service
            return False
        return self.policy is not None or isinstance(error, (Retry, Reject))

    def comes_back_too_often(self, message: Message) -> bool:
        """Whether a quorum queue has delivered the message so often that it is to be parked before it runs again."""
        returns = message.headers.get(DELIVERY_COUNT)
        parks = self.policy is not None and self.on_parked == "park"
        return parks and isinstance(returns, int) and returns >= RETURNS_MAX

    def delay_for(self, message: Message, error: BaseException) -> float | None:
        """Seconds until a message is to be tried again after that error; None if it isn't."""
        policy = self.policy or (error if isinstance(error, Retry) else None)
        if policy is None or not policy.wants(error):
            return None
        attempt = marks.Origin.of(message).attempt + 1
        if attempt > policy.attempts:
            return None
        if isinstance(error, Retry) and error.after is not None:
            return error.after
        return policy.delay_before(attempt)

    def failed(
        self,
        message: Message,
        worker_ctx: WorkerContext | None,
        error: BaseException,
        source: Source,
        patience: float | None = None,
        settle: Callable[[], Any] | None = None,
    ) -> None:
        """Have the message tried again or parked, and settle it then.

        Args:
            patience: seconds that its caller still waits: no attempt is made after that. None for no end.
            settle: see ``park``.
        """
        delay = self.delay_for(message, error)
        if delay is None:
            reason = "rejected" if isinstance(error, Reject) else "failed"
            self.park(message, worker_ctx, reason, error, source, settle)
        elif patience is not None and delay >= patience:
            self.park(message, worker_ctx, "deadline", error, source, settle)
        else:
            self.try_again(message, worker_ctx, error, delay, source, patience)

    def try_again(
        self,
        message: Message,
        worker_ctx: WorkerContext | None,
        error: BaseException,
        delay: float,
        source: Source,
        patience: float | None,
    ) -> None:
        """Publish a copy that comes in so many seconds."""
        origin = marks.Origin.of(message)
        time = marks.now()
        properties = marks.copied(
            message, attempt=origin.attempt + 1, first_failed=origin.first_failed or time, last_failed=time
        )
        if patience is not None and patience < deadlines.FOREVER:
            deadlines.add_headers(properties["headers"], patience)
            properties["headers"][deadlines.TIME_LEFT] = patience - delay  # when it comes
        log.warn(
            "{where}: {delivery} has failed in attempt {attempt}, and comes again in {delay:g} s: {error}",
            where=self.where,
            delivery=message,
            attempt=origin.attempt,
            delay=round(delay, 3),
            error=shown(error),
        )
        tell = partial(observers.tell, observers.message_retried, source.name, origin.attempt, delay, error)
        settle = partial(self.settle, message, worker_ctx)
        done = partial(on_behalf_of, worker_ctx, self.published, message, settle, tell)
        on_demand = self.connections.on_demand
        try:
            to = source.exchange, source.routing_key
            on_demand.publish_later(*to, message.body, properties, delay, done, self.timeout)
        except ValueError as refused:
            done(refused)

    def park(
        self,
        message: Message,
        worker_ctx: WorkerContext | None,
        reason: str,
        error: BaseException,
        source: Source,
        settle: Callable[[], Any] | None = None,
    ) -> None:
        """Take the message away for good: to the parking queue, if the configuration doesn't say otherwise.

        ``settle`` is called when it is there. Without it the message is acked then.
        """
        settle = settle or partial(self.settle, message, worker_ctx)
        queue = parking_queue(source.name, self.queue_type)
        origin = marks.Origin.of(message)
        tell = partial(
            log.error,
            "{where}: {delivery} is {done} after attempt {attempt} ({reason}): {error}",
            where=self.where,
            delivery=message,
            done={"park": f"parked in {queue.name}", "requeue": "given back"}.get(self.on_parked, "dropped"),
            attempt=origin.attempt,
            reason=reason,
            error=shown(error),
        )
        if self.on_parked != "park":
            tell()
            if self.on_parked == "requeue":
                self.give_back(message)
            else:
                settle()
            return
        time = marks.now()
        why = {
            **marks.reasons(reason, error),
            **self.about,
            "queue": source.queue,
            "back_exchange": source.exchange,
            "back_routing_key": source.routing_key,
            "attempt": origin.attempt,
            "first_failed": origin.first_failed or time,
            "last_failed": time,
        }

        def parked() -> None:
            tell()
            observers.tell(observers.message_parked, source.name, name_of(type(error)))

        done = partial(on_behalf_of, worker_ctx, self.published, message, settle, parked)
        publish = partial(self.connections.on_demand.publish_then, queue, message.body)
        properties = marks.copied(message, **why)
        properties["delivery_mode"] = 2  # it lies there for long, also where its sender had no need of that
        try:
            try:
                publish(properties, done, self.timeout)
            except HeadersTooLarge:  # its own are nearly as many as a frame may have
                del properties["headers"][marks.TRACEBACK]
                publish(properties, done, self.timeout)
        except ValueError as refused:
            done(refused)

    def published(
        self, message: Message, settle: Callable[[], Any], tell: Callable[[], None], error: Exception | None
    ) -> None:
        """The broker has the copy, or does not take it: then the message goes back."""
        if error is None:
            tell()
            settle()
            return
        told = NAME_OF_DELAY.sub(DELAY_QUEUE, str(error))
        if told != self.told:  # it comes again, and may fail again for the same, or for a delay that differs by chance
            self.told = told
            text = "{where}: {delivery} goes back to its queue, for the broker did not take its copy: {error}"
            log.error(text, where=self.where, delivery=message, error=error)
        self.give_back(message)

    def settle(self, message: Message, worker_ctx: WorkerContext | None) -> None:
        """Ack the message, once the broker has what its handler published."""
        lost = partial(on_behalf_of, worker_ctx, settle_lost, self.give_back, message)
        when_confirmed(worker_ctx, partial(self.ack, message), lost)
