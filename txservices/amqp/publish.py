"""Messages out of a service, and the broker's confirm.

``Publisher`` has ``Sending`` write properties and body -> the broker -> ``Confirmation``, a Deferred that nobody need
look at. Each worker has a count of what it has published (``Unconfirmed``), so that the message that called it is
acked only when the broker has all of it: nothing a worker told the world is lost with its process. What a worker does
not wait for has no deadline. If it fails nevertheless, the message that called the worker goes back.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextvars import copy_context
from functools import partial
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import Unpack

from txservices import configuration
from txservices.amqp.connections import Connections
from txservices.amqp.entities import exchange_of
from txservices.amqp.options import MessageOptions, PublisherOptions, PublishOptions, Sending, options_of
from txservices.amqp.publishing import Publishing
from txservices.exceptions import PublishTimeout, UndeliverableMessage
from txservices.observers import observers
from txservices.serialization import Serializers
from txservices.utils.waiting import Unconfirmed

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


class Owner(Protocol):
    """Somebody who publishes, for example a worker.

    Attributes:
        unconfirmed: what the broker has not answered for; None until the first message.
    """

    unconfirmed: Unconfirmed | None


def unconfirmed_of(owner: Owner) -> Unconfirmed:
    """The owner's count, made when it is first needed."""
    if owner.unconfirmed is None:
        owner.unconfirmed = Unconfirmed()
    return owner.unconfirmed


def when_confirmed(
    owner: Owner | None, call: Callable[[], None], lost: Callable[[Exception], None] | None = None
) -> None:
    """Call that when the broker has answered for everything that the owner published; mostly that is now.

    If something failed that nobody has looked at, ``lost`` is called instead, with the error.
    """
    if owner is None or owner.unconfirmed is None:
        call()
    else:
        owner.unconfirmed.then(call if lost is None else partial(call_either, owner.unconfirmed, call, lost))


def call_either(unconfirmed: Unconfirmed, call: Callable[[], None], lost: Callable[[Exception], None]) -> None:
    error = unconfirmed.lost()
    if error is None:
        call()
    else:
        lost(error)


