"""Messages out of a service: their options, which are merged once, and the broker's confirm.

``Publisher`` has ``Sending`` write properties and body -> the broker -> ``Confirmation``, a Deferred that nobody need
look at. Each worker has a count of what it has published (``Unconfirmed``), so that the message that called it is
acked only when the broker has all of it: nothing a worker told the world is lost with its process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextvars import copy_context
from datetime import datetime
from functools import partial
from typing import Any, Protocol, TypedDict

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import Unpack

from txservices import configuration, constants
from txservices.amqp.connections import Connections
from txservices.amqp.entities import Exchange, Queue, entity_of, exchange_of, with_queue_type
from txservices.exceptions import EncodeError, PublishTimeout, UndeliverableMessage
from txservices.serialization import Serializers, charset_of, compress
from txservices.utils.waiting import Unconfirmed
from txservices.wire import spec

__all__ = [
    "Confirmation",
    "MessageOptions",
    "Owner",
    "PublishOptions",
    "Publisher",
    "PublisherOptions",
    "Sending",
    "UndeliverableMessage",
    "options_of",
    "send",
    "when_confirmed",
]

log = Logger()

# Out: options, confirmations ------------------------------------------------------------------------------------------


class MessageOptions(TypedDict, total=False):
    """How a message is written; a call's request is one too. Unknown options are a ``TypeError``.

    Attributes:
        serializer: by name, ``SERIALIZER`` of the configuration if it isn't given.
        compression: ``gzip``, ``zlib`` or ``bzip2``.
        headers: besides those that carry the context. They add up: init's go below the context's of the same name,
            the call's above.
        delivery_mode: 2 for a message that a restart of the broker must not lose, which is the default, or 1.
        priority: from 0 to 255, for queues that have ``x-max-priority``.
        expiration: seconds after which the broker drops the message, if nobody has taken it by then.
        content_type: given, the body goes as it is: text or bytes.
        content_encoding: of a text with a ``content_type``.
        message_id: by which a message that was sent twice is known; a new one for each if it isn't given.
        timestamp: seconds since 1970, or a ``datetime``.
        type, user_id, app_id: for whoever reads them. RabbitMQ refuses a ``user_id`` that is not the connection's.
        retry, retry_policy: nameko's, ignored. A message is sent again until it is confirmed or its time is up.
    """

    serializer: str | None
    compression: str | None
    headers: Mapping[str, Any] | None
    delivery_mode: int
    priority: int
    expiration: float | None
    content_type: str
    content_encoding: str
    message_id: str
    timestamp: int | datetime
    type: str
    user_id: str
    app_id: str
    retry: bool
    retry_policy: Mapping[str, Any] | None


class PublishOptions(MessageOptions, total=False):
    """How a message is published.

    Attributes:
        timeout: seconds for the broker's confirm, ``PUBLISH_TIMEOUT`` if it isn't given; None for ever.
        mandatory: whether a message that no queue takes is an ``UndeliverableMessage``.
        use_confirms: False to be told nothing. The broker is asked for its confirm in any case.
        correlation_id, reply_to: for whoever answers.
    """

    timeout: float | None
    mandatory: bool
    use_confirms: bool
    correlation_id: str
    reply_to: str


class PublisherOptions(PublishOptions, total=False):
    """How a publisher publishes all its messages.

    Attributes:
        routing_key: of messages that are published without one.
    """

    routing_key: str


FIELDS = frozenset(("serializer", "compression", "mandatory", "use_confirms", "timeout", "routing_key"))
PROPERTIES = frozenset(name for name, _ in spec.PROPERTIES) - {"headers", "cluster_id"}
IGNORED = frozenset(("retry", "retry_policy"))  # nameko's: here a publish is sent again until it is confirmed or late


@frozen
class Sending:
    """How messages are sent: options merged once, when a provider is made; a publish reads attributes.

    Attributes:
        timeout: seconds for the broker's confirm, or for the reply to a call. None for ever.
        declare: exchanges and queues to declare first.
        headers, call_headers: below the context's of the same name, and above.
        queue_type: of the queues in ``declare``, as ``QUEUE_TYPE`` says: their consumers declare them so.
        properties: of AMQP's basic class. With a ``content_type`` among them the body goes as it is.
    """

    serializer: str | None = None
    compression: str | None = None
    mandatory: bool = False
    use_confirms: bool = True
    timeout: float | None = configuration.PUBLISH_TIMEOUT.default
    routing_key: str = ""
    declare: tuple[Exchange | Queue, ...] = ()
    queue_type: str | None = None
    headers: Mapping[str, Any] = {}
    call_headers: Mapping[str, Any] = {}
    properties: Mapping[str, Any] = {"delivery_mode": constants.PERSISTENT, "priority": 0}

    @classmethod
    def of(cls, config: Mapping[str, Any], options: Mapping[str, Any]) -> Sending:
        """As the configuration says, with these options on top."""
        timeout, queue_type = configuration.PUBLISH_TIMEOUT.of(config), configuration.QUEUE_TYPE.of(config)
        return cls(timeout=timeout, queue_type=queue_type).merged(options)

    def merged(self, options: Mapping[str, Any], of_call: bool = False) -> Sending:
        """With these options on top, of one call or of all. ``TypeError`` for one that means nothing."""
        changes: dict[str, Any] = {}
        properties = dict(self.properties)
        for name, value in options.items():
            if name in FIELDS:
                changes[name] = value
            elif name == "headers":
                field = "call_headers" if of_call else "headers"
                changes[field] = {**getattr(self, field), **(value or {})}
            elif name == "declare":
                added = [with_queue_type(entity_of(each), self.queue_type) for each in value or ()]
                changes["declare"] = (*self.declare, *added)
            elif name == "expiration":
                # as kombu has it: seconds in Python, milliseconds as text on the wire
                properties[name] = None if value is None else str(int(value * 1000))
            elif name in PROPERTIES:
                properties[name] = value
            elif name not in IGNORED:
                known = ", ".join(sorted(FIELDS | PROPERTIES | {"headers", "declare"}))
                raise TypeError(f"there is no option {name!r} for sending messages; there are {known}")
        return evolve(self, properties=properties, **changes)

    def write(
        self, serializers: Serializers, value: Any, context_headers: dict[str, Any]
    ) -> tuple[dict[str, Any], bytes]:
        """Properties and body of a message. ``EncodeError`` for a value that can't be written."""
        if "content_type" in self.properties:
            content_type, content_encoding, body = raw(self.properties, value)
        else:
            content_type, content_encoding, body = serializers.encode(self.serializer, value)
        headers = context_headers
        if self.headers or self.call_headers:
            # In nameko's order. To a reader, a value of the context and a plain header of its name are the same: where
            # the call gives either, the context's stays here.
            given = {**self.headers, **self.call_headers}
            call = self.call_headers
            headers = given | {
                name: each
                for name, each in context_headers.items()
                if name not in call and name.partition(".")[2] not in call
            }
        if self.compression is not None:
            header, body = compress(self.compression, body)
            headers = {**headers, "compression": header}
        return {
            **self.properties,
            "content_type": content_type,
            "content_encoding": content_encoding,
            "headers": headers,
        }, body


