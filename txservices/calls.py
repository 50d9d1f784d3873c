"""Calls of other services' methods, from a worker or from a program that is no service.

A proxy's method -> ``Client.call`` publishes the request and keeps a ``Call`` in ``pending``. The reply takes it out
again, or the sweeper does when its time is up. Every call ends. One ``Client`` with one reply queue serves all
``proxies`` of a container; the standalone proxies have one of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import copy_context
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from txservices import constants
from txservices.amqp.connections import Connections
from txservices.amqp.entities import Message
from txservices.amqp.longbodies import Decoded, LongBodies
from txservices.amqp.options import Sending
from txservices.amqp.publish import unconfirmed_of
from txservices.amqp.whereabouts import Whereabouts
from txservices.attempts import Attempts, Context
from txservices.awaited import Answer, tell_if_unawaited
from txservices.breakers import Circuits
from txservices.deadlines import FOREVER, add_headers
from txservices.exceptions import (
    BadRequest,
    CallFailed,
    ConnectionLost,
    DecodeError,
    PublishTimeout,
    ReplyQueueExpiredWithPendingReplies,
    RpcConnectionError,
    RpcTimeout,
    UndeliverableMessage,
    UnknownService,
    deserialize,
)
from txservices.messaging import encode_to_headers
from txservices.observers import CANCELLED, ERROR, OK, TIMEOUT, observers
from txservices.proxies import CallOptions, ClusterProxy, MethodProxy, RpcReply, ServiceProxy
from txservices.replyqueue import ReplyQueue, rpc_exchange
from txservices.serialization import Serializers
from txservices.serialization.bounds import LongBody
from txservices.utils.ids import new_id
from txservices.utils.sweeping import Sweeper
from txservices.utils.waiting import Unconfirmed

__all__ = ["CallOptions", "Client", "ClusterProxy", "MethodProxy", "RpcReply", "ServiceProxy"]

log = Logger()

CANCEL_TIMEOUT = 5.0  # seconds that a service is told for that a call is cancelled


class Call:
    """One call, from its request to its reply, its error, or the end of its time.

    Attributes:
        name: of the method, as ``service.method``.
        began: the clock's time, if an observer wants to know how it ends.
        taken: whether the broker has the request.
        run: runs a function in the caller's context, so that log lines of the answer's callbacks bear its call id.
    """

    __slots__ = (
        "answer",
        "began",
        "client",
        "correlation_id",
        "deadline",
        "name",
        "run",
        "service",
        "taken",
        "timeout",
        "unconfirmed",
    )

    def __init__(
        self,
        client: Client,
        unconfirmed: Unconfirmed,
        service: str,
        name: str,
        correlation_id: str,
        timeout: float | None,
    ) -> None:
        self.client = client
        self.unconfirmed = unconfirmed
        self.service = service
        self.name = name
        self.taken = False
        self.began = client.clock.seconds() if observers.call_ended else None
        self.correlation_id = correlation_id
        self.timeout = timeout
        self.deadline = FOREVER  # until it is published: then it is the request's
        self.answer: Deferred[Any] = Deferred(self.forget)
        self.run = copy_context().run
        unconfirmed.calls.add(self)

    @property
    def method(self) -> str:
        return self.name[len(self.service) + 1 :]

    def ended(self, outcome: str, error: BaseException | None = None) -> None:
        """Tell the observers how it has ended, before its caller goes on."""
        if self.began is not None:
            seconds = self.client.clock.seconds() - self.began
            observers.tell(observers.call_ended, self, outcome, seconds, error)

    def forget(self, _: Any = None) -> None:
        """The caller has cancelled the call: a reply that comes now is too late."""
        self.unconfirmed.calls.discard(self)
        self.ended(CANCELLED)
        if self.client.pending.pop(self.correlation_id, None) is not None:
            self.client.tell_cancelled(self)

    def published(self, error: Exception | None) -> None:
        """The broker has the request, or can't have it."""
        if error is None:
            self.taken = True
        elif self.client.pending.pop(self.correlation_id, None) is not None:
            self.errback(self.outcome(error))
        self.unconfirmed.remove()

    def errback(self, error: BaseException) -> None:
        """End the call with an error."""
        self.unconfirmed.calls.discard(self)
        self.ended(TIMEOUT if isinstance(error, RpcTimeout) else ERROR, error)
        tell_if_unawaited(self.answer, self.name, self.run)
        self.run(self.answer.errback, error)

    def fail(self, error: CallFailed) -> None:
        """End the call with an error, which gets its name."""
        error.call = self.name
        self.errback(error)

    def late(self, state: str) -> None:
        """End a call whose time is up; ``state`` is what has become of its request."""
        if not self.answer.called:  # the caller may have cancelled it meanwhile
            self.fail(RpcTimeout(self.timeout, state))

    def outcome(self, error: Exception) -> Exception:
        """The error for the caller of a request that did not get out."""
        if isinstance(error, UndeliverableMessage):
            told: CallFailed = UnknownService(self.service)
        elif isinstance(error, PublishTimeout):
            told = RpcTimeout(self.timeout, self.client.not_taken())
        elif isinstance(error, ConnectionLost):
            told = RpcConnectionError(str(error))
        else:
            return error
        told.call = self.name
        told.__cause__ = error
        return told


