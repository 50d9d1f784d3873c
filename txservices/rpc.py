"""Calls from service to service: ``@rpc`` answers them, ``RpcProxy`` and ``ClusterRpc`` make them.

``RpcConsumer.receive`` reads a request, one dict look-up finds its method -> a worker -> ``Responder`` writes
the reply -> the broker has it -> the request is acked: see ``responder``. The caller's side is ``calls``.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from typing_extensions import Unpack

from txservices import configuration, constants
from txservices.amqp.entities import NOTHING, Message, Queue, with_queue_type
from txservices.amqp.longbodies import Decoded, LongBodies
from txservices.amqp.options import options_of
from txservices.amqp.publish import Publisher
from txservices.amqp.subscription import Subscription
from txservices.authoring import mistakes_in
from txservices.calls import Client
from txservices.cancelling import Cancelling
from txservices.consumers import QueueConsumer, amqp, cancel
from txservices.deadlines import FOREVER, is_over
from txservices.exceptions import (
    BadRequest,
    ContainerBeingKilled,
    DecodeError,
    MalformedRequest,
    MethodNotFound,
)
from txservices.extensions import (
    DependencyProvider,
    Entrypoint,
    EntrypointOptions,
    ExcInfo,
    Injected,
    Limit,
    SharedExtension,
    WorkerContext,
)
from txservices.messaging import HeaderDecoder
from txservices.proxies import (
    Begin,
    CallOptions,
    ClusterProxy,
    MethodProxy,
    RpcReply,
    Run,
    ServiceProxy,
    default_options,
    run_here,
)
from txservices.replyqueue import rpc_exchange
from txservices.responder import Responder, caller_of, time_to_reply
from txservices.retry import Reject, Retry, marks
from txservices.retry.failures import Failures, Source
from txservices.safe import shown
from txservices.serialization import Serializers
from txservices.serialization.bounds import LongBody
from txservices.threads import in_reactor
from txservices.utils.modules import callable_as_decorator
from txservices.workers import failure_of

__all__ = [
    "Client",
    "ClusterProxy",
    "ClusterRpc",
    "MethodProxy",
    "ReplyListener",
    "Responder",
    "Rpc",
    "RpcCall",
    "RpcConsumer",
    "RpcProxy",
    "RpcReply",
    "ServiceProxy",
    "ServiceRpc",
    "rpc",
]

# Requests that wait for the limit of their own method must not keep others away, so the prefetch grows by what they
# take. This bounds that: so many times the prefetch.
FURTHER_CONSUMERS_MAX = 20

log = Logger()


class RpcConsumer(SharedExtension):
    """The service's one queue of requests, for all its ``@rpc`` methods.

    A message that is no request is answered with the reason, or rejected if it has no ``reply_to``. It harms nobody.
    """

    queue_consumer = QueueConsumer()

    def __init__(self) -> None:
        self.methods: dict[str, Rpc] = {}  # by routing key
        self.consumer: Subscription | None = None
        self.limits: list[Limit] = []

    def register_provider(self, entrypoint: Rpc) -> None:
        self.methods[f"{self.container.service_name}.{entrypoint.method_name}"] = entrypoint

    def setup(self) -> None:
        config = self.container.config
        serializers = Serializers(config)
        exchange = rpc_exchange(config)
        self.workers = self.container.workers
        self.long = LongBodies(serializers.decode, self.receive, self.workers)
        self.accepted = serializers.accepted
        self.prefix = f"{self.container.service_name}."
        queue = Queue(
            constants.RPC_QUEUE_TEMPLATE.format(self.container.service_name),
            exchange,
            constants.RPC_ROUTING_KEY_TEMPLATE.format(self.container.service_name),
        )
        self.queue = with_queue_type(queue, configuration.QUEUE_TYPE.of(config))
        give_back = self.queue_consumer.requeue_message
        self.cancelling = Cancelling(self.workers)
        self.responder = Responder(amqp(self.container), exchange.name, serializers, give_back)

    def start(self) -> Deferred[None] | None:
        if not self.methods:
            return None  # in a test that restricts its entrypoints
        self.limits = [each.limit for each in self.methods.values() if each.limit is not None]
        if self.limits:
            self.workers.on_none_queued.append(self.make_room)
        if any(entrypoint.cancel_at_deadline for entrypoint in self.methods.values()):
            exchange = rpc_exchange(self.container.config)
            self.cancelling.listen(self.queue_consumer, self.container.service_name, exchange)
        self.consumer = self.queue_consumer.consume(self.queue, self.receive, in_turn=True)
        return self.consumer.ready

    def cancel(self) -> Deferred[Any] | None:
        """Take no more requests; those taken are still answered. The first entrypoint that stops calls this."""
        consumer, self.consumer = self.consumer, None
        if consumer is None:
            return None
        return Deferred.fromCoroutine(cancel(self.container, consumer, self.long))

    def receive(self, message: Message, decoded: Decoded | None = None) -> None:
        """Run the method that a request is for, when it is its turn; called again when a long body has been decoded.

        Until its turn comes only its bytes are kept.
        """
        properties = message.properties
        entrypoint = self.methods.get(message.routing_key)
        workers = self.workers
        full = workers.running >= workers.max_workers and decoded is None
        if entrypoint is not None and (full or entrypoint.full) and not workers.cancelled:
            patience, give_up = time_to_reply(properties, FOREVER), partial(self.not_begun, message)
            workers.wait(entrypoint, partial(self.receive, message, decoded), patience, give_up)
            if self.limits:
                self.make_room()
            return
        content_type, headers = properties.get("content_type"), properties.get("headers") or NOTHING
        try:
            if content_type not in self.accepted:
                accepted = ", ".join(self.accepted)
                raise DecodeError(f"content type {content_type!r} is not accepted here, {accepted} is")
            if decoded is None:
                body = self.long.read(content_type, properties.get("content_encoding"), message.body, headers, True)
            else:
                body = decoded()
            if entrypoint is None:
                raise MethodNotFound(message.routing_key.removeprefix(self.prefix))
            args, kwargs = arguments_of(body)
            entrypoint.check_signature(args, kwargs)
            if is_over(headers) or (entrypoint.cancel_at_deadline and self.cancelling.forget(message)):
                self.not_begun(message)
                return
            if message.redelivered and entrypoint.failures.comes_back_too_often(message):
                # The queue of calls has no dead letters by which the broker would do that: each request whose caller's
                # time is up while it waits would be one.
                text = "it came back to its queue again and again: does it kill the process that handles it?"
                self.park(entrypoint, message, "delivery_limit", Reject(text))
                return
        except LongBody:
            self.long.add(message)
            return
        except DecodeError as error:
            if entrypoint is not None and entrypoint.failures.policy is not None:
                self.park(entrypoint, message, "unreadable", MalformedRequest(str(error)))
            else:
                self.refuse(message, MalformedRequest(str(error)))
            return
        except (BadRequest, TypeError) as error:
            self.refuse(message, error)
            return
        except BaseException as error:
            self.not_taken(message, error)
            return
        try:
            context_data = entrypoint.unpack_message_headers(message)
            if marks.ATTEMPT in headers:
                context_data = marks.without_marks(context_data)
            handle_result = partial(entrypoint.handle_result, message)
            worker = self.container.spawn_worker(
                entrypoint, args, kwargs, context_data=context_data, handle_result=handle_result
            )
            if entrypoint.cancel_at_deadline and not message.answered and not message.settled:
                self.cancelling.workers[properties.get("correlation_id", "")] = worker
        except ContainerBeingKilled:
            message.reject(requeue=True)
        except BaseException as error:
            self.not_taken(message, error)

    def make_room(self) -> None:
        """Have the prefetch grow by what waits for the limits of single methods, and shrink again."""
        consumer = self.consumer
        if consumer is None:
            return
        waiting = sum(len(each.queued) for each in self.limits)
        taken = waiting + sum(each.running for each in self.limits)
        count, more = consumer.prefetch_count, consumer.more
        if not waiting:
            consumer.widen(0)
        elif taken > count * more + count // 2:
            consumer.widen(min(more + 1, FURTHER_CONSUMERS_MAX))
        elif taken <= count * (more - 1):
            consumer.widen(-(-taken // count))

    def not_begun(self, message: Message) -> None:
        log.debug("{call} is not begun: its caller will have gone", call=message.routing_key)
        message.ack()

    def not_taken(self, message: Message, error: BaseException) -> None:
        """A hook that the service's author has overridden has raised: its error is the caller's answer."""
        log.failure("{call} can't be handled", failure_of(error), call=message.routing_key)
        self.refuse(message, error)

    def failures_of(self, entrypoint: Rpc) -> Failures:
        consumer = self.queue_consumer
        connections = amqp(self.container)
        return Failures(entrypoint, connections, consumer.ack_message, consumer.requeue_message, entrypoint.retry)

    def failed(self, entrypoint: Rpc, message: Message, worker_ctx: WorkerContext, exc_info: ExcInfo) -> None:
        """Try a request again, or park it and reply with the error.

        It comes back through the exchange of calls, by its own routing key, which names the method: another instance
        of the service may be one of nameko's, and knows a method by nothing else.
        """
        reply = partial(self.responder.send_response, message, worker_ctx, None, exc_info)
        source = Source(self.queue.name, self.responder.exchange, message.routing_key)
        patience = time_to_reply(message.properties, FOREVER) if message.properties.get("reply_to") else None
        left = worker_ctx.time_left()  # less than that by the time that it has run
        if patience is not None and left is not None:
            patience = min(patience, left)
        entrypoint.failures.failed(message, worker_ctx, exc_info[1], source, patience, reply)

    def park(self, entrypoint: Rpc, message: Message, reason: str, error: Exception) -> None:
        """Park a request for which no worker is to run, and reply with the error."""
        reply = partial(self.responder.send_response, message, None, None, (type(error), error, None))
        source = Source(self.queue.name, self.responder.exchange, message.routing_key)
        entrypoint.failures.park(message, None, reason, error, source, reply)

    def refuse(self, message: Message, error: BaseException) -> None:
        """Answer a message that is no request to one of our methods. No worker runs for it."""
        if message.properties.get("reply_to"):
            log.warn(
                "a call of {call} by {caller} is refused: {kind}: {error}",
                call=message.routing_key,
                caller=caller_of(message),
                kind=type(error).__name__,
                error=shown(error),
            )
            self.responder.send_response(message, None, None, (type(error), error, None))
        else:
            log.error("{call} has no reply_to, rejected: {error}", call=message.routing_key, error=shown(error))
            message.reject()


def arguments_of(body: Any) -> tuple[Any, Any]:
    """``args`` and ``kwargs`` of a request. A body that is no mapping is a ``TypeError``, as in nameko."""
    try:
        return body["args"], body["kwargs"]
    except KeyError:
        raise MalformedRequest("Message missing `args` or `kwargs`") from None


class Rpc(HeaderDecoder, Entrypoint):
    """Answers calls of the method that come through the broker: see the module.

    With ``retry`` a request whose worker raised is tried again later, for as long as its caller waits. After the last
    attempt the caller gets the error, and the request is parked: see ``retry.Retry``. The errors of
    ``expected_exceptions`` go to the caller at once, and the request is not parked. With ``retry=False`` nothing is
    tried again, although the configuration's ``RETRY`` says so.

    There is no ``prefetch_count``: all methods of a service have one queue of requests, so the configuration has the
    number. With ``max_workers`` a slow method keeps no other waiting.
    """

    rpc_consumer = RpcConsumer()
    told_exceptions = (Retry, Reject)
    may_yield = False

    def __init__(self, retry: Retry | Literal[False] | None = None, **kwargs: Unpack[EntrypointOptions]) -> None:
        super().__init__(**kwargs)
        self.retry = retry

    def setup(self) -> None:
        self.rpc_consumer.register_provider(self)
        self.failures = self.rpc_consumer.failures_of(self)

    def stop(self) -> Deferred[Any] | None:
        return self.rpc_consumer.cancel()

    def handle_result(
        self, message: Message, worker_ctx: WorkerContext, result: Any, exc_info: ExcInfo | None
    ) -> tuple[Any, ExcInfo | None]:
        """Reply to the request. A subclass overrides this to change results or errors before they are sent."""
        if self.cancel_at_deadline:
            self.rpc_consumer.cancelling.forget(message)
        if exc_info is not None and self.failures.takes(exc_info[1], self.expected_exceptions):
            self.rpc_consumer.failed(self, message, worker_ctx, exc_info)
            return result, exc_info
        return self.rpc_consumer.responder.send_response(message, worker_ctx, result, exc_info)

    def result_not_handled(self, worker_ctx: WorkerContext, exc_info: ExcInfo) -> None:
        message = worker_ctx.message
        if message is not None and not message.answered:
            Rpc.handle_result(self, message, worker_ctx, None, exc_info)


rpc = Rpc.decorator


class ReplyListener(SharedExtension):
    """Has the container's ``Client``, whose reply queue is there before anything in the container starts."""

    queue_consumer = QueueConsumer()
    client: Client | None = None

    def setup(self) -> Deferred[None]:
        container = self.container
        self.client = Client(amqp(container), container.service_name, container.config, container.clock)
        return self.client.replies.listen(self.queue_consumer.consume)

    def functions_for(self, worker_ctx: WorkerContext) -> tuple[Begin, Run]:
        """The function that begins that worker's calls, and the one that runs them where its method runs."""
        assert self.client is not None
        return partial(self.client.call, worker_ctx), in_reactor if worker_ctx.blocking else run_here

    def stop(self) -> None:
        if self.client is not None:
            self.client.abort()

    def kill(self) -> None:
        self.stop()