def raw(properties: Mapping[str, Any], value: Any) -> tuple[str, str, bytes]:
    """Content type, content encoding and body of a value that its publisher has encoded."""
    content_type, encoding = properties["content_type"], properties.get("content_encoding")
    if isinstance(value, str):
        encoding = encoding or "utf-8"
        try:
            return content_type, encoding, value.encode(charset_of(encoding))
        except (LookupError, ValueError) as error:
            raise EncodeError(f"a text can't be written as {encoding}: {error}") from error
    if isinstance(value, (bytes, bytearray, memoryview)):
        return content_type, encoding or "binary", bytes(value)
    raise TypeError(f"with content_type={content_type!r} the body goes as it is: give text or bytes, not {value!r}")


class Owner(Protocol):
    """Somebody who publishes, such as a worker.

    Attributes:
        unconfirmed: what the broker has not answered for; None until the first message.
    """

    unconfirmed: Unconfirmed | None


def unconfirmed_of(owner: Owner) -> Unconfirmed:
    """The owner's count, made when it is first needed."""
    if owner.unconfirmed is None:
        owner.unconfirmed = Unconfirmed()
    return owner.unconfirmed


def when_confirmed(owner: Owner | None, call: Callable[[], None]) -> None:
    """Call that once the broker has answered for all that the owner published; mostly that is now."""
    if owner is None or owner.unconfirmed is None:
        call()
    else:
        owner.unconfirmed.then(call)


class Confirmation(Deferred[None]):
    """Fires when the broker has confirmed a message that a worker published.

    Most services don't wait for it. So a failure that nobody has looked at becomes one line in the log, and not an
    unhandled error.
    """

    def __init__(self, unconfirmed: Unconfirmed, exchange: str, routing_key: str) -> None:
        super().__init__()
        self.unconfirmed = unconfirmed
        self.exchange = exchange
        self.routing_key = routing_key
        self.run = copy_context().run  # in it log lines bear the worker's call id
        unconfirmed.add()

    def done(self, error: Exception | None) -> None:
        """The broker has answered, or never will."""
        if error is None:
            self.run(self.callback, None)
        else:
            self.run(self.errback, error)
        self.unconfirmed.remove()  # last: a callback may have published in answer

    def not_sent(self, failure: Failure) -> None:
        """An exchange or queue that had to be declared first could not be."""
        assert isinstance(failure.value, Exception)
        self.done(failure.value)

    def __del__(self) -> None:
        failure = getattr(self, "result", None)
        if isinstance(failure, Failure):
            self.run(
                log.error,
                "{routing_key!r} was not published to {exchange!r}: {error}",
                routing_key=self.routing_key,
                exchange=self.exchange,
                error=failure.value,
            )
            self.addErrback(lambda _: None)