class Client:
    """Makes calls and takes their replies, on one reply queue.

    Attributes:
        name: the caller's, as observers tell it.
        replies: the queue in which replies come in.
        pending: the calls that have no answer yet, by correlation id.
        waiting: the calls that have failed and are made again later.
        circuits: of the services that are called with a breaker.
    """

    def __init__(self, connections: Connections, name: str, config: Mapping[str, Any], clock: Any) -> None:
        self.clock = clock
        self.connections = connections
        self.serializers = Serializers(config)
        self.decode: Callable[..., Any] = self.serializers.decode
        self.long = LongBodies(self.decode, self.handle_message)
        self.name = name
        self.exchange = rpc_exchange(config).name
        self.replies = ReplyQueue(name, config, self.handle_message, self.replies_lost)
        self.pending: dict[str, Call] = {}
        self.sweeper = Sweeper(clock, self.pending, self.expire)
        self.whereabouts = Whereabouts(clock)
        self.circuits = Circuits()
        self.waiting: set[Attempts] = set()
        self.stopped = False
        connections.leaving.on_aborted.append(self.given_up)

    def call(
        self,
        context: Context,
        service: str,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        sending: Sending,
    ) -> Deferred[Any]:
        """Call a method; fires with what it returned. Cancelling forgets the call, but the method may run nevertheless.

        Fails with ``UnknownService``, ``MethodNotFound``, ``IncorrectSignature``, ``RemoteError`` (the method raised),
        ``RpcTimeout``, ``RpcConnectionError``, and ``CircuitOpen`` if there is a breaker. Raises ``EncodeError`` for
        arguments that can't be written.
        A timeout of 0 or less is over at once, and nothing is sent.
        """
        if self.stopped:
            raise RuntimeError("this proxy has been stopped, and can't be used any more")
        if sending.protection is not None:
            return self.call_protected(context, service, method, args, kwargs, sending)
        timeout = sending.timeout
        left = context.time_left()
        if left is not None and (timeout is None or left < timeout):
            timeout = left
        name = f"{service}.{method}"
        if timeout is not None and timeout <= 0:
            state = "its time was over before it was sent" if left is None else "its own caller's time is over"
            late = RpcTimeout(timeout, state)
            late.call = name
            answer: Deferred[Any] = Deferred()
            tell_if_unawaited(answer, name, copy_context().run)
            answer.errback(late)
            return Answer(name, answer)
        headers = encode_to_headers(context.context_data)
        if timeout is not None:
            add_headers(headers, timeout)
        properties, body = sending.write(self.serializers, {"args": args, "kwargs": kwargs}, headers)
        if timeout is not sending.timeout and properties.get("expiration") is not None:
            properties["expiration"] = str(int((timeout or 0) * 1000))
        correlation_id = new_id()
        properties["correlation_id"] = properties["message_id"] = correlation_id
        properties["reply_to"] = self.replies.reply_to
        unconfirmed = context.unconfirmed
        if unconfirmed is None:
            unconfirmed = unconfirmed_of(context)
        call = Call(self, unconfirmed, service, name, correlation_id, timeout)
        if observers.call_started:
            observers.tell(observers.call_started, call, context, properties["headers"])
        self.pending[correlation_id] = call
        call.unconfirmed.add()
        publisher = self.connections.publisher
        try:
            try:
                publishing = publisher.publish_then(
                    self.exchange, name, body, properties, True, call.published, timeout
                )
            except ValueError as error:
                sending.lighten(properties, publisher.header_max, error)
                publishing = publisher.publish_then(
                    self.exchange, name, body, properties, True, call.published, timeout
                )
        except BaseException as error:  # mostly a ValueError, for what AMQP can't carry: nothing was sent
            del self.pending[correlation_id]
            unconfirmed.calls.discard(call)
            unconfirmed.remove()
            call.ended(ERROR, error)
            raise
        if timeout is not None:
            call.deadline = publishing.deadline
            if self.sweeper.call is None:
                self.sweeper.watch()
        return Answer(name, call.answer)

    def call_protected(
        self,
        context: Context,
        service: str,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        sending: Sending,
    ) -> Deferred[Any]:
        """``call`` for one that is made again if it fails, or not made while its circuit is open."""
        attempts = Attempts(
            self.call, self.clock, self.circuits, self.waiting, context, service, method, args, kwargs, sending
        )
        tell_if_unawaited(attempts.answer, attempts.name, attempts.run)
        attempts.begin()
        return Answer(attempts.name, attempts.answer)

    def handle_message(self, message: Message, decoded: Decoded | None = None) -> None:
        """Take a reply to the call that waits for it; called again when a long body has been decoded."""
        properties = message.properties
        correlation_id = properties.get("correlation_id", "")
        call = self.pending.pop(correlation_id, None)
        if call is None:
            message.ack()
            log.debug("a reply that nobody waits for: {correlation_id}", correlation_id=correlation_id)
            return
        try:
            if decoded is None:
                encoding, headers = properties.get("content_encoding"), properties.get("headers")
                body = self.decode(properties.get("content_type"), encoding, message.body, headers, True)
            else:
                body = decoded()
            result, error = body["result"], body["error"]
        except LongBody:
            self.pending[correlation_id] = call  # it still waits
            self.long.add(message)
            return
        except (DecodeError, KeyError, TypeError) as problem:
            message.ack()
            call.errback(DecodeError(f"the reply of {call.name} can't be read: {problem}"))
            return
        message.ack()
        if error:
            told = deserialize(error)
            if isinstance(told, BadRequest):
                told.call = call.name
            call.errback(told)
        else:
            call.unconfirmed.calls.discard(call)
            if observers.call_ended:
                call.ended(OK)
            call.run(call.answer.callback, result)

    def tell_cancelled(self, call: Call) -> None:
        """Tell the service that nobody waits for a call any more. If it is not told, its worker runs to its end."""
        if self.stopped or self.connections.publisher.channel is None:
            return
        properties = {"correlation_id": call.correlation_id, "delivery_mode": constants.NON_PERSISTENT}
        key = constants.RPC_CANCEL_TEMPLATE.format(call.service)
        with suppress(ValueError):  # the service's name is longer than those that can be told
            publish_then = self.connections.publisher.publish_then
            publish_then(self.exchange, key, b"", properties, False, cancel_told, CANCEL_TIMEOUT)

    def expire(self, correlation_id: str, call: Call) -> None:
        if call.taken:
            queue = constants.RPC_QUEUE_TEMPLATE.format(call.service)
            self.whereabouts.of_requests(queue, self.replies.protocol).addCallback(call.late)
        else:
            call.late(self.not_taken())

    def not_taken(self) -> str:
        """Why the broker has not taken a request in its time, in words."""
        if self.connections.publisher.connection.protocol is None:
            return "it was not sent, for there was no connection to a broker"
        return "the broker has not confirmed that it has the request: is it free of memory and disk alarms?"

    def replies_lost(self, queue: str) -> None:
        self.fail_pending(ReplyQueueExpiredWithPendingReplies, f"reply queue {queue!r} was gone")

    def fail_pending(self, kind: type[CallFailed], text: str) -> None:
        pending = list(self.pending.values())
        self.pending.clear()
        for call in pending:
            call.fail(kind(text))

    def given_up(self) -> None:
        self.end_pending("the service is stopping, and there is no broker to bring the reply")

    def end_pending(self, text: str) -> None:
        """Fail the calls that have no answer, for good: they are not made again."""
        self.fail_pending(RpcConnectionError, text)
        for each in list(self.waiting):
            each.give_up()

    def abort(self) -> None:
        """Take no more calls. Those under way fail."""
        self.stopped = True
        if self.given_up in self.connections.leaving.on_aborted:
            self.connections.leaving.on_aborted.remove(self.given_up)
        self.sweeper.stop()
        self.end_pending("the proxy was stopped before the reply came")


def cancel_told(error: Exception | None) -> None:
    """The broker has taken the word of a cancelled call, or it has not: then the worker runs to its end."""
    if error is not None:
        log.debug("a service was not told of a cancelled call: {error}", error=error)
