"""Messages as kombu has them, and entrypoints whose ``handle_result`` may wait, for packages that have one of theirs.

the method has ended  ->  handle_in_thread  ->  theirs, in the worker's thread  ->  super(): ours, in the reactor
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from txservices.amqp import entities
from txservices.extensions import Container, Entrypoint, ExcInfo, WorkerContext
from txservices.migration.containers import is_foreign, returns_both
from txservices.migration.waiting import in_reactor

if TYPE_CHECKING:

    class Base(Entrypoint):
        handle_result: Any

else:
    Base = object


class Message:
    """A message of ours, as kombu has it. It can be settled in any thread."""

    def __init__(self, of: entities.Message) -> None:
        self.of = of
        self.headers = of.headers
        of.properties["headers"] = self.headers  # what is written into it goes along with the message
        # The time that its caller waits is no part of what a message is to be sent again with: that has its own.
        left_out = ("headers", "expiration")
        self.properties = {name: value for name, value in of.properties.items() if name not in left_out}
        self.properties["application_headers"] = self.headers
        self.delivery_info = {"exchange": of.exchange, "routing_key": of.routing_key, "redelivered": of.redelivered}
        self.content_type = of.properties.get("content_type")
        self.content_encoding = of.properties.get("content_encoding")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.of, name)

    def ack(self) -> None:
        in_reactor(self.of.ack)

    def reject(self, requeue: bool = False) -> None:
        in_reactor(self.of.reject, requeue)

    def requeue(self) -> None:
        self.reject(requeue=True)


def plain(message: Any) -> entities.Message:
    """The message itself."""
    found: entities.Message = message.of if isinstance(message, Message) else message
    return found


class HandlesMessages(Base):
    """An entrypoint for messages. A subclass's own ``handle_result`` is called in the worker's thread."""

    def bind(self, container: Container, name: str | None = None) -> Any:
        bound = super().bind(container, name)
        if is_foreign(type(bound).handle_result):
            bound.handle_result = bound.handle_in_thread
        return bound

    def handle_in_thread(
        self, message: entities.Message, worker_ctx: WorkerContext, result: Any, exc_info: ExcInfo | None
    ) -> Any:
        theirs = returns_both(partial(type(self).handle_result, self, Message(message)))
        workers: Any = self.container.workers
        return workers.in_thread(theirs, worker_ctx, result, exc_info)

    def handle_result(
        self, message: Any, worker_ctx: WorkerContext, result: Any = None, exc_info: ExcInfo | None = None
    ) -> Any:
        """Settle the message, and reply to it if it is a request."""
        return in_reactor(super().handle_result, plain(message), worker_ctx, result, exc_info)
