"""Replies to requests: ``Responder`` writes each one, and settles its request.

A request is not acked before its reply is safe: if the service dies, another instance runs the call. But a reply that
the broker nacks holds no request: see ``Responder.not_replied``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from twisted.logger import Logger

from txservices import constants
from txservices.amqp.connections import Connections
from txservices.amqp.entities import Message
from txservices.amqp.publish import when_confirmed
from txservices.amqp.returning import settle_lost
from txservices.callids import on_behalf_of
from txservices.deadlines import time_left
from txservices.exceptions import (
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    EncodeError,
    PublishNacked,
    PublishTimeout,
    UnserializableValueError,
    serialize,
)
from txservices.extensions import ExcInfo, WorkerContext
from txservices.serialization import Serializers

__all__ = ["Responder"]

log = Logger()

REPLY_TIMEOUT = 300.0  # seconds; as long as the caller of a request without an expiration is thought to wait


class Responder:
    """Writes replies, and settles each request once the broker has its reply, or the caller waits no longer."""

    def __init__(
        self, connections: Connections, exchange: str, serializers: Serializers, give_back: Callable[[Message], None]
    ) -> None:
        self.connections = connections
        self.give_back = give_back
        self.exchange = exchange
        self.encode = serializers.encode
        self.names = {kind: name for kind, name in serializers.names.items() if name != "raw"}

    def send_response(
        self, message: Message, worker_ctx: WorkerContext | None, result: Any, exc_info: ExcInfo | None
    ) -> tuple[Any, ExcInfo | None]:
        """Answer a request with a result, or with the error in ``exc_info``.

        If the method published something that has failed, and nobody looked at that, it is the caller's error: else the
        answer would not be true. If it fails after the answer, the request goes back, and the method runs again.

        Gives what the dependencies are to see: both as they are, or that error, or the ``EncodeError`` of a result that
        can't be written.
        """
        request = message.properties
        reply_to = request.get("reply_to")
        if not reply_to:
            log.warn("{call} has no reply_to: its result is dropped", call=message.routing_key)
            self.done(message, worker_ctx)
            return result, exc_info
        if exc_info is None and worker_ctx is not None and worker_ctx.unconfirmed is not None:
            lost = worker_ctx.unconfirmed.lost()
            if lost is not None:
                result, exc_info = None, (type(lost), lost, lost.__traceback__)
        serializer = self.names.get(request.get("content_type", ""))  # the request's: its caller can read that
        if exc_info is None:
            try:
                content_type, content_encoding, body = self.encode(serializer, {"result": result, "error": None})
            except EncodeError as error:
                text = "the result of {call} for {caller} can't be written: {error}"
                log.warn(text, call=message.routing_key, caller=caller_of(message), error=error)
                content_type, content_encoding, body = self.write_error(serializer, UnserializableValueError(result))
                result, exc_info = None, (type(error), error, error.__traceback__)
        else:
            content_type, content_encoding, body = self.write_error(serializer, exc_info[1])
        properties: dict[str, Any] = {
            "content_type": content_type,
            "content_encoding": content_encoding,
            "headers": {},
            "delivery_mode": 1 if request.get("delivery_mode") == 1 else 2,  # as the request
            "priority": 0,
            "correlation_id": request.get("correlation_id"),
        }
        replied = partial(self.replied, message, worker_ctx, properties, body)
        # Where there is no more room as well: to run the method again does not help. The replies that wait are no more
        # than the prefetch allows, for their requests are not acked before.
        publish_then = self.connections.publisher.publish_then
        publish_then(self.exchange, reply_to, body, properties, False, replied, reply_timeout(request), True, False)
        message.answered = True
        return result, exc_info

    def write_error(self, serializer: str | None, error: BaseException) -> tuple[str, str, bytes]:
        reply = {"result": None, "error": serialize(error)}
        try:
            return self.encode(serializer, reply)
        except EncodeError:  # that serializer can't write the error's text; JSON can write any text
            return self.encode("json", reply)

    def done(self, message: Message, worker_ctx: WorkerContext | None) -> None:
        """Ack a request once the broker has what its method published."""
        lost = partial(on_behalf_of, worker_ctx, settle_lost, self.give_back, message)
        when_confirmed(worker_ctx, message.ack, lost)

    def replied(
        self,
        message: Message,
        worker_ctx: WorkerContext | None,
        properties: dict[str, Any],
        body: bytes,
        error: Exception | None,
    ) -> None:
        """The broker has the reply, or does not take it."""
        if error is not None:
            on_behalf_of(worker_ctx, self.not_replied, message, worker_ctx, properties, body, error)
        elif worker_ctx is None or worker_ctx.unconfirmed is None:  # it has published nothing, as most
            message.ack()
        else:
            self.done(message, worker_ctx)

    def not_replied(
        self,
        message: Message,
        worker_ctx: WorkerContext | None,
        properties: dict[str, Any],
        body: bytes,
        error: Exception,
    ) -> None:
        if isinstance(error, PublishNacked):
            # Most often the node with the reply queue is down. The reply is tried until its caller waits no longer, but
            # the request is done: held until then, requests with such replies would keep all others away, and on a stop
            # they would go back and run again.
            self.done(message, worker_ctx)
            given_up = partial(on_behalf_of, worker_ctx, self.given_up, message)
            reply_to, timeout = message.properties["reply_to"], time_to_reply(message.properties)
            publish_then = self.connections.publisher.publish_then
            publish_then(self.exchange, reply_to, body, properties, False, given_up, timeout)
        elif isinstance(error, PublishTimeout):
            self.given_up(message, error)
            self.done(message, worker_ctx)
        elif isinstance(error, (ChannelClosedByBroker, ConnectionClosedByBroker)):
            # The broker refuses this very reply, most often because it is too big. To run the method again won't help.
            log.error("a reply to {call} is refused: {error}", call=message.routing_key, error=error)
            content_type, content_encoding, body = self.write_error(self.names.get(properties["content_type"]), error)
            properties.update(content_type=content_type, content_encoding=content_encoding)
            refused = partial(on_behalf_of, worker_ctx, self.refused, message, worker_ctx)
            publish_then = self.connections.publisher.publish_then
            reply_to, timeout = message.properties["reply_to"], time_to_reply(message.properties)
            publish_then(self.exchange, reply_to, body, properties, False, refused, timeout, True)
        else:
            log.error("no reply to {call}, it goes back: {error}", call=message.routing_key, error=error)
            self.give_back(message)

    def given_up(self, message: Message, error: Exception | None) -> None:
        """A reply that was late has arrived after all, or its caller waits for it no longer."""
        if error is not None:
            log.warn("no reply to {call}, its caller's time is up: {error}", call=message.routing_key, error=error)

    def refused(self, message: Message, worker_ctx: WorkerContext | None, error: Exception | None) -> None:
        """The broker has the error that went in place of a refused reply, or does not take that either."""
        if error is None:
            self.done(message, worker_ctx)
        else:  # the request must not be tried for ever
            log.error("no reply to {call}, it is rejected: {error}", call=message.routing_key, error=error)
            message.reject()


def reply_timeout(request: Mapping[str, Any]) -> float:
    """Seconds that a reply is tried for: the whole time that the request says, without reckoning what has passed."""
    try:
        return int(request["expiration"]) / 1000
    except (KeyError, TypeError, ValueError, OverflowError):
        return time_to_reply(request)


def time_to_reply(request: Mapping[str, Any], without: float = REPLY_TIMEOUT) -> float:
    """Seconds that a caller waits at most, by the properties of its request; ``without`` if these don't tell."""
    left = time_left(request.get("headers") or {})
    try:
        waits = int(request["expiration"]) / 1000
    except (KeyError, TypeError, ValueError, OverflowError):
        return without if left is None else left
    return waits if left is None else min(waits, left)


def caller_of(message: Message) -> str:
    """The call id of whoever has sent a request, and its origin's, for a log line; or that it is not known."""
    stack = message.headers.get(f"{constants.HEADER_PREFIX}.{constants.CALL_ID_STACK_CONTEXT_KEY}")
    if not isinstance(stack, list) or not stack:
        return "an unknown caller"
    return f"{stack[-1]} from {stack[0]}" if len(stack) > 1 else str(stack[0])
