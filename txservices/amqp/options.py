"""How messages are written and sent: options, merged once, and what they make of a value.

Options come from a configuration, a class's attributes, a provider's or publisher's init, and one call, each on top of
the ones before. ``Sending`` is what they come to. It writes properties and body, and sends nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from numbers import Real
from typing import Any, TypedDict

from attrs import evolve, frozen
from twisted.logger import Logger

from txservices import configuration, constants, kinds
from txservices.amqp.delays import DELAY_MAX
from txservices.amqp.entities import Exchange, Queue, entity_of, with_queue_type
from txservices.exceptions import EncodeError
from txservices.serialization import Serializers
from txservices.serialization.compression import compress
from txservices.serialization.texts import charset_of
from txservices.wire import spec
from txservices.wire.codec import encode_properties
from txservices.wire.tables import encode_table

__all__ = ["DestinationOptions", "MessageOptions", "PublishOptions", "PublisherOptions"]

log = Logger()

COMPRESSION = "compression"  # the header that says how the body is compressed
LEFT_OUT_SHOWN = 200  # characters that the log shows of headers that are left out of a message, and of the reason


class WrittenOptions(TypedDict, total=False):
    """What ``MessageOptions`` of a message and ``RequestOptions`` of a call have in common."""

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
    retry_policy: Mapping[str, Any] | None


class MessageOptions(WrittenOptions, total=False):
    """How a message is written. Unknown options are a ``TypeError``.

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
        type: for whoever reads it.
        user_id: likewise. RabbitMQ refuses one that is not the connection's.
        app_id: likewise.
        retry: nameko's, ignored. A message is sent again until it is confirmed or its time is up.
        retry_policy: likewise.
    """

    retry: bool


class PublishOptions(MessageOptions, total=False):
    """How a message is published.

    Attributes:
        timeout: seconds for the broker's confirm; None for ever. If it isn't given, that is ``PUBLISH_TIMEOUT``, but
            for a message that a worker publishes and does not wait for: that is kept until it is confirmed.
        mandatory: whether a message that no queue takes is an ``UndeliverableMessage``.
        use_confirms: False to be told nothing. The broker is asked for its confirm in any case.
        correlation_id: for whoever answers.
        reply_to: likewise.
        delay: seconds after which the broker hands the message on, up to 46 days; it is rounded by up to 5 %. Until
            then the broker holds it. Its publish has ``PUBLISH_TIMEOUT`` in any case. It can have no ``expiration``,
            and ``mandatory`` says nothing about the queues that it comes to then.
    """

    timeout: float | None
    mandatory: bool
    use_confirms: bool
    correlation_id: str
    reply_to: str
    delay: float | None


class PublisherOptions(PublishOptions, total=False):
    """How a publisher publishes all its messages.

    Attributes:
        routing_key: of messages that are published without one.
    """

    routing_key: str


class DestinationOptions(PublisherOptions, total=False):
    """How one message is published, and where to.

    Attributes:
        exchange: by name, or an ``Exchange``; the publisher's if it isn't given. It is not declared.
        declare: exchanges and queues to declare first.
    """

    exchange: Any
    declare: Iterable[Any]


EXPIRATION_MAX = 4_294_967  # seconds, 49 days: the milliseconds are 32 bits to some brokers and clients

FIELDS = frozenset(("serializer", "compression", "mandatory", "use_confirms", "timeout", "routing_key", "delay"))
SECONDS = {"timeout": kinds.SECONDS_MAX, "delay": int(DELAY_MAX), "expiration": EXPIRATION_MAX}  # the most of each
PROPERTIES = frozenset(name for name, _ in spec.PROPERTIES) - {"headers", "cluster_id"}
IGNORED = frozenset(("retry", "retry_policy"))  # nameko's: here a publish is sent again until it is confirmed or late


@frozen
class Sending:
    """How messages are sent: options merged once, when a provider is made; a publish reads attributes.

    Attributes:
        timeout: seconds for the broker's confirm, or for the reply to a call. None for ever.
        delay: seconds until the broker hands the message on; None for at once.
        timeout_given: whether that is an option's, and not ``PUBLISH_TIMEOUT``.
        declare: exchanges and queues to declare first.
        headers, call_headers: below the context's of the same name, and above.
        queue_type: of the queues in ``declare``, as ``QUEUE_TYPE`` says: their consumers declare them so.
        properties: of AMQP's basic class. With a ``content_type`` among them the body goes as it is.
        protection: of calls, an ``attempts.Protection``; None for none.
    """

    serializer: str | None = None
    compression: str | None = None
    mandatory: bool = False
    use_confirms: bool = True
    timeout: float | None = configuration.PUBLISH_TIMEOUT.default
    timeout_given: bool = False
    routing_key: str = ""
    delay: float | None = None
    declare: tuple[Exchange | Queue, ...] = ()
    queue_type: str | None = None
    headers: Mapping[str, Any] = {}
    call_headers: Mapping[str, Any] = {}
    properties: Mapping[str, Any] = {"delivery_mode": constants.PERSISTENT, "priority": 0}
    protection: Any = None

    @classmethod
    def of(cls, config: Mapping[str, Any], options: Mapping[str, Any]) -> Sending:
        """As the configuration says, with these options on top."""
        timeout, queue_type = configuration.PUBLISH_TIMEOUT.of(config), configuration.QUEUE_TYPE.of(config)
        return cls(timeout=timeout, queue_type=queue_type).merged(options)

    def merged(self, options: Mapping[str, Any], of_call: bool = False) -> Sending:
        """With these options on top, of one call or of all.

        ``TypeError`` for an option that means nothing, ``TypeError`` or ``ValueError`` for a time that is no time.
        """
        changes: dict[str, Any] = {"timeout_given": self.timeout_given or "timeout" in options}
        properties = dict(self.properties)
        for name, value in options.items():
            if name in FIELDS:
                changes[name] = seconds(name, value) if name in SECONDS else value
            elif name == "headers":
                field = "call_headers" if of_call else "headers"
                changes[field] = {**getattr(self, field), **(value or {})}
            elif name == "declare":
                added = [with_queue_type(entity_of(each), self.queue_type) for each in value or ()]
                changes["declare"] = (*self.declare, *added)
            elif name == "expiration":
                # as kombu has it: seconds in Python, milliseconds as text on the wire
                value = seconds(name, value)
                properties[name] = None if value is None else str(int(value * 1000))
            elif name in PROPERTIES:
                properties[name] = value
            elif name not in IGNORED:
                known = ", ".join(sorted(FIELDS | PROPERTIES | {"headers", "declare"}))
                raise TypeError(f"there is no option {name!r} for sending messages; there are {known}")
        made = evolve(self, properties=properties, **changes)
        if made.delay and properties.get("expiration") is not None:
            raise ValueError("a message can't have both a delay and an expiration: the broker hands it on at either")
        return made

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
            # In nameko's order. To a reader, a value of the context and a plain header of its name are the same, and
            # the last of them counts; but RabbitMQ 4 sorts headers. Where the call gives either, all others stay here.
            call, of_context = self.call_headers, f"{constants.HEADER_PREFIX}."
            plain = {name.removeprefix(of_context) for name in call}
            below = {name: each for name, each in self.headers.items() if name.removeprefix(of_context) not in plain}
            headers = {**below, **call} | {
                name: each
                for name, each in context_headers.items()
                if name not in call and name.partition(".")[2] not in plain
            }
        if self.compression is not None:
            header, body = compress(self.compression, body)
            headers = {**headers, COMPRESSION: header}
        return {
            **self.properties,
            "content_type": content_type,
            "content_encoding": content_encoding,
            "headers": headers,
        }, body

    def lighten(self, properties: dict[str, Any], most: int, error: ValueError) -> None:
        """Leave headers of the context that can't be sent on out of a message, and tell the log which.

        A stranger may have sent them, and a handler's context passes them on: names that are too long with the prefix,
        numbers that can be read and not written, more than the ``most`` bytes that properties may have. Raises
        ``error``, for which the message was refused, if it was refused for something else.
        """
        headers, own = properties["headers"], {**self.headers, **self.call_headers}
        kept = {
            name: value
            for name, value in headers.items()
            if name == COMPRESSION or (name in own and own[name] is value)
        }
        sizes = {}
        for name in headers.keys() - kept.keys():
            try:
                sizes[name] = len(encode_table({name: headers[name]}))
            except TypeError:  # no stranger can have sent that
                raise error from None
            except ValueError:
                pass
        room = most - len(encode_properties({**properties, "headers": kept}))
        for name in sorted(sizes, key=sizes.__getitem__):
            room -= sizes[name]
            if room >= 0:
                kept[name] = headers[name]
        left_out = sorted(headers.keys() - kept.keys())
        if not left_out:
            raise error
        log.warn(
            "{count} of the context's headers can't be sent on and are left out of a message: {names} ({error})",
            count=len(left_out),
            names=", ".join(map(repr, left_out))[:LEFT_OUT_SHOWN],
            error=str(error.__cause__ or error)[-LEFT_OUT_SHOWN:],
        )
        properties["headers"] = kept


def seconds(name: str, value: Any) -> float | None:
    """The value of an option that is a time. A negative timeout is over at once."""
    if value is None:
        return None
    most, without = SECONDS[name], "no delay" if name == "delay" else "no end"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} is {value!r}: give seconds as a number, or None for {without}")
    if not value <= most or (value < 0 and name != "timeout"):  # so NaN is refused as well
        raise ValueError(f"{name} is {value!r}: give seconds from 0 to {most:,}, or None for {without}")
    return float(value)


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


CLASS_OPTIONS = (*FIELDS, *PROPERTIES, "headers", "declare")


def options_of(thing: Any) -> dict[str, Any]:
    """The options that a publisher or a provider has for attributes."""
    return {name: value for name in CLASS_OPTIONS if (value := getattr(thing, name, None)) is not None}