class ProxyProvider(DependencyProvider[Injected]):
    """Injects a proxy; what ``ClusterRpc`` and ``RpcProxy`` have in common.

    Options are ``calls.CallOptions``: ``timeout`` in seconds, ``priority``, ``headers``, ``serializer``, … A subclass
    may give them as attributes, or have a ``publisher_cls`` with such attributes.
    """

    reply_listener = ReplyListener()
    publisher_cls = Publisher
    _call_options: CallOptions = {}  # of a subclass with an __init__ of its own

    def __init__(self, **options: Unpack[CallOptions]) -> None:
        self._call_options = options

    def setup(self) -> None:
        attributes = {**options_of(self.publisher_cls), **options_of(self)}
        with mistakes_in(f"{self.container.service_name}.{self.attr_name}"):
            self.sending = default_options(self.container.config, {**attributes, **self._call_options})


class ClusterRpc(ProxyProvider[ClusterProxy]):
    """Injects a proxy of all services: ``self.cluster.service_y.method(1)``.

    The service's name need not be known before the call; ``self.cluster["service-y"]`` is for one that Python can't
    have. Options are those of ``ProxyProvider``.
    """

    def get_dependency(self, worker_ctx: WorkerContext) -> ClusterProxy:
        begin, run = self.reply_listener.functions_for(worker_ctx)
        return ClusterProxy(begin, self.sending, run)


class RpcProxy(ProxyProvider[ServiceProxy]):
    """Injects a proxy of one service: ``self.y.method(1)`` is a Deferred of what the method returned there.

    Options are those of ``ProxyProvider``.
    """

    def __init__(self, target_service: str, **options: Unpack[CallOptions]) -> None:
        super().__init__(**options)
        self.target_service = target_service

    def get_dependency(self, worker_ctx: WorkerContext) -> ServiceProxy:
        begin, run = self.reply_listener.functions_for(worker_ctx)
        return ServiceProxy(begin, self.target_service, self.sending, run)


ServiceRpc = RpcProxy  # nameko 3's names
RpcCall = RpcReply

callable_as_decorator(__name__)  # `from txservices import rpc` gives this module