def send(
    connections: Connections,
    sending: Sending,
    exchange: str,
    routing_key: str,
    properties: dict[str, Any],
    body: bytes,
    owner: Owner,
    declare_first: bool = False,
) -> Deferred[None]:
    """Publish for somebody; fires when that is confirmed, at once with ``use_confirms=False``."""
    confirmation = Confirmation(unconfirmed_of(owner), exchange, routing_key)
    publisher, mandatory, timeout = connections.publisher, sending.mandatory, sending.timeout
    publish = partial(
        publisher.publish_then, exchange, routing_key, body, properties, mandatory, confirmation.done, timeout
    )
    if declare_first:
        declaring = publisher.declare(*sending.declare)
        if timeout is not None:
            declaring.addTimeout(timeout, publisher.clock, lambda *_: Failure(PublishTimeout(exchange, routing_key)))
        declaring.addCallback(lambda _: publish()).addErrback(confirmation.not_sent)
    else:
        try:
            publish()
        except Exception:  # mostly a ValueError, for what AMQP can't carry: nothing was sent
            confirmation.unconfirmed.remove()
            raise
    return confirmation if sending.use_confirms else succeed(None)


# Publishers -----------------------------------------------------------------------------------------------------------

CLASS_OPTIONS = (*FIELDS, *PROPERTIES, "headers", "declare")


def options_of(thing: Any) -> dict[str, Any]:
    """The options that a publisher or a provider has for attributes."""
    return {name: value for name in CLASS_OPTIONS if (value := getattr(thing, name, None)) is not None}


class Publisher:
    """Publishes messages: for the providers that services have, and by itself where there is no service.

        publisher = Publisher("amqp://guest:guest@localhost", exchange="readings")
        await publisher.publish({"load": 0.1}, routing_key="cpu")
        await publisher.stop()

    Options are ``PublisherOptions``, merged: a subclass's attributes (``delivery_mode = NON_PERSISTENT``), then init's,
    then the call's. A provider has a subclass used by its ``publisher_cls``.

    Args:
        amqp_uri, ssl, login_method: ``AMQP_URI``, ``AMQP_SSL`` and ``LOGIN_METHOD`` of a configuration.
        exchange: by name, or an ``Exchange``; the default one if it isn't given. It is not declared.
        declare: exchanges and queues to declare before the first message.
    """

    connections: Connections

    def __init__(
        self,
        amqp_uri: str | None,
        ssl: Any = None,
        login_method: str | None = None,
        exchange: Any = "",
        declare: Iterable[Any] | None = None,
        **options: Unpack[PublisherOptions],
    ) -> None:
        self.config = {
            configuration.AMQP_URI.name: amqp_uri,
            configuration.AMQP_SSL.name: ssl,
            configuration.LOGIN_METHOD.name: login_method,
        }
        self.exchange = name_of(exchange)
        self.options: Mapping[str, Any] = options if declare is None else {"declare": declare, **options}
        self.declared = self.running = self.stopped = False
        self.unconfirmed: Unconfirmed | None = None

    def use(self, connections: Connections, config: Mapping[str, Any]) -> Sending:
        """Publish over these connections. Gives the options; the caller declares what they name."""
        self.connections = connections
        self.serializers = Serializers(config)
        self.sending = Sending.of(config, options_of(self)).merged(self.options)
        self.running = self.declared = True
        return self.sending

    def begin(self) -> None:
        if self.stopped:
            raise RuntimeError("this publisher has been stopped, and can't be used any more")
        connections = Connections.from_config(self.config)
        self.declared = not self.use(connections, self.config).declare
        connections.startService()

    def publish(
        self,
        payload: Any,
        exchange: Any = None,
        routing_key: str | None = None,
        extra_headers: dict[str, Any] | None = None,
        worker_ctx: Owner | None = None,
        declare: Iterable[Any] | None = None,
        **options: Unpack[PublishOptions],
    ) -> Deferred[None]:
        """Publish a value; fires when the broker has it, at once with ``use_confirms=False``.

        It fails with ``PublishError``. ``extra_headers`` go over init's headers, and ``headers`` over them.
        ``worker_ctx`` is the worker that publishes, if it is one: the message that called it is acked after this one is
        confirmed. ``declare`` has exchanges and queues to declare first. Raises ``EncodeError`` for a value that can't
        be written.
        """
        if not self.running:
            self.begin()
        given: Mapping[str, Any] = options if declare is None else {**options, "declare": declare}
        sending = self.sending.merged(given, of_call=True) if given else self.sending
        properties, body = sending.write(self.serializers, payload, extra_headers or {})
        to = self.exchange if exchange is None else name_of(exchange)
        key = sending.routing_key if routing_key is None else routing_key
        owner = self if worker_ctx is None else worker_ctx
        if self.declared:
            return send(self.connections, sending, to, key, properties, body, owner, declare is not None)
        sent = send(self.connections, sending, to, key, properties, body, owner, True)
        return sent.addCallback(self.has_declared)

    def has_declared(self, result: None) -> None:
        self.declared = True

    def stop(self) -> Deferred[None]:
        """Close its own connections. Fires when that is done, after every message is confirmed or has failed."""
        running, self.running, self.stopped = self.running, False, True
        if not running:
            return succeed(None)
        return unconfirmed_of(self).wait().addCallback(lambda _: self.connections.stopService())


def name_of(exchange: Any) -> str:
    return exchange if isinstance(exchange, str) else exchange_of(exchange).name