class Confirmation(Deferred[None]):
    """Fires when the broker has confirmed a message that a worker published.

    Most services don't wait for it. So a failure that nobody has looked at becomes one line in the log, and not an
    unhandled error. To look is to await it, or to add a callback or an errback.

    Attributes:
        on_looked: called when somebody looks for the first time, if that is before it fires.
    """

    looked = awaited = False
    on_looked: Callable[[], None] | None = None

    def __init__(self, unconfirmed: Unconfirmed, exchange: str, routing_key: str, by_worker: bool = False) -> None:
        super().__init__()
        self.by_worker = by_worker
        self.unconfirmed = unconfirmed
        self.exchange = exchange
        self.routing_key = routing_key
        self.run = copy_context().run  # in it log lines bear the worker's call id
        unconfirmed.add()

    def done(self, error: Exception | None) -> None:
        """The broker has answered, or never will."""
        unconfirmed = self.unconfirmed
        if observers.publish_ended:
            observers.tell(observers.publish_ended, self, error)
        if error is None:
            self.run(self.callback, None)
        else:
            del self.unconfirmed  # the owner, which may hold this Deferred from now on
            self.run(self.errback, error)
            if self.by_worker:
                unconfirmed.failed.append(self)
        unconfirmed.remove()  # last: a callback may have published in answer

    def not_sent(self, failure: Failure) -> None:
        """An exchange or queue that had to be declared first could not be."""
        assert isinstance(failure.value, Exception)
        self.done(failure.value)

    @property
    def lost(self) -> Exception | None:
        """Its error, if nobody has looked at it."""
        failure = getattr(self, "result", None)
        error = failure.value if isinstance(failure, Failure) and not self.looked else None
        return error if isinstance(error, Exception) else None

    def look(self) -> None:
        self.looked = True
        if self.on_looked is not None and not self.called:
            self.on_looked()

    # Twisted's own of these do not call one another; a Deferred that is awaited has ``addBoth`` called, too.

    def addCallbacks(self, *args: Any, **kwargs: Any) -> Any:
        self.look()
        return super().addCallbacks(*args, **kwargs)

    def addCallback(self, *args: Any, **kwargs: Any) -> Any:
        self.look()
        return super().addCallback(*args, **kwargs)

    def addErrback(self, *args: Any, **kwargs: Any) -> Any:
        self.look()
        return super().addErrback(*args, **kwargs)

    def addBoth(self, *args: Any, **kwargs: Any) -> Any:
        if not self.looked:
            self.look()
        return super().addBoth(*args, **kwargs)

    def __iter__(self) -> Generator[Deferred[None], None, None]:
        self.look()
        self.awaited = True
        return super().__iter__()

    __await__ = __iter__

    def __del__(self) -> None:
        failure = getattr(self, "result", None)
        if isinstance(failure, Failure) and not self.awaited:
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
    by_worker: bool = False,
) -> Deferred[None]:
    """Publish for somebody; fires when that is confirmed, at once with ``use_confirms=False``.

    ``by_worker``: the owner is a worker, and ``lost`` is asked of it before its own message is settled.
    """
    size = len(str(properties)) + len(body) if declare_first else 0  # roughly what it takes while it waits
    confirmation = Confirmation(unconfirmed_of(owner), exchange, routing_key, by_worker)
    if observers.publish_started:
        observers.tell(observers.publish_started, confirmation, owner, properties["headers"])
    publisher, mandatory, timeout = connections.publisher, sending.mandatory, sending.timeout
    if timeout is not None and timeout <= 0:  # over at once: nothing is sent
        confirmation.done(PublishTimeout(exchange, routing_key))
        return confirmation
    publishing: Any
    publish: Any  # the one or the other
    if not sending.delay:
        publish = partial(publisher.publish_then, exchange, routing_key, body, properties, mandatory, confirmation.done)
    else:
        delay, later = sending.delay, connections.on_demand.publish_later
        publish = partial(later, exchange, routing_key, body, properties, delay, confirmation.done)
    until_looked = by_worker and not sending.timeout_given and not sending.delay  # then there is no Publishing
    try:
        if declare_first:
            declare_then(publish, confirmation, connections, sending, properties, size)
            return confirmation if sending.use_confirms else succeed(None)
        try:
            publishing = publish(None if until_looked else timeout)
        except ValueError as error:
            sending.lighten(properties, publisher.header_max, error)
            publishing = publish(None if until_looked else timeout)
        if until_looked and timeout is not None and not confirmation.called:
            confirmation.on_looked = partial(expect, connections, publishing, timeout)
    except Exception as error:  # mostly a ValueError, for what AMQP can't carry: nothing was sent
        confirmation.unconfirmed.remove()
        if observers.publish_ended:
            observers.tell(observers.publish_ended, confirmation, error)
        raise
    return confirmation if sending.use_confirms else succeed(None)


def declare_then(
    publish: Callable[[float | None], Any],
    confirmation: Confirmation,
    connections: Connections,
    sending: Sending,
    properties: dict[str, Any],
    size: int,
) -> None:
    """Declare what a message needs, and publish it. Both together have its timeout."""
    publisher, timeout = connections.publisher, sending.timeout
    late = PublishTimeout(confirmation.exchange, confirmation.routing_key)
    begun = publisher.clock.seconds()
    declaring = publisher.declare_for(size, *sending.declare)
    if timeout is not None:
        declaring.addTimeout(timeout, publisher.clock, lambda *_: Failure(late))

    def declared(_: None) -> None:
        left = None if timeout is None else timeout - publisher.clock.seconds() + begun
        try:
            publish(left)
        except ValueError as error:
            sending.lighten(properties, publisher.header_max, error)
            publish(left)

    declaring.addCallback(declared).addErrback(confirmation.not_sent)


def expect(connections: Connections, publishing: Publishing, timeout: float) -> None:
    """Somebody waits from now on for a message that was published without a deadline: have it fail after that."""
    publisher = connections.publisher
    publishing.deadline = publisher.clock.seconds() + timeout
    publisher.sweeper.watch()


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
            by_worker = worker_ctx is not None
            return send(self.connections, sending, to, key, properties, body, owner, declare is not None, by_worker)
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
